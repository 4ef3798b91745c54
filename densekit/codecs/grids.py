"""Grids on which the values of a column lie: found in ``fit``, rounded to in ``decode``."""

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from densekit.codecs.schema import Column

_FEWEST = 20
"""Rows from which a grid is believed: fewer may lie on one by chance."""
_MOST_DECIMALS = 9
_COARSE = 0.1
"""Units of a grid that floats resolve at least: beyond, any number looks as if it lay on it."""


class Grid:
    """The coarsest grid through 0 on which all values lie, of values that come in pieces.

    Examples
    --------
    >>> grid = Grid()
    >>> grid.add(np.arange(30) * 2.5)
    >>> grid.step
    2.5
    """

    def __init__(self) -> None:
        self._n, self._decimals, self._divisor, self._none = 0, 0, 0, False

    def add(self, values: np.ndarray) -> None:
        """Take in more values (n,): floats, or integers."""
        self._n += len(values)
        if self._none or not len(values):
            return
        if values.dtype.kind in "iu":
            for part in (values[:1024], values):
                if self._divisor != 1:
                    self._divisor = math.gcd(self._divisor, int(np.gcd.reduce(part)))
            return
        # A few values rule most columns out at once.
        for part in (values[:64], values):
            while not self._fit(part):
                if self._decimals == _MOST_DECIMALS:
                    self._none = True
                    return
                self._decimals += 1
                self._divisor *= 10

    def _fit(self, values: np.ndarray) -> bool:
        """Whether the values have no more decimals than are known; takes their divisor in."""
        with np.errstate(over="ignore"):  # What no float holds is found below.
            scaled = values.astype(np.float64) * 10.0**self._decimals
        if not np.isfinite(scaled).all():
            self._none = True
            return True
        whole = np.rint(scaled)
        # Half a unit in the last place of the column's own dtype, and of the product.
        ulp = np.abs(scaled) * (np.finfo(values.dtype).eps + 2.0**-52)
        if not (np.abs(scaled - whole) <= ulp).all():
            return False
        if ulp.max(initial=0) > _COARSE or np.abs(whole).max(initial=0) >= 2**62:
            self._none = True
            return True
        found = int(np.gcd.reduce(np.unique(whole.astype(np.int64))))
        self._divisor = math.gcd(self._divisor, found)
        return True

    @property
    def step(self) -> int | float:
        """The distance of neighbors on the grid; 0 where there is none, or too few values to tell."""
        if self._none or self._n < _FEWEST or not self._divisor:
            return 0
        if not self._decimals:
            return self._divisor
        return float(Decimal(self._divisor).scaleb(-self._decimals))


def on_grid(
    values: np.ndarray,
    column: Column,
    bounds: Sequence[int | None],
    *,
    strict: bool = False,
    away: bool = False,
) -> np.ndarray:
    """Round integers or ticks to the grid of the column, within its support and ``bounds``.

    Parameters
    ----------
    values : integer array (n,)
    column : Column
    bounds : (low, high)
        Both included; None for no bound. Values stay within the bounds even if there is no point of
        the grid between them.
    strict : bool
        Whether the ends of the support are excluded.
    away : bool
        Whether values must not be atoms.
    """
    step = max(1, int(column.step))
    low, high = column.ends
    low = None if low is None else int(low) + strict
    high = None if high is None else int(high) - strict
    low, high = _inner(low, bounds[0], max), _inner(high, bounds[1], min)
    if step == 1 and low is None and high is None and not (away and column.atoms):
        return values
    first = None if low is None else -(-low // step)
    last = None if high is None else high // step
    if first is not None and last is not None and first > last:
        return _clip(values, low, high)
    if step > 1:
        k = (values // step) + ((values % step) * 2 >= step).astype(values.dtype)
    else:
        k = values
    atoms = [int(a) // step for a in column.atoms if int(a) % step == 0] if away else []
    # Whether the value is on or above the grid point that it is rounded to.
    up = values >= k * step
    k = _off(_clip(k, first, last), atoms, up, first, last)
    return k * step


def on_real_grid(
    x: np.ndarray, column: Column, numeric: np.dtype, bounds: Sequence[Any]
) -> np.ndarray:
    """Numbers rounded to the column's grid where it has one, off its atoms and inside its support and
    ``bounds``, once they are of the dtype ``numeric`` too."""
    low, high = (None if v is None else float(v) for v in column.ends)
    step = column.step or (1 if numeric.kind in "iu" else 0)
    if step:
        return _on_decimal_grid(x, column, float(step), (low, high), bounds)
    kind = numeric if numeric.kind == "f" else np.dtype(np.float64)
    if column.open_ends or column.support[0] == "positive":
        low = None if low is None else max(low, _beside(low, kind, math.inf))
        high = None if high is None else min(high, _beside(high, kind, -math.inf))
    inner = _inner(low, bounds[0], max), _inner(high, bounds[1], min)
    if inner != (None, None):
        x = _clip(x, *inner)
    if not column.atoms:
        return x
    rounded = x.astype(kind)
    atoms = np.array(column.atoms).astype(kind)
    for _ in range(len(atoms) + 1):
        hit = np.isin(rounded, atoms)
        if not hit.any():
            break
        up = x >= rounded.astype(np.float64)
        toward = np.where(up, math.inf, -math.inf).astype(kind)
        rounded[hit] = np.nextafter(rounded[hit], toward[hit])
        x = np.where(hit, rounded.astype(np.float64), x)
    return x


def _on_decimal_grid(
    x: np.ndarray,
    column: Column,
    step: float,
    ends: tuple[float | None, float | None],
    bounds: Sequence[Any],
) -> np.ndarray:
    with np.errstate(over="ignore"):
        k = np.rint(x / step)
    strict = column.open_ends or column.support[0] == "positive"
    first, last = _cell(ends[0], step, strict, 1), _cell(ends[1], step, strict, -1)
    first = _inner(first, _cell(bounds[0], step, False, 1), max)
    last = _inner(last, _cell(bounds[1], step, False, -1), min)
    if first is not None and last is not None and first > last:
        return _clip(x, _inner(ends[0], bounds[0], max), _inner(ends[1], bounds[1], min))
    atoms = [round(a / step) for a in column.atoms]
    k = _off(_clip(k, first, last), atoms, x >= k * step, first, last)
    if step == int(step):
        return k * step
    # Quotients of integers are the floats nearest to the decimals.
    _, digits, exponent = Decimal(repr(step)).as_tuple()
    return k * float(int("".join(map(str, digits)))) / 10.0 ** -int(exponent)


def _cell(end: float | None, step: float, strict: bool, side: int) -> int | None:
    """First point of the grid inside an end of the support, or the next one if the end is excluded."""
    if end is None:
        return None
    place = side * float(end) / step
    near = round(place)
    if abs(place - near) < 1e-6 * max(1.0, abs(place)) ** 0.5:
        return side * (near + strict)
    return side * math.ceil(place)


def _off(k: np.ndarray, atoms: Sequence[int], up: np.ndarray, first: Any, last: Any) -> np.ndarray:
    """Points of the grid moved off the atoms, first to the side that they came from."""
    if not atoms:
        return k
    known = np.array(atoms, dtype=k.dtype)
    one = k.dtype.type(1)
    for side in (up, ~up):
        start = k
        for _ in range(len(atoms)):
            hit = np.isin(k, known)
            if not hit.any():
                return k
            k = np.where(hit, np.where(side, k + one, k - one), k)
        outside = np.isin(k, known)
        outside |= (k < first) if first is not None else False
        outside |= (k > last) if last is not None else False
        k = np.where(outside, start, k)
        if not outside.any():
            return k
    return k


def _inner(a: Any, b: Any, choose: Any) -> Any:
    if a is None or b is None:
        return b if a is None else a
    return choose(a, b)


def _clip(x: np.ndarray, low: Any, high: Any) -> np.ndarray:
    if low is not None:
        x = np.maximum(x, np.asarray(low).astype(x.dtype))
    return x if high is None else np.minimum(x, np.asarray(high).astype(x.dtype))


def _beside(end: float, kind: np.dtype, toward: float) -> float:
    """The neighbor of an end, in a dtype; of zero the smallest number of full precision."""
    if end == 0:
        return math.copysign(float(np.finfo(kind).tiny), toward)
    near = np.array(end).astype(kind)
    inside = float(near) > end if toward > 0 else float(near) < end
    return float(near if inside else np.nextafter(near, np.array(toward).astype(kind)))
