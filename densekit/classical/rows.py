"""Distinct rows with weights, in an order that depends on their values only."""

import numpy as np
import torch
from torch import Tensor


def distinct(x: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Merge equal rows and sum their weights.

    The order of the result depends on the values of the rows only (up to rounding). A fit that
    samples or splits the result therefore gives the same for reordered rows, and for repeated rows
    and integer weights.

    Parameters
    ----------
    x : Tensor of shape (n, D)
    weights : Tensor of shape (n,), optional
        Weights of the rows; ones by default.

    Returns
    -------
    x : Tensor of shape (m, D)
    weights : Tensor of shape (m,) or None
        None if all weights are one.

    Examples
    --------
    >>> distinct(torch.tensor([[2.0], [1.0], [2.0]]))
    (tensor([[1.],
            [2.]]), tensor([1., 2.], dtype=torch.float64))
    """
    # Rows are sorted by a projection with positive coefficients. It is summed column by column, because
    # a matrix product may round equal rows differently.
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
    index_of_row = first.cumsum(0) - 1
    total = torch.zeros_like(key[first]).index_add_(0, index_of_row, weights)
    return x[first], None if bool((total == 1).all()) else total


def mean_and_error(values: Tensor, weights: Tensor | None) -> tuple[float, float]:
    """Weighted mean of values (n,) and its standard error; a weight counts as so many rows."""
    weights = torch.ones_like(values) if weights is None else weights
    total = weights.sum()
    mean = (weights * values).sum() / total
    square = (weights * (values - mean).square()).sum()
    return float(mean), float((square / (total * (total - 1).clamp_min(1e-300))).sqrt())
