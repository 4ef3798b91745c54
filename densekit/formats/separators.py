"""Which character separates the values of a CSV file, and which one the decimals of its numbers."""

import csv
import io
import re
import warnings
from typing import Any

from densekit.formats.places import Place

_SAMPLE = 2**16
"""Bytes that are looked at."""
_SHOWN = 1000
"""Values of a column of strings that are looked at."""
_OTHERS = (",", ";", "\t", "|")
_PLAIN = {
    mark: re.compile(rf"[+-]?\d+(?:{re.escape(mark)}\d+)?(?:[eE][+-]?\d+)?") for mark in ",."
}
"""Whole numbers, and numbers whose decimals come behind ``mark``."""
_GROUPED = {
    mark: re.compile(rf"[+-]?\d{{1,3}}(?:{re.escape(mark)}\d{{3}})*(?:[{other}]\d+)?")
    for mark, other in (",.", ".,")
}
"""Numbers whose thousands are marked."""


def separator_of(place: Place, data: bytes) -> str:
    """The separator of a CSV file: the one that was given, else the one of ``, ; | `` and the tab that
    divides the first line, and all lines alike.

    Raises
    ------
    ValueError
        Two of them do; or the one that was given divides no line, and another divides all.
    """
    usual = "\t" if place.format == "tsv" else ","
    wanted = [mark for mark in (usual, *_OTHERS) if mark != place.decimal]
    widths = {mark: _widths(data, mark) for mark in dict.fromkeys(wanted)}
    divide = [mark for mark, found in widths.items() if found and found[0] > 1]
    alike = [mark for mark in divide if len(set(widths[mark])) == 1]
    if place.sep is not None:
        others = [mark for mark in alike if mark != place.sep]
        if others and max(_widths(data, place.sep), default=1) == 1:
            raise ValueError(
                f"{place.name}: {_shown(place.sep)} separates nothing, and {_shown(others[0])} divides "
                f"each line into {widths[others[0]][0]} values: leave --sep out, or give the file's own"
            )
        return place.sep
    if len(alike) > 1 and (
        usual not in alike or any(widths[m][0] >= widths[usual][0] for m in alike if m != usual)
    ):
        found = " and ".join(f"{_shown(mark)} (into {widths[mark][0]})" for mark in alike)
        raise ValueError(
            f"{place.name}: {found} both divide all lines alike; say which separates the values, by "
            f"--sep {_shown(alike[0])} (in Python sep={alike[0]!r})"
        )
    if usual in alike or not divide:
        return usual if usual in widths else wanted[0]
    if alike:
        return alike[0]
    return usual if usual in divide else max(divide, key=lambda mark: widths[mark][0])


def _widths(data: bytes, mark: str) -> list[int]:
    """Into how many values a separator divides each of the first lines; blank ones are left out."""
    sample = data[:_SAMPLE]
    if len(data) > len(sample) and (end := sample.rfind(b"\n")) > 0:
        sample = sample[:end]
    lines = csv.reader(io.StringIO(sample.decode(errors="ignore"), newline=""), delimiter=mark)
    try:
        return [len(row) for row in lines if row]
    except csv.Error:
        return []


def _shown(mark: str) -> str:
    """As one writes it in a shell."""
    return "tab" if mark == "\t" else f"'{mark}'"


def warn_of_decimals(place: Place, frame: Any) -> None:
    """Warn of columns of strings whose values are numbers, written with another decimal mark or with
    marks between thousands."""
    import pandas as pd

    for name in frame.columns:
        if not pd.api.types.is_string_dtype(frame[name]):
            continue
        values = frame[name].dropna().head(_SHOWN).tolist()
        if said := _meant(values, place.decimal):
            warnings.warn(
                f"{place.name}: column {name!r} is read as words, and its values look like numbers: "
                f"{said}",
                UserWarning,
                stacklevel=2,
            )


def _meant(values: list[str], decimal: str) -> str:
    """What strings are that are numbers but for their marks; empty where they are not."""
    other = "," if decimal == "." else "."
    marked = next((v for v in values if other in v or decimal in v), None)
    if marked is None:
        return ""
    plain = all(_PLAIN[other].fullmatch(v) for v in values)
    grouped = next((m for m in ",." if all(_GROUPED[m].fullmatch(v) for v in values)), None)
    asked = f"say --decimal {_shown(other)} (in Python decimal={other!r})"
    if plain and grouped == other:
        return f"if {marked!r} has decimals, {asked}; if it has thousands, take the marks out"
    if plain:
        return f"{marked!r} has decimals behind {_shown(other)}: {asked}"
    if grouped:
        also = f" and {asked}" if grouped == decimal and any(other in v for v in values) else ""
        return f"{marked!r} marks thousands by {_shown(grouped)}: take these out{also}"
    return ""
