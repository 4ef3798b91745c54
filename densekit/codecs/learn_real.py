"""What is learned of a column of numbers."""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from densekit.codecs.columns import atom_of, bijection
from densekit.codecs.grids import Grid
from densekit.codecs.learner import (
    FEWEST_ROWS,
    MOST_ATOMS,
    NARROW,
    Learner,
    check_inside,
    learned_ends,
    rows_in,
    step_for,
)
from densekit.codecs.schema import Column
from densekit.codecs.supports import long_form
from densekit.codecs.tallies import Moments, Tally, counted
from densekit.containers import PIECE, RawColumn

_MOST_DISTINCT = 20
"""Distinct floats of a column that may all be atoms."""


class RealLearner(Learner):
    """A real column."""

    def __init__(
        self, raw: RawColumn, name: str, support: Any, atom_share: float | None, step: Any
    ):
        super().__init__(raw, name)
        self._share, self._step, self._grid = atom_share, step, Grid()
        self._tally = Tally(atom_share or 0.0, every=False)
        self._given, support = support, long_form(raw.label, support)
        circle = support[0] == "circle"
        open_ends = not circle and support[0] not in ("real", "positive")
        self._column = Column(name, "real", raw.dtype, support=support, open_ends=open_ends)
        self._closed = [e for e in self._column.ends if e is not None] if open_ends else []
        self._on_end: dict[float, float] = {}
        self._moments, self._spread = Moments(), Moments()
        self._low, self._high, self._n = math.inf, -math.inf, 0.0
        self._off_atoms: float | None = None  # one value that is no atom

    def add(self, raw: RawColumn, weights: np.ndarray | None = None) -> None:
        values, before = raw.values.astype(np.float64), self._low
        self._n += rows_in(values, weights)
        self._low = min(self._low, float(values.min()))
        self._high = max(self._high, float(values.max()))
        if self._low < self._high:
            # A value that never varies may lie anywhere; once another comes, the first counts too.
            for part in (values, np.full(int(math.isfinite(before)), before)):
                check_inside(self.label, self._given, self._column.support, part)
        if self._share is not None:
            self._tally.add(values, weights)
            self._spread.add(values, weights)
        self._grid.add(raw.values)
        for end in self._closed:
            here = values == end
            if here.any():
                rows = rows_in(values[here], None if weights is None else weights[here])
                self._on_end[end] = self._on_end.get(end, 0.0) + rows
                values, weights = values[~here], None if weights is None else weights[~here]
        self._learn(values, weights)

    def _learn(self, values: np.ndarray, weights: np.ndarray | None) -> None:
        if len(values):
            self._off_atoms = float(values[0])
        y = bijection(self._column, values)[0]
        for start in range(0, len(y), PIECE):
            part = slice(start, start + PIECE)
            self._moments.add(y[part], None if weights is None else weights[part])

    def read_again(self) -> bool:
        if self._low == self._high:
            return False
        atoms = set(self._on_end)
        often = np.zeros(0, bool)
        if self._share is not None:
            often = self._tally.common(self._share, FEWEST_ROWS, MOST_ATOMS)
            common = set(self._tally.values[often].tolist())
            reach = self._tally.rows * self._spread.result()[1]
            often &= reach >= NARROW * self._tally.n * self._grid.step
            atoms |= set(self._tally.values[often].tolist()) | common & {self._low, self._high}
        few = self._tally.whole and 0 < len(self._tally.values) <= _MOST_DISTINCT
        if few and (self._tally.rows >= FEWEST_ROWS).all():
            atoms |= set(self._tally.values.tolist())
        if not atoms:
            return False
        column = replace(self._column, atoms=tuple(sorted(atoms)))
        ends = (
            column.support
            if column.support[0] == "circle"
            else learned_ends(column, self._low, self._high)
        )
        is_open = column.open_ends or ends != column.support
        self._column = replace(column, support=ends, open_ends=is_open)
        if set(self._column.atoms) == set(self._on_end) and ends == column.support:
            return False
        self._moments, self._off_atoms = Moments(), None
        return True

    def refine(self, raw: RawColumn, weights: np.ndarray | None = None) -> None:
        values = raw.values.astype(np.float64)
        rest = atom_of(self._column, raw) == 0
        self._learn(values[rest], None if weights is None else weights[rest])

    def column(self) -> Column:
        if self._low == self._high:
            return self._constant()
        column = replace(self._column, step=step_for(self._step, self.label, self._grid.step))
        if column.atoms and not self._moments.low < self._moments.high:
            # What is off the atoms never varies either: all values are levels.
            rest = () if self._off_atoms is None else (self._off_atoms,)
            levels = tuple(sorted({*column.atoms, *rest}))
            return Column(self.name, "ordinal", self.dtype, levels=levels)
        loc, scale = self._moments.result()
        return replace(column, loc=loc, scale=scale)

    def counts(self, column: Column) -> np.ndarray:
        rows = {**self._on_end, **counted(self._tally.values, self._tally.rows)}
        return np.array([rows.get(float(level), 1.0) for level in column.levels])

    def atom_rows(self) -> np.ndarray:
        rows = {**self._on_end, **counted(self._tally.values, self._tally.rows)}
        on = np.array([rows.get(float(a), 0.0) for a in self._column.atoms])
        return np.concatenate([[max(self._n - on.sum(), 0.0)], on])
