"""What is learnt of one column of a table, from pieces of its values: kind, levels, location and scale.

A column in memory is one piece, one in a file many; moments are taken of :data:`PIECE` rows at a time
either way, so that both come to the same bits.
"""

import math
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import replace
from typing import Any, cast

import numpy as np

from densekit.codecs.columns import SECONDS, bijection, minus, shorten, ticks_of
from densekit.codecs.frames import Level, RawColumn
from densekit.codecs.schema import Column, Kind

KINDS = ("real", "integer", "ordinal", "categorical", "boolean", "datetime")
PIECE = 2**14
"""Rows whose moments are taken at a time, in memory as on disk, so that both come to the same."""
_MOST_INTEGERS = 4096
"""Levels that an interval of integers may have."""
_MOST_SPIKES, _FEWEST_REPEATS = 8, 10
"""Values of a column that may be spikes, and the rows that each must have."""
_MOST_COMMON, _FEWEST_COMMON, _COMMON = 128, 30, 0.01
"""The same of integers, whose values have masses anyway, and the part of the share that is enough."""
_MOST_SEEN, _AGAIN = 2**16, 0.05
"""Different integers that are kept with their rows; the share of rows whose value must come again."""
_RESOLVED = 2**22
"""Range of integers whose events 32 bits tell from their neighbours."""
_MOST_LEVELS = 2**20
"""Distinct values of a categorical column: more are an identifier, and would fill the memory."""


class Learner(ABC):
    """A column that is learnt from pieces of its values.

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
                "nothing can be learnt of it; drop it."
            )
        self.first: Any = raw.values[:1].tolist()[0]

    @abstractmethod
    def add(self, raw: RawColumn) -> None:
        """Take in more values.

        Raises
        ------
        ValueError
            One of them does not go with kind or support.
        """

    @abstractmethod
    def column(self) -> Column:
        """What was learnt; a column that never varied is constant."""

    def counts(self, column: Column) -> np.ndarray:
        """Rows of each level of ``column``, which :meth:`column` gave."""
        raise NotImplementedError(f"column {self.name!r} is of numbers, which have no levels")

    def _constant(self) -> Column:
        return Column(self.name, "constant", self.dtype, levels=(self.first,))


def learner(
    raw: RawColumn,
    name: str,
    kind: str | None,
    support: Any,
    everywhere: Any,
    spike_share: float | None = None,
) -> Learner:
    """Who learns a column, given its kind and support or the support of all real columns.

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
        return RealLearner(raw, name, everywhere if support is None else support, spike_share)
    if kind == "integer":
        flags = inferred and support is None
        return WholeLearner(raw, name, support, flags=flags, spike_share=spike_share)
    if support is not None:
        raise ValueError(
            f"support[{raw.label!r}]={support!r}: the column is {kind}; only columns of numbers "
            "have a support: leave it out or set kinds."
        )
    if kind == "datetime":
        return WholeLearner(raw, name, None, unit=_unit(raw.values))
    return LevelLearner(raw, name, cast(Kind, kind))


def _infer_kind(raw: RawColumn) -> Kind:
    if raw.levels is not None:
        return "ordinal" if raw.ordered else "categorical"
    kinds: dict[str, Kind] = {"f": "real", "b": "boolean", "M": "datetime", "O": "categorical"}
    return kinds.get(raw.values.dtype.kind, "integer")


def _check_kind(raw: RawColumn, kind: str) -> None:
    discrete = ("ordinal", "categorical", "boolean")
    code = "O" if raw.levels is not None else raw.values.dtype.kind
    allowed = {"M": ("datetime",), "O": discrete, "b": discrete}.get(
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


# ---------------------------------------------------------------------------------------- numbers


class Moments:
    """Mean and standard deviation of values that come in pieces, each in two passes: safe at large
    offsets and at extreme scales. Joined as by Chan, Golub & LeVeque 1983."""

    def __init__(self) -> None:
        self.n, self.loc, self.scale = 0, 0.0, 0.0
        self.low, self.high = math.inf, -math.inf

    def add(self, y: np.ndarray) -> None:
        """Take in more values (n,), in float64."""
        low, high = float(y.min()), float(y.max())
        middle, reach = _span(low, high)
        loc, scale = middle, 0.0
        if 0 < reach < math.inf:
            d = (y - middle) / reach
            loc = middle + reach * float(d.mean())
            scale = reach * float(np.sqrt(np.mean((d - d.mean()) ** 2)))
        self.n += len(y)
        new, apart = len(y) / self.n, loc - self.loc
        if new == 1:
            self.loc, self.scale = loc, scale
        else:
            between = math.sqrt(new * (1 - new)) * apart
            parts = math.sqrt(1 - new) * self.scale, math.sqrt(new) * scale, between
            self.loc, self.scale = self.loc + new * apart, math.hypot(*parts)
        self.low, self.high = min(self.low, low), max(self.high, high)

    def result(self) -> tuple[float, float]:
        """Mean and standard deviation; a scale is never zero."""
        middle, reach = _span(self.low, self.high)
        if reach == 0 or not math.isfinite(reach):
            return middle, 1.0
        if not (math.isfinite(self.loc) and math.isfinite(self.scale)):
            return middle, reach
        return self.loc, self.scale if self.scale > 0 else reach


def _span(low: float, high: float) -> tuple[float, float]:
    # Halved before adding: the sum of two large numbers may overflow.
    middle = low / 2 + high / 2
    return middle, max(high - middle, middle - low)


class Repeats:
    """Values that at least a share of the rows have.

    Parameters
    ----------
    share : float, optional
        None looks for none.
    fewest : int
        Rows that a value must have at least.
    most : int
        Values that are found at most, the most frequent ones.
    """

    def __init__(
        self, share: float | None, fewest: int = _FEWEST_REPEATS, most: int = _MOST_SPIKES
    ) -> None:
        self._share, self._n, self._fewest, self._most = share, 0, fewest, most
        self._counts: Counter[float] = Counter()

    def add(self, values: np.ndarray) -> None:
        """Take in more values (n,)."""
        if self._share is None:
            return
        self._n += len(values)
        self._counts.update(_tally(values))
        if len(self._counts) > _MOST_LEVELS:
            # Rare values make room: one that has the share loses a tenth of it at most.
            few = 0.1 * self._share * self._n
            self._counts = Counter({v: n for v, n in self._counts.items() if n > few})

    def result(self) -> tuple[float, ...]:
        """The values, in order."""
        least = max(self._fewest, (self._share or 1) * self._n)
        often = [v for v, n in self._counts.most_common(self._most) if n >= least]
        return tuple(sorted(v for v in often if abs(v) < 2**53))

    def seen(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """All integers and their rows, where those that come again, spikes apart, are worth it."""
        spikes = set(self.result())
        again = sum(n for v, n in self._counts.items() if n > 1 and v not in spikes)
        if again < max(1, _AGAIN * self._n) or len(self._counts) > _MOST_SEEN:
            return (), ()
        low, high = min(self._counts), max(self._counts)
        if max(-low, high) >= 2**53 or high - low >= _RESOLVED:
            return (), ()
        values = sorted(int(v) for v in self._counts)
        return tuple(values), tuple(int(self._counts[v]) for v in values)


class RealLearner(Learner):
    """A real column."""

    def __init__(self, raw: RawColumn, name: str, support: Any, spike_share: float | None = None):
        super().__init__(raw, name)
        self._repeats = Repeats(spike_share)
        self._given, support = support, _long_form(raw.label, support)
        self._column, self._moments = Column(name, "real", raw.dtype, support=support), Moments()
        self._low, self._high = math.inf, -math.inf

    def add(self, raw: RawColumn) -> None:
        values, before = raw.values.astype(np.float64), self._low
        self._low = min(self._low, float(values.min()))
        self._high = max(self._high, float(values.max()))
        if self._low < self._high:
            # A value that never varies may lie anywhere; once another comes, the first counts too.
            for part in (values, np.full(int(math.isfinite(before)), before)):
                _check_inside(self.label, self._given, self._column.support, part)
        self._repeats.add(values)
        y = bijection(self._column, values)[0]
        for start in range(0, len(y), PIECE):
            self._moments.add(y[start : start + PIECE])

    def column(self) -> Column:
        if self._low == self._high:
            return self._constant()
        loc, scale = self._moments.result()
        return replace(self._column, loc=loc, scale=scale, spikes=self._repeats.result())


def _long_form(label: Any, support: Any) -> tuple[str | float, ...]:
    """The support as the schema has it."""
    if support is None or support in ("real", ("real",), ["real"]):
        return ("real",)
    if support in ("positive", ("positive",), ["positive"]):
        return ("positive",)
    try:
        word, low, high = support
        low, high = float(low), float(high)
    except (TypeError, ValueError):
        word = None
    if word not in ("interval", "circle") or not -math.inf < low < high < math.inf:
        raise ValueError(
            f"support of column {label!r} is {support!r}; it must be 'real', 'positive', "
            "('interval', low, high) or ('circle', low, high) with finite low < high."
        )
    return (str(word), low, high)


def _check_inside(
    label: Any, given: Any, support: tuple[str | float, ...], values: np.ndarray
) -> None:
    """Raise ValueError where values lie outside the support."""
    if support[0] == "real":
        return
    if support[0] == "positive":
        inside = values > 0
    else:
        inside = (values >= support[1]) & (values <= support[2])
    if not inside.all():
        remedy = "widen it or drop these rows"
        if support[0] == "circle":
            remedy = "take whole turns off first, as low + np.mod(x - low, high - low)"
        raise ValueError(
            f"support of column {label!r} is {given!r}, but {int((~inside).sum())} value(s) lie "
            f"outside, for example {float(values[~inside][0])!r}; {remedy}."
        )


# ---------------------------------------------------------------------------------------- lattices


class WholeLearner(Learner):
    """Integers, or datetimes as ticks of ``unit``; with ``flags`` two neighbouring values are two
    levels, and with an interval for support all its integers are."""

    def __init__(
        self,
        raw: RawColumn,
        name: str,
        support: Any,
        *,
        flags: bool = False,
        unit: str = "",
        spike_share: float | None = None,
    ):
        super().__init__(raw, name)
        share = None if spike_share is None else _COMMON * spike_share
        self._repeats = Repeats(share, _FEWEST_COMMON, _MOST_COMMON)
        self._given, self._support = support, _long_form(raw.label, support)
        self._within = self._support != ("real",)
        self._levels = self._inside() if self._within else ()
        self._flags, self._unit, self._moments = flags, unit, Moments()
        self._low: int | None = None
        self._high = 0
        # What moments are taken from: a value of the column, since a float64 may not hold integers
        # as large as theirs, and holds their differences.
        self._base = 0
        self._counts: Counter[int] | None = Counter() if flags or self._within else None

    def _inside(self) -> tuple[int, ...]:
        word, *ends = self._support
        first, last = (math.ceil(float(ends[0])), math.floor(float(ends[1]))) if ends else (0, 0)
        if word != "interval" or last - first >= _MOST_INTEGERS:
            raise ValueError(
                f"support of column {self.label!r} is {self._given!r}; that of an integer column is "
                f"('interval', low, high) with at most {_MOST_INTEGERS} integers: give one, or set "
                f'kinds={{{self.label!r}: "real"}}.'
            )
        return tuple(range(first, last + 1))

    def add(self, raw: RawColumn) -> None:
        values = ticks_of(raw, self._unit) if self._unit else raw.values
        if values.dtype.kind == "f" and (values != np.rint(values)).any():
            bad = float(values[values != np.rint(values)][0])
            raise ValueError(f"kinds[{raw.label!r}]='integer', but the column holds {bad!r}.")
        low, high, before = int(values.min()), int(values.max()), self._low
        if before is None:
            self._low, self._high = low, high
            self._base = int(values[0]) if values.dtype.kind in "iu" else 0
        else:
            self._low, self._high = min(before, low), max(self._high, high)
        self._repeats.add(values)
        if self._within and self._low < self._high:
            for part in (values, np.array([] if before is None else [before])):
                _check_inside(self.label, self._given, self._support, part)
        for start in range(0, len(values), PIECE):
            piece = values[start : start + PIECE]
            self._moments.add(minus(piece, self._base))
            if self._counts is not None:
                self._counts.update(_tally(piece))
                if len(self._counts) > max(2, len(self._levels)):
                    self._counts = None

    def column(self) -> Column:
        assert self._low is not None
        low, high = self._low, self._high
        if low == high and self._unit:
            return Column(self.name, "constant", self.dtype, origin=low, unit=self._unit)
        if low == high:
            return self._constant()
        if self._within or (self._flags and high - low == 1):
            levels = self._levels or (low, high)
            return Column(self.name, "ordinal", self.dtype, levels=levels)
        loc, scale = self._moments.result()
        origin = _origin(low, high, self._base + round(loc))
        if self._unit:
            scale *= SECONDS[self._unit]
            return Column(
                self.name, "datetime", self.dtype, scale=scale, origin=origin, unit=self._unit
            )
        seen, rows = self._repeats.seen()
        return Column(
            self.name,
            "integer",
            self.dtype,
            scale=max(scale, 1.0),
            origin=origin,
            spikes=self._repeats.result(),
            seen=seen,
            seen_rows=rows,
        )

    def counts(self, column: Column) -> np.ndarray:
        assert self._counts is not None
        return np.array([self._counts[int(level)] for level in column.levels])


def _origin(low: int, high: int, mean: int) -> int:
    """An integer near the mean, to which the steps of all values fit an int64."""
    origin = min(max(mean, low), high)
    return origin if max(high - origin, origin - low) < 2**63 else (low + high) // 2


def _tally(values: np.ndarray) -> dict[Any, int]:
    found, counts = np.unique(values, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


# ---------------------------------------------------------------------------------------- levels


class LevelLearner(Learner):
    """Strings, declared categories, booleans, and numbers that are names of things."""

    def __init__(self, raw: RawColumn, name: str, kind: Kind):
        super().__init__(raw, name)
        self._kind, self._declared = kind, raw.levels is not None
        self._strings, self._booleans = (raw.values.dtype.kind == code for code in "Ob")
        self._counts: Counter[Level] = Counter()
        self._levels: dict[Level, None] = {}
        """Declared categories, in their order; a file may declare more in every row group."""

    def add(self, raw: RawColumn) -> None:
        if raw.levels is not None:
            self._levels.update(dict.fromkeys(raw.levels))
        if raw.levels is not None and raw.coded:
            counts = np.bincount(raw.values, minlength=len(raw.levels)).tolist()
            self._counts.update(dict(zip(raw.levels, counts, strict=True)))
        else:
            strings = raw.values.dtype.kind == "O"
            self._counts.update(raw.values.tolist() if strings else _tally(raw.values))
        if len(self._counts) > _MOST_LEVELS:
            raise ValueError(
                f"Column {self.label!r} has more than {_MOST_LEVELS:,} distinct values: it looks like "
                "an identifier, of which nothing can be learnt; drop it."
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
                f"Column {self.label!r} has {len(levels)} distinct strings in {rows} rows: "
                "it looks like an identifier, of which nothing can be learnt; drop it.",
                UserWarning,
                stacklevel=3,
            )
        return Column(self.name, self._kind, self.dtype, levels=levels)

    def counts(self, column: Column) -> np.ndarray:
        return np.array([self._counts[level] for level in column.levels])
