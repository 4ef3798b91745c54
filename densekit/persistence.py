"""Load an estimator that was saved: the class by name, filled with plain values and arrays.

No code, no pickle, no import of anything that the file names, unless the caller allows that module;
:mod:`densekit.files` has the format, :mod:`densekit.guard` the limits, :mod:`densekit.probes` the rows
that are scored again.

**Compatibility.** A release reads the files of every release before it and scores their rows as they
did, within a relative 1e-3 (``dtype="float32"``) or 1e-6 (float64): rounding differs between
processors and libraries. Draws of a seed may differ, as they may between releases of torch. A file of
a newer format is refused by its number, since guessing would give wrong scores. The format number
rises when an older release could not read the files of a newer one; a hyper-parameter that is new takes
its default on old files. Format 1 was never released. The saved models in ``tests/golden`` hold later
releases to this.
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
_RENAMED_WEIGHTS = {"colour": "color"}
"""Names of older files, and those of today."""


def load(
    path: str | Path,
    device: str = "auto",
    allow: Collection[str] = (),
    parameters: Mapping[str, Callable[..., Any]] | None = None,
) -> "DensityEstimator":
    """Read an estimator that :meth:`~densekit.DensityEstimator.save` wrote.

    The file is checked before it is believed: its digest, the hash of its schema, hyper-parameters
    and shapes (before anything is allocated for them), and its probe rows, which must score on the
    CPU as they did when it was saved.

    Parameters
    ----------
    path : str or Path
    device : str
        Where the model will run, whatever it was fitted on.
    allow : collection of str
        Names of modules, such as ``("my_models",)``, whose estimators may be loaded too. A module
        is imported only if the file names it and it is in here: importing runs its code.
    parameters : mapping of str to callable, optional
        Functions that the model was built with, by hyper-parameter, such as
        ``{"transforms": factory}`` of a ``TransformFlow``: a file holds no code. That they are those
        of the saved model is seen by its weights, which must fit, and its probe rows.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        Not a densekit file, a damaged one, one of another format, or a class that is not allowed;
        ``parameters`` that are lacking, or others than the file asks for.

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
    kind = _class(path, content["class"], content["module"], allow)
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
    lacking, needless = sorted(set(wanted) - set(given)), sorted(set(given) - set(wanted))
    if lacking:
        were = ", ".join(f"{name} was {str(wanted[name])[:80]!r}" for name in lacking)
        raise files.BadFileError(
            f"{path}: the model was built with functions, which a file does not hold ({were}): give "
            f"them, as in parameters={{{lacking[0]!r}: the_function}}"
        )
    if needless:
        raise files.BadFileError(
            f"{path}: parameters= gives {', '.join(needless)}, which the file does not ask for: only "
            "functions that the model was built with are given"
        )


def _fill(
    kind: type, content: dict[str, Any], given: dict[str, Any], size: int
) -> "DensityEstimator":
    """An estimator on the CPU with what the file says, checked as far as it can be unrun."""
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
    # A parameter that is younger than the file, where its default is not what was done before.
    older = (vars(base).get("_defaults_of_older_files", {}) for base in reversed(kind.__mro__))
    before = {name: value for defaults in older for name, value in defaults.items()}
    estimator: DensityEstimator = kind(
        **{**before, **given, **kind._update_old_parameters(content["parameters"])}  # type: ignore[attr-defined]
    )
    check_parameters(estimator)
    facts = {name: value for name, value in fitted.items() if name != "weights_"}
    estimator.__dict__.update(facts)
    # The weights of a network; a mixture's ``weights_`` is an array like any other.
    weights = fitted.get("weights_")
    if isinstance(weights, np.ndarray):
        check_finite("weights_", weights)
    weights = weights if isinstance(weights, dict) else {}
    guard.check_state(estimator, size)
    built_with = fitted.get("built_with_", {})
    check_parameters(kind(**{**before, **content["parameters"], **built_with}))
    with Budget.for_weights(weights):
        estimator.__setstate__({**vars(estimator), **fitted, "device_": "cpu"})  # type: ignore[attr-defined]
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
    """Raise unless weights are of the model's dtypes and finite, but for masks that the model makes."""
    built = estimator.module_.state_dict() if weights else {}
    for name, tensor in built.items():
        found, wanted = str(weights[name].dtype), str(tensor.dtype).removeprefix("torch.")
        if found != wanted:
            raise ValueError(f"{name} is {found} in the file and {wanted} in the model")
    endless = [n for n, w in weights.items() if w.dtype.kind == "f" and not np.isfinite(w).all()]
    if not endless or not built:
        return
    learned = {name for name, _ in estimator.module_.named_parameters()}
    fresh = estimator._fresh_module().state_dict()
    for name in endless:
        if name in learned or not np.array_equal(
            fresh[name].numpy(), weights[name], equal_nan=True
        ):
            check_finite(name, weights[name])


def _check_names(kind: type, fitted: Mapping[str, Any]) -> None:
    for name in fitted:
        # An attribute of the class that is shadowed would be a method that is no longer there.
        if not name.endswith("_") or name.startswith("_") or hasattr(kind, name):
            raise ValueError(f"{name!r} is no attribute that fit sets")


def _class(path: str | Path, name: Any, module: Any, allow: Collection[str]) -> type:
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
