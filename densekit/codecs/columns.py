"""One column of a table: its kind, levels, location and scale; its values to numbers and back."""

import math
import re
import warnings
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch

from densekit.codecs.frames import RawColumn
from densekit.codecs.schema import Column, Kind
from densekit.codecs.support import from_real, to_real

KINDS = ("real", "integer", "ordinal", "categorical", "boolean", "datetime")
SECONDS = {"D": 86400.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_MOST_LEVELS = 4096


def fit_column(raw: RawColumn, kind: str | None, support: Any, everywhere: Any) -> Column:
    """What there is to know of a column, given its kind and support or those of all columns.

    Raises
    ------
    ValueError
        Kind or support do not exist, or do not go with the values.
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kinds[{raw.label!r}]={kind!r}; choose one of {', '.join(KINDS)}.")
    name, dtype = str(raw.label), raw.dtype
    if len(raw.levels) == 1 if raw.levels else _is_constant(raw.values):
        return _constant_column(name, dtype, raw)
    whole = raw.levels is None and raw.values.dtype.kind in "iu"
    kind = kind or ("integer" if whole and support is not None else _infer_kind(raw))
    _check_kind(raw, kind)
    if kind == "real":
        return _real_column(raw, name, everywhere if support is None else support)
    if kind == "integer":
        return _integer_column(raw, name, support)
    if support is not None:
        raise ValueError(
            f"support[{raw.label!r}]={support!r}: the column is {kind}; only columns of numbers "
            "have a support: leave it out or set kinds."
        )
    if kind == "datetime":
        return _datetime_column(raw, name)
    return Column(name, cast(Kind, kind), dtype, levels=_fit_levels(raw, kind))


def _integer_column(raw: RawColumn, name: str, support: Any) -> Column:
    values = raw.values
    if values.dtype.kind == "f" and (values != np.rint(values)).any():
        bad = float(values[values != np.rint(values)][0])
        raise ValueError(f"kinds[{raw.label!r}]='integer', but the column holds {bad!r}.")
    if support not in (None, "real"):
        word, *ends = _check_support(raw.label, support, values)
        first, last = (math.ceil(float(ends[0])), math.floor(float(ends[1]))) if ends else (0, 0)
        if word != "interval" or last - first >= _MOST_LEVELS:
            raise ValueError(
                f"support of column {raw.label!r} is {support!r}; that of an integer column is "
                f"('interval', low, high) with at most {_MOST_LEVELS} integers: give one, or set "
                f'kinds={{{raw.label!r}: "real"}}.'
            )
        levels = tuple(range(first, last + 1))
        return Column(name, "ordinal", raw.dtype, levels=levels)
    origin = _origin(values, round(_moments(values.astype(np.float64))[0]))
    scale = max(_moments(_minus(values, origin))[1], 1.0)
    return Column(name, "integer", raw.dtype, scale=scale, origin=origin)


def _origin(values: np.ndarray, mean: int) -> int:
    """An integer near the mean, to which the steps of all values fit an int64."""
    low, high = int(values.min()), int(values.max())
    origin = min(max(mean, low), high)
    return origin if max(high - origin, origin - low) < 2**63 else (low + high) // 2


def _fit_levels(raw: RawColumn, kind: str) -> tuple[Any, ...]:
    """Declared categories, or the sorted distinct values."""
    strings = raw.values.dtype.kind == "O"
    if raw.levels is not None:
        levels = raw.levels
    elif raw.values.dtype.kind == "b":
        return (False, True)
    else:
        levels = tuple(
            sorted(set(raw.values.tolist())) if strings else np.unique(raw.values).tolist()
        )
    if kind == "boolean" and len(levels) > 2:
        raise ValueError(
            f"kinds[{raw.label!r}]='boolean', but the column has {len(levels)} levels: "
            f"{shorten(levels)}."
        )
    if raw.levels is None and strings and len(levels) > max(100, len(raw.values) // 2):
        warnings.warn(
            f"Column {raw.label!r} has {len(levels)} distinct strings in {len(raw.values)} rows: "
            "it looks like an identifier, of which nothing can be learnt; drop it.",
            UserWarning,
            stacklevel=4,
        )
    return levels


def _is_constant(values: np.ndarray) -> bool:
    if values.dtype.kind == "O":
        return len(set(values.tolist())) == 1
    return bool(values.min() == values.max())


def _infer_kind(raw: RawColumn) -> Kind:
    if raw.levels is not None:
        return "ordinal" if raw.ordered else "categorical"
    code = raw.values.dtype.kind
    if code in "iu" and int(raw.values.max()) - int(raw.values.min()) == 1:
        return "ordinal"  # Flags: a lattice over all integers would give mass beyond the two.
    kinds: dict[str, Kind] = {"f": "real", "b": "boolean", "M": "datetime", "O": "categorical"}
    return kinds.get(code, "integer")


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


def _constant_column(name: str, dtype: str, raw: RawColumn) -> Column:
    if raw.values.dtype.kind == "M" and raw.levels is None:
        unit = _unit(raw.values)
        origin = int(_ticks(raw, unit)[0])
        return Column(name, "constant", dtype, origin=origin, unit=unit)
    levels = raw.levels or (raw.values[:1].tolist()[0],)
    return Column(name, "constant", dtype, levels=levels)


def _unit(values: np.ndarray) -> str:
    unit = str(np.datetime_data(values.dtype)[0])
    return unit if unit in SECONDS else "s"


def step_of(column: Column) -> float:
    """The distance of neighbouring values of a lattice before standardisation: 1 for integers, a day
    in seconds for dates; 0 for numbers and instants, which have a density."""
    if column.kind == "integer":
        return 1.0
    return SECONDS["D"] if column.kind == "datetime" and column.unit == "D" else 0.0


def _datetime_column(raw: RawColumn, name: str) -> Column:
    unit = _unit(raw.values)
    ticks = _ticks(raw, unit)
    low = int(ticks.min())
    origin = _origin(ticks, low + round(float(_minus(ticks, low).mean())))
    scale = _moments(_minus(ticks, origin))[1] * SECONDS[unit]
    return Column(name, "datetime", raw.dtype, scale=scale, origin=origin, unit=unit)


def _real_column(raw: RawColumn, name: str, support: Any) -> Column:
    learnt = RealColumn(raw.label, raw.dtype, name, support)
    learnt.add(raw.values)
    return learnt.column()


def _check_support(label: Any, support: Any, values: np.ndarray) -> tuple[str | float, ...]:
    """The support in its long form, when all values lie within it."""
    if support is None or support in ("real", ("real",), ["real"]):
        return ("real",)
    if support in ("positive", ("positive",), ["positive"]):
        low, high = 0.0, math.inf
        inside = values > 0
        out: tuple[str | float, ...] = ("positive",)
    else:
        try:
            word, low, high = support
            low, high = float(low), float(high)
        except (TypeError, ValueError):
            word = None
        if word != "interval" or not -math.inf < low < high < math.inf:
            raise ValueError(
                f"support of column {label!r} is {support!r}; it must be 'real', 'positive' or "
                "('interval', low, high) with finite low < high."
            )
        inside = (values >= low) & (values <= high)
        out = ("interval", low, high)
    if not inside.all():
        raise ValueError(
            f"support of column {label!r} is {support!r}, but {int((~inside).sum())} value(s) lie "
            f"outside, for example {float(values[~inside][0])!r}; widen it or drop these rows."
        )
    return out


PIECE = 2**14
"""Rows whose moments are taken at a time, in memory as on disk, so that both come to the same."""


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


def _moments(y: np.ndarray) -> tuple[float, float]:
    moments = Moments()
    for start in range(0, len(y), PIECE):
        moments.add(y[start : start + PIECE])
    return moments.result()


class RealColumn:
    """A real column that is learnt from pieces of its values.

    Raises
    ------
    ValueError
        From :meth:`add`: a value lies outside the support, or there is no such support.
    """

    def __init__(self, label: str | int, dtype: str, name: str, support: Any):
        self._label, self._support = label, support
        self._column, self._moments = Column(name, "real", dtype), Moments()
        self._low, self._high = math.inf, -math.inf

    def add(self, values: np.ndarray) -> None:
        """Take in more values (n,)."""
        values = values.astype(np.float64)
        self._low = min(self._low, float(values.min()))
        self._high = max(self._high, float(values.max()))
        support = _check_support(self._label, self._support, values)
        self._column = replace(self._column, support=support)
        y = _bijection(self._column, values)[0]
        for start in range(0, len(y), PIECE):
            self._moments.add(y[start : start + PIECE])

    def column(self) -> Column:
        """What was learnt; a column that never varied is constant."""
        if self._low == self._high:
            return Column(self._column.name, "constant", self._column.dtype, levels=(self._low,))
        loc, scale = self._moments.result()
        return replace(self._column, loc=loc, scale=scale)


# ---------------------------------------------------------------------------------------- values


def _bijection(column: Column, x: np.ndarray) -> tuple[np.ndarray, np.ndarray | float]:
    """b(x) and log b'(x); -inf (and b = loc) outside the support."""
    if column.support[0] == "real":
        return x, 0.0
    v, slope = (t.numpy() for t in to_real(torch.from_numpy(x), column))
    inside = np.isfinite(v)
    return np.where(inside, v, column.loc), np.where(inside, slope, -np.inf)


def _minus(values: np.ndarray, origin: int) -> np.ndarray:
    """values - origin as float64; integers are subtracted as integers."""
    if values.dtype.kind in "iu":
        reach = max(int(values.max()) - origin, origin - int(values.min()))
        if reach < 2**63:
            # Modulo 2**64, so that the difference is right where a term is not an int64.
            steps = values.astype(np.uint64) - np.array(origin % 2**64, dtype=np.uint64)
            return steps.astype(np.int64).astype(np.float64)
    return values.astype(np.float64) - float(origin)


def encode_column(column: Column, raw: RawColumn) -> tuple[np.ndarray, np.ndarray | float]:
    """A column's entries before standardisation, and log|db/dx|: -inf outside the support, where
    the entry is harmless."""
    _check_type(column, raw)
    if column.kind == "constant" or column.levels:
        codes = _codes(column, raw).astype(np.float64)
        return codes.clip(0), np.where(codes < 0, -np.inf, 0.0)
    if column.kind == "real":
        return _bijection(column, raw.values.astype(np.float64))
    if column.kind == "datetime":
        return _minus(_ticks(raw, column.unit), column.origin) * SECONDS[column.unit], 0.0
    y = _minus(raw.values, column.origin)
    return y, np.where(y == np.rint(y), 0.0, -np.inf)


def _ticks(raw: RawColumn, unit: str) -> np.ndarray:
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
    """Code of every value, -1 where it is no level."""
    if column.unit:
        ticks = _ticks(raw, column.unit)
        return np.where(ticks == column.origin, 0, -1)
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
    values = list(values)
    more = f", ... ({len(values)} in all)" if len(values) > limit else ""
    return ", ".join(repr(v) for v in values[:limit]) + more if values else "none"


def _level_values(column: Column, codes: np.ndarray) -> np.ndarray:
    if isinstance(column.levels[0], str):
        return np.array(column.levels, dtype=object)[codes]
    return np.array(column.levels)[codes]


def constant_values(column: Column, n: int) -> np.ndarray:
    if column.unit:
        return np.full(n, column.origin, dtype=np.int64).astype(f"datetime64[{column.unit}]")
    return _level_values(column, np.zeros(n, dtype=int))


def decode_column(column: Column, z: np.ndarray) -> np.ndarray:
    """One column of typed entries to values, before the container casts them to its dtype."""
    if column.levels:
        return _level_values(column, np.rint(z).clip(0, len(column.levels) - 1).astype(int))
    with np.errstate(over="ignore"):  # What no float holds is clipped below.
        y = z * column.scale + column.loc
    if column.kind == "datetime":
        # The lowest int64 is NaT; polars' and Arrow's dates are days in 32 bits.
        last = 2**31 - 1 if column.dtype in ("Date", "date32[day]") else 2**63 - 1
        ticks = _plus(y / SECONDS[column.unit], column.origin, -last, last)
        return ticks.astype(f"datetime64[{column.unit}]")
    numeric = _numpy_dtype(column.dtype)
    if column.kind == "integer":
        whole = np.iinfo(numeric if numeric.kind in "iu" else np.int64)
        return _plus(y, column.origin, int(whole.min), int(whole.max))
    limits = np.finfo(numeric if numeric.kind == "f" and numeric.itemsize < 8 else np.float64)
    x = from_real(torch.from_numpy(y), column).numpy()
    lowest = limits.tiny if column.support[0] == "positive" else limits.min
    x = x.clip(float(lowest), float(limits.max))
    if numeric.kind in "iu":
        return _plus(x, 0, int(np.iinfo(numeric).min), int(np.iinfo(numeric).max))
    return x


def _plus(y: np.ndarray, origin: int, low: int, high: int) -> np.ndarray:
    """Rounded y + origin within [low, high], the sum exact; uint64 where low is 0, else int64."""
    below, above = max(low - origin, -(2**63)), min(high - origin, 2**63 - 1)
    # Float bounds drawn inwards where rounding put them outside.
    lower = float(below) if float(below) >= below else math.nextafter(float(below), math.inf)
    upper = float(above) if float(above) <= above else math.nextafter(float(above), -math.inf)
    steps = np.rint(y).clip(lower, upper).astype(np.int64)
    # Sums wrap modulo 2**64, so the result is right although origin may exceed int64.
    total = steps.astype(np.uint64) + np.array(origin % 2**64, dtype=np.uint64)
    return total if low == 0 else total.astype(np.int64)


def _numpy_dtype(dtype: str) -> np.dtype:
    """The NumPy dtype that a numeric column's dtype stands for, float64 where it is an object."""
    match = re.match(r"(?:u?int|float|double|halffloat)\d*", dtype.lower())
    if not match:
        try:
            return np.dtype(dtype) if dtype != "object" else np.dtype(np.float64)
        except TypeError:
            return np.dtype(np.float64)
    names = {"double": "float64", "float": "float32", "halffloat": "float16"}
    return np.dtype(names.get(match[0], match[0]))
