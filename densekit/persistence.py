"""Save and load: one safetensors file with a JSON specification in its header, nothing executable.

The specification names the class, its hyper-parameters and its fitted attributes; arrays lie beside it
as tensors. Loading builds a densekit class by name and fills it: no code, no pickle, no import of
anything that the file names outside densekit's own estimators and codecs.
"""

import dataclasses
import json
import math
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from densekit.base import DensityEstimator

FORMAT = 1
"""Files of this format and older ones load; a newer one is refused by its number."""


class _Writer:
    """Values to JSON; arrays set aside under a name."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}

    def encode(self, value: Any, where: str) -> Any:
        if value is None or isinstance(value, bool | str):
            return value
        if isinstance(value, bool | np.bool_):
            return bool(value)
        if isinstance(value, int | np.integer):
            return int(value)
        if isinstance(value, float | np.floating):
            return float(value) if math.isfinite(value) else {"$float": str(float(value))}
        if isinstance(value, list):
            return [self.encode(v, where) for v in value]
        if isinstance(value, tuple):
            return {"$tuple": [self.encode(v, where) for v in value]}
        if isinstance(value, dict):
            pairs = [
                [self.encode(k, where), self.encode(v, f"{where}.{k}")] for k, v in value.items()
            ]
            return {"$dict": pairs}
        if isinstance(value, np.ndarray):
            return self._array(value, where)
        if type(value) in _state_classes().values():
            return {"$object": type(value).__name__, "state": self.encode(_state_of(value), where)}
        raise TypeError(
            f"{where} is a {type(value).__name__}, which a file cannot hold: fitted attributes are "
            "plain values and NumPy arrays"
        )

    def _array(self, value: np.ndarray, where: str) -> Any:
        if value.dtype.kind in "OUS":
            return {"$strings": self.encode(value.tolist(), where), "shape": list(value.shape)}
        name = f"{len(self.arrays)}:{where}"
        # A copy: safetensors refuses views that are shared or not contiguous.
        self.arrays[name] = np.ascontiguousarray(value).copy()
        return {"$array": name, "shape": list(value.shape)}


def _decode(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, list):
        return [_decode(v, arrays) for v in value]
    if not isinstance(value, dict):
        return value
    if "$float" in value:
        return float(value["$float"])
    if "$tuple" in value:
        return tuple(_decode(v, arrays) for v in value["$tuple"])
    if "$dict" in value:
        return {_decode(k, arrays): _decode(v, arrays) for k, v in value["$dict"]}
    if "$array" in value:
        return arrays[value["$array"]].reshape(value["shape"])
    if "$strings" in value:
        return np.array(_decode(value["$strings"], arrays), dtype=object).reshape(value["shape"])
    return _object(value["$object"], _decode(value["state"], arrays))


def _state_classes() -> dict[str, type]:
    """The only classes beside estimators that a file may hold."""
    from densekit.codecs import Codec, Column, Schema
    from densekit.codecs.context import ContextCodec

    return {c.__name__: c for c in (Column, Schema, ContextCodec, *Codec.__subclasses__())}


def _state_of(value: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(value):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    return dict(value.__getstate__() if hasattr(value, "__getstate__") else vars(value))


def _object(name: str, state: dict[str, Any]) -> Any:
    classes = _state_classes()
    if name not in classes:
        raise ValueError(
            f"the file holds an object of class {name!r}, which densekit does not know"
        )
    kind = classes[name]
    if dataclasses.is_dataclass(kind):
        return kind(**state)
    value: Any = object.__new__(kind)
    value.__dict__.update(state)
    return value


def save(estimator: "DensityEstimator", path: str | Path) -> None:
    """Write a fitted estimator to ``path``; an existing file is replaced in one step or not at all.

    Raises
    ------
    NotFittedError
        The estimator has not learnt anything yet.
    """
    from safetensors.numpy import save as to_bytes
    from sklearn.utils.validation import check_is_fitted

    import densekit

    check_is_fitted(estimator)
    writer = _Writer()
    state = dict(estimator.__getstate__())  # type: ignore[call-overload]
    names = estimator._names()
    parameters = {k: _plain_parameter(k, state[k]) for k in sorted(names)}
    fitted = {k: v for k, v in state.items() if k not in names and not k.startswith("_")}
    spec = {
        "format": FORMAT,
        "densekit": densekit.__version__,
        "class": type(estimator).__name__,
        "parameters": writer.encode(parameters, "parameters"),
        "fitted": writer.encode(fitted, "fitted"),
    }
    content = to_bytes(writer.arrays, metadata={"densekit": json.dumps(spec, allow_nan=False)})
    path = Path(path)
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise


def _plain_parameter(name: str, value: Any) -> Any:
    """Hyper-parameters that are code or live generators do not travel: they fall to their default."""
    if name == "callbacks":
        return ()
    if isinstance(value, np.random.RandomState | np.random.Generator):
        return None
    return value


def load(path: str | Path, device: str = "auto") -> "DensityEstimator":
    """Read an estimator that :meth:`~densekit.DensityEstimator.save` wrote.

    Parameters
    ----------
    path : str or Path
    device : str
        Where the model will run, whatever it was fitted on.

    Raises
    ------
    ValueError
        Not a densekit file, a damaged one, or one of a newer format.

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
    from safetensors import SafetensorError, safe_open

    from densekit.discovery import all_estimators
    from densekit.runtime import resolve_device

    target = resolve_device(device)
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safe_open(str(path), framework="numpy") as file:
            spec = json.loads((file.metadata() or {}).get("densekit", "null"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not a densekit file, or a damaged one ({error})") from error
    if not isinstance(spec, dict) or "class" not in spec:
        raise ValueError(f"{path}: a safetensors file, but not one that densekit wrote")
    if spec.get("format", 0) > FORMAT:
        raise ValueError(
            f"{path}: written in format {spec['format']} by densekit {spec.get('densekit')}; this "
            f"version reads formats up to {FORMAT}: update densekit"
        )
    classes = all_estimators()
    if spec["class"] not in classes:
        raise ValueError(f"{path}: holds a {spec['class']!r}, which is no estimator of densekit's")
    try:
        kind = classes[spec["class"]]
        estimator = kind(**_decode(spec["parameters"], arrays))
        state = {**vars(estimator), **_decode(spec["fitted"], arrays), "device_": str(target)}
        estimator.__setstate__(state)
    except (KeyError, TypeError, IndexError, RuntimeError) as error:
        raise ValueError(f"{path}: damaged, or tampered with ({error})") from error
    return estimator
