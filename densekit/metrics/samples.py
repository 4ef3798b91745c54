"""Distances between samples and data, for models with and without a density.

:mod:`densekit.metrics.rows` defines the units in which rows are compared. Images are compared by their
pixels, unlike published figures for large images, which use the features of a network. Of more than
``max_rows`` rows, so many are drawn without replacement with the seed ``random_state``.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from densekit.metrics.likelihood import Estimate
from densekit.metrics.rows import block_statistics, comparable_rows, distances, standard_error

_BLOCK = 1024


def energy_distance(X: Any, Y: Any, *, max_rows: int = 2000, random_state: Any = 0) -> Estimate:
    r"""Unbiased estimate of the squared energy distance between data and samples.

    .. math::  2 E|X - Y| - E|X - X'| - E|Y - Y'|

    with Euclidean norms. Its expectation is zero if both have the same distribution (the estimate may
    be negative) and positive otherwise. The standard error is that of the jackknife: accurate if the
    distributions differ, and up to :math:`\sqrt 2` times too large if they do not.

    Parameters
    ----------
    X, Y : arrays or DataFrames
        Data (n, ...) and samples (m, ...), at least 3 rows of each.
    max_rows : int
        Of more rows than this, so many are drawn: time grows with their square.
    random_state : int
        Seed of the draw.

    Returns
    -------
    estimate : Estimate
        In standard deviations of a column; smaller is better.

    Raises
    ------
    TypeError
        The rows are texts.
    ValueError
        Entries are missing or infinite, columns differ, or there are too few rows.

    References
    ----------
    Székely and Rizzo (2013), *Energy statistics: A class of statistics based on distances*,
    https://doi.org/10.1016/j.jspi.2013.03.018

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.normal(size=(2, 1000, 1))
    >>> bool(abs(energy_distance(x, y).value) < 0.01 < energy_distance(x, y + 1).value)
    True
    """
    name = "the energy distance"
    rows = comparable_rows(
        X, Y, name=name, min_rows=3, max_rows=max_rows, random_state=random_state
    )
    return Estimate(*_discrepancy(np.negative, rows.x, rows.y), "standard deviations")


def mmd(X: Any, Y: Any, *, max_rows: int = 2000, random_state: Any = 0) -> Estimate:
    r"""Unbiased estimate of the squared maximum mean discrepancy with a Gaussian kernel.

    .. math::  E k(X, X') + E k(Y, Y') - 2 E k(X, Y), \qquad k(x, y) = e^{-|x - y|^2 / 2 \sigma^2}

    :math:`\sigma` is the median distance between two rows of ``X``, computed from at most 1,000 rows, or
    the mean distance if more than half of the distances are zero. It depends on the data only, so all
    models of a data set are compared with one kernel. The expectation is zero if both have the same
    distribution, and at most 2. The standard error is that of :func:`energy_distance`.

    Parameters
    ----------
    X, Y, max_rows, random_state
        As in :func:`energy_distance`, with the same errors.

    Returns
    -------
    estimate : Estimate
        Dimensionless; smaller is better.

    References
    ----------
    Gretton et al. (2012), *A kernel two-sample test*, https://jmlr.org/papers/v13/gretton12a.html

    Examples
    --------
    >>> x, y = np.random.default_rng(0).normal(size=(2, 500, 3))
    >>> bool(abs(mmd(x, y).value) < 0.01 < mmd(x, 2 * y).value)
    True
    """
    rows = comparable_rows(
        X, Y, name="the MMD", min_rows=3, max_rows=max_rows, random_state=random_state
    )
    subset = rows.x[:: math.ceil(len(rows.x) / 1000)]
    pairwise = distances(subset, subset)[np.triu_indices(len(subset), 1)]
    sigma = float(np.median(pairwise)) or float(pairwise.mean()) or 1.0
    estimate = _discrepancy(lambda d: np.exp(-((d / sigma) ** 2) / 2), rows.x, rows.y)
    return Estimate(*estimate, "squared MMD")


def sliced_wasserstein(
    X: Any,
    Y: Any,
    *,
    p: int = 2,
    n_projections: int = 128,
    max_rows: int = 5000,
    random_state: Any = 0,
) -> Estimate:
    r"""Sliced Wasserstein distance of order 1 or 2 between data and samples.

    .. math::  \left( \frac{1}{L} \sum_{l=1}^L W_p^p(\theta_l^\top X, \theta_l^\top Y)
               \right)^{1/p}, \qquad
               W_p^p = \int_0^1 |F^{-1}(u) - G^{-1}(u)|^p \, du

    where F and G are the empirical distribution functions of the projected rows, whose numbers n and m
    may differ. The L directions are drawn from a fixed seed, in blocks of orthogonal directions. If
    p = 2 and L is a multiple of the number D of columns, the distance of a shift by :math:`s` is exactly
    :math:`|s| / \sqrt D`.

    The distance between two samples of one distribution is not zero: it falls as
    :math:`\sqrt{1/n + 1/m}`. Compare models with equal numbers of rows. The standard error uses batch
    means over rows with fixed directions.

    Parameters
    ----------
    X, Y, max_rows, random_state
        As in :func:`energy_distance`, with at least 4 rows of each.
    p : {1, 2}
        Order of the distance.
    n_projections : int
        Number L of directions, at least 1.

    Returns
    -------
    estimate : Estimate
        In standard deviations of a column; smaller is better.

    Raises
    ------
    TypeError, ValueError
        As in :func:`energy_distance`; also if ``p`` or ``n_projections`` is out of range.

    References
    ----------
    Bonneel et al. (2015), *Sliced and Radon Wasserstein barycenters of measures*,
    https://doi.org/10.1007/s10851-014-0506-3

    Rowland et al. (2019), *Orthogonal estimation of Wasserstein distances*,
    https://arxiv.org/abs/1903.03784

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(500, 2))
    >>> shift = np.array([3, 4]) * x.std(0)
    >>> round(sliced_wasserstein(x, x + shift).value, 6), round(5 / math.sqrt(2), 6)
    (3.535534, 3.535534)
    """
    if p not in (1, 2):
        raise ValueError(f"p={p}: the order is 1 or 2")
    if n_projections < 1:
        raise ValueError(f"n_projections={n_projections}: must be at least 1")
    name = "the sliced Wasserstein distance"
    rows = comparable_rows(
        X, Y, name=name, min_rows=4, max_rows=max_rows, random_state=random_state
    )
    theta = _directions(rows.x.shape[1], n_projections)
    x, y = rows.x @ theta, rows.y @ theta

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return _wasserstein(np.sort(x[a], 0), np.sort(y[b], 0), p)

    n, m = len(x), len(y)
    error = standard_error(block_statistics(distance, n, m))
    return Estimate(distance(np.arange(n), np.arange(m)), error, "standard deviations")


def two_sample_auc(X: Any, Y: Any, *, max_rows: int = 5000, random_state: Any = 0) -> Estimate:
    r"""Area under the ROC curve of a classifier that separates data from samples; 0.5 is the best value.

    This is a classifier two-sample test (C2ST) with a random forest. Out-of-bag predictions replace a
    test set. At 0.5 the forest cannot separate the rows of ``X`` from those of ``Y``; at 1 it always
    can. A value well below 0.5 means that samples are closer to the rows of ``X`` than independent rows
    would be, as when a model has memorized its training rows. Data and samples are reduced to equal
    numbers of rows. The standard error is that of Hanley and McNeil.

    Parameters
    ----------
    X, Y : arrays or DataFrames
        Data (n, ...) and samples (m, ...), at least 10 rows of each.
    max_rows : int
        Of more rows than this, so many are drawn.
    random_state : int
        Seed of the draw and of the forest.

    Returns
    -------
    estimate : Estimate
        Area under the curve, from 0 to 1.

    Raises
    ------
    TypeError, ValueError
        As in :func:`energy_distance`.

    References
    ----------
    Lopez-Paz and Oquab (2017), *Revisiting classifier two-sample tests*,
    https://arxiv.org/abs/1610.06545

    Hanley and McNeil (1982), *The meaning and use of the area under a receiver operating characteristic
    (ROC) curve*, https://doi.org/10.1148/radiology.143.1.7063747

    Examples
    --------
    >>> x = np.arange(50.0)[:, None]
    >>> two_sample_auc(x, x + 1000).value
    1.0
    """
    from scipy.stats import rankdata
    from sklearn.ensemble import RandomForestClassifier

    rows = comparable_rows(
        X, Y, name="the test", min_rows=10, max_rows=max_rows, random_state=random_state
    )
    n = min(len(rows.x), len(rows.y))
    # The larger sample is reduced at random, because its rows may be sorted.
    rng = np.random.default_rng(random_state)
    x, y = (matrix[rng.permutation(len(matrix))[:n]] for matrix in (rows.x, rows.y))
    forest = RandomForestClassifier(
        n_estimators=150, min_samples_leaf=3, oob_score=True, random_state=random_state
    )
    forest.fit(np.concatenate([x, y]), np.repeat([0, 1], n))
    rank = rankdata(forest.oob_decision_function_[:, 1])
    auc = (rank[n:].sum() - n * (n + 1) / 2) / n**2
    # Hanley and McNeil's variance assumes a Mann-Whitney statistic of exponential scores.
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (auc * (1 - auc) + (n - 1) * (q1 + q2 - 2 * auc**2)) / n**2
    return Estimate(float(auc), math.sqrt(max(variance, 0.0)), "AUC")


Kernel = Callable[[np.ndarray], np.ndarray]
"""Maps an array of distances to kernel values."""


def _discrepancy(kernel: Kernel, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """E k(X, X') + E k(Y, Y') - 2 E k(X, Y), without pairs of a row with itself, and its standard error.

    The standard error is that of the jackknife, whose n + m values follow from the sums over rows.
    """
    n, m = len(x), len(y)
    itself = float(kernel(np.zeros(1))[0])
    a, b = _sums(kernel, x, x)[0] - itself, _sums(kernel, y, y)[0] - itself
    c, d = _sums(kernel, x, y)

    def mean(a: Any, b: Any, c: Any, n: int, m: int) -> Any:
        return a / (n * (n - 1)) + b / (m * (m - 1)) - 2 * c / (n * m)

    without_x = mean(a.sum() - 2 * a, b.sum(), c.sum() - c, n - 1, m)
    without_y = mean(a.sum(), b.sum() - 2 * b, c.sum() - d, n, m - 1)
    variance = (n - 1) * without_x.var() + (m - 1) * without_y.var()
    return float(mean(a.sum(), b.sum(), c.sum(), n, m)), math.sqrt(variance)


def _sums(kernel: Kernel, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of the kernel matrix over its columns (n,) and over its rows (m,), computed in blocks."""
    rows, columns = np.empty(len(x)), np.zeros(len(y))
    for i in range(0, len(x), _BLOCK):
        block = kernel(distances(x[i : i + _BLOCK], y))
        rows[i : i + _BLOCK] = block.sum(1)
        columns += block.sum(0)
    return rows, columns


def _directions(width: int, n: int) -> np.ndarray:
    """Uniform unit vectors (width, n) from a fixed seed, orthogonal in blocks of ``width``."""
    rng = np.random.default_rng(0)
    blocks = []
    for i in range(0, n, width):
        q, r = np.linalg.qr(rng.normal(size=(width, min(width, n - i))))
        blocks.append(q * np.sign(np.diag(r)))  # Without the signs, directions are not uniform.
    return np.concatenate(blocks, 1)


def _wasserstein(x: np.ndarray, y: np.ndarray, p: int) -> float:
    """Sliced Wasserstein distance of sorted projections (n, L) and (m, L).

    Both quantile functions are constant between the multiples of 1/n and of 1/m, which are counted in
    units of 1/(nm).
    """
    n, m = len(x), len(y)
    cuts = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    weight = np.diff(cuts, prepend=0) / (n * m)
    gaps = np.abs(x[(cuts - 1) // m] - y[(cuts - 1) // n])
    return float((weight @ gaps**p).mean() ** (1 / p))
