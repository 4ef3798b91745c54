"""Estimators that are not densekit's: what they lack of the contract is filled in or left unsaid.

The benchmark calls the functions here with any estimator that has ``fit``, ``score_samples`` and
``sample``, in scikit-learn's manner. Images reach a foreign estimator as flat rows of float64.
"""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from densekit.base import DensityEstimator


def rows_for(estimator: Any, rows: Any) -> Any:
    """``rows`` as ``estimator`` takes them."""
    if isinstance(estimator, DensityEstimator) or getattr(rows, "ndim", 2) <= 2:
        return rows
    return np.asarray(rows, float).reshape(len(rows), -1)


def scores(estimator: Any, rows: Any) -> tuple[np.ndarray, np.ndarray]:
    """Log-densities and their standard errors; zeros where the estimator has none to give."""
    rows = rows_for(estimator, rows)
    if _takes(estimator.score_samples, "return_std"):
        found, errors = estimator.score_samples(rows, return_std=True)
        return np.asarray(found, float), np.asarray(errors, float)
    found = np.asarray(estimator.score_samples(rows), float)
    return found, np.zeros_like(found)


def draw(estimator: Any, n: int, seed: int, like: Any) -> Any:
    """``n`` rows drawn from the model, in the shape and type of ``like``."""
    given = {"random_state": seed} if _takes(estimator.sample, "random_state") else {}
    rows = estimator.sample(n, **given)
    # scikit-learn's mixtures return the component of each row too.
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
    """Density kind and base measure of its scores, "unstated" from those that do not say; the measure of
    each column, in words, from those that do. None without a density."""
    if not hasattr(estimator, "score_samples"):
        return None
    word = getattr(estimator, "base_measure_", "unstated")
    found = {"kind": getattr(estimator, "density_kind_", "unstated"), "base_measure": word}
    measure = getattr(estimator, "measure_", None)
    if measure is not None:
        found |= {"measure": str(measure), "measure_in_brief": getattr(measure, "in_brief", word)}
    return found


def _takes(method: Callable[..., Any], name: str) -> bool:
    return name in inspect.signature(method).parameters
