"""Covariances shrunk toward independent columns, by cross-validation."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_FOLDS = 5
_GRID = (0.0, *np.logspace(-8, 0, 33))
_MIN_VARIANCE = 1e-10
"""Smaller variances are raised to this."""

Moments = tuple[float, Tensor, Tensor]
"""Total weight of the rows, their sum (D,) and the sum of their outer products (D, D)."""


def shrunken(
    x: Tensor, shrinkage: float | str = "auto", weights: Tensor | None = None
) -> tuple[Tensor, tuple[Tensor, Tensor], float]:
    """Mean and eigendecomposition of the shrunken covariance :math:`(1 - s) S + s I`.

    Parameters
    ----------
    x : Tensor of shape (n, D)
        Rows in random order, in float64, with standardized columns.
    shrinkage : float or "auto"
        s; ``"auto"`` maximizes the likelihood of held-out rows in 5-fold cross-validation.
    weights : Tensor of shape (n,), optional
        A row of weight w counts as w rows.

    Returns
    -------
    mean : Tensor of shape (D,)
    (values, vectors) : Tensors of shape (D,) and (D, D)
        Eigenvalues and eigenvectors of the covariance.
    shrinkage : float
        s.

    Examples
    --------
    >>> x = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> mean, (values, vectors), s = shrunken(x)
    >>> bool((values - 1).abs().max() < 0.1)
    True
    """
    n_folds = min(_FOLDS, len(x))
    rows = x.tensor_split(n_folds)
    w = [None] * n_folds if weights is None else weights.to(x).tensor_split(n_folds)
    folds = [_moments(*part) for part in zip(rows, w, strict=True)]
    mean, covariance = _covariance(_total(folds))
    if len(x) < 2 or not (covariance.isfinite().all() and mean.isfinite().all()):
        # With one row, or values whose squares overflow, the result is the standard normal.
        n, eye = x.shape[1], torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        return x.new_zeros(n), (x.new_ones(n), eye), 1.0
    s = _choose(folds) if shrinkage == "auto" else float(shrinkage)
    values, vectors = torch.linalg.eigh(covariance)
    return mean, (((1 - s) * values + s).clamp_min(_MIN_VARIANCE), vectors), s


def _moments(x: Tensor, weights: Tensor | None = None) -> Moments:
    if weights is None:
        return float(len(x)), x.sum(0), x.T @ x
    return float(weights.sum()), weights @ x, (x.T * weights) @ x


def _total(folds: Sequence[Moments]) -> Moments:
    count, first, second = zip(*folds, strict=True)
    return sum(count), torch.stack(first).sum(0), torch.stack(second).sum(0)


def _covariance(moments: Moments) -> tuple[Tensor, Tensor]:
    n, first, second = moments
    mean = first / n
    return mean, second / n - mean[:, None] * mean


def _choose(folds: Sequence[Moments]) -> float:
    """The shrinkage with the largest held-out likelihood.

    Held-out rows are scored through their squares along the eigenvectors of the other rows, so
    that one eigendecomposition per fold serves all shrinkages.
    """
    total = _total(folds)
    grid = total[1].new_tensor(_GRID)[:, None]
    score = torch.zeros_like(grid[:, 0])
    for n, first, second in folds:
        rest = (total[0] - n, total[1] - first, total[2] - second)
        mean, covariance = _covariance(rest)
        values, vectors = torch.linalg.eigh(covariance)
        scatter = second - first[:, None] * mean - mean[:, None] * first + n * mean[:, None] * mean
        square = ((scatter @ vectors) * vectors).sum(0)
        shrunk = ((1 - grid) * values + grid).clamp_min(_MIN_VARIANCE)
        score -= (square / shrunk + n * shrunk.log()).sum(1)
    return float(grid[score.argmax(), 0])
