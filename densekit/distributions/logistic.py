"""The logistic distribution, where a difference of its distribution function is a mass."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def log_mass_between(a: Tensor, b: Tensor, gap: Tensor, first: Tensor, last: Tensor) -> Tensor:
    r"""Log-mass of a standard logistic between two ends.

    .. math:: \log(F(b) - F(a)) = \log F(b) + \log F(-a) + \log(1 - e^{a - b})

    which is no difference of nearly equal numbers, however far out or near each other the ends are.

    Parameters
    ----------
    a, b : Tensor
        Ends.
    gap : Tensor
        b - a, as the caller knows it without having subtracted.
    first, last : Tensor of bool
        Where a is minus infinity, and where b is infinity, whatever they say.

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
