"""--context and --given: what a user writes in a shell, as values of the columns that a model knows."""

import csv
import difflib
import inspect
import math
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

from densekit.codecs.description import value_of
from densekit.codecs.schema import Column

_NAMES = 20
"""Columns or levels that an error lists."""


def takes_given(estimator: Any) -> bool:
    """Whether any columns can be given to it: it scores the others, and draws them."""
    score = getattr(estimator, "score_samples", None)
    return score is not None and "given" in inspect.signature(score).parameters


def names_of(text: str) -> list[str]:
    """Names of columns, separated by commas; a name that has one stands in double quotes.

    >>> names_of('age, "price, EUR"')
    ['age', 'price, EUR']
    """
    (names,) = csv.reader([text], skipinitialspace=True)
    return [name.strip() for name in names if name.strip()]


def given_columns(estimator: Any, file: Path, text: str) -> list[Any]:
    """The labels of the columns that ``--given`` names.

    Raises
    ------
    ValueError
        The model scores whole rows only, or has no such column.
    """
    if not takes_given(estimator):
        raise ValueError(
            f"--given {text}: {type(estimator).__name__} scores whole rows; TabularAutoregressive "
            "scores the columns that are left, given any others"
        )
    labels = {_name(label): label for label in estimator.codec_.labels}
    names = names_of(text)
    for name in names:
        if name not in labels:
            raise ValueError(f"--given {text}: {file} has no column {name!r}{_near(name, labels)}")
    if not names:
        raise ValueError(f"--given {text!r} names no column; {file} has {_listed(labels)}")
    return [labels[name] for name in names]


def conditions_of(estimator: Any, file: Path, given: Sequence[str]) -> dict[Any, Any]:
    """What ``--context COLUMN=VALUE`` asks of columns, by their labels.

    Of a model that takes any columns a value may be an interval, ``30..40`` or ``..40``, or a list,
    ``White,Black``. Of one that was fitted with a context each of its columns has one value.

    Raises
    ------
    ValueError
        Naming the column and the value, and what the column holds.
    """
    anything = not estimator.context_names_ and takes_given(estimator)
    table = estimator.codec_ if anything else estimator.context_codec_.table
    columns = {
        _name(label): (label, column)
        for label, column in zip(table.labels, table.schema.columns, strict=True)
    }
    asked: dict[Any, Any] = {}
    for pair in given:
        name, text = _divided(pair, columns, file)
        label, column = columns[name]
        if label in asked:
            raise ValueError(f"--context {pair}: {name} is given twice")
        try:
            asked[label] = _asked(column, text) if anything else _value(column, text)
        except ValueError as error:
            only = ""
            if not anything and (".." in text or "," in text):
                only = f"; a model fitted with a context takes one value of {name}"
            raise ValueError(f"--context {pair}: column {name!r} {error}{only}") from error
    if not anything and (missing := [name for name in columns if columns[name][0] not in asked]):
        raise ValueError(
            f"{file} was fitted given {', '.join(columns)}: {missing[0]} is missing; give --context "
            "once for each column"
        )
    return asked


def _name(label: str | int) -> str:
    """What a column of an array is called."""
    return label if isinstance(label, str) else f"x{label}"


def _divided(pair: str, columns: Mapping[str, Any], file: Path) -> tuple[str, str]:
    """Column and value, apart at an equals sign; the longest name counts, which may have such a sign."""
    ends = [i for i, sign in enumerate(pair) if sign == "="]
    for i in reversed(ends):
        if (name := pair[:i].strip()) in columns:
            return name, pair[i + 1 :]
    if not ends:
        raise ValueError(
            f"--context {pair}: write COLUMN=VALUE; or, alone, the name of a file that has a row of "
            f"values for each draw; {file} has the columns {_listed(columns)}"
        )
    name = pair[: ends[0]].strip()
    raise ValueError(f"--context {pair}: {file} has no column {name!r}{_near(name, columns)}")


def _near(name: str, names: Mapping[str, Any]) -> str:
    by_lower = {known.lower(): known for known in names}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1)
    if close:
        return f"; did you mean {by_lower[close[0]]!r}?"
    return f"; it has {_listed(names)}"


def _listed(names: Collection[Any]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > _NAMES else ""
    return ", ".join(str(name) for name in list(names)[:_NAMES]) + more


def _asked(column: Column, text: str) -> Any:
    """A value, a tuple (low, high) or a list."""
    if text in column.levels:
        return text
    low, dots, high = text.partition("..")
    if dots and not text.lstrip().startswith('"'):
        return _interval(column, low.strip(), high.strip())
    (parts,) = csv.reader([text], skipinitialspace=True) if text else [[""]]
    values = [_value(column, part) for part in parts]
    return values if len(values) > 1 else values[0]


def _interval(column: Column, low: str, high: str) -> tuple[Any, Any]:
    if not low and not high:
        raise ValueError("has no end in '..'; write 30..40, 30.. or ..40")
    if column.kind == "categorical" or isinstance(next(iter(column.levels), None), bool):
        raise ValueError(
            f"has no order, so nothing lies between two of its values; {_held(column)}"
        )
    first = _end(column, low, last=False) if low else None
    last = _end(column, high, last=True) if high else None
    if first is not None and last is not None and not isinstance(first, str) and first > last:
        raise ValueError(f"has nothing from {low} to {high}: the lower end comes first")
    return first, last


def _end(column: Column, text: str, last: bool) -> Any:
    """An end of an interval, which need not be a value of the column."""
    if column.unit:
        return _instant(text, end_of_day=last)
    if column.levels and isinstance(column.levels[0], str):
        return _value(column, text)
    return _number(text)


def _value(column: Column, text: str) -> Any:
    """One value of a column; a ValueError says what the column holds."""
    if column.levels and isinstance(column.levels[0], str):
        return _word(column, text)
    text = text.strip()
    if not text:
        raise ValueError(f"is given no value; {_held(column)}")
    if column.unit:
        return _instant(text)
    if column.levels and isinstance(column.levels[0], bool):
        flag = {"true": True, "1": True, "false": False, "0": False}.get(text.lower())
        if flag is None:
            raise ValueError(f"holds booleans, and {text!r} is none; give true or false")
        return flag
    number = _number(text)
    if column.levels and number not in column.levels:
        raise ValueError(f"has no value {text}; {_held(column)}")
    if column.kind == "integer" and not isinstance(number, int):
        raise ValueError(f"holds integers, and {text} is none; an interval is written 30..40")
    return number


def _word(column: Column, text: str) -> str:
    words = [str(level) for level in column.levels]
    if text in words:
        return text
    alike = [word for word in words if word.strip() == text.strip()]
    if len(alike) == 1:
        return alike[0]
    lower = {word.strip().lower(): word for word in words}
    close = difflib.get_close_matches(text.strip().lower(), lower, n=1)
    hint = f"did you mean {lower[close[0]]!r}? " if close else ""
    raise ValueError(f"has no value {text!r}; {hint}{_held(column)}")


def _number(text: str) -> int | float:
    """An integer exactly, of any size, where it is written as one or is one."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"holds numbers, and {text!r} is none") from None
    if not math.isfinite(number):
        raise ValueError(
            f"holds finite numbers, and {text!r} is none; an open end is left out: 30.."
        )
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def _instant(text: str, end_of_day: bool = False) -> Any:
    """A date, or a date and a time; as an upper end a date is there to its last microsecond."""
    import pandas as pd

    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"holds dates and times, and {text!r} is none; write 2024-01-31 or 2024-01-31T12:30:00"
        ) from None
    if end_of_day and ":" not in text:
        found = datetime.combine(found.date(), time.max)
    if found.tzinfo is not None:  # what has no zone is UTC
        found = found.astimezone(UTC).replace(tzinfo=None)
    return pd.Timestamp(found)


def _held(column: Column) -> str:
    if column.levels:
        levels = dict.fromkeys(value_of(column, level) for level in column.levels)
        words = [repr(v) if isinstance(v, str) else str(v) for v in levels]
        return f"it has {_listed(words)}"
    if column.unit:
        return "it holds dates and times"
    return "it holds integers" if column.kind == "integer" else "it holds numbers"
