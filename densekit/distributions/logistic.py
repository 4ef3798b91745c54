"""Probabilities of intervals under the logistic distribution."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def log_mass_between(a: Tensor, b: Tensor, gap: Tensor, first: Tensor, last: Tensor) -> Tensor:
    r"""Log-probability of an interval (a, b) under the standard logistic distribution.

    .. math:: \log(F(b) - F(a)) = \log F(b) + \log F(-a) + \log(1 - e^{a - b})

    The right-hand side has no cancellation, neither far out nor for short intervals.

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
    >>> ends = torch.tensor([-40.0]), torch.tensor([-39.0])
    >>> no = torch.tensor([False])
    >>> round(log_mass_between(*ends, torch.tensor([1.0]), no, no).item(), 4)
    -39.4587
    """
    below = torch.where(last, 0.0, logsigmoid(b))
    above = torch.where(first, 0.0, logsigmoid(-a))
    open_ = first | last
    inside = torch.log(-torch.expm1(-torch.where(open_, 1.0, gap)))
    return below + above + torch.where(open_, 0.0, inside)
