"""The file format: one safetensors file with a JSON specification in its header.

Values of an estimator (plain ones, arrays, and the few state classes of the codecs) to a file and
back. Knows no estimator: :mod:`densekit.persistence` does.
"""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from densekit.atomic import replacing
from densekit.codecs import Codec, Column, Schema
from densekit.codecs.context import ContextCodec

FORMAT = 1
"""Files of this format and older ones load; a newer one is refused by its number."""

_STATE_CLASSES = {c.__name__: c for c in (Column, Schema, ContextCodec, *Codec.__subclasses__())}
"""The only classes that a file may hold beside the estimator's own."""


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
        if type(value) in _STATE_CLASSES.values():
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


def _state_of(value: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(value):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    return dict(value.__getstate__() if hasattr(value, "__getstate__") else vars(value))


def _object(name: str, state: dict[str, Any]) -> Any:
    if name not in _STATE_CLASSES:
        raise ValueError(
            f"the file holds an object of class {name!r}, which densekit does not know"
        )
    kind = _STATE_CLASSES[name]
    if dataclasses.is_dataclass(kind):
        return kind(**state)
    value: Any = object.__new__(kind)
    value.__dict__.update(state)
    return value


def write(path: str | Path, content: dict[str, Any]) -> None:
    """Write named values to ``path``; a file that is there is replaced in one step or not at all."""
    from safetensors.numpy import save as to_bytes

    import densekit

    writer = _Writer()
    spec = {name: writer.encode(value, name) for name, value in content.items()}
    spec = {"format": FORMAT, "densekit": densekit.__version__, **spec}
    data = to_bytes(writer.arrays, metadata={"densekit": json.dumps(spec, allow_nan=False)})
    with replacing(path) as part:
        part.write_bytes(data)


def read(path: str | Path) -> dict[str, Any]:
    """The named values of a file that :func:`write` wrote.

    Raises
    ------
    FileNotFoundError, ValueError
        No such file; not one of ours, damaged, or of a newer format.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safe_open(str(path), framework="numpy") as file:
            spec = json.loads((file.metadata() or {}).get("densekit", "null"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not a densekit file, or a damaged one ({error})") from error
    if not isinstance(spec, dict) or not {"format", "class", "parameters", "fitted"} <= set(spec):
        raise ValueError(f"{path}: a safetensors file, but not one that densekit wrote")
    if not isinstance(spec["format"], int) or spec["format"] > FORMAT:
        raise ValueError(
            f"{path}: written in format {spec['format']} by densekit {spec.get('densekit')}; this "
            f"version reads formats up to {FORMAT}: update densekit"
        )
    try:
        return {name: _decode(value, arrays) for name, value in spec.items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise damaged(path, error) from error


def damaged(path: str | Path, error: Exception) -> ValueError:
    """The error for a file whose contents do not fit together."""
    return ValueError(f"{path}: damaged, or tampered with ({type(error).__name__}: {error})")
