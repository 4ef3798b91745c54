"""Save an estimator as the name of its class, plain values and arrays.

:mod:`densekit.persistence` loads the files."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from densekit import files, probes
from densekit.params import check_parameters


def in_row_order(attributes: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the arrays among fitted attributes, with the last axis contiguous in memory.

    A file restores arrays in this order. Matrix products of the other order may round differently, so
    that a loaded estimator would not score the same bits.

    Examples
    --------
    >>> arrays = in_row_order({"scale_tril_": np.zeros((3, 2), order="F"), "n_features_in_": 2})
    >>> arrays["scale_tril_"].strides
    (16, 8)
    """
    return {
        name: np.asarray(value, order="C")
        for name, value in attributes.items()
        if name.endswith("_") and isinstance(value, np.ndarray)
    }


def save(estimator: Any, path: str | Path) -> None:
    """Write a fitted estimator to a file; see :meth:`densekit.DensityEstimator.save`."""
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
    # Files hold no code and no generators: such parameters are loaded with their defaults.
    generators = (np.random.RandomState, np.random.Generator)
    parameters = {
        k: v
        for k, v in state.items()
        if k in names and k != "callbacks" and not isinstance(v, generators) and not callable(v)
    }
    # Functions that the network was built with must be passed to load: the file names them.
    built_with: dict[str, Any] = state.get("built_with_", {})
    functions = {k: _name_of(v) for k, v in built_with.items() if callable(v)}
    if functions:
        state["built_with_"] = {k: v for k, v in built_with.items() if k not in functions}
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
    """Qualified name of a function, or of the class of another callable."""
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"
