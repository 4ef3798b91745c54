r"""Fidelity and diversity of samples by nearest neighbors: precision, recall, density and coverage.

:math:`B_X(i)` is the closed ball around row i of ``X`` whose radius is the distance to its k-th nearest
other row of ``X``; :math:`B_Y(j)` is the same for ``Y``.

====================  ===============================================================  ==========
precision             share of samples :math:`y_j` within some :math:`B_X(i)`          k = 3
recall                share of data :math:`x_i` within some :math:`B_Y(j)`             k = 3
density               mean over samples of :math:`\#\{i : y_j \in B_X(i)\} / k`        k = 5
coverage              share of data :math:`x_i` with some :math:`y_j \in B_X(i)`       k = 5
====================  ===============================================================  ==========

The default k is that of the paper. If data and samples come from one continuous distribution, the
expected density is 1 and the expected coverage is :math:`1 - \binom{n-1}{k} / \binom{n+m-1}{k}`.
Precision and recall have no such known value and fall with the number of columns. A single outlier in
the data increases precision, but not density or coverage. Rows with few distinct values share balls,
which increases density above 1.

Units and ``max_rows`` are those of :mod:`densekit.metrics.samples`. Standard errors use batch means. The
shares themselves depend on the number of rows, so the error of a share is transferred from the blocks to
all rows in units of :math:`\sqrt{p (1 - p)}`. In simulations they were 0.7 to 1.4 times the standard
deviation over repetitions.

References
----------
Kynkäänniemi et al. (2019), *Improved precision and recall metric for assessing generative models*,
https://arxiv.org/abs/1904.06991

Naeem et al. (2020), *Reliable fidelity and diversity metrics for generative models*,
https://arxiv.org/abs/2002.09797
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from densekit.metrics.likelihood import Estimate
from densekit.metrics.rows import block_statistics, comparable_rows, distances, standard_error

_RATIO = "ratio"


def precision(
    X: Any, Y: Any, *, k: int = 3, max_rows: int = 2000, random_state: Any = 0
) -> Estimate:
    r"""Precision: the share of samples :math:`y_j` inside some ball :math:`B_X(i)` of the data.

    It is low if samples are unlike all rows of the data. The docstring of the module defines the
    balls.

    Parameters
    ----------
    X, Y : arrays or DataFrames
        Data (n, ...) and samples (m, ...), at least 2 (k + 2) rows of each.
    k : int
        Number of neighbors, at least 1.
    max_rows : int
        Of more rows than this, so many are drawn: time and memory grow with their square.
    random_state : int
        Seed of the draw.

    Returns
    -------
    estimate : Estimate
        A share from 0 to 1; larger is better.

    Raises
    ------
    TypeError
        The rows are texts.
    ValueError
        Entries are missing or infinite, columns differ, there are too few rows, or ``k`` is below 1.

    References
    ----------
    Kynkäänniemi et al. (2019), *Improved precision and recall metric for assessing generative models*,
    https://arxiv.org/abs/1904.06991

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(100, 2))
    >>> precision(x, x[:50]).value, precision(x, x + 100).value
    (1.0, 0.0)
    """
    x, y = _rows(X, Y, k, max_rows, random_state)
    return _estimate(lambda inside: inside.any(0).mean(), x, y, k, "share of samples")


def recall(X: Any, Y: Any, *, k: int = 3, max_rows: int = 2000, random_state: Any = 0) -> Estimate:
    r"""Recall: the share of data rows :math:`x_i` inside some ball :math:`B_Y(j)` of the samples.

    It is low if the samples do not cover all of the data. Parameters, returned value, errors and paper
    are those of :func:`precision`.

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
    r"""Density: the mean number of balls of the data that contain a sample, divided by k.

    .. math::  \frac{1}{k m} \sum_{j=1}^m \#\{i : y_j \in B_X(i)\}

    Its expected value is 1 for a correct model. It is smaller if samples are far from the data, and
    larger if they concentrate where the data are dense. Parameters and errors are those of
    :func:`precision`.

    References
    ----------
    Naeem et al. (2020), *Reliable fidelity and diversity metrics for generative models*,
    https://arxiv.org/abs/2002.09797

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
    r"""Coverage: the share of data rows :math:`x_i` whose ball :math:`B_X(i)` contains a sample.

    It is low if the samples do not cover all of the data. Parameters, returned value and errors are
    those of :func:`precision`, and the paper is that of :func:`density`.

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
    # The standard error needs at least two blocks in which each row has more than k other rows.
    name = f"a neighborhood of k={k}"
    rows = comparable_rows(
        X, Y, name=name, min_rows=2 * (k + 2), max_rows=max_rows, random_state=seed
    )
    return rows.x, rows.y


def _estimate(
    summarize: Callable[[np.ndarray], Any],
    centers: np.ndarray,
    points: np.ndarray,
    k: int,
    unit: str,
) -> Estimate:
    """Estimate ``summarize`` of the boolean matrix (n, m): whether a center's ball has a point."""
    within, between = distances(centers, centers), distances(centers, points)
    np.fill_diagonal(within, np.inf)
    n, m = between.shape

    def statistic(a: np.ndarray, b: np.ndarray) -> float:
        radii = np.partition(within[np.ix_(a, a)], k - 1, axis=1)[:, k - 1]
        # The tolerance keeps ties of discrete rows despite rounding.
        return float(summarize(between[np.ix_(a, b)] <= radii[:, None] * (1 + 1e-9)))

    value = statistic(np.arange(n), np.arange(m))
    block_values = block_statistics(statistic, n, m, min_rows=k + 2)
    error, mean = standard_error(block_values), block_values.mean()
    if unit != _RATIO and error > 0:
        error *= math.sqrt(value * (1 - value) / (mean * (1 - mean)))
    return Estimate(value, error, unit)
