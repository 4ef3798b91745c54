r"""Fidelity and variety apart: precision and recall, density and coverage.

With :math:`B_X(i)` the closed ball around row i of ``X`` that reaches to its k-th nearest other
row of ``X``, and ``Y`` alike:

====================  ===============================================================  ==========
precision             share of samples :math:`y_j` within some :math:`B_X(i)`          k = 3
recall                share of data :math:`x_i` within some :math:`B_Y(j)`             k = 3
density               mean over samples of :math:`\#\{i : y_j \in B_X(i)\} / k`        k = 5
coverage              share of data :math:`x_i` with some :math:`y_j \in B_X(i)`       k = 5
====================  ===============================================================  ==========

Precision and recall are Kynkaanniemi et al. 2019, density and coverage Naeem et al. 2020, each with
its paper's k. Where data and samples come from one continuous distribution, density is 1 and
coverage :math:`1 - \binom{n-1}{k} / \binom{n+m-1}{k}` in expectation; precision and recall have no
such value and fall with the number of columns. A single outlier in the data inflates precision, and
does not inflate density and coverage. Rows of few distinct values share balls and so raise density
above 1.

Units and ``max_rows`` are those of :mod:`densekit.metrics.samples`. Standard errors are those of
batch means; the shares change with the number of rows, and so the error of a share is carried over
from the blocks in units of :math:`\sqrt{p (1 - p)}`. In simulations they were 0.7 to 1.4 times the
spread over repetitions.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from densekit.metrics.likelihood import Estimate
from densekit.metrics.rows import batches, distances, pair, standard_error

_RATIO = "ratio"


def precision(
    X: Any, Y: Any, *, k: int = 3, max_rows: int = 2000, random_state: Any = 0
) -> Estimate:
    """Share of samples within the data's manifold: low where samples look like no data.

    Parameters
    ----------
    X, Y : arrays or DataFrames
        Data (n, ...) and samples (m, ...), at least 2 (k + 2) of each.
    k : int
        Neighbors, at least 1.
    max_rows : int
        Rows taken of each at most: time and memory grow with their square.
    random_state : int
        Seed of that choice.

    Raises
    ------
    TypeError, ValueError
        Texts, missing or infinite entries, columns that differ, too few rows, ``k`` below 1.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(100, 2))
    >>> precision(x, x[:50]).value, precision(x, x + 100).value
    (1.0, 0.0)
    """
    x, y = _rows(X, Y, k, max_rows, random_state)
    return _estimate(lambda inside: inside.any(0).mean(), x, y, k, "share of samples")


def recall(X: Any, Y: Any, *, k: int = 3, max_rows: int = 2000, random_state: Any = 0) -> Estimate:
    """Share of data within the samples' manifold: low where the samples leave out some.

    Parameters and errors are those of :func:`precision`.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(200, 2))
    >>> recall(x, x).value, recall(x, x[x[:, 0] > 0]).value < 0.7
    (1.0, True)
    """
    x, y = _rows(X, Y, k, max_rows, random_state)
    return _estimate(lambda inside: inside.any(0).mean(), y, x, k, "share of rows")


def density(
    X: Any, Y: Any, *, k: int = 5, max_rows: int = 2000, random_state: Any = 0
) -> Estimate:
    """How many of the data's balls hold a sample, on average and over k: 1 for the truth, less
    where samples fall beside the data, more where they keep to the midst of it.

    Parameters and errors are those of :func:`precision`.

    Examples
    --------
    >>> x, y = np.random.default_rng(0).normal(size=(2, 500, 2))
    >>> abs(density(x, y).value - 1) < 0.1, density(x, y + 2).value < 0.5
    (True, True)
    """
    x, y = _rows(X, Y, k, max_rows, random_state)
    return _estimate(lambda inside: inside.sum(0).mean() / k, x, y, k, _RATIO)


def coverage(
    X: Any, Y: Any, *, k: int = 5, max_rows: int = 2000, random_state: Any = 0
) -> Estimate:
    """Share of data with a sample in their ball: low where the samples leave out some.

    Parameters and errors are those of :func:`precision`.

    Examples
    --------
    >>> x, y = np.random.default_rng(0).normal(size=(2, 500, 2))
    >>> bool(abs(coverage(x, y).value - (1 - 1 / 2**5)) < 0.04)
    True
    """
    x, y = _rows(X, Y, k, max_rows, random_state)
    return _estimate(lambda inside: inside.any(1).mean(), x, y, k, "share of rows")


def _rows(X: Any, Y: Any, k: int, max_rows: int, seed: Any) -> tuple[np.ndarray, np.ndarray]:
    if k < 1:
        raise ValueError(f"k={k}: the number of neighbors is at least 1")
    # Two blocks at least, for the standard error, in which each row has more than k others.
    name = f"a neighborhood of k={k}"
    both = pair(X, Y, name=name, at_least=2 * (k + 2), at_most=max_rows, random_state=seed)
    return both.x, both.y


def _estimate(
    of: Callable[[np.ndarray], Any], centers: np.ndarray, points: np.ndarray, k: int, unit: str
) -> Estimate:
    """A statistic of the matrix (n, m) that says which balls of ``centers`` hold which points."""
    within, between = distances(centers, centers), distances(centers, points)
    np.fill_diagonal(within, np.inf)
    n, m = between.shape

    def statistic(a: np.ndarray, b: np.ndarray) -> float:
        radii = np.partition(within[np.ix_(a, a)], k - 1, axis=1)[:, k - 1]
        # Rounding must not break the ties of discrete rows.
        return float(of(between[np.ix_(a, b)] <= radii[:, None] * (1 + 1e-9)))

    value = statistic(np.arange(n), np.arange(m))
    found = batches(statistic, n, m, at_least=k + 2)
    error, mean = standard_error(found), found.mean()
    if unit != _RATIO and error > 0:
        error *= math.sqrt(value * (1 - value) / (mean * (1 - mean)))
    return Estimate(value, error, unit)
