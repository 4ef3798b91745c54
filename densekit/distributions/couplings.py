"""Pairs of rows and noise for flow matching."""

import torch
from torch import Tensor

_BLOCK = 256
"""Rows that are paired at a time: the cost of exact transport grows with their cube."""


def optimal_pairs(x: Tensor, noise: Tensor) -> Tensor:
    """Permutation of noise (n, ...) that minimizes the mean squared distance to rows x (n, ...), in
    blocks of 256 rows.

    With as many rows as noises, optimal transport is an assignment, which SciPy solves.

    Examples
    --------
    >>> x = torch.tensor([[0.0], [10.0]])
    >>> optimal_pairs(x, torch.tensor([[9.0], [1.0]])).tolist()
    [1, 0]
    """
    from scipy.optimize import linear_sum_assignment

    places = []
    for i in range(0, len(x), _BLOCK):
        cost = torch.cdist(x[i : i + _BLOCK].flatten(1), noise[i : i + _BLOCK].flatten(1)).square()
        places.append(i + torch.as_tensor(linear_sum_assignment(cost.cpu().numpy())[1]))
    return torch.cat(places).to(x.device)
