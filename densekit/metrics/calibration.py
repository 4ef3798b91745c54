r"""Calibration: tests whether data and a model's own samples are exchangeable.

If the model is correct, a row of the data and a row of the samples have the same distribution, and so
does any statistic of a row. The rank of a data row's statistic among those of the samples is then
uniform. The metrics of this module measure the deviation from uniform by the Kolmogorov distance

.. math::  \sup_t \left| \frac{\#\{i : x_i \le t\}}{n} - \frac{\#\{j : y_j \le t\}}{m} \right|.

It is at most 1. For a correct model its mean is about :math:`0.87 \sqrt{1/n + 1/m}` with n rows of
data and m samples. The p-value is the probability of a larger distance under a correct model. Ties, as
in discrete columns, can only make the p-value too large.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from densekit.metrics.likelihood import Estimate
from densekit.metrics.rows import (
    ComparableRows,
    block_statistics,
    comparable_rows,
    standard_error,
)


@dataclass(frozen=True)
class Calibration(Estimate):
    """A Kolmogorov distance with its standard error and p-value."""

    p_value: float
    """Probability of a larger distance under a correct model."""


def pit_calibration(X: Any, Y: Any, *, max_rows: int = 2000, random_state: Any = 0) -> Calibration:
    """Mean over columns of the Kolmogorov distance of the probability integral transform.

    The transform of an entry is its rank among the samples' entries in the same column. The metric
    measures the marginals and ignores dependence between columns. The distance of a nominal column is
    the largest difference between the shares of a level. The p-value is the smallest p-value of any
    column times the number of columns (Bonferroni), at most 1. :func:`pit_distances` returns the
    distance of each column.

    Parameters
    ----------
    X, Y : arrays or DataFrames
        Data (n, ...) and samples (m, ...), at least 10 rows of each.
    max_rows : int
        Of more rows than this, so many are drawn without replacement.
    random_state : int
        Seed of the draw.

    Returns
    -------
    calibration : Calibration
        From 0 to 1; smaller is better.

    Raises
    ------
    TypeError
        The rows are texts.
    ValueError
        Entries are missing or infinite, columns differ, or there are too few rows.

    References
    ----------
    Gneiting, Balabdaoui and Raftery (2007), *Probabilistic forecasts, calibration and sharpness*,
    https://doi.org/10.1111/j.1467-9868.2007.00587.x

    Examples
    --------
    >>> x, y = np.random.default_rng(0).normal(size=(2, 500, 3))
    >>> pit_calibration(x, y).p_value > 0.01 > pit_calibration(x, y + [0, 0.5, 0]).p_value
    True
    """
    rows = comparable_rows(
        X, Y, name="PIT", min_rows=10, max_rows=max_rows, random_state=random_state
    )
    return _calibration(rows)


def pit_distances(
    X: Any, Y: Any, *, max_rows: int = 2000, random_state: Any = 0
) -> dict[str | int, float]:
    """Kolmogorov distance of the probability integral transform of each column.

    :func:`pit_calibration` is their mean and documents the parameters and errors.

    Returns
    -------
    distances : dict of str or int to float
        The distance of each column, by its name or, for an array, its index.

    Examples
    --------
    >>> x = np.arange(10.0)
    >>> pit_distances(np.stack([x, x], 1), np.stack([x, x + 5], 1))
    {0: 0.0, 1: 0.5}
    """
    rows = comparable_rows(
        X, Y, name="PIT", min_rows=10, max_rows=max_rows, random_state=random_state
    )
    by_column = _max_by_column(_kolmogorov_distances(rows.x, rows.y), rows.source_column)
    return dict(zip(rows.labels, by_column.tolist(), strict=True))


def hpd_calibration(scores_of_data: ArrayLike, scores_of_samples: ArrayLike) -> Calibration:
    r"""Kolmogorov distance between the scores of the data and of the model's own samples.

    The mass of the highest-density region :math:`\{x : \log p(x) \ge t\}` is the share of samples
    whose score is at least t. Under a correct model the same share of the data has such a score. The
    data score too low under a model that is too narrow, and too high under one that is too wide.
    Scores may be bounds or estimates, if data and samples are scored in the same way. The metric
    cannot detect errors of a uniform density, whose scores are all equal.

    Parameters
    ----------
    scores_of_data, scores_of_samples : arrays of shape (n,) and (m,)
        Log-densities in nats under one model; -inf is allowed. At least 10 of each.

    Returns
    -------
    calibration : Calibration
        From 0 to 1; smaller is better.

    Raises
    ------
    ValueError
        Scores have another shape, are too few, or contain NaN.

    References
    ----------
    Hyndman (1996), *Computing and graphing highest density regions*,
    https://doi.org/10.1080/00031305.1996.10474359

    Examples
    --------
    >>> from scipy.stats import norm
    >>> x, y = np.random.default_rng(0).normal(size=(2, 1000))
    >>> narrow = norm(scale=0.7)
    >>> hpd_calibration(norm.logpdf(x), norm.logpdf(y)).p_value > 0.01
    True
    >>> hpd_calibration(narrow.logpdf(x), narrow.logpdf(0.7 * y)).p_value < 1e-6
    True
    """
    x = _score_column("scores_of_data", scores_of_data)
    y = _score_column("scores_of_samples", scores_of_samples)
    return _calibration(ComparableRows(x, y, ["score"], np.zeros(1, int)))


def _calibration(rows: ComparableRows) -> Calibration:
    from scipy.stats import kstwo

    n, m = len(rows.x), len(rows.y)

    def mean_distance(a: np.ndarray, b: np.ndarray) -> float:
        distances = _kolmogorov_distances(rows.x[a], rows.y[b])
        return float(_max_by_column(distances, rows.source_column).mean())

    distances = _kolmogorov_distances(rows.x, rows.y)
    p_value = min(1.0, len(distances) * float(kstwo.sf(distances.max(), round(n * m / (n + m)))))
    value = float(_max_by_column(distances, rows.source_column).mean())
    error = standard_error(block_statistics(mean_distance, n, m))
    return Calibration(value, error, "Kolmogorov distance", p_value)


def _kolmogorov_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Kolmogorov distance of each column of ``x`` (n, D) and ``y`` (m, D), shape (D,)."""
    joint = np.concatenate([x, y])
    order = joint.argsort(0, kind="stable")
    joint = np.take_along_axis(joint, order, 0)
    # Within a run of equal values the distribution functions jump: compare them at its end.
    ends = np.ones(joint.shape, bool)
    ends[:-1] = joint[1:] != joint[:-1]
    step = np.repeat([1 / len(x), -1 / len(y)], [len(x), len(y)])
    largest = np.max(np.abs(step[order].cumsum(0)), axis=0, where=ends, initial=0.0)
    return np.minimum(largest, 1.0)  # Rounding can exceed 1.


def _max_by_column(distances: np.ndarray, source_column: np.ndarray) -> np.ndarray:
    """The largest distance of each user's column; a nominal column has one indicator per level."""
    return np.maximum.reduceat(distances, np.flatnonzero(np.diff(source_column, prepend=-1)))


def _score_column(name: str, scores: ArrayLike) -> np.ndarray:
    """Scores as a column (n, 1); raises ValueError for another shape, too few scores or NaN."""
    logp = np.asarray(scores, float)
    if logp.ndim != 1 or len(logp) < 10:
        raise ValueError(f"{name} has shape {logp.shape}: must be (n,), n >= 10")
    if np.isnan(logp).any():
        row = int(np.flatnonzero(np.isnan(logp))[0])
        raise ValueError(f"{name}[{row}] is NaN: a log-density is a number or -inf")
    return logp[:, None]
