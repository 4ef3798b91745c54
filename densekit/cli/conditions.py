"""Parsing of ``--context`` and ``--given`` to columns of a model and their values."""

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

_LISTED = 20
"""Most columns or levels that an error message lists."""


def takes_given(estimator: Any) -> bool:
    """Whether the estimator can condition on any of its columns."""
    score = getattr(estimator, "score_samples", None)
    return score is not None and "given" in inspect.signature(score).parameters


def names_of(text: str) -> list[str]:
    """Split names of columns at commas; a name that contains a comma is in double quotes.

    >>> names_of('age, "price, EUR"')
    ['age', 'price, EUR']
    """
    (names,) = csv.reader([text], skipinitialspace=True)
    return [name.strip() for name in names if name.strip()]


def given_columns(estimator: Any, file: Path, text: str) -> list[Any]:
    """The labels of the columns of ``--given``.

    Raises
    ------
    ValueError
        The model can score only whole rows, or it has no such column.
    """
    if not takes_given(estimator):
        raise ValueError(
            f"--given {text}: {type(estimator).__name__} scores whole rows only; "
            "TabularAutoregressive can score some columns given the others"
        )
    labels = {_name(label): label for label in estimator.codec_.labels}
    names = names_of(text)
    for name in names:
        if name not in labels:
            raise ValueError(
                f"--given {text}: {file} has no column {name!r}{_suggestion(name, labels)}"
            )
    if not names:
        raise ValueError(f"--given {text!r} names no column; {file} has {_listed(labels)}")
    return [labels[name] for name in names]


def conditions_of(estimator: Any, file: Path, given: Sequence[str]) -> dict[Any, Any]:
    """The conditions of ``--context COLUMN=VALUE``, by the labels of columns.

    If the model can condition on any columns, a value may also be an interval, ``30..40`` or ``..40``,
    or a list, ``White,Black``. A model that was fitted with a context needs one value for each column of
    it.

    Raises
    ------
    ValueError
        A condition is invalid. The message names the column, the value, and the column's contents.
    """
    any_column = not estimator.context_names_ and takes_given(estimator)
    table = estimator.codec_ if any_column else estimator.context_codec_.table
    columns = {
        _name(label): (label, column)
        for label, column in zip(table.labels, table.schema.columns, strict=True)
    }
    conditions: dict[Any, Any] = {}
    for pair in given:
        name, text = _split_pair(pair, columns, file)
        label, column = columns[name]
        if label in conditions:
            raise ValueError(f"--context {pair}: {name} is given twice")
        try:
            conditions[label] = (
                _parse_condition(column, text) if any_column else _parse_value(column, text)
            )
        except ValueError as error:
            hint = ""
            if not any_column and (".." in text or "," in text):
                hint = f"; a model fitted with a context takes one value of {name}"
            raise ValueError(f"--context {pair}: column {name!r} {error}{hint}") from error
    if not any_column and (
        missing := [name for name in columns if columns[name][0] not in conditions]
    ):
        raise ValueError(
            f"{file} was fitted with the context {', '.join(columns)}: {missing[0]} is missing; use "
            "--context once for each column"
        )
    return conditions


def _name(label: str | int) -> str:
    """Name of a column; columns of an array are called x0, x1, ..."""
    return label if isinstance(label, str) else f"x{label}"


def _split_pair(pair: str, columns: Mapping[str, Any], file: Path) -> tuple[str, str]:
    """Split COLUMN=VALUE at the equals sign after the longest known name, which may contain others."""
    ends = [i for i, sign in enumerate(pair) if sign == "="]
    for i in reversed(ends):
        if (name := pair[:i].strip()) in columns:
            return name, pair[i + 1 :]
    if not ends:
        raise ValueError(
            f"--context {pair}: write COLUMN=VALUE, or a single file with a row of values for each "
            f"draw; {file} has the columns {_listed(columns)}"
        )
    name = pair[: ends[0]].strip()
    raise ValueError(
        f"--context {pair}: {file} has no column {name!r}{_suggestion(name, columns)}"
    )


def _suggestion(name: str, names: Mapping[str, Any]) -> str:
    by_lower = {known.lower(): known for known in names}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1)
    if close:
        return f"; did you mean {by_lower[close[0]]!r}?"
    return f"; it has {_listed(names)}"


def _listed(names: Collection[Any]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > _LISTED else ""
    return ", ".join(str(name) for name in list(names)[:_LISTED]) + more


def _parse_condition(column: Column, text: str) -> Any:
    """A condition as a value, a tuple (low, high) or a list."""
    if text in column.levels:
        return text
    low, dots, high = text.partition("..")
    if dots and not text.lstrip().startswith('"'):
        return _parse_interval(column, low.strip(), high.strip())
    (parts,) = csv.reader([text], skipinitialspace=True) if text else [[""]]
    values = [_parse_value(column, part) for part in parts]
    return values if len(values) > 1 else values[0]


def _parse_interval(column: Column, low: str, high: str) -> tuple[Any, Any]:
    if not low and not high:
        raise ValueError("has no end in '..'; write 30..40, 30.. or ..40")
    if column.kind == "categorical" or isinstance(next(iter(column.levels), None), bool):
        raise ValueError(f"has no order, so it cannot be given an interval; {_contents(column)}")
    first = _parse_end(column, low, upper=False) if low else None
    last = _parse_end(column, high, upper=True) if high else None
    if first is not None and last is not None and not isinstance(first, str) and first > last:
        raise ValueError(f"has nothing from {low} to {high}: the lower end must come first")
    return first, last


def _parse_end(column: Column, text: str, upper: bool) -> Any:
    """An end of an interval, which need not be a value of the column."""
    if column.unit:
        return _parse_datetime(text, end_of_day=upper)
    if column.levels and isinstance(column.levels[0], str):
        return _parse_value(column, text)
    return _parse_number(text)


def _parse_value(column: Column, text: str) -> Any:
    """A value of a column; raises ValueError with the column's contents if it is invalid."""
    if column.levels and isinstance(column.levels[0], str):
        return _parse_level(column, text)
    text = text.strip()
    if not text:
        raise ValueError(f"is given no value; {_contents(column)}")
    if column.unit:
        return _parse_datetime(text)
    if column.levels and isinstance(column.levels[0], bool):
        flag = {"true": True, "1": True, "false": False, "0": False}.get(text.lower())
        if flag is None:
            raise ValueError(f"has booleans, and {text!r} is not one; use true or false")
        return flag
    number = _parse_number(text)
    if column.levels and number not in column.levels:
        raise ValueError(f"has no value {text}; {_contents(column)}")
    if column.kind == "integer" and not isinstance(number, int):
        raise ValueError(f"has integers, and {text} is not one; an interval is written 30..40")
    return number


def _parse_level(column: Column, text: str) -> str:
    words = [str(level) for level in column.levels]
    if text in words:
        return text
    matching = [word for word in words if word.strip() == text.strip()]
    if len(matching) == 1:
        return matching[0]
    lower = {word.strip().lower(): word for word in words}
    close = difflib.get_close_matches(text.strip().lower(), lower, n=1)
    hint = f"did you mean {lower[close[0]]!r}? " if close else ""
    raise ValueError(f"has no value {text!r}; {hint}{_contents(column)}")


def _parse_number(text: str) -> int | float:
    """A number; integers are exact, also beyond 64 bits."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"has numbers, and {text!r} is not one") from None
    if not math.isfinite(number):
        raise ValueError(f"has finite numbers, and {text!r} is not one; omit an open end: 30..")
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def _parse_datetime(text: str, end_of_day: bool = False) -> Any:
    """A date and time in UTC; with ``end_of_day``, a date without time is its last microsecond."""
    import pandas as pd

    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"has dates and times, and {text!r} is not one; write 2024-01-31 or 2024-01-31T12:30:00"
        ) from None
    if end_of_day and ":" not in text:
        parsed = datetime.combine(parsed.date(), time.max)
    if parsed.tzinfo is not None:  # A time without a zone is UTC.
        parsed = parsed.astimezone(UTC).replace(tzinfo=None)
    return pd.Timestamp(parsed)


def _contents(column: Column) -> str:
    if column.levels:
        levels = dict.fromkeys(value_of(column, level) for level in column.levels)
        words = [repr(v) if isinstance(v, str) else str(v) for v in levels]
        return f"it has {_listed(words)}"
    if column.unit:
        return "it has dates and times"
    return "it has integers" if column.kind == "integer" else "it has numbers"
