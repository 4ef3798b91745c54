"""Save an estimator: the name of its class, plain values and arrays; `densekit.persistence` loads."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from densekit import files, probes
from densekit.params import check_parameters


def save(estimator: Any, path: str | Path) -> None:
    """Write a fitted estimator: what :meth:`~densekit.DensityEstimator.save` says."""
    check_is_fitted(estimator)
    check_parameters(estimator)
    kind = type(estimator)
    if getattr(sys.modules.get(kind.__module__), kind.__name__, None) is not kind:
        raise TypeError(
            f"{kind.__name__} cannot be found as {kind.__module__}.{kind.__name__}: a file holds "
            "the name of a class and no code, so define it at the top of a module"
        )
    names = estimator._names()
    state = dict(estimator.__getstate__())
    # Code and live generators do not travel: such parameters fall back to their default.
    left_out = (np.random.RandomState, np.random.Generator)
    parameters = {
        k: v
        for k, v in state.items()
        if k in names and k != "callbacks" and not isinstance(v, left_out) and not callable(v)
    }
    # What the weights were built with: load must be given it, so the file says what it was.
    built: dict[str, Any] = state.get("built_with_", {})
    functions = {k: _name_of(v) for k, v in built.items() if callable(v)}
    if functions:
        state["built_with_"] = {k: v for k, v in built.items() if k not in functions}
    content = {
        "class": kind.__name__,
        "module": kind.__module__,
        "parameters": parameters,
        "fitted": {k: v for k, v in state.items() if k not in names and not k.startswith("_")},
        "functions": functions,
        "schema_hash": files.digest(estimator.schema_),
        "probe": probes.make(estimator),
    }
    files.write(path, content)


def _name_of(function: Any) -> str:
    """Where a function is defined; of another callable, its class."""
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"
