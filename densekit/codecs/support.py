"""The bijection from a column's support to the real line, with its slope; float64 torch."""

import math

import torch
from torch import Tensor

from densekit.codecs.schema import Column

INSET = 1e-6
"""An interval is widened by this share of its length, so that values on its edge stay finite."""


def to_real(x: Tensor, column: Column) -> tuple[Tensor, Tensor]:
    """b(x) and log|db/dx|: x (real), log x (positive), the normal quantile of the place in the
    widened interval; NaN or infinite outside the support."""
    name = column.support[0]
    if name == "positive":
        v = torch.log(x)
        return v, -v
    if name == "interval":
        low, high = float(column.support[1]), float(column.support[2])
        length = (high - low) * (1 + 2 * INSET)
        place = (x - low) / length + INSET / (1 + 2 * INSET)
        place = torch.where((x >= low) & (x <= high), place, torch.nan)
        v = torch.special.ndtri(place)
        return v, 0.5 * v * v + 0.5 * math.log(2 * math.pi) - math.log(length)
    return x, torch.zeros_like(x)


def from_real(v: Tensor, column: Column) -> Tensor:
    """The inverse of :func:`to_real`; an interval's draws end at its edges."""
    name = column.support[0]
    if name == "positive":
        return torch.exp(v)
    if name == "interval":
        low, high = float(column.support[1]), float(column.support[2])
        place = torch.special.ndtr(v) - INSET / (1 + 2 * INSET)
        return (low + place * (high - low) * (1 + 2 * INSET)).clamp(low, high)
    return v
