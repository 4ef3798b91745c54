"""The file format: one safetensors file with a JSON specification in its header.

Values of an estimator (plain ones, arrays, and the few state classes of the codecs) to a file and
back. Knows no estimator: :mod:`densekit.persistence` does, and has the compatibility policy.

The specification has ``format``, ``densekit`` (the version that wrote it), ``class`` and ``module``,
``parameters``, ``fitted``, ``functions`` (names of those that the model was built with, and that it
is given again), ``schema_hash``, ``probe`` (:mod:`densekit.probes`) and ``digest``, the SHA-256 of all
the rest. The digest finds damage; it is no signature, since whoever changes a file on purpose can write
a new one.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from densekit.atomic import replacing
from densekit.codecs import Codec, Column, Description, Schema
from densekit.codecs.context import ContextCodec

FORMAT = 2
"""What :func:`write` writes. Format 1 was never released, so 2 is also the oldest that is read."""
_KEYS = {"format", "class", "module", "parameters", "fitted", "schema_hash", "probe", "digest"}

_STATE_CLASSES = {
    c.__name__: c for c in (Column, Description, Schema, ContextCodec, *Codec.__subclasses__())
}
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


class BadFileError(ValueError):
    """A file that is refused; the message begins with its path."""


def digest(value: Any) -> str:
    """The SHA-256 of a value that a file can hold, in hexadecimal digits.

    Examples
    --------
    >>> digest({"a": np.zeros(2)}) == digest({"a": np.zeros(3)})
    False
    """
    writer = _Writer()
    return _digest({"value": writer.encode(value, "")}, writer.arrays)


def _digest(spec: dict[str, Any], arrays: dict[str, np.ndarray]) -> str:
    rest = {name: value for name, value in spec.items() if name != "digest"}
    found = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        found.update(f"{name} {array.dtype.str} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


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
        fields = ((f, getattr(value, f.name)) for f in dataclasses.fields(value))
        # A later field is left out where it is empty, so that digests of older files hold.
        return {f.name: v for f, v in fields if not f.metadata.get("later") or v}
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
    spec["digest"] = _digest(spec, writer.arrays)
    data = to_bytes(writer.arrays, metadata={"densekit": json.dumps(spec, allow_nan=False)})
    with replacing(path) as part:
        part.write_bytes(data)


def read(path: str | Path) -> dict[str, Any]:
    """The named values of a file that :func:`write` wrote.

    Memory is bounded by the size of the file: nothing in it is compressed, and safetensors refuses a
    header or a tensor that says it is longer than the file.

    Raises
    ------
    FileNotFoundError, ValueError
        No such file; not one of ours, damaged, or of another format.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    spec, arrays = _contents(path)
    if not isinstance(spec, dict) or not {"format", "class", "parameters", "fitted"} <= set(spec):
        raise BadFileError(f"{path}: a safetensors file, but not one that densekit wrote")
    _check_format(path, spec)
    with refusing(path):
        if not set(spec) >= _KEYS:
            raise ValueError(f"it lacks {', '.join(sorted(_KEYS - set(spec)))}")
        if spec["digest"] != _digest(spec, arrays):
            raise ValueError("its digest is not that of its contents")
        return {name: _decode(value, arrays) for name, value in spec.items()}


def _contents(path: str | Path) -> tuple[Any, dict[str, np.ndarray]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            spec = json.loads((file.metadata() or {}).get("densekit", "null"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, TypeError, AttributeError, RecursionError) as error:
        # ValueError is JSON's; the others are what dtypes that NumPy lacks and deep nesting lead to.
        raise BadFileError(f"{path}: not a densekit file, or a damaged one ({error})") from error
    return spec, arrays


def _check_format(path: str | Path, spec: dict[str, Any]) -> None:
    version, writer = spec["format"], str(spec.get("densekit"))[:40]
    if type(version) is not int or version < 1:
        raise BadFileError(f"{path}: damaged, or tampered with: its format is no number")
    if version > FORMAT:
        raise BadFileError(
            f"{path}: written in format {version} by densekit {writer}; this version reads formats "
            f"up to {FORMAT}: update densekit"
        )
    if version < FORMAT:
        raise BadFileError(
            f"{path}: written in format {version}, which was never released; fit and save again"
        )


@contextlib.contextmanager
def refusing(path: str | Path) -> Iterator[None]:
    """Turn whatever goes wrong with the contents of a file into a ValueError that names it.

    A file can say anything, so any exception may come of it. A library that is missing is the
    reader's affair, and keeps its ImportError.
    """
    try:
        yield
    except (BadFileError, ImportError):
        raise
    except Exception as error:
        message = f"{error}" if type(error) is ValueError else f"{type(error).__name__}: {error}"
        raise BadFileError(f"{path}: damaged, or tampered with ({message[:400]})") from error
