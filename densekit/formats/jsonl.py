"""JSON lines: a record of plain values, or a string, on each line."""

import contextlib
import json
from typing import Any

from densekit.formats.limits import FileError, check_names, shown
from densekit.formats.places import Place


def read_jsonl(place: Place, data: bytes) -> Any:
    """The rows of text that is known to be UTF-8: a DataFrame, or a list of strings."""
    import pandas as pd

    values: list[Any] = []
    keys: Any = None
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        where = f"{place.name}, line {number}"
        value = _parsed(where, line)
        found = value.keys() if isinstance(value, dict) else type(value).__name__
        if keys is None:
            keys = found
            if isinstance(value, dict):
                check_names(where, list(value))
        if found != keys:
            if isinstance(found, str) or isinstance(keys, str):
                raise FileError(f"{where}: records and strings in one file")
            differ = ", ".join(map(shown, sorted(found ^ keys)[:10]))
            raise FileError(
                f"{where}: its keys differ from the first record's in {differ}; all records need "
                "the same keys"
            )
        values.append(value)
    if values and isinstance(values[0], str):
        return values
    if (
        keys is not None
        and list(keys) == ["text"]
        and all(isinstance(v["text"], str) for v in values)
    ):
        return [value["text"] for value in values]
    frame = pd.DataFrame(values)
    _check_integers(place, frame)
    return _with_dates(frame)


def _parsed(where: str, line: bytes) -> Any:
    """What one line says: a dict of plain values or a string."""
    try:
        value = json.loads(line, object_pairs_hook=_record)
    except json.JSONDecodeError as error:
        raise FileError(f"{where} is not JSON ({error.msg}, column {error.colno})") from error
    except RecursionError:
        raise FileError(f"{where} is nested too deeply: records hold plain values") from None
    except _TwiceError as error:
        raise FileError(
            f"{where} has the key {shown(error.args[0])} twice: rename or drop one of them"
        ) from None
    except ValueError as error:  # an integer of thousands of digits
        raise FileError(f"{where} cannot be read: {error}") from error
    if not isinstance(value, dict | str):
        raise FileError(
            f"{where} is a {type(value).__name__}: each line must be a record {{...}} or a string"
        )
    # Text that is UTF-8 can have a surrogate only by an escape.
    strings = [value] if isinstance(value, str) else [*value, *value.values()]
    for text in strings if b"\\u" in line else ():
        if isinstance(text, str) and any("\ud800" <= c <= "\udfff" for c in text):
            raise FileError(
                f"{where}: {shown(text)} has half of a surrogate pair, which is no character: write "
                "both halves (\\ud83d\\ude00), or the character itself"
            )
    for key, cell in value.items() if isinstance(value, dict) else ():
        _check_cell(where, key, cell)
    return value


class _TwiceError(Exception):
    """A record with two values of one key, of which JSON would keep the last."""


def _record(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _TwiceError(next(key for key in keys if keys.count(key) > 1))
    return record


def _check_cell(where: str, key: str, cell: Any) -> None:
    """Raise ValueError unless a value of a record is one that a column can hold."""
    if isinstance(cell, dict | list):
        what = "a record" if isinstance(cell, dict) else "a list"
        raise FileError(
            f"{where}: {shown(key)} is {what}, and values are numbers, strings, true, false or null: "
            "give each of its parts a key of its own"
        )
    if type(cell) is int and not -(2**63) <= cell < 2**64:
        raise FileError(
            f"{where}: {shown(key)} is {shown(cell)}, an integer beyond 64 bits: quote it where it is a "
            "code, or write it with a decimal point where it is a quantity"
        )


def _check_integers(place: Place, frame: Any) -> None:
    """Raise ValueError where a column has integers for which there is no one 64-bit type."""
    for name in [name for name, dtype in frame.dtypes.items() if str(dtype) == "object"]:
        cells = frame[name].dropna()
        if len(cells) and all(type(cell) is int for cell in cells):
            raise FileError(
                f"{place.name}: {shown(name)} has integers from {min(cells)} to {max(cells)}, which no "
                "64-bit type holds: quote them where they are codes, or write them with a decimal point"
            )


def _with_dates(frame: Any) -> Any:
    """The frame with columns of ISO 8601 strings read as what they say, as they are in CSV."""
    import pandas as pd
    import pyarrow as pa

    for name in filter(lambda name: pd.api.types.is_string_dtype(frame[name]), frame.columns):
        with contextlib.suppress(pa.ArrowInvalid):
            times = pa.array(frame[name]).cast(pa.string()).cast(pa.timestamp("us"))
            frame[name] = times.to_numpy(zero_copy_only=False)
    return frame
