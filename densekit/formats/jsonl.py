"""Reader of JSON lines: each line is a record of plain values, or a string."""

import contextlib
import json
from typing import Any

from densekit.formats.limits import FileError, check_names, quoted
from densekit.formats.locations import Location


def read_jsonl(location: Location, data: bytes) -> Any:
    """The rows of JSON lines in valid UTF-8: a DataFrame, or a list of strings."""
    import pandas as pd

    values: list[Any] = []
    keys: Any = None
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        where = f"{location.name}, line {number}"
        value = _parse_line(where, line)
        line_keys = value.keys() if isinstance(value, dict) else type(value).__name__
        if keys is None:
            keys = line_keys
            if isinstance(value, dict):
                check_names(where, list(value))
        if line_keys != keys:
            if isinstance(line_keys, str) or isinstance(keys, str):
                raise FileError(f"{where}: the file has both records and strings; use only one")
            differ = ", ".join(map(quoted, sorted(line_keys ^ keys)[:10]))
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
    _check_integers(location, frame)
    return _with_dates(frame)


def _parse_line(where: str, line: bytes) -> Any:
    """The value of a line: a dict of plain values, or a string."""
    try:
        value = json.loads(line, object_pairs_hook=_record)
    except json.JSONDecodeError as error:
        raise FileError(f"{where} is not JSON ({error.msg}, column {error.colno})") from error
    except RecursionError:
        raise FileError(f"{where} is nested too deeply: records hold plain values") from None
    except _DuplicateKeyError as error:
        raise FileError(
            f"{where} has the key {quoted(error.args[0])} twice: rename or drop one of them"
        ) from None
    except ValueError as error:  # An integer with thousands of digits.
        raise FileError(f"{where} cannot be read: {error}") from error
    if not isinstance(value, dict | str):
        raise FileError(
            f"{where} is a {type(value).__name__}: each line must be a record {{...}} or a string"
        )
    # In valid UTF-8, only an escape sequence can produce a surrogate.
    strings = [value] if isinstance(value, str) else [*value, *value.values()]
    for text in strings if b"\\u" in line else ():
        if isinstance(text, str) and any("\ud800" <= c <= "\udfff" for c in text):
            raise FileError(
                f"{where}: {quoted(text)} has an unpaired surrogate, which is not a character: write "
                "both halves (\\ud83d\\ude00), or the character itself"
            )
    for key, cell in value.items() if isinstance(value, dict) else ():
        _check_cell(where, key, cell)
    return value


class _DuplicateKeyError(Exception):
    """A record has two values of one key. The json module would silently keep the last."""


def _record(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A record as a dict; raises an error for a duplicate key."""
    record = dict(pairs)
    if len(record) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _DuplicateKeyError(next(key for key in keys if keys.count(key) > 1))
    return record


def _check_cell(where: str, key: str, cell: Any) -> None:
    """Raise ValueError if a column cannot hold a value of a record."""
    if isinstance(cell, dict | list):
        what = "a record" if isinstance(cell, dict) else "a list"
        raise FileError(
            f"{where}: {quoted(key)} is {what}, but values must be numbers, strings, true, false or "
            "null: give each of its parts its own key"
        )
    if type(cell) is int and not -(2**63) <= cell < 2**64:
        raise FileError(
            f"{where}: {quoted(key)} is {quoted(cell)}, an integer beyond 64 bits: quote it if it is a "
            "code, or write it with a decimal point if it is a quantity"
        )


def _check_integers(location: Location, frame: Any) -> None:
    """Raise ValueError if no single 64-bit type can represent the integers of a column."""
    for name in [name for name, dtype in frame.dtypes.items() if str(dtype) == "object"]:
        cells = frame[name].dropna()
        if len(cells) and all(type(cell) is int for cell in cells):
            raise FileError(
                f"{location.name}: {quoted(name)} has integers from {min(cells)} to {max(cells)}, which "
                "no 64-bit type can represent: quote them if they are codes, or write them with a "
                "decimal point"
            )


def _with_dates(frame: Any) -> Any:
    """Convert columns of ISO 8601 strings to datetimes, as the CSV reader does."""
    import pandas as pd
    import pyarrow as pa

    for name in filter(lambda name: pd.api.types.is_string_dtype(frame[name]), frame.columns):
        with contextlib.suppress(pa.ArrowInvalid):
            times = pa.array(frame[name]).cast(pa.string()).cast(pa.timestamp("us"))
            frame[name] = times.to_numpy(zero_copy_only=False)
    return frame
