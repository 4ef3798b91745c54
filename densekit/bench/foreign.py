"""Support for third-party estimators in benchmarks.

An estimator needs only ``fit``, ``sample`` and, for a density, ``score_samples`` with scikit-learn's
conventions. These functions supply defaults for the rest. Third-party estimators get images as flat rows
of float64.
"""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from densekit.base import DensityEstimator


def rows_for(estimator: Any, rows: Any) -> Any:
    """``rows`` in the form that ``estimator`` accepts: images are flattened for third parties."""
    if isinstance(estimator, DensityEstimator) or getattr(rows, "ndim", 2) <= 2:
        return rows
    return np.asarray(rows, float).reshape(len(rows), -1)


def scores(estimator: Any, rows: Any) -> tuple[np.ndarray, np.ndarray]:
    """Log-densities and their standard errors, which are zeros if the estimator returns none."""
    rows = rows_for(estimator, rows)
    if _takes(estimator.score_samples, "return_std"):
        logp, errors = estimator.score_samples(rows, return_std=True)
        return np.asarray(logp, float), np.asarray(errors, float)
    logp = np.asarray(estimator.score_samples(rows), float)
    return logp, np.zeros_like(logp)


def draw(estimator: Any, n: int, seed: int, like: Any) -> Any:
    """``n`` rows drawn from the model, in the shape and type of ``like``."""
    options = {"random_state": seed} if _takes(estimator.sample, "random_state") else {}
    rows = estimator.sample(n, **options)
    # The mixtures of scikit-learn also return the component of each row.
    rows = rows[0] if isinstance(rows, tuple) else rows
    shape = getattr(like, "shape", ())
    if isinstance(estimator, DensityEstimator):
        return rows
    if len(shape) > 2:
        return np.asarray(rows).reshape(-1, *shape[1:])
    if hasattr(like, "columns") and not hasattr(rows, "columns"):
        import pandas as pd

        return pd.DataFrame(rows, columns=like.columns)
    return rows


def kind_and_measure(estimator: Any) -> dict[str, str] | None:
    """Density kind and measure of the scores, as in a record; None without a density.

    The kind and the base measure of an estimator that does not state them are "unstated".
    """
    if not hasattr(estimator, "score_samples"):
        return None
    base = getattr(estimator, "base_measure_", "unstated")
    values = {"kind": getattr(estimator, "density_kind_", "unstated"), "base_measure": base}
    measure = getattr(estimator, "measure_", None)
    if measure is not None:
        values |= {"measure": str(measure), "measure_in_brief": getattr(measure, "in_brief", base)}
    return values


def _takes(method: Callable[..., Any], name: str) -> bool:
    return name in inspect.signature(method).parameters
