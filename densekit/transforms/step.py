"""The increasing step s + c tanh(s), which planar and Sylvester layers are made of, and the bounds
that keep such layers invertible in floats of 32 bits whatever their raw parameters are."""

import math

import torch
from torch import Tensor

from densekit.transforms.bracket import invert

MIN_SLOPE = 0.05
"""No step is flatter: an error of its value is at most twenty times as large in its argument."""
LIMIT = 20.0
"""No weight grows beyond it, and no scale beyond it or its inverse."""
_Q = -math.expm1(MIN_SLOPE - 1)
_FAR = 1e30


def above_minus_one(raw: Tensor) -> Tensor:
    r"""Any number to one above MIN_SLOPE - 1, increasing, 0 to 0: a softplus, moved and raised,

    .. math:: m(a) = \log(1 + q (e^a - 1)), \quad q = 1 - e^{\mathrm{MIN\_SLOPE} - 1},

    in a form that is exact near 0.

    Examples
    --------
    >>> above_minus_one(torch.tensor([-1e6, 0.0, 1e6]))
    tensor([-9.5000e-01,  0.0000e+00,  1.0000e+06])
    """
    low = torch.log1p(_Q * torch.expm1(raw.clamp_max(1.0)))
    high = raw + torch.log(_Q + (1 - _Q) * torch.exp(-raw.clamp_min(1.0)))
    return torch.where(raw < 1.0, low, high)


def limited(raw: Tensor) -> Tensor:
    """Any number to one within LIMIT, increasing; small ones stay nearly as they are."""
    return LIMIT * torch.tanh(raw / LIMIT)


def positive(raw: Tensor) -> Tensor:
    """Any number to one between 1 / LIMIT and LIMIT, 0 to 1: its exponential, where it is small."""
    limit = math.log(LIMIT)
    return torch.exp(limit * torch.tanh(raw / limit))


def finite(x: Tensor) -> Tensor:
    """Numbers within 1e30, overflowed sums too: no step reaches there, and products stay finite."""
    return torch.nan_to_num(x, nan=0.0).clamp(-_FAR, _FAR)


def log_slope(s: Tensor, c: Tensor) -> Tensor:
    r"""The logarithm of :math:`1 + c \tanh'(s)`, the derivative of s + c tanh(s)."""
    return torch.log1p(c * (1 - torch.tanh(s).square()))


def solve_step(y: Tensor, c: Tensor) -> Tensor:
    """s with s + c tanh(s) = y, for c > -1, by bracketing; differentiable in both.

    Examples
    --------
    >>> solve_step(torch.tensor([0.0, 100.0]), torch.tensor(-0.5)).tolist()
    [0.0, 100.5]
    """
    return invert(lambda s: s + c * torch.tanh(s), y)
