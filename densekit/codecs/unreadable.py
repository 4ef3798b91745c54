"""What is no value of a column, although it may be meant as one, and what to give instead."""

import numbers
import sys
from collections.abc import Iterable
from typing import Any

from densekit.codecs.schema import Column


def wrong_sort(where: str, column: Column, label: Any, values: Iterable[Any]) -> str:
    """The error that a value asked of a column is of another sort than the column's, with the remedy;
    empty where none is.

    Examples
    --------
    >>> sex = Column("sex", "boolean", "bool", levels=(False, True))
    >>> wrong_sort("context['sex']", sex, "sex", ["True"])
    "context['sex']: column 'sex' holds booleans, and 'True' is a string; give True, without quotes"
    """
    strings = bool(column.levels) and isinstance(column.levels[0], str)
    flags = bool(column.levels) and isinstance(column.levels[0], bool)
    held = (
        "strings"
        if strings
        else "datetimes"
        if column.unit
        else "booleans"
        if flags
        else "numbers"
    )
    for value in values:
        given = _sort_of(value)
        if given == "a missing value":
            return (
                f"{where}: column {label!r} holds {held}, and {value!r} is a missing value: give a "
                "value, or leave out what is not known"
            )
        if column.unit:
            fits = given != "a string"
        else:
            fits = given == "a string" if strings else given in ("a number", "a boolean")
        if fits:
            continue
        if flags:
            remedy = {"true": "True", "false": "False"}.get(str(value).lower(), "True or False")
        elif column.unit:
            remedy = "a datetime, such as pd.Timestamp('2024-01-31')"
        else:
            remedy = "one of the strings" if strings else "a number"
        quotes = ", without quotes" if given == "a string" and not column.unit else ""
        return f"{where}: column {label!r} holds {held}, and {value!r} is {given}; give {remedy}{quotes}"
    return ""


def _sort_of(value: Any) -> str:
    if isinstance(value, str):
        return "a string"
    if value is None or value is getattr(sys.modules.get("pandas"), "NA", None):
        return "a missing value"
    if type(value).__name__ in ("bool", "bool_"):
        return "a boolean"
    if isinstance(value, numbers.Number):
        return "a missing value" if value != value else "a number"
    return f"a {type(value).__name__}"
