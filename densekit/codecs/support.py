"""The bijection from a column's support to the real line, with its slope; float64 torch."""

import math

import torch
from torch import Tensor

from densekit.codecs.schema import Column

INSET = 1e-6
"""Where in an interval, as a share of its length, a value exactly on its edge is taken to lie: the
normal quantile of an edge is infinite. A set of two points has no volume, so no mass is lost."""


def to_real(x: Tensor, column: Column) -> tuple[Tensor, Tensor]:
    """b(x) and log|db/dx|: x (real), log x (positive), the normal quantile of the place in the
    interval or on the circle; NaN or infinite outside the support."""
    name = column.support[0]
    if name == "positive":
        v = torch.log(x)
        return v, -v
    if name in ("interval", "circle"):
        low, high = float(column.support[1]), float(column.support[2])
        length = high - low
        place = (x - low) / length
        # Both ends of a circle are one point.
        last = INSET if name == "circle" else 1 - INSET
        place = torch.where(x == low, INSET, torch.where(x == high, last, place))
        place = torch.where((x >= low) & (x <= high), place, torch.nan)
        v = torch.special.ndtri(place)
        return v, 0.5 * v * v + 0.5 * math.log(2 * math.pi) - math.log(length)
    return x, torch.zeros_like(x)


def from_real(v: Tensor, column: Column) -> Tensor:
    """The inverse of :func:`to_real`."""
    name = column.support[0]
    if name == "positive":
        return torch.exp(v)
    if name in ("interval", "circle"):
        low, high = float(column.support[1]), float(column.support[2])
        place = torch.special.ndtr(v)
        # An edge that was encoded comes back as that edge; the sliver has no mass worth the name.
        place = torch.where((place - INSET).abs() < 1e-4 * INSET, 0.0, place)
        place = torch.where((place - (1 - INSET)).abs() < 1e-4 * INSET, 1.0, place)
        x = (low + place * (high - low)).clamp(low, high)
        return torch.where(x == high, low, x) if name == "circle" else x
    return v
