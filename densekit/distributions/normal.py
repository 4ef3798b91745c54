"""Probabilities of intervals under the normal distribution."""

import math
from typing import Any

import torch
from torch import Tensor


def normal_mass_between(a: Tensor, b: Tensor, gap: Tensor, first: Tensor, last: Tensor) -> Tensor:
    r"""Log-probability of an interval (a, b) under the standard normal distribution.

    .. math:: \log(\Phi(b) - \Phi(a))

    Parameters
    ----------
    a, b : Tensor
        Ends of the interval.
    gap : Tensor
        b - a, computed by the caller without subtraction.
    first, last : Tensor of bool
        Where the interval extends to minus infinity and to infinity, whatever ``a`` and ``b`` are.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> ends = torch.tensor([-1.0]), torch.tensor([1.0])
    >>> no = torch.tensor([False])
    >>> round(normal_mass_between(*ends, torch.tensor([2.0]), no, no).exp().item(), 4)
    0.6827
    """
    # Reflect intervals above 0 to the lower tail, where the two masses do not round to one.
    flip = a > 0
    low, high = torch.where(flip, -b, a), torch.where(flip, -a, b)
    from_low, to_high = torch.where(flip, last, first), torch.where(flip, first, last)
    upper = torch.where(to_high, 0.0, _log_ndtr(high))
    lower = _log_ndtr(torch.where(from_low | to_high, 0.0, low))
    # The difference for a thin interval would cancel. Integrate the second-order expansion of log phi
    # at its center instead.
    middle = 0.5 * (low + high)
    thin = (gap < torch.finfo(gap.dtype).eps ** 0.25) & ~from_low & ~to_high
    tangent = _log_sinhc(0.5 * torch.where(thin, middle * gap, 0.0)) - gap * gap / 24
    density = -0.5 * (middle * middle + math.log(2 * math.pi)) + gap.log() + tangent
    diff = torch.where(thin | from_low | to_high, -1.0, lower - upper).clamp_max(-1e-6)
    mass = upper + torch.log(-torch.expm1(diff))
    tail = _log_ndtr(torch.where(to_high, -low, 0.0))
    return torch.where(
        thin, density, torch.where(from_low, upper, torch.where(to_high, tail, mass))
    )


def _log_ndtr(x: Tensor) -> Tensor:
    """log Phi(x) with a correct gradient far below 0, where that of torch is 0.4, 0 or NaN."""
    y: Tensor = _LogNdtr.apply(x)
    return y


class _LogNdtr(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.special.log_ndtr(x)
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        x, y = ctx.saved_tensors
        near = torch.exp(-0.5 * (x * x + math.log(2 * math.pi)) - y)
        t = x.clamp_max(-8).neg()
        return g * torch.where(x < -8, t + 1 / t - 2 / t**3, near)


def _log_sinhc(z: Tensor) -> Tensor:
    """log(sinh(z) / z)."""
    z = z.abs()
    safe = z.clamp_min(0.1)
    far = safe + torch.log(-torch.expm1(-2 * safe)) - (2 * safe).log()
    square = z.clamp_max(0.1).square()
    return torch.where(z < 0.1, square * (1 / 6 - square / 180), far)
