"""The increasing step s + c tanh(s), which planar and Sylvester layers are made of, and the bounds
that keep such layers invertible in floats of 32 bits whatever their raw parameters are."""

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

from densekit.transforms.bracket import invert

MIN_SLOPE = 0.05
"""No step is flatter: an error of its value is at most twenty times as large in its argument."""
LIMIT = 20.0
"""No weight grows beyond it, and no scale beyond it or its inverse."""
_AT_ZERO = math.log(math.expm1(1 - MIN_SLOPE))
_FAR = 1e30


def above_minus_one(raw: Tensor) -> Tensor:
    """Any number to one above MIN_SLOPE - 1, increasing, 0 to 0: softplus, moved.

    Examples
    --------
    >>> above_minus_one(torch.tensor([-1e6, 0.0, 1e6]))
    tensor([-9.5000e-01,  ...,  1.0000e+06])
    """
    return softplus(raw + _AT_ZERO) + (MIN_SLOPE - 1)


def limited(raw: Tensor) -> Tensor:
    """Any number to one within LIMIT; small ones stay nearly as they are."""
    return LIMIT * torch.tanh(raw / LIMIT)


def positive(raw: Tensor) -> Tensor:
    """Any number to one between 1 / LIMIT and LIMIT, 0 to 1: its exponential, where it is small."""
    limit = math.log(LIMIT)
    return torch.exp(limit * torch.tanh(raw / limit))


def finite(x: Tensor) -> Tensor:
    """Sums that overflowed as numbers that no step reaches, so that they go both ways."""
    return torch.nan_to_num(x, nan=0.0, posinf=_FAR, neginf=-_FAR)


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
