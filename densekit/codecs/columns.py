"""One column of a table: its values to numbers and back, by what was learned of it."""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from densekit.codecs.grids import on_grid, on_real_grid
from densekit.codecs.schema import Column
from densekit.codecs.support import SECONDS, from_real, to_real
from densekit.containers import RawColumn

_DAYS = ("Date", "date32[day]", "arrow:date32[day]")
"""Dtypes of days in 32 bits."""


def step_of(column: Column) -> float:
    """The distance of neighboring values of a lattice before standardization: 1 for integers, a day
    in seconds for dates; 0 for numbers and instants, which have a density."""
    if column.kind == "integer":
        return 1.0
    return SECONDS["D"] if column.kind == "datetime" and column.unit == "D" else 0.0


def bijection(column: Column, x: np.ndarray) -> tuple[np.ndarray, np.ndarray | float]:
    """b(x) and log b'(x); -inf (and b = loc) outside the support."""
    if column.support[0] == "real":
        return x, 0.0
    v, slope = (t.numpy() for t in to_real(torch.from_numpy(x), column))
    inside = np.isfinite(v)
    return np.where(inside, v, column.loc), np.where(inside, slope, -np.inf)


def minus(values: np.ndarray, origin: int) -> np.ndarray:
    """values - origin as float64; integers are subtracted as integers."""
    if values.dtype.kind in "iu":
        reach = max(int(values.max()) - origin, origin - int(values.min()))
        if reach < 2**63:
            # Modulo 2**64, so that the difference is right where a term is not an int64.
            steps = values.astype(np.uint64) - np.array(origin % 2**64, dtype=np.uint64)
            return steps.astype(np.int64).astype(np.float64)
    return values.astype(np.float64) - float(origin)


def encode_column(column: Column, raw: RawColumn) -> tuple[np.ndarray, np.ndarray | float]:
    """A column's entries before standardization, atoms aside, and log|db/dx|: -inf outside the support,
    where the entry is harmless."""
    _check_type(column, raw)
    if column.kind == "constant" or column.levels:
        codes = _codes(column, raw).astype(np.float64)
        return codes.clip(0), np.where(codes < 0, -np.inf, 0.0)
    if column.kind == "real":
        return bijection(column, raw.values.astype(np.float64))
    if column.kind == "datetime":
        seconds = minus(ticks_of(raw, column.unit), column.origin) * SECONDS[column.unit]
        return bijection(column, seconds) if not step_of(column) else _whole(column, seconds)
    y = minus(raw.values, column.origin)
    y, term = _whole(column, y)
    return y, np.where(y == np.rint(y), term, -np.inf)


def _whole(column: Column, y: np.ndarray) -> tuple[np.ndarray, np.ndarray | float]:
    """Values of a lattice after their origin, and -inf where they lie beyond an end."""
    if column.support[0] == "real":
        return y, 0.0
    size = step_of(column)
    low, high = (
        side * np.inf if end is None else (int(end) - column.origin) * size
        for end, side in zip(column.ends, (-1, 1), strict=True)
    )
    inside = (y >= low) & (y <= high)
    return np.where(inside, y, 0.0), np.where(inside, 0.0, -np.inf)


def has_density(column: Column) -> bool:
    """Whether a column is of numbers or instants, and not of values with a mass each."""
    return column.kind in ("real", "datetime") and not step_of(column)


def jacobian_of(column: Column) -> float:
    """What the standardization takes off the log-density of a row for this column: ``log(scale)`` where
    it has a density."""
    return math.log(column.scale) if has_density(column) else 0.0


def encode_cells(
    column: Column, raw: RawColumn
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Entries before standardization, NaN where the cell is missing; log|db/dx|; and of a column with
    atoms the indicator: 0 off the atoms, k on atom k, NaN where the cell is missing. A cell that has
    no density, missing or on an atom, has the ``log(scale)`` for its Jacobian that the standardization
    takes off all rows."""
    back = jacobian_of(column)
    y, term = np.full(len(raw), np.nan), np.full(len(raw), back)
    here = slice(None) if raw.missing is None else ~raw.missing
    if len(raw.values):
        y[here], term[here] = encode_column(column, raw)
    if not column.atoms:
        return y, term, None
    indicator = np.full(len(raw), np.nan)
    if len(raw.values):
        indicator[here] = atom_of(column, raw)
    on_atom = indicator > 0
    y[on_atom], term[on_atom] = column.loc, back
    return y, term, indicator


def atom_of(column: Column, raw: RawColumn) -> np.ndarray:
    """Which atom each value is, from 1 on, and 0 where it is none: compared exactly, as integers or in
    the precision of the column."""
    values: np.ndarray = raw.values
    if column.unit:
        values = ticks_of(raw, column.unit)
    elif column.kind == "real" and values.dtype.kind == "f":
        values = values.astype(_numpy_dtype(column.dtype, like=values))
    known = [(a, k) for k, a in enumerate(column.atoms, 1) if _holds(values.dtype, a)]
    if not known:
        return np.zeros(len(values))
    atoms = np.array([a for a, _ in known]).astype(values.dtype)
    numbers = np.array([k for _, k in known])
    place = np.searchsorted(atoms, values).clip(max=len(atoms) - 1)
    return np.where(atoms[place] == values, numbers[place], 0).astype(np.float64)


def _holds(dtype: np.dtype, value: float) -> bool:
    if dtype.kind == "f":
        return True
    if dtype.kind == "b":
        return value in (0, 1)
    limits = np.iinfo(dtype)
    return value == int(value) and limits.min <= value <= limits.max


def places_of(column: Column, values: Sequence[float]) -> np.ndarray:
    """Where in an event these values of a column of numbers or integers lie, atoms aside."""
    if not len(values):
        return np.zeros(0)
    array = np.array(values)
    if column.unit:
        array = array.astype(f"datetime64[{column.unit}]")
    raw = RawColumn(column.name, column.dtype, array)
    found: np.ndarray = (encode_column(column, raw)[0] - column.loc) / column.scale
    return found


def ticks_of(raw: RawColumn, unit: str) -> np.ndarray:
    """Datetimes as integers in a unit; a ValueError if one is out of its range."""
    ticks = raw.values.astype(f"datetime64[{unit}]")
    # NumPy wraps silently; by the year, both roundings are alike.
    wrapped = ticks.astype("datetime64[Y]") != raw.values.astype("datetime64[Y]")
    if wrapped.any():
        raise ValueError(
            f"Column {raw.label!r} holds instants that datetime64[{unit}] does not reach, for example "
            f"{raw.values[wrapped][0]}: drop these rows, or convert the column to numbers."
        )
    return ticks.astype(np.int64)


def _check_type(column: Column, raw: RawColumn) -> None:
    """Raise ValueError where the values are of another sort than those that fit saw."""
    if raw.coded or raw.levels is not None:
        code = "O" if not raw.levels or isinstance(raw.levels[0], str) else "f"
    else:
        code = "f" if raw.values.dtype.kind in "biuf" else raw.values.dtype.kind
    if column.unit:
        expected = "M"
    elif column.levels:
        expected = "O" if isinstance(column.levels[0], str) else "f"
    else:
        expected = "f"
    if code != expected or (raw.levels is not None and not column.levels):
        words = {"M": "datetimes", "O": "strings", "f": "numbers"}
        raise ValueError(
            f"Column {raw.label!r} held {words[expected]} at fit ({column.dtype}); now it holds "
            f"{words.get(code, code)} ({raw.dtype})."
        )


def _codes(column: Column, raw: RawColumn) -> np.ndarray:
    """Code of every value; -1 for values that are not levels."""
    if column.unit:
        ticks = ticks_of(raw, column.unit)
        levels = column.levels or (column.origin,)
        return _lookup(levels, ticks)
    if raw.coded:
        if not raw.levels:
            return np.full(len(raw.values), -1)
        return _lookup(column.levels, np.array(raw.levels, dtype=object))[raw.values]
    return _lookup(column.levels, raw.values)


def _lookup(levels: tuple[Any, ...], values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "O":
        code = {level: k for k, level in enumerate(levels)}
        return np.array([code.get(v, -1) for v in values.tolist()], dtype=np.int64)
    known = np.array(levels)
    order = np.argsort(known)
    place = np.searchsorted(known, values, sorter=order).clip(max=len(known) - 1)
    codes = order[place]
    return np.where(known[codes] == values, codes, -1)


def describe_unseen(raw: RawColumn, bad: np.ndarray) -> list[str]:
    """The column and its values where ``bad``, in words; nothing where all is well."""
    values = raw.values[bad].tolist()
    if raw.coded and raw.levels:
        values = [raw.levels[k] for k in values]
    return [f"column {raw.label!r}: {shorten(sorted(set(values)))}"] if values else []


def shorten(values: Iterable[Any], limit: int = 5) -> str:
    """The first ``limit`` values, separated by commas, with their number if there are more."""
    values = list(values)
    more = f", ... ({len(values)} in all)" if len(values) > limit else ""
    return ", ".join(repr(v) for v in values[:limit]) + more if values else "none"


def _level_values(column: Column, codes: np.ndarray) -> np.ndarray:
    if column.unit:
        return np.array(column.levels, np.int64)[codes].astype(f"datetime64[{column.unit}]")
    if isinstance(column.levels[0], str):
        return np.array(column.levels, dtype=object)[codes]
    return np.array(column.levels)[codes]


def constant_values(column: Column, n: int) -> np.ndarray:
    """The value of a constant column, ``n`` times."""
    if column.unit:
        return np.full(n, column.origin, dtype=np.int64).astype(f"datetime64[{column.unit}]")
    return _level_values(column, np.zeros(n, dtype=int))


Bounds = tuple[Any, Any]
"""The smallest and the largest value that may be given back; None where there is none."""


def decode_column(
    column: Column,
    z: np.ndarray,
    indicator: np.ndarray | None = None,
    bounds: Bounds = (None, None),
) -> np.ndarray:
    """One column of typed entries to values, before the container casts them to its dtype: on the
    column's grid, off its atoms where the indicator is 0, inside its support and ``bounds``."""
    if column.levels:
        return _level_values(column, np.rint(z).clip(0, len(column.levels) - 1).astype(int))
    with np.errstate(over="ignore"):  # What no float holds is clipped below.
        y = z * column.scale + column.loc
    if column.kind == "datetime":
        values = _decode_ticks(column, y, bounds)
    elif column.kind == "integer":
        values = _decode_integers(column, y, bounds)
    else:
        values = _decode_reals(column, y, bounds)
    if indicator is not None:
        atoms = np.array(column.atoms)
        if column.unit:
            atoms = atoms.astype(f"datetime64[{column.unit}]")
        on_atom = np.rint(indicator).astype(int).clip(0, len(atoms))
        values = np.where(on_atom > 0, atoms[(on_atom - 1).clip(0)].astype(values.dtype), values)
    return values


def _decode_ticks(column: Column, y: np.ndarray, bounds: Bounds) -> np.ndarray:
    # The lowest int64 is NaT; polars' and Arrow's dates are days in 32 bits.
    last = 2**31 - 1 if column.dtype in _DAYS else 2**63 - 1
    if not step_of(column):
        y = from_real(torch.from_numpy(y), column).numpy()
    ticks = _plus(y / SECONDS[column.unit], column.origin, -last, last)
    kind = f"datetime64[{column.unit}]"
    ends = [None if v is None else int(np.datetime64(v).astype(kind).astype(int)) for v in bounds]
    density = not step_of(column)
    ticks = on_grid(ticks, column, (ends[0], ends[1]), strict=density, away=density)
    return ticks.astype(kind)


def _decode_integers(column: Column, y: np.ndarray, bounds: Bounds) -> np.ndarray:
    numeric = _numpy_dtype(column.dtype)
    whole = np.iinfo(numeric if numeric.kind in "iu" else np.int64)
    found = _plus(y, column.origin, int(whole.min), int(whole.max))
    low, high = bounds
    ends = (None if low is None else math.ceil(low), None if high is None else math.floor(high))
    return on_grid(found, column, ends)


def _decode_reals(column: Column, y: np.ndarray, bounds: Bounds) -> np.ndarray:
    numeric = _numpy_dtype(column.dtype)
    limits = np.finfo(numeric if numeric.kind == "f" and numeric.itemsize < 8 else np.float64)
    x = from_real(torch.from_numpy(y), column).numpy()
    lowest = limits.tiny if column.support[0] == "positive" else limits.min
    x = x.clip(float(lowest), float(limits.max))
    if column.support[0] == "circle":
        return _on_circle(column, x, numeric)
    x = on_real_grid(x, column, numeric, bounds)
    if numeric.kind in "iu":
        return _plus(x, 0, int(np.iinfo(numeric).min), int(np.iinfo(numeric).max))
    return x


def _on_circle(column: Column, x: np.ndarray, numeric: np.dtype) -> np.ndarray:
    """x such that it is in [low, high), also after rounding to its dtype."""
    low, high = float(column.support[1]), float(column.support[2])
    if numeric.kind in "iu":
        return np.where(np.rint(x) >= high, low, x)
    # Compared as float64: NumPy would round the ends too.
    rounded = x.astype(numeric).astype(np.float64)
    first = np.array(low).astype(numeric)
    if float(first) < low:
        first = np.nextafter(first, np.array(math.inf).astype(numeric))
    return np.where((rounded < low) | (rounded >= high), first.astype(np.float64), x)


def _plus(y: np.ndarray, origin: int, low: int, high: int) -> np.ndarray:
    """Rounded y + origin within [low, high], the sum exact; uint64 where low is 0, else int64."""
    below, above = max(low - origin, -(2**63)), min(high - origin, 2**63 - 1)
    # Float bounds drawn inwards where rounding put them outside.
    lower = float(below) if float(below) >= below else math.nextafter(float(below), math.inf)
    upper = float(above) if float(above) <= above else math.nextafter(float(above), -math.inf)
    steps = np.rint(y).clip(lower, upper).astype(np.int64)
    steps = np.where(y <= lower, below, np.where(y >= upper, above, steps))
    # Sums wrap modulo 2**64, so the result is right although origin may exceed int64.
    total = steps.astype(np.uint64) + np.array(origin % 2**64, dtype=np.uint64)
    return total if low == 0 else total.astype(np.int64)


def _numpy_dtype(dtype: str, like: np.ndarray | None = None) -> np.dtype:
    """The NumPy dtype that a numeric column's dtype stands for, float64 where it is an object; that of
    ``like`` where it is not a float."""
    found = _named_dtype(dtype)
    return found if like is None or found.kind == "f" else like.dtype


def _named_dtype(dtype: str) -> np.dtype:
    match = re.match(r"(?:u?int|float|double|halffloat)\d*", dtype.lower())
    if not match:
        try:
            return np.dtype(dtype) if dtype != "object" else np.dtype(np.float64)
        except (TypeError, ValueError):
            return np.dtype(np.float64)
    names = {"double": "float64", "float": "float32", "halffloat": "float16"}
    return np.dtype(names.get(match[0], match[0]))
