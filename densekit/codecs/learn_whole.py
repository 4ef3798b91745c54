"""What is learned of a column of integers or of datetimes, which lie on a lattice of whole numbers."""

from dataclasses import replace
from typing import Any

import numpy as np

from densekit.codecs.columns import atom_of, bijection, has_density, minus, ticks_of
from densekit.codecs.grids import Grid
from densekit.codecs.learner import (
    FEWEST_ROWS,
    MOST_ATOMS,
    NARROW,
    Learner,
    check_inside,
    learned_ends,
    step_for,
)
from densekit.codecs.schema import Column, Kind
from densekit.codecs.support import SECONDS
from densekit.codecs.supports import long_form
from densekit.codecs.tallies import Moments, Tally, counted
from densekit.containers import PIECE, RawColumn

_MOST_INTEGERS = 4096
"""Integers of a declared interval that may be levels, one by one."""
_MOST_COMMON, _FEWEST_COMMON, _COMMON = 128, 30, 0.01
"""Common integers that are no atoms: how many, with how many rows each, at which part of the share."""
_MOST_SEEN, _AGAIN = 2**16, 0.05
"""Different integers that are kept with their rows; the share of rows whose value must come again."""
_RESOLVED = 2**22
"""Range of integers whose events 32 bits tell from their neighbors."""


class WholeLearner(Learner):
    """Integers, or datetimes as ticks of ``unit``; with ``flags`` two neighboring values are two
    levels, and with a short interval for support all its integers are."""

    def __init__(
        self,
        raw: RawColumn,
        name: str,
        support: Any,
        atom_share: float | None,
        step: Any,
        *,
        flags: bool = False,
        unit: str = "",
    ):
        super().__init__(raw, name)
        self._share, self._step, self._grid = atom_share, step, Grid()
        self._given, self._support = support, long_form(raw.label, support, unit or "1")
        self._within = self._support != ("real",)
        self._flags, self._unit, self._moments = flags, unit, Moments()
        self._levels = self._inside()
        keep = 0.0 if atom_share is None else _COMMON * atom_share
        self._tally = Tally(keep, every=not unit)
        self._low: int | None = None
        self._high = 0
        # What moments are taken from: a value of the column, since a float64 may not hold integers
        # as large as theirs, and holds their differences.
        self._base = 0
        self._found: Column | None = None
        self._off_atoms: int | None = None  # one value that is no atom

    def _inside(self) -> tuple[int, ...]:
        """All integers in a short interval."""
        if self._unit or self._support[0] != "interval":
            return ()
        first, last = int(self._support[1]), int(self._support[2])
        return tuple(range(first, last + 1)) if last - first < _MOST_INTEGERS else ()

    def _ticks(self, raw: RawColumn) -> np.ndarray:
        if not self._unit:
            return raw.values
        ticks = ticks_of(raw, self._unit)
        if self._unit == "D":
            whole = raw.values == ticks.astype("datetime64[D]")
            if not whole.all():
                raise ValueError(
                    f"kinds[{raw.label!r}]='date', but the column holds {raw.values[~whole][0]}, "
                    "which is no midnight: leave the kind out, or take .dt.normalize() first."
                )
        return ticks

    def add(self, raw: RawColumn, weights: np.ndarray | None = None) -> None:
        values = self._ticks(raw)
        if values.dtype.kind == "f" and (values != np.rint(values)).any():
            bad = float(values[values != np.rint(values)][0])
            raise ValueError(f"kinds[{raw.label!r}]='integer', but the column holds {bad!r}.")
        low, high, before = int(values.min()), int(values.max()), self._low
        if before is None:
            self._low, self._high = low, high
            self._base = int(values[0]) if values.dtype.kind in "iu" else 0
        else:
            self._low, self._high = min(before, low), max(self._high, high)
        if self._within and self._low < self._high:
            for part in (values, np.array([] if before is None else [before])):
                check_inside(self.label, self._given, self._support, part)
        flags = self._flags and self._high - self._low <= 1
        if self._share is not None or flags or self._levels:
            self._tally.add(values, weights)
        self._grid.add(values)
        self._learn(minus, values, weights)

    def _learn(self, change: Any, values: np.ndarray, weights: np.ndarray | None) -> None:
        for start in range(0, len(values), PIECE):
            part = slice(start, start + PIECE)
            y = change(values[part], self._base)
            self._moments.add(y, None if weights is None else weights[part])

    def read_again(self) -> bool:
        assert self._low is not None
        low, high = self._low, self._high
        if low == high or self._levels or (self._flags and high - low == 1):
            return False
        column, scale = self._plain(), self._moments.result()[1]
        atoms, common = self._atoms(column, scale), set[int]()
        if self._share is not None:
            often = self._tally.common(self._share, FEWEST_ROWS, MOST_ATOMS)
            common = set(self._tally.values[often].tolist())
        is_open = has_density(column)
        if is_open:
            # A row on a closed end of a declared support is an atom, whatever its share.
            ends = [int(e) for e in column.ends if e in (low, high)]
            atoms = tuple(sorted({*atoms, *ends, *(v for v in (low, high) if v in common)}))
        support = learned_ends(replace(column, atoms=tuple(common.union(atoms))), low, high)
        is_open &= support != ("real",)
        if not atoms and support == column.support and not is_open:
            return False
        self._found = replace(column, atoms=atoms, support=support, open_ends=is_open)
        if not atoms and not is_open:
            return False
        self._moments = Moments()
        return True

    def _plain(self) -> Column:
        """The column with neither atoms nor learned ends, location and scale of all its values."""
        assert self._low is not None
        loc, scale = self._moments.result()
        origin = _origin(self._low, self._high, self._base + round(loc))
        step = step_for(self._step, self.label, self._grid.step, whole=True)
        step = 0 if step == 1 else step
        if self._unit:
            scale *= SECONDS[self._unit]
            kind: Kind = "datetime"
        else:
            scale, kind = max(scale, 1.0), "integer"
        return Column(
            self.name,
            kind,
            self.dtype,
            support=self._support,
            scale=scale,
            origin=origin,
            unit=self._unit,
            step=step,
        )

    def _atoms(self, column: Column, scale: float) -> tuple[int, ...]:
        """Values with a share that a density of this scale cannot give them; of integers that 32 bits
        do not tell from their neighbors all common ones."""
        if self._share is None:
            return ()
        share, values = self._share, self._tally.values
        often = self._tally.common(share, FEWEST_ROWS, MOST_ATOMS)
        often &= self._tally.rows * scale >= NARROW * self._tally.n * max(1, self._grid.step)
        if not has_density(column):
            assert self._low is not None
            if self._high - self._low >= _RESOLVED:
                often |= self._tally.common(_COMMON * share, _FEWEST_COMMON, _MOST_COMMON)
        return tuple(int(v) for v in values[often])

    def refine(self, raw: RawColumn, weights: np.ndarray | None = None) -> None:
        assert self._found is not None
        rest = (
            atom_of(self._found, raw) == 0 if self._found.atoms else np.ones(len(raw.values), bool)
        )
        values = self._ticks(raw)[rest]
        if len(values) and self._off_atoms is None:
            self._base = self._off_atoms = int(values[0])
            # Once more from here, so that the bijection sees differences that a float64 holds.
            self._found = replace(self._found, origin=_origin(self._base, self._base, self._base))
        self._learn(self._real, values, None if weights is None else weights[rest])

    def _real(self, values: np.ndarray, base: int) -> np.ndarray:
        assert self._found is not None
        if not has_density(self._found) or self._found.support == ("real",):
            return minus(values, base)
        seconds = minus(values, base) * SECONDS[self._unit]
        return bijection(self._found, seconds)[0]

    def column(self) -> Column:
        assert self._low is not None
        low, high = self._low, self._high
        if low == high and self._unit:
            return Column(self.name, "constant", self.dtype, origin=low, unit=self._unit)
        if low == high:
            return self._constant()
        if self._levels or (self._flags and high - low == 1):
            levels = self._levels or (low, high)
            return Column(self.name, "ordinal", self.dtype, levels=levels)
        found = self._found
        if found is None:
            return self._with_common(self._plain())
        if found.atoms and not self._moments.low < self._moments.high:
            # What is off the atoms never varies either: all values are levels.
            rest = () if self._off_atoms is None else (self._off_atoms,)
            values = tuple(sorted({*map(int, found.atoms), *rest}))
            return Column(self.name, "ordinal", self.dtype, levels=values, unit=self._unit)
        return self._with_common(self._settled(found))

    def _settled(self, found: Column) -> Column:
        """The column with location and scale of the values off its atoms."""
        if not self._moments.n:
            return found
        loc, scale = self._moments.result()
        if has_density(found) and found.support != ("real",):
            return replace(found, loc=loc, scale=scale)
        assert self._low is not None
        origin = _origin(self._low, self._high, self._base + round(loc))
        if self._unit:
            return replace(found, origin=origin, scale=scale * SECONDS[self._unit])
        return replace(found, origin=origin, scale=max(scale, 1.0))

    def _with_common(self, column: Column) -> Column:
        """The column with its common integers, atoms aside, and those that come again."""
        if column.kind != "integer" or self._share is None:
            return column
        values, rows = self._tally.values, self._tally.rows
        often = self._tally.common(_COMMON * self._share, _FEWEST_COMMON, _MOST_COMMON)
        common = [int(v) for v in values[often] if abs(v) < 2**53]
        spikes = tuple(v for v in common if v not in set(column.atoms))
        again = rows[(rows > 1) & ~np.isin(values, common)].sum()
        column = replace(column, spikes=spikes)
        if again < max(1, _AGAIN * self._tally.n) or len(values) > _MOST_SEEN:
            return column
        low, high = int(values.min()), int(values.max())
        if max(-low, high) >= 2**53 or high - low >= _RESOLVED:
            return column
        seen = tuple(int(v) for v in values), tuple(max(1, round(float(r))) for r in rows)
        return replace(column, seen=seen[0], seen_rows=seen[1])

    def counts(self, column: Column) -> np.ndarray:
        rows = counted(self._tally.values, self._tally.rows)
        return np.array([rows.get(level, 0.0) for level in column.levels])

    def atom_rows(self) -> np.ndarray:
        assert self._found is not None
        rows = counted(self._tally.values, self._tally.rows)
        on = np.array([rows.get(a, 0.0) for a in self._found.atoms])
        return np.concatenate([[max(self._tally.n - on.sum(), 0.0)], on])


def _origin(low: int, high: int, mean: int) -> int:
    """An integer near the mean, to which the steps of all values fit an int64."""
    origin = min(max(mean, low), high)
    return origin if max(high - origin, origin - low) < 2**63 else (low + high) // 2
