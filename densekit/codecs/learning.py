"""What is learned of one column of a table, from pieces of its values: kind, levels, atoms, ends, step,
location and scale.

A column in memory is one piece, one in a file many; moments are taken of :data:`PIECE` rows at a time
either way, so that both come to the same bits. A column with atoms is read twice, since location and
scale are those of its other values.
"""

import math
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import replace
from typing import Any, cast

import numpy as np

from densekit.codecs.columns import (
    atom_of,
    bijection,
    encode_column,
    has_density,
    minus,
    shorten,
    step_of,
    ticks_of,
)
from densekit.codecs.frames import RawColumn
from densekit.codecs.grids import Grid
from densekit.codecs.schema import Column, Kind, Value
from densekit.codecs.support import SECONDS
from densekit.codecs.supports import inside, long_form
from densekit.codecs.tallies import Moments, Tally, counted, tally

KINDS = ("real", "integer", "ordinal", "categorical", "boolean", "datetime", "date")
PIECE = 2**14
"""Rows whose moments are taken at a time, in memory as on disk, so that both come to the same."""
_MOST_INTEGERS = 4096
"""Integers of a declared interval that may be levels, one by one."""
MOST_ATOMS, FEWEST_ROWS = 128, 10
"""Values of a column that may be atoms by their share, and the rows that each must have."""
_MOST_DISTINCT = 20
"""Distinct floats of a column that may all be atoms."""
_NARROW = 4.0
"""An integer is an atom if its share is so many times that of one step in a standard deviation."""
_MOST_COMMON, _FEWEST_COMMON, _COMMON = 128, 30, 0.01
"""Common integers that are no atoms: how many, with how many rows each, at which part of the share."""
_MOST_SEEN, _AGAIN = 2**16, 0.05
"""Different integers that are kept with their rows; the share of rows whose value must come again."""
_RESOLVED = 2**22
"""Range of integers whose events 32 bits tell from their neighbors."""
_MOST_LEVELS = 2**20
"""Distinct values of a categorical column: more are an identifier, and would fill the memory."""


class Learner(ABC):
    """A column that is learned from pieces of its values.

    Parameters
    ----------
    raw : RawColumn
        Its first piece, which tells label and dtype; it is not taken in.
    name : str
        The column's in the schema.
    """

    def __init__(self, raw: RawColumn, name: str):
        self.label, self.dtype, self.name = raw.label, raw.dtype, name
        if not len(raw.values):
            raise ValueError(
                f"Column {raw.label!r} has no value in its first {len(raw)} row(s), all are missing: "
                "nothing can be learned of it; drop it."
            )
        self.first: Any = raw.values[:1].tolist()[0]

    @abstractmethod
    def add(self, raw: RawColumn, weights: np.ndarray | None = None) -> None:
        """Take in more values, with the weights of their rows.

        Raises
        ------
        ValueError
            One of them does not go with kind or support.
        """

    def read_again(self) -> bool:
        """Settle what the first reading tells; whether :meth:`refine` needs a second one."""
        return False

    def refine(self, raw: RawColumn, weights: np.ndarray | None = None) -> None:
        """Take in the values once more, where :meth:`read_again` asks for them."""
        raise NotImplementedError(f"column {self.name!r} is read once")

    @abstractmethod
    def column(self) -> Column:
        """What was learned; a column that never varied is constant."""

    def counts(self, column: Column) -> np.ndarray:
        """Rows of each level of ``column``, which :meth:`column` gave."""
        raise NotImplementedError(f"column {self.name!r} is of numbers, which have no levels")

    def atom_rows(self) -> np.ndarray:
        """Rows off the atoms, and on each of them, (1 + K,)."""
        raise NotImplementedError(f"column {self.name!r} has no atoms")

    def _constant(self) -> Column:
        return Column(self.name, "constant", self.dtype, levels=(self.first,))


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


def _step(given: Any, label: Any, found: int | float, *, whole: bool = False) -> int | float:
    """The step of a column: the one that is given, or that which was found."""
    if isinstance(given, str) and given == "auto":
        return found
    if given is None:
        return 0
    number = isinstance(given, int | float) and not isinstance(given, bool)
    if not number or not 0 < given < math.inf or (whole and given != int(given)):
        raise ValueError(
            f"step[{label!r}]={given!r}: a step is a positive {'integer' if whole else 'number'}, or "
            "None for no rounding"
        )
    return int(given) if whole else given


# ---------------------------------------------------------------------------------------- numbers


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
        self._moments = Moments()
        self._low, self._high, self._n = math.inf, -math.inf, 0.0
        self._off_atoms: float | None = None  # one value that is no atom

    def add(self, raw: RawColumn, weights: np.ndarray | None = None) -> None:
        values, before = raw.values.astype(np.float64), self._low
        self._n += _rows(values, weights)
        self._low = min(self._low, float(values.min()))
        self._high = max(self._high, float(values.max()))
        if self._low < self._high:
            # A value that never varies may lie anywhere; once another comes, the first counts too.
            for part in (values, np.full(int(math.isfinite(before)), before)):
                check_inside(self.label, self._given, self._column.support, part)
        if self._share is not None:
            self._tally.add(values, weights)
        self._grid.add(raw.values)
        for end in self._closed:
            here = values == end
            if here.any():
                rows = _rows(values[here], None if weights is None else weights[here])
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
            atoms |= set(self._tally.values[often].tolist())
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
        column = replace(self._column, step=_step(self._step, self.label, self._grid.step))
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


def _rows(values: np.ndarray, weights: np.ndarray | None) -> float:
    return float(len(values)) if weights is None else float(weights.sum())


def learned_ends(column: Column, low: Any, high: Any) -> tuple[str | int | float, ...]:
    """The support of a column whose smallest or largest value is an atom: it ends there."""
    first, last = column.ends
    if low in column.atoms:
        first = low
    if high in column.atoms:
        last = high
    if first is None:
        return ("real",) if last is None else ("at_most", last)
    if last is None:
        return (
            column.support
            if column.support == ("positive",) and first == 0
            else ("at_least", first)
        )
    return ("interval", first, last)


def check_inside(
    label: Any, given: Any, support: tuple[str | int | float, ...], values: np.ndarray
) -> None:
    """Raise ValueError where values lie outside the support."""
    ok = inside(support, values)
    if ok.all():
        return
    remedy = "widen it or drop these rows"
    if support[0] == "circle":
        remedy = "take whole turns off first, as low + np.mod(x - low, high - low)"
    example = values[~ok][0]
    example = example.item() if isinstance(example, np.generic) else example
    raise ValueError(
        f"support of column {label!r} is {given!r}, but {int((~ok).sum())} value(s) lie "
        f"outside, for example {example!r}; {remedy}."
    )


# ---------------------------------------------------------------------------------------- lattices


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
        """All values of a short interval of integers."""
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
            atoms = tuple(sorted({*atoms, *(int(e) for e in column.ends if e in (low, high))}))
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
        step = _step(self._step, self.label, self._grid.step, whole=True)
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
        if not has_density(column):
            often &= self._tally.rows * max(scale, 1e-300) >= _NARROW * self._tally.n
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


# ---------------------------------------------------------------------------------------- levels


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
            self._counts.update(found)  # type: ignore[arg-type]
        else:
            self._counts.update(counted(*tally(raw.values, weights)))  # type: ignore[arg-type]
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
