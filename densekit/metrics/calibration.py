r"""Whether data and a model's own samples are exchangeable, one number a row at a time.

If the model is the truth, a row of the data and a row of the samples have the same law, and so has
every number computed from them alike: the rank of the data's number among the samples' is uniform.
Measured is how far it is from uniform, by Kolmogorov's distance

.. math::  \sup_t \left| \frac{\#\{i : x_i \le t\}}{n} - \frac{\#\{j : y_j \le t\}}{m} \right|,

0 for the truth with infinitely many rows and about :math:`0.87 \sqrt{1/n + 1/m}` for the truth with
n and m; at most 1. The p-value says whether it is more than that. Ties (discrete columns) are handled
by the distance and make the p-value too large, never too small.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from densekit.metrics.likelihood import Estimate
from densekit.metrics.rows import Pair, batches, pair, standard_error


@dataclass(frozen=True)
class Calibration(Estimate):
    """A Kolmogorov distance and the probability that the truth shows a larger one."""

    p_value: float


def pit_calibration(X: Any, Y: Any, *, max_rows: int = 2000, random_state: Any = 0) -> Calibration:
    """Kolmogorov distance of the probability integral transform of each column, mean of columns.

    The transform of an entry is its rank among the samples' entries of its column (Gneiting,
    Balabdaoui and Raftery 2007). It sees the margins and not what joins them. The distance of a
    nominal column is the largest difference of the shares of a level. The p-value is that of the
    worst column, times the number of columns (Bonferroni), at most 1; :func:`pit_distances` tells
    which columns are wrong.

    Parameters
    ----------
    X, Y : arrays or DataFrames
        Data (n, ...) and samples (m, ...), at least 10 of each.
    max_rows : int
        Rows taken of each at most.
    random_state : int
        Seed of that choice.

    Raises
    ------
    TypeError, ValueError
        Texts, missing or infinite entries, columns that differ, too few rows.

    Examples
    --------
    >>> x, y = np.random.default_rng(0).normal(size=(2, 500, 3))
    >>> pit_calibration(x, y).p_value > 0.01 > pit_calibration(x, y + [0, 0.5, 0]).p_value
    True
    """
    both = pair(X, Y, name="PIT", at_least=10, at_most=max_rows, random_state=random_state)
    return _calibration(both)


def pit_distances(
    X: Any, Y: Any, *, max_rows: int = 2000, random_state: Any = 0
) -> dict[str | int, float]:
    """The Kolmogorov distances that :func:`pit_calibration` is the mean of, by column.

    Examples
    --------
    >>> x = np.arange(10.0)
    >>> pit_distances(np.stack([x, x], 1), np.stack([x, x + 5], 1))
    {0: 0.0, 1: 0.5}
    """
    both = pair(X, Y, name="PIT", at_least=10, at_most=max_rows, random_state=random_state)
    found = _by_label(_distances(both.x, both.y), both.owner)
    return dict(zip(both.labels, found.tolist(), strict=True))


def hpd_calibration(scores_of_data: ArrayLike, scores_of_samples: ArrayLike) -> Calibration:
    r"""Whether highest-density regions hold the mass that they should.

    The region :math:`\{x : \log p(x) \ge t\}` has as much mass as the samples have scores of at
    least t (Hyndman 1996); it should hold the same share of the data. So the rank of a data row's
    score among the scores of the model's own samples is uniform for the truth. Data score too low
    under a model that is too narrow, too high under one that is too wide. Scores need not be
    exact: bounds and estimates are exchangeable too, if data and samples are scored alike. A
    uniform density has one score for all and shows nothing.

    Parameters
    ----------
    scores_of_data, scores_of_samples : arrays of shape (n,) and (m,)
        Log-densities under one model; -inf is allowed. At least 10 of each.

    Raises
    ------
    ValueError
        Other shapes, too few, NaN.

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
    x = _checked("scores_of_data", scores_of_data)
    y = _checked("scores_of_samples", scores_of_samples)
    return _calibration(Pair(x, y, ["score"], np.zeros(1, int)))


def _calibration(both: Pair) -> Calibration:
    from scipy.stats import kstwo

    n, m = len(both.x), len(both.y)

    def mean(a: np.ndarray, b: np.ndarray) -> float:
        return float(_by_label(_distances(both.x[a], both.y[b]), both.owner).mean())

    found = _distances(both.x, both.y)
    p_value = min(1.0, len(found) * float(kstwo.sf(found.max(), round(n * m / (n + m)))))
    value = float(_by_label(found, both.owner).mean())
    error = standard_error(batches(mean, n, m))
    return Calibration(value, error, "Kolmogorov distance", p_value)


def _distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Kolmogorov's, of all columns at once."""
    joint = np.concatenate([x, y])
    order = joint.argsort(0, kind="stable")
    joint = np.take_along_axis(joint, order, 0)
    # The distribution functions are compared where a run of equal values ends.
    ends = np.ones(joint.shape, bool)
    ends[:-1] = joint[1:] != joint[:-1]
    step = np.repeat([1 / len(x), -1 / len(y)], [len(x), len(y)])
    found = np.max(np.abs(step[order].cumsum(0)), axis=0, where=ends, initial=0.0)
    return np.minimum(found, 1.0)  # rounding


def _by_label(distances: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """The largest of each column that the user gave: a nominal one has an indicator a level."""
    return np.maximum.reduceat(distances, np.flatnonzero(np.diff(owner, prepend=-1)))


def _checked(name: str, scores: ArrayLike) -> np.ndarray:
    logp = np.asarray(scores, float)
    if logp.ndim != 1 or len(logp) < 10:
        raise ValueError(f"{name} has shape {logp.shape}: must be (n,), n >= 10")
    if np.isnan(logp).any():
        row = int(np.flatnonzero(np.isnan(logp))[0])
        raise ValueError(f"{name}[{row}] is NaN: a log-density is a number or -inf")
    return logp[:, None]
