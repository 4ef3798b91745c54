"""Detection of the separator of a CSV file, and warnings about its decimal marks."""

import csv
import io
import re
import warnings
from typing import Any

from densekit.formats.locations import Location

_SAMPLE = 2**16
"""Bytes of the file that are inspected."""
_SAMPLE_VALUES = 1000
"""Values of a column of strings that are inspected."""
_SEPARATORS = (",", ";", "\t", "|")
_PLAIN = {
    mark: re.compile(rf"[+-]?\d+(?:{re.escape(mark)}\d+)?(?:[eE][+-]?\d+)?") for mark in ",."
}
"""Integers, and numbers with the decimal mark ``mark``."""
_GROUPED = {
    mark: re.compile(rf"[+-]?\d{{1,3}}(?:{re.escape(mark)}\d{{3}})*(?:[{other}]\d+)?")
    for mark, other in (",.", ".,")
}
"""Numbers with the thousands separator ``mark``."""


def separator_of(location: Location, data: bytes) -> str:
    """The separator of a CSV file: the one that the user gave, or else the detected one.

    The detected separator is the one of ``, ; |`` and the tab that splits all lines, the header
    included, into the same number of values.

    Raises
    ------
    ValueError
        Several separators do so, or the given separator splits no line while another splits all.
    """
    usual = "\t" if location.format == "tsv" else ","
    candidates = [mark for mark in (usual, *_SEPARATORS) if mark != location.decimal]
    widths = {mark: _widths(data, mark) for mark in dict.fromkeys(candidates)}
    splitting = [mark for mark, counts in widths.items() if counts and counts[0] > 1]
    consistent = [mark for mark in splitting if len(set(widths[mark])) == 1]
    if location.sep is not None:
        others = [mark for mark in consistent if mark != location.sep]
        if others and max(_widths(data, location.sep), default=1) == 1:
            raise ValueError(
                f"{location.name}: {_mark_name(location.sep)} separates nothing, but "
                f"{_mark_name(others[0])} splits each line into {widths[others[0]][0]} values: omit "
                "--sep, or give the separator of the file"
            )
        return location.sep
    if len(consistent) > 1 and (
        usual not in consistent
        or any(widths[mark][0] >= widths[usual][0] for mark in consistent if mark != usual)
    ):
        listed = " and ".join(
            f"{_mark_name(mark)} (into {widths[mark][0]})" for mark in consistent
        )
        raise ValueError(
            f"{location.name}: {listed} both split all lines into equally many values; choose the "
            f"separator by --sep {_mark_name(consistent[0])} (in Python sep={consistent[0]!r})"
        )
    if usual in consistent or not splitting:
        return usual if usual in widths else candidates[0]
    if consistent:
        return consistent[0]
    return usual if usual in splitting else max(splitting, key=lambda mark: widths[mark][0])


def _widths(data: bytes, mark: str) -> list[int]:
    """Number of values into which a separator splits each of the first lines, without blank lines."""
    sample = data[:_SAMPLE]
    if len(data) > len(sample) and (end := sample.rfind(b"\n")) > 0:
        sample = sample[:end]
    lines = csv.reader(io.StringIO(sample.decode(errors="ignore"), newline=""), delimiter=mark)
    try:
        return [len(row) for row in lines if row]
    except csv.Error:
        return []


def _mark_name(mark: str) -> str:
    """A separator or decimal mark as it is written in a shell."""
    return "tab" if mark == "\t" else f"'{mark}'"


def warn_of_decimals(location: Location, frame: Any) -> None:
    """Warn of columns of strings that look like numbers with another decimal or thousands mark."""
    import pandas as pd

    for name in frame.columns:
        if not pd.api.types.is_string_dtype(frame[name]):
            continue
        values = frame[name].dropna().head(_SAMPLE_VALUES).tolist()
        if hint := _decimal_hint(values, location.decimal):
            warnings.warn(
                f"{location.name}: column {name!r} is read as strings, but its values look like "
                f"numbers: {hint}",
                UserWarning,
                stacklevel=2,
            )


def _decimal_hint(values: list[str], decimal: str) -> str:
    """How to read strings that are numbers with unexpected marks; empty if they are not numbers."""
    other = "," if decimal == "." else "."
    marked = next((v for v in values if other in v or decimal in v), None)
    if marked is None:
        return ""
    plain = all(_PLAIN[other].fullmatch(v) for v in values)
    grouped = next((m for m in ",." if all(_GROUPED[m].fullmatch(v) for v in values)), None)
    remedy = f"use --decimal {_mark_name(other)} (in Python decimal={other!r})"
    if plain and grouped == other:
        return f"if {marked!r} has decimals, {remedy}; if it has thousands, remove the marks"
    if plain:
        return f"{marked!r} has the decimal mark {_mark_name(other)}: {remedy}"
    if grouped:
        also = f" and {remedy}" if grouped == decimal and any(other in v for v in values) else ""
        return f"{marked!r} has the thousands mark {_mark_name(grouped)}: remove these marks{also}"
    return ""
