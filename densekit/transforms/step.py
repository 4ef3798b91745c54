"""The increasing function s + c tanh(s) of planar and Sylvester layers, and bounds of their
parameters.

The bounds keep the layers invertible in float32 for all raw parameters.
"""

import math

import torch
from torch import Tensor

from densekit.transforms.bracket import invert

MIN_SLOPE = 0.05
"""Smallest slope of a step: an error of its value is at most twenty times as large in its argument."""
LIMIT = 20.0
"""Bound of the weights; scales are between it and its inverse."""
_Q = -math.expm1(MIN_SLOPE - 1)
_MAX_ABS = 1e30


def above_minus_one(raw: Tensor) -> Tensor:
    r"""Map any number to one above MIN_SLOPE - 1, increasing, with 0 to 0: a shifted and scaled
    softplus.

    .. math:: m(a) = \log(1 + q (e^a - 1)), \quad q = 1 - e^{\mathrm{MIN\_SLOPE} - 1}

    It is computed in a form that is exact near 0.

    Examples
    --------
    >>> above_minus_one(torch.tensor([-1e6, 0.0, 1e6]))
    tensor([-9.5000e-01,  0.0000e+00,  1.0000e+06])
    """
    low = torch.log1p(_Q * torch.expm1(raw.clamp_max(1.0)))
    high = raw + torch.log(_Q + (1 - _Q) * torch.exp(-raw.clamp_min(1.0)))
    return torch.where(raw < 1.0, low, high)


def limited(raw: Tensor) -> Tensor:
    """Map any number to the interval (-LIMIT, LIMIT), increasing; small numbers hardly change."""
    return LIMIT * torch.tanh(raw / LIMIT)


def positive(raw: Tensor) -> Tensor:
    """Map any number to the interval (1 / LIMIT, LIMIT), with 0 to 1: close to exp for small numbers."""
    limit = math.log(LIMIT)
    return torch.exp(limit * torch.tanh(raw / limit))


def finite(x: Tensor) -> Tensor:
    """Clamp numbers to +-1e30, including overflowed sums, so that products stay finite."""
    return torch.nan_to_num(x, nan=0.0).clamp(-_MAX_ABS, _MAX_ABS)


def log_slope(s: Tensor, c: Tensor) -> Tensor:
    r"""Logarithm of :math:`1 + c \tanh'(s)`, the derivative of s + c tanh(s)."""
    return torch.log1p(c * (1 - torch.tanh(s).square()))


def solve_step(y: Tensor, c: Tensor) -> Tensor:
    """Solve s + c tanh(s) = y for s, with c > -1, by bracketing. The result is differentiable in y
    and c.

    Examples
    --------
    >>> solve_step(torch.tensor([0.0, 100.0]), torch.tensor(-0.5)).tolist()
    [0.0, 100.5]
    """
    return invert(lambda s: s + c * torch.tanh(s), y)
