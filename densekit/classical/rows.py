"""Rows and their weights in an order of their own, so that repeated rows and weights are one thing."""

import numpy as np
import torch
from torch import Tensor


def distinct(x: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """The distinct rows of ``x``, and how much each of them weighs.

    Their order depends on their values alone, and up to rounding only: a fit that draws and cuts
    these rows does the same on rows in another order, on repeated rows, and on weighted ones.

    Parameters
    ----------
    x : Tensor, shape (n, D)
    weights : Tensor, shape (n,), optional
        Ones unless given.

    Returns
    -------
    x : Tensor, shape (m, D)
    weights : Tensor, shape (m,), or None where all are one

    Examples
    --------
    >>> distinct(torch.tensor([[2.0], [1.0], [2.0]]))
    (tensor([[1.],
            [2.]]), tensor([1., 2.], dtype=torch.float64))
    """
    # Rows are sorted by one projection, which is monotone in a single column. It is summed column by
    # column: a matrix product may round equal rows differently.
    direction = np.abs(np.random.default_rng(0).normal(size=x.shape[1])).tolist()
    key = x.new_zeros(len(x), dtype=torch.float64)
    for column, slope in zip(x.T, direction, strict=True):
        key += slope * column
    key, order = key.sort(stable=True)
    x = x[order]
    first = torch.ones(len(x), dtype=torch.bool, device=x.device)
    tied = key[1:] == key[:-1]
    first[1:] = ~tied
    if tied.any():
        places = tied.nonzero()[:, 0]
        first[places + 1] = (x[places + 1] != x[places]).any(1)
    if weights is None and bool(first.all()):
        return x, None
    weights = torch.ones_like(key) if weights is None else weights.double()[order]
    which = first.cumsum(0) - 1
    total = torch.zeros_like(key[first]).index_add_(0, which, weights)
    return x[first], None if bool((total == 1).all()) else total


def mean_and_error(values: Tensor, weights: Tensor | None) -> tuple[float, float]:
    """The mean of values (n,), and its standard error, a weight standing for so many rows."""
    weights = torch.ones_like(values) if weights is None else weights
    total = weights.sum()
    mean = (weights * values).sum() / total
    square = (weights * (values - mean).square()).sum()
    return float(mean), float((square / (total * (total - 1).clamp_min(1e-300))).sqrt())
