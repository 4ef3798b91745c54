"""Columns that are functions of another column: left out of the event, and checked in every row."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from densekit.codecs.columns import encode_cells
from densekit.codecs.schema import Column
from densekit.containers import Frame, RawColumn


def check_derived(parents: Mapping[Any, Any], columns: Mapping[Any, Column]) -> None:
    """Raise ValueError where a column cannot be derived from its parent."""
    for label, parent in parents.items():
        child, source = columns[label], columns[parent]
        remedy = ""
        if label == parent or parent in parents:
            remedy = "a parent must be a column of its own, which is not derived itself"
        elif not source.levels or not source.in_event:
            remedy = (
                f"{parent!r} is {source.kind}, and a parent must have levels: set kinds={{{parent!r}: "
                '"categorical"}}'
            )
        elif child.kind in ("real", "datetime") and not child.levels:
            remedy = f"{label!r} is {child.kind}, and only a discrete column can be derived"
        if remedy:
            raise ValueError(f"derived={{{label!r}: {parent!r}}}: {remedy}")


def derive(
    parents: Mapping[Any, Any],
    labels: list[Any],
    columns: tuple[Column, ...],
    frames: Iterable[Frame],
) -> tuple[Column, ...]:
    """The columns with those that ``parents`` names as derived: their value for each level.

    Raises
    ------
    ValueError
        A level of the parent comes with two values.
    """
    place = {label: j for j, label in enumerate(labels)}
    values: dict[Any, dict[int, Any]] = {label: {} for label in parents}
    for frame in frames:
        for label, parent in parents.items():
            codes = encode_cells(columns[place[parent]], frame.columns[place[parent]])[0]
            found = _cells(frame.columns[place[label]])
            for code in np.unique(codes[~np.isnan(codes)]).astype(int).tolist():
                here = found[codes == code].tolist()
                known = values[label].setdefault(code, here[0])
                other = next((v for v in here if v != known), None)
                if other is not None:
                    level = columns[place[parent]].levels[code]
                    raise ValueError(
                        f"derived={{{label!r}: {parent!r}}}: {parent!r} = {level!r} comes with "
                        f"{known!r} and with {other!r}, so that {label!r} is no function of it"
                    )
    out = list(columns)
    for label, parent in parents.items():
        source, known = columns[place[parent]], values[label]
        rest = next(iter(known.values()))
        levels = tuple(known.get(k, rest) for k in range(len(source.levels)))
        old = columns[place[label]]
        out[place[label]] = replace(
            Column(old.name, "derived", old.dtype), levels=levels, parent=parent
        )
    return tuple(out)


def _cells(raw: RawColumn) -> np.ndarray:
    """Values (n,), of categories their levels; a missing cell has the value of none."""
    values = raw.values
    if raw.coded and raw.levels:
        values = np.array(raw.levels, dtype=object)[values]
    if raw.missing is None:
        return values
    out = np.full(len(raw), None, dtype=object)
    out[~raw.missing] = values
    return out


def derived_values(column: Column, codes: np.ndarray, raw: RawColumn) -> np.ndarray:
    """0 where a derived column has the value that the codes (n,) of its parent ask for, or either is
    missing; -inf elsewhere."""
    known = np.isfinite(codes)
    at = np.where(known, codes, 0).astype(int)
    strings = isinstance(column.levels[0], str)
    asked = np.array(column.levels, dtype=object if strings else None)[at]
    found, there = _cells(raw), known
    if raw.missing is not None:
        there = known & ~raw.missing
        found = np.where(there, found, asked)
    return np.where((found == asked) | ~there, 0.0, -np.inf)
