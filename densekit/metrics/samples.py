"""How close samples are to data, for models with a density and without one alike."""

import math
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist
from scipy.stats import rankdata

from densekit.metrics.likelihood import Estimate


def energy_distance(X: Any, Y: Any) -> float:
    r"""Squared energy distance of two samples (Szekely and Rizzo 2004), unbiased.

    .. math::  2 E|X - Y| - E|X - X'| - E|Y - Y'|

    with Euclidean norms after each column was divided by its standard deviation in ``X``. It is
    zero in expectation where both come from one distribution (a sample's value may be negative)
    and positive elsewhere.

    Parameters
    ----------
    X, Y : arrays or DataFrames
        Data (n, ...) and samples (m, ...), n and m at least 2. Rows are flattened; columns that
        are not numbers count as codes.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.normal(size=(2, 1000, 1))
    >>> bool(abs(energy_distance(x, y)) < 0.01 < energy_distance(x, y + 1))
    True
    """
    x, y = _matrices(X, Y)
    scale = x.std(0)
    scale[scale == 0] = 1
    x, y = x / scale, y / scale
    n, m = len(x), len(y)
    if min(n, m) < 2:
        raise ValueError(f"X has {n} rows and Y {m}: the energy distance needs 2 of each")
    cross = _sum_of_distances(x, y) / (n * m)
    within_x = _sum_of_distances(x, x) / (n * (n - 1))
    within_y = _sum_of_distances(y, y) / (m * (m - 1))
    return 2 * cross - within_x - within_y


def two_sample_auc(X: Any, Y: Any, *, random_state: Any = 0) -> Estimate:
    r"""Area under the ROC curve of a classifier that tells data from samples: 0.5 is the best.

    A random forest is trained to tell rows of ``X`` from rows of ``Y``; each row is judged by the
    trees that did not see it (Lopez-Paz and Oquab 2017, with out-of-bag rows in place of a test
    part). 0.5: it cannot tell them apart; 1: it always can. As many rows are taken of each as the
    smaller has. The standard error is that of Hanley and McNeil 1982.

    Parameters
    ----------
    X, Y : arrays or DataFrames
        Data (n, ...) and samples (m, ...), at least 10 of each.
    random_state : int
        Seed of the forest.

    Examples
    --------
    >>> x = np.arange(50.0)[:, None]
    >>> two_sample_auc(x, x + 1000).value
    1.0
    """
    from sklearn.ensemble import RandomForestClassifier

    x, y = _matrices(X, Y)
    n = min(len(x), len(y))
    if n < 10:
        raise ValueError(f"X has {len(x)} rows and Y {len(y)}: the test needs 10 of each")
    forest = RandomForestClassifier(
        n_estimators=150, min_samples_leaf=3, oob_score=True, random_state=random_state
    )
    forest.fit(np.concatenate([x[:n], y[:n]]), np.repeat([0, 1], n))
    rank = rankdata(forest.oob_decision_function_[:, 1])
    auc = (rank[n:].sum() - n * (n + 1) / 2) / n**2
    # Hanley and McNeil's variance: that of a Mann-Whitney statistic of exponential scores.
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (auc * (1 - auc) + (n - 1) * (q1 + q2 - 2 * auc**2)) / n**2
    return Estimate(float(auc), math.sqrt(max(variance, 0.0)), "AUC")


def _sum_of_distances(x: np.ndarray, y: np.ndarray) -> float:
    return sum(float(cdist(x[i : i + 1024], y).sum()) for i in range(0, len(x), 1024))


def _matrices(X: Any, Y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both as float matrices; what is not a number becomes a code, the same in both."""
    if isinstance(X, pd.DataFrame):
        both = pd.concat([X, Y[X.columns]], ignore_index=True)
        columns = [_numbers(both[name]) for name in both.columns]
        joint = np.stack(columns, 1)
        x, y = joint[: len(X)], joint[len(X) :]
    else:
        x, y = (np.asarray(a, float).reshape(len(a), -1) for a in (X, Y))
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"rows of X have {x.shape[1]} entries and rows of Y {y.shape[1]}")
    for name, rows in (("X", x), ("Y", y)):
        if not np.isfinite(rows).all():
            raise ValueError(f"{name} has NaN or infinite entries: leave those rows out")
    return x, y


def _numbers(column: pd.Series) -> np.ndarray:
    if pd.api.types.is_numeric_dtype(column.dtype):
        return column.to_numpy(float)
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return column.astype("int64").to_numpy(float)
    return pd.factorize(column, sort=True)[0].astype(float)
