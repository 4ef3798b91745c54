"""What is asked of single columns of a table, as conditions on the entries of an event."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from densekit import containers
from densekit.codecs.columns import (
    encode_cells,
    has_density,
    jacobian_of,
    places_of,
    shorten,
    step_of,
)
from densekit.codecs.labels import by_label
from densekit.codecs.schema import Column
from densekit.codecs.table import TableCodec
from densekit.codecs.unreadable import wrong_sort
from densekit.containers import RawColumn

Entry = float | tuple[float, float]
"""What a column has in a typed event: its value or code, or its indicator and its value."""


@dataclass(frozen=True)
class Condition:
    """What is asked of one column of a typed event: to have one of some values, or to lie between two
    ends, both included, or on one of some atoms."""

    values: tuple[Entry, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    atoms: tuple[int, ...] = ()
    """Numbers of the atoms between the ends, from 1 on."""
    log_jacobian: float = 0.0
    """Of one value that has a density: log|d entry / d value|."""


@dataclass(frozen=True)
class Conditions:
    """What a context asks of an event, and of the values of the data."""

    entries: dict[int, Condition]
    """By the number of the column among those that an event has."""
    ends: dict[Any, tuple[Any, Any]]
    """By the label of a column of numbers or datetimes: between which values its cells lie."""
    listed: dict[Any, tuple[int, ...]] = field(default_factory=dict)
    """By the label of a column of integers: which values its cells have, where they are several."""

    @property
    def log_jacobian(self) -> float:
        """Of all values that have a density."""
        return sum(c.log_jacobian for c in self.entries.values())


def read_conditions(codec: TableCodec, context: Any) -> Conditions:
    """A mapping from columns to what they are: a value; a tuple ``(low, high)``, both included and
    None for an open end; or a list or set of values.

    Raises
    ------
    TypeError, ValueError
        Not a mapping; a column that is not there; a value that ``fit`` did not see, of another type,
        missing or outside the support; an interval without a value in it, or of a column whose
        values have no order; a set of values of a column with a density, which has no mass.

    Examples
    --------
    >>> codec = TableCodec().fit(np.array([[0.0, 5.0], [2.0, 5.0]]))
    >>> read_conditions(codec, {"x0": (1, 3), "x1": 5}).entries
    {0: Condition(values=(), low=0.0, high=2.0, atoms=(), log_jacobian=0.0)}
    """
    if not isinstance(context, Mapping):
        raise TypeError(
            f"context is a {type(context).__name__}; it must map columns to values, intervals (low, "
            f"high) or lists of values, for example {{{codec.labels[0]!r}: ...}}"
        )
    asked = by_label(context, codec.labels, "context")
    entries, ends, listed, j = {}, {}, {}, 0
    for column, label in zip(codec.schema.columns, codec.labels, strict=True):
        if label in asked:
            what = asked[label]
            condition = _condition(column, label, what)
            if column.in_event:
                entries[j] = condition
                if not column.levels:
                    ends[label] = _ends(column, what)
                if column.kind == "integer" and not isinstance(what, tuple):
                    listed[label] = tuple(sorted({int(v) for v in _listed(what)}))
        j += column.in_event
    _derived(codec, asked, entries)
    return Conditions(entries, ends, listed)


def _derived(codec: TableCodec, asked: Mapping[Any, Any], entries: dict[int, Condition]) -> None:
    """What is asked of derived columns, as conditions on the columns that they are derived from."""
    place = {c.name: j for j, c in enumerate(codec.schema.varying)}
    names = {label: c.name for label, c in zip(codec.labels, codec.schema.columns, strict=True)}
    for column, label in zip(codec.schema.columns, codec.labels, strict=True):
        if column.kind != "derived" or label not in asked:
            continue
        j = place[names[column.parent]]
        fits = set(_fitting(column, asked[label]))
        if j in entries:
            fits &= {int(v) for v in entries[j].values}  # type: ignore[arg-type]
        if not fits:
            raise ValueError(
                f"context[{label!r}]={asked[label]!r} contradicts what the context says of column "
                f"{column.parent!r}, which column {label!r} is derived from"
            )
        entries[j] = Condition(tuple(float(k) for k in sorted(fits)))


def _fitting(column: Column, asked: Any) -> list[int]:
    """Numbers of the levels of a parent for which a derived column has what is asked."""
    if isinstance(asked, tuple):
        low, high = (s * math.inf if v is None else v for v, s in zip(asked, (-1, 1), strict=True))
        return [k for k, v in enumerate(column.levels) if low <= v <= high]  # type: ignore[operator]
    return [k for k, v in enumerate(column.levels) if v in _listed(asked)]


def settle(
    codec: TableCodec, conditions: Conditions, rows: Any, rng: np.random.Generator
) -> Mapping[Any, np.ndarray]:
    """Values of integer columns, by label, that a draw in float64 does not tell from their neighbors:
    where steps of the event are wider than 1, one of the integers in between that the conditions
    allow.

    Parameters
    ----------
    codec, conditions
    rows : array or DataFrame
        Draws under the conditions.
    rng : Generator
    """
    out = {}
    raws = {c.label: c for c in containers.read(rows).columns}
    for column, label in zip(codec.schema.columns, codec.labels, strict=True):
        asked = column.kind == "integer" and column.in_event
        if not asked or label not in {*conditions.ends, *conditions.listed}:
            continue
        drawn = [int(v) for v in raws[label].values.tolist()]
        low, high = conditions.ends.get(label, (None, None))
        allowed = conditions.listed.get(label, ())
        steps = [int(np.spacing(float(abs(v - column.origin)))) for v in drawn]
        if not allowed and max(steps, default=0) < 2:
            continue
        found = [
            _one_of(allowed, v, step, rng)
            if allowed
            else _between_steps(column, v, step, low, high, rng)
            for v, step in zip(drawn, steps, strict=True)
        ]
        out[label] = np.array(found, dtype=np.uint64 if min(found) > 2**62 else np.int64)
    return out


def _one_of(allowed: tuple[int, ...], value: int, step: int, rng: np.random.Generator) -> int:
    """A random one of the nearest allowed values, which one step of the grid may not separate."""
    least = min(abs(v - value) for v in allowed)
    near = [v for v in allowed if abs(v - value) <= least + step]
    return near[int(rng.integers(len(near)))]


def _between_steps(
    column: Column, value: int, step: int, low: Any, high: Any, rng: np.random.Generator
) -> int:
    """An integer within half a step, between the ends."""
    first, last = value - step // 2, value + step // 2
    for end, choose, round_ in ((low, max, math.ceil), (high, min, math.floor)):
        if end is not None and not (isinstance(end, float) and math.isinf(end)):
            first, last = choose(first, round_(end)), choose(last, round_(end))
    if last <= first or value in column.atoms:
        return value
    return first + int(rng.integers(last - first + 1))


def _condition(column: Column, label: Any, asked: Any) -> Condition:
    if isinstance(asked, tuple):
        return _between(column, label, asked)
    values = _listed(asked)
    if not values:
        raise ValueError(f"context[{label!r}] is empty: give a value at least")
    typed, slope = _typed(column, label, values)
    points = has_density(column) and any(not isinstance(t, tuple) or t[0] == 0 for t in typed)
    if points and len(set(typed)) > 1:
        raise ValueError(
            f"context[{label!r}]={asked!r}: column {label!r} has a density, of which several values "
            "have no mass; give one value or an interval (low, high)"
        )
    return Condition(tuple(sorted(set(typed))), log_jacobian=slope)


def _listed(asked: Any) -> list[Any]:
    several = isinstance(asked, Iterable) and not isinstance(asked, str | bytes | Mapping)
    return list(asked) if several else [asked]


def _typed(column: Column, label: Any, values: list[Any]) -> tuple[list[Entry], float]:
    """Values of a column as an event has them, and the log-Jacobian of the first."""
    y, term, indicator = encode_cells(column, _raw(column, label, values))
    outside = np.isneginf(term)
    if outside.any():
        bad = [v for v, out in zip(values, outside, strict=True) if out]
        known = (
            f"it has {shorten(column.levels)}" if column.levels else f"support {column.support}"
        )
        if column.kind == "integer":
            known = "it has integers" + f" of the support {column.support}" * (
                column.ends != (None,) * 2
            )
        raise ValueError(
            f"context[{label!r}]: column {label!r} has no value {shorten(bad)}, so that there is "
            f"nothing to condition on; {known}"
        )
    typed: list[Any] = ((y - column.loc) / column.scale).tolist()
    if indicator is not None:
        typed = list(zip(indicator.tolist(), typed, strict=True))
    return typed, float(term[0] - jacobian_of(column)) if len(term) else 0.0


def _raw(column: Column, label: Any, values: list[Any]) -> RawColumn:
    """Values that a user wrote as a column read from a table."""
    import pandas as pd

    strings = column.levels and isinstance(column.levels[0], str)
    right = all(pd.api.types.is_scalar(v) and not pd.isna(v) for v in values)
    right = right and all(isinstance(v, str) for v in values) if strings else right
    try:
        if column.unit:
            found = np.array([_instant(v).to_datetime64() for v in values])
        else:
            found = np.array(values, dtype=object if strings else None)
    except (ValueError, TypeError):
        right = False
    if not right or (not strings and not column.unit and found.dtype.kind not in "biuf"):
        if column.levels and isinstance(column.levels[0], bool):
            raise ValueError(wrong_sort(f"context[{label!r}]", column, label, values))
        kind = "strings" if strings else "datetimes" if column.unit else "numbers"
        raise ValueError(
            f"context[{label!r}]: column {label!r} has {kind}, and {shorten(values)} is not what it can "
            "be; leave out of the context what is not known"
        )
    return RawColumn(label, column.dtype, found)


def _instant(value: Any) -> Any:
    import pandas as pd

    instant = pd.Timestamp(value)
    return instant if instant.tz is None else instant.tz_convert("UTC").tz_localize(None)


def _between(column: Column, label: Any, asked: tuple[Any, ...]) -> Condition:
    if len(asked) != 2:
        raise ValueError(
            f"context[{label!r}]={asked!r}: a tuple is an interval (low, high); values to choose from "
            "are a list"
        )
    if column.kind == "categorical" or (column.kind == "constant" and not _is_number(column)):
        raise ValueError(
            f"context[{label!r}]={asked!r}: the values of column {label!r} have no order, so there is "
            "nothing between two of them; values to choose from are a list"
        )
    condition = _codes(column, label, asked) if column.levels else _lattice(column, label, asked)
    one = not column.levels and condition.low == condition.high and not condition.atoms
    if one and math.isfinite(condition.low):
        if has_density(column):
            return _condition(column, label, asked[0])
        value: Entry = (0.0, condition.low) if column.atoms else condition.low
        return Condition((value,))
    if (
        not condition.values
        and not condition.atoms
        and (column.levels or not condition.low < condition.high)
    ):
        raise ValueError(f"context[{label!r}]={asked!r}: no value of the column is in between")
    return condition


def _is_number(column: Column) -> bool:
    return bool(column.levels) and not isinstance(column.levels[0], str)


def _codes(column: Column, label: Any, asked: tuple[Any, ...]) -> Condition:
    """Condition on the codes of the levels in an interval: by value for numbers, by order for words."""
    low, high = asked
    place: list[Any]
    if _is_number(column):
        ends = _raw(column, label, [v for v in asked if v is not None]).values.tolist()
        place = list(column.levels)
    else:
        ends = list(_typed(column, label, [v for v in asked if v is not None])[0])
        place = list(range(len(column.levels)))
    first = -math.inf if low is None else ends[0]
    last = math.inf if high is None else ends[-1]
    return Condition(tuple(float(k) for k, v in enumerate(place) if first <= v <= last))


def _lattice(column: Column, label: Any, asked: tuple[Any, ...]) -> Condition:
    """Ends in an event: of integers and days those that lie inside, of numbers those of the support."""
    ends, edges = [], []
    for value, side in zip(asked, (-1, 1), strict=True):
        edge: Any = None if value is None else _edge(column, label, value, side)
        edges.append(side * math.inf if edge is None else edge)
        if edge is None or (isinstance(edge, float) and math.isinf(edge)):
            ends.append(side * math.inf)
            continue
        ends.append(_beyond(column, edge) or _place(column, edge))
    if edges[0] == edges[1] and edges[0] in column.atoms:
        return Condition(((float(column.atoms.index(edges[0]) + 1), 0.0),))
    atoms = (k for k, a in enumerate(column.atoms, 1) if edges[0] <= a <= edges[1])
    return Condition(low=ends[0], high=ends[1], atoms=tuple(atoms))


def _edge(column: Column, label: Any, value: Any, side: int) -> Any:
    """An end of an interval in values of the column: a number, or the next integer or tick inside."""
    if column.unit:
        instant = _instant(value)
        if step_of(column):
            instant = instant.ceil("D") if side < 0 else instant.floor("D")
        return int(instant.to_datetime64().astype(f"datetime64[{column.unit}]").astype(np.int64))
    raw = _raw(column, label, [value])
    if column.kind == "integer" and raw.values.dtype.kind in "iu":
        return int(raw.values[0])
    number = float(raw.values[0])
    if column.kind == "integer" and not math.isinf(number):
        return math.ceil(number) if side < 0 else math.floor(number)
    return number


def _beyond(column: Column, edge: Any) -> float:
    """Minus or plus infinity for an edge on or beyond an end of the support, else 0."""
    low, high = column.ends
    if low is not None and edge <= low:
        return -math.inf
    return math.inf if high is not None and edge >= high else 0.0


def _place(column: Column, edge: Any) -> float:
    """Place of an edge in an event, ignoring atoms."""
    return float(places_of(column, [edge])[0])


def _ends(column: Column, asked: Any) -> tuple[Any, Any]:
    """Least and greatest value that a condition allows; two Nones for a list of several values."""
    values = asked if isinstance(asked, tuple) else tuple(2 * _listed(asked))
    if len(values) != 2:
        return None, None
    if column.unit:
        return tuple(None if v is None else _instant(v).to_datetime64() for v in values)  # type: ignore[return-value]
    whole = column.kind == "integer" and all(isinstance(v, int | np.integer) for v in values)
    return tuple(None if v is None else int(v) if whole else float(v) for v in values)  # type: ignore[return-value]
