"""How close samples are to data, for models with a density and without one alike.

Rows are compared in the units that :mod:`densekit.metrics.rows` gives them, images by their pixels
(and not by the features of a network, as the figures in papers on large images are). Above
``max_rows`` rows, that many are drawn without replacement, by ``random_state``.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from densekit.metrics.likelihood import Estimate
from densekit.metrics.rows import batches, distances, pair, standard_error

_BLOCK = 1024


def energy_distance(X: Any, Y: Any, *, max_rows: int = 2000, random_state: Any = 0) -> Estimate:
    r"""Squared energy distance of two samples (Szekely and Rizzo 2004), unbiased.

    .. math::  2 E|X - Y| - E|X - X'| - E|Y - Y'|

    with Euclidean norms. It is zero in expectation where both come from one distribution (a
    sample's value may be negative) and positive elsewhere. The standard error is the jackknife's:
    right where the two differ, and up to :math:`\sqrt 2` too large where they do not.

    Parameters
    ----------
    X, Y : arrays or DataFrames
        Data (n, ...) and samples (m, ...), n and m at least 3.
    max_rows : int
        Rows taken of each at most: time grows with their square.
    random_state : int
        Seed of that choice.

    Raises
    ------
    TypeError, ValueError
        Texts, missing or infinite entries, columns that differ, too few rows.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.normal(size=(2, 1000, 1))
    >>> bool(abs(energy_distance(x, y).value) < 0.01 < energy_distance(x, y + 1).value)
    True
    """
    name = "the energy distance"
    both = pair(X, Y, name=name, at_least=3, at_most=max_rows, random_state=random_state)
    found = _discrepancy(np.negative, both.x, both.y)
    return Estimate(*found, "standard deviations")


def mmd(X: Any, Y: Any, *, max_rows: int = 2000, random_state: Any = 0) -> Estimate:
    r"""Squared maximum mean discrepancy (Gretton et al. 2012), unbiased.

    .. math::  E k(X, X') + E k(Y, Y') - 2 E k(X, Y), \qquad k(x, y) = e^{-|x - y|^2 / 2 \sigma^2}

    :math:`\sigma` is the median distance between two rows of ``X`` (of 1,000 at most; the mean
    where more than half of the distances are zero), so that all models of one data set are judged
    by one kernel. Zero in expectation where both come from one distribution, at most 2. The
    standard error is that of :func:`energy_distance`.

    Parameters
    ----------
    X, Y, max_rows, random_state
        As in :func:`energy_distance`.

    Examples
    --------
    >>> x, y = np.random.default_rng(0).normal(size=(2, 500, 3))
    >>> bool(abs(mmd(x, y).value) < 0.01 < mmd(x, 2 * y).value)
    True
    """
    both = pair(X, Y, name="the MMD", at_least=3, at_most=max_rows, random_state=random_state)
    some = both.x[:: math.ceil(len(both.x) / 1000)]
    apart = distances(some, some)[np.triu_indices(len(some), 1)]
    sigma = float(np.median(apart)) or float(apart.mean()) or 1.0
    found = _discrepancy(lambda d: np.exp(-((d / sigma) ** 2) / 2), both.x, both.y)
    return Estimate(*found, "squared MMD")


def sliced_wasserstein(
    X: Any,
    Y: Any,
    *,
    p: int = 2,
    n_projections: int = 128,
    max_rows: int = 5000,
    random_state: Any = 0,
) -> Estimate:
    r"""Sliced Wasserstein distance of order 1 or 2 (Bonneel et al. 2015).

    .. math::  \left( \frac{1}{L} \sum_{l=1}^L W_p^p(\theta_l^\top X, \theta_l^\top Y)
               \right)^{1/p}, \qquad
               W_p^p = \int_0^1 |F^{-1}(u) - G^{-1}(u)|^p \, du

    with the empirical quantile functions of the projected rows, which may differ in number. The L
    directions are drawn from a fixed seed, in blocks of orthogonal ones (Rowland et al. 2019), so
    that a shift by :math:`s` in D columns costs :math:`|s| / \sqrt D` exactly where p = 2 and D
    divides L.

    The empirical distance of two samples of one distribution is not zero: it falls as
    :math:`\sqrt{1/n + 1/m}`, so compare models by equal numbers of rows. The standard error is that of
    batch means over rows, with the directions as they are.

    Parameters
    ----------
    X, Y, max_rows, random_state
        As in :func:`energy_distance`.
    p : 1 or 2
        Order.
    n_projections : int
        L, at least 1.

    Raises
    ------
    TypeError, ValueError
        As :func:`energy_distance`; another ``p``, no projections.

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
    both = pair(X, Y, name=name, at_least=4, at_most=max_rows, random_state=random_state)
    theta = _directions(both.x.shape[1], n_projections)
    x, y = both.x @ theta, both.y @ theta

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return _wasserstein(np.sort(x[a], 0), np.sort(y[b], 0), p)

    n, m = len(x), len(y)
    error = standard_error(batches(distance, n, m))
    return Estimate(distance(np.arange(n), np.arange(m)), error, "standard deviations")


def two_sample_auc(X: Any, Y: Any, *, max_rows: int = 5000, random_state: Any = 0) -> Estimate:
    r"""Area under the ROC curve of a classifier that tells data from samples: 0.5 is the best.

    A random forest is trained to tell rows of ``X`` from rows of ``Y``; each row is judged by the
    trees that did not see it (Lopez-Paz and Oquab 2017, with out-of-bag rows in place of a test
    part). 0.5: it cannot tell them apart; 1: it always can; well below 0.5: the samples lie nearer
    to the rows of ``X`` than other such rows do, as where the model has learned these rows by heart.
    As many rows are taken of each as the smaller has. The standard error is that of Hanley and
    McNeil 1982.

    Parameters
    ----------
    X, Y : arrays or DataFrames
        Data (n, ...) and samples (m, ...), at least 10 of each.
    max_rows : int
        Rows taken of each at most.
    random_state : int
        Seed of that choice and of the forest.

    Examples
    --------
    >>> x = np.arange(50.0)[:, None]
    >>> two_sample_auc(x, x + 1000).value
    1.0
    """
    from scipy.stats import rankdata
    from sklearn.ensemble import RandomForestClassifier

    both = pair(X, Y, name="the test", at_least=10, at_most=max_rows, random_state=random_state)
    n = min(len(both.x), len(both.y))
    # Any n rows of the larger, and not the first: data may come sorted.
    rng = np.random.default_rng(random_state)
    x, y = (rows[rng.permutation(len(rows))[:n]] for rows in (both.x, both.y))
    forest = RandomForestClassifier(
        n_estimators=150, min_samples_leaf=3, oob_score=True, random_state=random_state
    )
    forest.fit(np.concatenate([x, y]), np.repeat([0, 1], n))
    rank = rankdata(forest.oob_decision_function_[:, 1])
    auc = (rank[n:].sum() - n * (n + 1) / 2) / n**2
    # Hanley and McNeil's variance: that of a Mann-Whitney statistic of exponential scores.
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (auc * (1 - auc) + (n - 1) * (q1 + q2 - 2 * auc**2)) / n**2
    return Estimate(float(auc), math.sqrt(max(variance, 0.0)), "AUC")


Kernel = Callable[[np.ndarray], np.ndarray]
"""A kernel as a function of distances."""


def _discrepancy(kernel: Kernel, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """E k(X, X') + E k(Y, Y') - 2 E k(X, Y) without the pairs of a row with itself, and its
    standard error: the jackknife, whose n + m values follow from the sums over rows."""
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
    """Sums of the kernel's matrix over its columns (n,) and rows (m,), a block at a time."""
    rows, columns = np.empty(len(x)), np.zeros(len(y))
    for i in range(0, len(x), _BLOCK):
        block = kernel(distances(x[i : i + _BLOCK], y))
        rows[i : i + _BLOCK] = block.sum(1)
        columns += block.sum(0)
    return rows, columns


def _directions(width: int, n: int) -> np.ndarray:
    """(width, n) unit vectors from a fixed seed, uniform, orthogonal in blocks of ``width``."""
    rng = np.random.default_rng(0)
    blocks = []
    for i in range(0, n, width):
        q, r = np.linalg.qr(rng.normal(size=(width, min(width, n - i))))
        blocks.append(q * np.sign(np.diag(r)))  # without the signs it is not uniform
    return np.concatenate(blocks, 1)


def _wasserstein(x: np.ndarray, y: np.ndarray, p: int) -> float:
    """Of sorted columns (n, L) and (m, L): both quantile functions are constant between the
    multiples of 1/n and of 1/m, here counted in units of 1/(nm)."""
    n, m = len(x), len(y)
    cuts = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    weight = np.diff(cuts, prepend=0) / (n * m)
    gaps = np.abs(x[(cuts - 1) // m] - y[(cuts - 1) // n])
    return float((weight @ gaps**p).mean() ** (1 / p))
