"""What is learned of one column of a table: who learns it, and columns of levels or of a description.

Kind, levels, atoms, ends, step, location and scale; see :mod:`densekit.codecs.learner` for how pieces
are taken in.
"""

import warnings
from collections import Counter
from dataclasses import replace
from typing import Any, cast

import numpy as np

from densekit.codecs.columns import atom_of, encode_column, shorten, step_of
from densekit.codecs.learn_real import RealLearner
from densekit.codecs.learn_whole import WholeLearner
from densekit.codecs.learner import Learner
from densekit.codecs.schema import Column, Kind, Value
from densekit.codecs.support import SECONDS
from densekit.codecs.tallies import Moments, counted, tally
from densekit.containers import PIECE, RawColumn

KINDS = ("real", "integer", "ordinal", "categorical", "boolean", "datetime", "date")
_MOST_LEVELS = 2**20
"""Distinct values of a categorical column: more are an identifier, and would fill the memory."""


def learner(
    raw: RawColumn,
    name: str,
    kind: str | None,
    support: Any,
    everywhere: Any,
    atom_share: float | None = None,
    step: Any = "auto",
) -> Learner:
    """Who learns a column, given its kind and support or the support of all real columns, its step
    and the share of an atom.

    Raises
    ------
    ValueError
        Kind or support do not exist, or do not go with the dtype.
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kinds[{raw.label!r}]={kind!r}; choose one of {', '.join(KINDS)}.")
    inferred = kind is None
    kind = kind or _infer_kind(raw)
    _check_kind(raw, kind)
    if kind == "real":
        return RealLearner(raw, name, everywhere if support is None else support, atom_share, step)
    if kind == "integer":
        flags = inferred and support is None
        return WholeLearner(raw, name, support, atom_share, step, flags=flags)
    if kind in ("datetime", "date"):
        unit = "D" if kind == "date" else _unit(raw.values)
        return WholeLearner(raw, name, support, atom_share, step, unit=unit)
    if support is not None:
        raise ValueError(
            f"support[{raw.label!r}]={support!r}: the column is {kind}; only columns of numbers "
            "and datetimes have a support: leave it out or set kinds."
        )
    return LevelLearner(raw, name, cast(Kind, kind))


def _infer_kind(raw: RawColumn) -> str:
    if raw.levels is not None:
        return "ordinal" if raw.ordered else "categorical"
    kinds = {"f": "real", "b": "boolean", "M": "datetime", "O": "categorical"}
    return kinds.get(raw.values.dtype.kind, "integer")


def _check_kind(raw: RawColumn, kind: str) -> None:
    discrete = ("ordinal", "categorical", "boolean")
    code = "O" if raw.levels is not None else raw.values.dtype.kind
    allowed = {"M": ("datetime", "date"), "O": discrete, "b": discrete}.get(
        code, ("real", "integer", *discrete)
    )
    if kind not in allowed:
        raise ValueError(
            f"kinds[{raw.label!r}]={kind!r} does not go with dtype {raw.dtype}, which can be "
            f"{' or '.join(allowed)}; convert the column first."
        )


def _unit(values: np.ndarray) -> str:
    unit = str(np.datetime_data(values.dtype)[0])
    return unit if unit in SECONDS else "s"


class LevelLearner(Learner):
    """Strings, declared categories, booleans, and numbers that are names of things."""

    def __init__(self, raw: RawColumn, name: str, kind: Kind):
        super().__init__(raw, name)
        self._kind, self._declared = kind, raw.levels is not None
        self._strings, self._booleans = (raw.values.dtype.kind == code for code in "Ob")
        self._counts: Counter[Value] = Counter()
        self._levels: dict[Value, None] = {}
        """Declared categories, in their order; a file may declare more in every row group."""

    def add(self, raw: RawColumn, weights: np.ndarray | None = None) -> None:
        if raw.levels is not None:
            self._levels.update(dict.fromkeys(raw.levels))
        if raw.levels is not None and raw.coded:
            counts = np.bincount(raw.values, weights, minlength=len(raw.levels)).tolist()
            self._counts.update(dict(zip(raw.levels, counts, strict=True)))
        elif raw.values.dtype.kind == "O" and weights is None:
            self._counts.update(raw.values.tolist())
        elif raw.values.dtype.kind == "O":
            found: dict[Value, float] = {}
            for value, weight in zip(raw.values.tolist(), weights.tolist(), strict=True):  # type: ignore[union-attr]
                found[value] = found.get(value, 0.0) + weight
            self._counts.update(found)
        else:
            self._counts.update(counted(*tally(raw.values, weights)))
        if len(self._counts) > _MOST_LEVELS:
            raise ValueError(
                f"Column {self.label!r} has more than {_MOST_LEVELS:,} distinct values: it looks like "
                "an identifier, of which nothing can be learned; drop it."
            )

    def column(self) -> Column:
        if self._booleans and not self._declared and len(self._counts) > 1:
            return Column(self.name, self._kind, self.dtype, levels=(False, True))
        levels = tuple(self._levels) if self._declared else tuple(sorted(self._counts))
        if len(levels) == 1:
            return Column(self.name, "constant", self.dtype, levels=levels)
        if self._kind == "boolean" and len(levels) > 2:
            raise ValueError(
                f"kinds[{self.label!r}]='boolean', but the column has {len(levels)} levels: "
                f"{shorten(levels)}."
            )
        rows = self._counts.total()
        if self._strings and not self._declared and len(levels) > max(100, rows // 2):
            warnings.warn(
                f"Column {self.label!r} has {len(levels)} distinct strings in {int(rows)} rows: "
                "it looks like an identifier, of which nothing can be learned; drop it.",
                UserWarning,
                stacklevel=3,
            )
        return Column(self.name, self._kind, self.dtype, levels=levels)

    def counts(self, column: Column) -> np.ndarray:
        return np.array([self._counts[level] for level in column.levels], dtype=np.float64)


class KnownLearner(Learner):
    """A column whose description is given: location, scale and shares are all that is learned."""

    def __init__(self, raw: RawColumn, name: str, known: Column):
        super().__init__(raw, name)
        self._known = replace(known, name=name, dtype=raw.dtype, loc=0.0, scale=1.0)
        self._moments, self._n = Moments(), 0.0
        self._rows = np.zeros(max(len(known.levels), len(known.atoms) + 1))

    def add(self, raw: RawColumn, weights: np.ndarray | None = None) -> None:
        known = self._known
        y, term = encode_column(known, raw)
        outside = np.isneginf(term) & np.ones(len(raw.values), bool)
        if known.atoms:
            index = atom_of(known, raw)
            self._rows += np.bincount(index.astype(int), weights, len(self._rows))
            outside &= index == 0
            rest = index == 0
            y, weights = y[rest], None if weights is None else weights[rest]
        elif known.levels and known.in_event:
            self._rows += np.bincount(y.astype(int), weights, len(self._rows))
        if outside.any() and known.kind != "derived":
            row = RawColumn(raw.label, raw.dtype, raw.values[outside], raw.levels, raw.coded)
            raise ValueError(
                f"{int(outside.sum())} value(s) of column {self.label!r} lie outside its description in "
                f"columns=, for example {row.cell(0)!r}: describe all rows, densekit.describe(X)"
            )
        for start in range(0, len(y), PIECE):
            part = slice(start, start + PIECE)
            self._moments.add(y[part], None if weights is None else weights[part])

    def column(self) -> Column:
        known = self._known
        if not known.in_event or known.levels:
            return known
        if not self._moments.n:
            return known
        loc, scale = self._moments.result()
        if known.kind == "integer" or step_of(known):
            origin = known.origin + round(loc / step_of(known))
            return replace(known, origin=origin, scale=max(scale, step_of(known)))
        return replace(known, loc=loc, scale=scale)

    def counts(self, column: Column) -> np.ndarray:
        return self._rows

    def atom_rows(self) -> np.ndarray:
        return self._rows
