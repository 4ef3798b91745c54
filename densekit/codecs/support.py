"""The bijection from a column's support to the real line, with its slope; float64 torch."""

import math

import torch
from torch import Tensor

from densekit.codecs.schema import Column

INSET = 1e-6
"""Files saved before ends were atoms: where in an interval, as a share of its length, a value exactly on
its edge is taken to lie, since the normal quantile of an edge is infinite."""
SECONDS = {"D": 86400.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


def ends_of(column: Column) -> tuple[float, float]:
    """The ends of the support in the units of the bijection: those of the data, of datetimes seconds
    after the column's origin. Infinite where there is none."""
    low, high = column.ends
    if column.kind == "datetime":
        scale = SECONDS[column.unit]
        low, high = (None if e is None else (int(e) - column.origin) * scale for e in (low, high))
    return -math.inf if low is None else float(low), math.inf if high is None else float(high)


def to_real(x: Tensor, column: Column) -> tuple[Tensor, Tensor]:
    """b(x) and log|db/dx|: x (real), log(x - low) (bounded below), -log(high - x) (bounded above), the
    normal quantile of the place in the interval or on the circle; NaN or infinite outside the
    support."""
    name = column.support[0]
    if name == "real":
        return x, torch.zeros_like(x)
    low, high = ends_of(column)
    if name in ("positive", "at_least"):
        v = torch.log(x - low if low else x)
        return v, -v
    if name == "at_most":
        v = -torch.log(high - x)
        return v, v
    length = high - low
    place = (x - low) / length
    if not column.open_ends:
        # Both ends of a circle are one point.
        last = INSET if name == "circle" else 1 - INSET
        place = torch.where(x == low, INSET, torch.where(x == high, last, place))
    place = torch.where((x >= low) & (x <= high), place, torch.nan)
    v = torch.special.ndtri(place)
    return v, 0.5 * v * v + 0.5 * math.log(2 * math.pi) - math.log(length)


def from_real(v: Tensor, column: Column) -> Tensor:
    """The inverse of :func:`to_real`."""
    name = column.support[0]
    if name == "real":
        return v
    low, high = ends_of(column)
    if name in ("positive", "at_least"):
        return torch.exp(v) + low if low else torch.exp(v)
    if name == "at_most":
        return high - torch.exp(-v)
    place = torch.special.ndtr(v)
    if not column.open_ends:
        # An edge that was encoded comes back as that edge; the sliver has no mass worth the name.
        place = torch.where((place - INSET).abs() < 1e-4 * INSET, 0.0, place)
        place = torch.where((place - (1 - INSET)).abs() < 1e-4 * INSET, 1.0, place)
    x = (low + place * (high - low)).clamp(low, high)
    return torch.where(x == high, low, x) if name == "circle" else x
