"""A covariance shrunk toward independent columns, as far as rows left out want it."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_FOLDS = 5
_GRID = (0.0, *np.logspace(-8, 0, 33))
_LEAST = 1e-10
"""Variances below this are raised to it."""

Moments = tuple[float, Tensor, Tensor]
"""Weight of the rows, their sum (D,) and the sum of their products (D, D)."""


def shrunken(
    x: Tensor, shrinkage: float | str = "auto", weights: Tensor | None = None
) -> tuple[Tensor, tuple[Tensor, Tensor], float]:
    r"""Mean, eigenvalues and eigenvectors of :math:`(1 - s) S + s I`, and s.

    Parameters
    ----------
    x : (n, D)
        Rows in random order, in float64, of columns that are standardized.
    shrinkage : float or "auto"
        s; ``"auto"`` maximizes the likelihood of rows left out in 5 folds.
    weights : (n,), optional
        A row of weight w counts as w rows.

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
        # One row, or values whose squares no float holds: independent columns are all that is left.
        n, eye = x.shape[1], torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        return x.new_zeros(n), (x.new_ones(n), eye), 1.0
    s = _choose(folds) if shrinkage == "auto" else float(shrinkage)
    values, vectors = torch.linalg.eigh(covariance)
    return mean, (((1 - s) * values + s).clamp_min(_LEAST), vectors), s


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

    A row left out scores by its squares along the eigenvectors of the rows kept, so that one
    eigendecomposition a fold serves every shrinkage.
    """
    everything = _total(folds)
    grid = everything[1].new_tensor(_GRID)[:, None]
    score = torch.zeros_like(grid[:, 0])
    for n, first, second in folds:
        rest = (everything[0] - n, everything[1] - first, everything[2] - second)
        mean, covariance = _covariance(rest)
        values, vectors = torch.linalg.eigh(covariance)
        about = second - first[:, None] * mean - mean[:, None] * first + n * mean[:, None] * mean
        square = ((about @ vectors) * vectors).sum(0)
        shrunk = ((1 - grid) * values + grid).clamp_min(_LEAST)
        score -= (square / shrunk + n * shrunk.log()).sum(1)
    return float(grid[score.argmax(), 0])
