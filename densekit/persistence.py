"""Load a saved estimator: its class by name, with plain values and arrays as attributes.

Loading runs no code of the file, unpickles nothing, and imports a module that the file names only if the
caller allows it. :mod:`densekit.files` defines the format, :mod:`densekit.guard` validates the contents,
and :mod:`densekit.probes` compares the scores of a few stored rows.

**Compatibility.** A release reads the files of every earlier release and reproduces their scores within
a relative 1e-3 (``dtype="float32"``) or 1e-6 (float64), since rounding differs between processors and
libraries. Draws at a fixed seed may differ, as between releases of torch. A file of a newer format is
rejected by its format number, since guessing could give wrong scores. The number rises when older
releases cannot read newer files. A new hyper-parameter gets its default when an older file is loaded.
Format 1 was never released. The saved models in ``tests/golden`` test this promise.
"""

import importlib
import inspect
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from densekit import files, guard, probes
from densekit.budget import Budget
from densekit.codecs import legacy
from densekit.codecs.state import check_finite
from densekit.params import check_parameters
from densekit.runtime import resolve_device

if TYPE_CHECKING:
    from densekit.base import DensityEstimator


_RENAMED_PARAMETERS = {"dequantisation_draws": "dequantization_draws"}
"""Names of parameters in older files, and their current names."""
_RENAMED_WEIGHTS = {"colour": "color"}
"""Last parts of the names of weights in older files, and their current names."""


def load(
    path: str | Path,
    device: str = "auto",
    allow: Collection[str] = (),
    parameters: Mapping[str, Callable[..., Any]] | None = None,
) -> "DensityEstimator":
    """Read an estimator that :meth:`~densekit.DensityEstimator.save` wrote.

    The file is validated first: its digest, the hash of its schema, hyper-parameters and shapes (before
    memory is allocated for them), and its probe rows, whose scores on the CPU must equal the stored
    ones.

    Parameters
    ----------
    path : str or Path
    device : str
        Device of the loaded model, which need not be the one that it was fitted on.
    allow : collection of str
        Names of modules, such as ``("my_models",)``, whose estimators may be loaded too. A module
        is imported, which runs its code, only if the file names it and it is listed here.
    parameters : mapping of str to callable, optional
        Functions that the model was built with, by hyper-parameter, such as
        ``{"transforms": factory}`` for a ``TransformFlow``, since a file holds no code. Other functions
        than those of the saved model are detected by shapes of weights and by the probe rows.

    Raises
    ------
    FileNotFoundError
        The file does not exist.
    ValueError
        The file is not a densekit file, is damaged, has an unknown format, or holds a class that is
        not allowed; or ``parameters`` are missing or are not in the file.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from densekit import Gaussian, load
    >>> est = Gaussian().fit(np.random.default_rng(0).normal(size=(50, 2)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     est.save(folder + "/gaussian.densekit")
    ...     again = load(folder + "/gaussian.densekit")
    >>> bool(again.score(np.zeros((1, 2))) == est.score(np.zeros((1, 2))))
    True
    """
    if isinstance(allow, str):
        raise TypeError(f"allow={allow!r} must be a collection of module names: ({allow!r},)")
    target = str(resolve_device(device))
    content = files.read(path)
    kind = _estimator_class(path, content["class"], content["module"], allow)
    given = dict(parameters or {})
    with files.refusing(path):
        _check_given(path, given, content.get("functions", {}))
        try:
            estimator = _fill(kind, content, given, Path(path).stat().st_size)
            probes.check(estimator, content["probe"])
        except (ValueError, RuntimeError) as error:
            if not given:
                raise
            raise ValueError(
                f"or parameters= is not what the model was built with: {error}"
            ) from error
    if target != "cpu":
        return estimator._on_device(target)
    return estimator


def _check_given(path: str | Path, given: dict[str, Any], wanted: dict[str, Any]) -> None:
    missing, unexpected = sorted(set(wanted) - set(given)), sorted(set(given) - set(wanted))
    if missing:
        were = ", ".join(f"{name} was {str(wanted[name])[:80]!r}" for name in missing)
        raise files.BadFileError(
            f"{path}: the model was built with functions, which a file does not hold ({were}): give "
            f"them, as in parameters={{{missing[0]!r}: the_function}}"
        )
    if unexpected:
        raise files.BadFileError(
            f"{path}: parameters= gives {', '.join(unexpected)}, which the file does not ask for: only "
            "functions that the model was built with are given"
        )


def _fill(
    kind: type, content: dict[str, Any], given: dict[str, Any], size: int
) -> "DensityEstimator":
    """Make an estimator on the CPU from the contents of a file, with all checks that need no run."""
    fitted = content["fitted"]
    _use_current_names(content)
    for old, new in getattr(kind, "_renamed", {}).items():
        if old in fitted and new not in fitted:
            fitted[new] = fitted.pop(old)
    _check_names(kind, fitted)
    if files.digest(fitted["schema_"]) != content["schema_hash"]:
        raise ValueError("the hash of its schema is not that of the schema")
    legacy.update(content)
    if given:
        fitted["built_with_"] |= given
    # Parameters that the file lacks, with the values that correspond to the older behavior.
    older_defaults = (
        vars(base).get("_defaults_of_older_files", {}) for base in reversed(kind.__mro__)
    )
    before = {name: value for defaults in older_defaults for name, value in defaults.items()}
    estimator: DensityEstimator = kind(
        **{**before, **given, **kind._update_old_parameters(content["parameters"])}  # type: ignore[attr-defined]
    )
    check_parameters(estimator)
    facts = {name: value for name, value in fitted.items() if name != "weights_"}
    estimator.__dict__.update(facts)
    # A dictionary has the weights of a network; an array ``weights_`` those of a mixture.
    weights = fitted.get("weights_")
    if isinstance(weights, np.ndarray):
        check_finite("weights_", weights)
    weights = weights if isinstance(weights, dict) else {}
    guard.check_state(estimator, size)
    built_with = fitted.get("built_with_", {})
    check_parameters(kind(**{**before, **content["parameters"], **built_with}))
    with Budget.for_weights(weights):
        estimator.__setstate__({**vars(estimator), **fitted, "device_": "cpu"})
        _check_weights(estimator, weights)
    return estimator


def _use_current_names(content: dict[str, Any]) -> None:
    """Rename parameters and weights that had other names when the file was written, in place."""
    fitted = content["fitted"]
    for parameters in (content["parameters"], fitted.get("built_with_", {})):
        for old, new in _RENAMED_PARAMETERS.items():
            if old in parameters:
                parameters.setdefault(new, parameters.pop(old))
    weights = fitted.get("weights_")
    if isinstance(weights, dict):
        for name in list(weights):
            head, dot, tail = name.rpartition(".")
            if tail in _RENAMED_WEIGHTS:
                weights.setdefault(head + dot + _RENAMED_WEIGHTS[tail], weights.pop(name))


def _check_weights(estimator: Any, weights: dict[str, np.ndarray]) -> None:
    """Raise unless weights have the dtypes of the model and are finite, except fixed masks."""
    built = estimator.module_.state_dict() if weights else {}
    for name, tensor in built.items():
        found, wanted = str(weights[name].dtype), str(tensor.dtype).removeprefix("torch.")
        if found != wanted:
            raise ValueError(f"{name} is {found} in the file and {wanted} in the model")
    not_finite = [
        n for n, w in weights.items() if w.dtype.kind == "f" and not np.isfinite(w).all()
    ]
    if not not_finite or not built:
        return
    learned = {name for name, _ in estimator.module_.named_parameters()}
    fresh = estimator._fresh_module().state_dict()
    for name in not_finite:
        if name in learned or not np.array_equal(
            fresh[name].numpy(), weights[name], equal_nan=True
        ):
            check_finite(name, weights[name])


def _check_names(kind: type, fitted: Mapping[str, Any]) -> None:
    for name in fitted:
        # An attribute with the name of a method would hide the method.
        if not name.endswith("_") or name.startswith("_") or hasattr(kind, name):
            raise ValueError(f"{name!r} is no attribute that fit sets")


def _estimator_class(path: str | Path, name: Any, module: Any, allow: Collection[str]) -> type:
    from densekit.base import DensityEstimator
    from densekit.discovery import all_estimators

    ours = all_estimators()
    if name in ours and ours[name].__module__ == module:
        return ours[name]
    held = f"{path}: holds a {str(name)[:80]!r} of the module {str(module)[:80]!r}"
    if not isinstance(module, str) or module.split(".")[0] == "densekit":
        raise files.BadFileError(f"{held}, which is no estimator of densekit's")
    if module not in allow:
        raise files.BadFileError(
            f"{held}, which is not densekit's; if you trust that module, pass "
            f"allow=({module[:80]!r},)"
        )
    kind = getattr(importlib.import_module(module), str(name), None)
    if not inspect.isclass(kind) or not issubclass(kind, DensityEstimator):
        raise files.BadFileError(f"{path}: {module}.{str(name)[:80]} is no estimator")
    return kind
