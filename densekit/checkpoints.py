"""Checkpoints: the file of a fit under way, from which the same fit goes on after it was killed.

Tensors in safetensors, plain values and the fit's identity as JSON in its header: nothing executable.
Knows no estimator and no loop: :mod:`densekit.training` says what its run consists of.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from densekit.atomic import replacing

FORMAT = 2
"""A checkpoint is read by the version that wrote it, and refused by every other."""
_NAME = "fit.safetensors"
_SHARE = 0.02
"""Of the time of a fit, at most, that goes into writing: a round is passed over until that holds."""


@dataclass
class Saved:
    """A run between two rounds: everything that the rest of it depends on."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors that were saved as ``name/...``, by what follows."""
        whole = name + "/"
        return {k[len(whole) :]: v for k, v in self.tensors.items() if k.startswith(whole)}

    def row(self, name: str) -> list[Tensor]:
        """The tensors that were saved as ``name/0``, ``name/1``, ..."""
        found = self.part(name)
        return [found[str(i)] for i in range(len(found))]


class Checkpoint:
    """One file in a folder, of one fit.

    Parameters
    ----------
    folder : str or Path
        Made where there is none.
    identity : dict
        What makes it this fit and no other, as plain values (:func:`plain`): ``parameters`` is a
        dict of its own, whose entries a refusal names.

    Attributes
    ----------
    saved : Saved or None
        What was found in the folder.

    Raises
    ------
    ValueError
        The folder holds a damaged checkpoint, or one of another fit; named is what differs.

    Examples
    --------
    >>> import tempfile, torch
    >>> folder = tempfile.mkdtemp()
    >>> identity = {"class": "Flow", "parameters": {"n_bins": 4}, "data": digest([torch.ones(3)])}
    >>> first = Checkpoint(folder, identity)
    >>> first.saved is None
    True
    >>> first.write(lambda: Saved({"weights/a": torch.arange(2)}, {"step": 7}))
    >>> again = Checkpoint(folder, identity).saved
    >>> again.part("weights"), again.values
    ({'a': tensor([0, 1])}, {'step': 7})
    >>> first.remove()
    >>> Checkpoint(folder, identity).saved is None
    True
    """

    def __init__(self, folder: str | Path, identity: Mapping[str, Any]):
        self.path = Path(folder) / _NAME
        self.identity = {"format": FORMAT, **identity}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise ValueError(
                f"checkpoint_dir={str(folder)!r} is a file, or is inside one: give the name of a folder"
            ) from error
        self.saved = self._read() if self.path.exists() else None
        self._next = 0.0

    def write(self, state: Callable[[], Saved]) -> None:
        """Replace the file by ``state()``, in one step; nothing is done when the last writing is so
        near that the two would take more than their share of the time."""
        from safetensors.torch import save

        start = time.perf_counter()
        if start < self._next:
            return
        saved = state()
        header = json.dumps({**self.identity, "values": saved.values})
        # Copies: safetensors refuses tensors that share their memory, as tied weights do.
        tensors = {k: v.detach().to("cpu", copy=True) for k, v in saved.tensors.items()}
        with replacing(self.path) as part:
            # Not save_file: it writes a file of its own beside, which a kill would leave behind.
            part.write_bytes(save(tensors, metadata={"densekit-fit": header}))
        end = time.perf_counter()
        self._next = end + (end - start) / _SHARE

    def seed(self, otherwise: int) -> int:
        """The seed of the saved run; ``otherwise`` where none is saved."""
        seed = otherwise if self.saved is None else self.saved.values.get("seed")
        if type(seed) is not int or not 0 <= seed < 2**62:
            raise self.damaged(ValueError(f"seed {seed!r}"))
        return seed

    def remove(self) -> None:
        """Forget the fit: it is done. What killed writers left half-written goes too."""
        self.path.unlink(missing_ok=True)
        for part in self.path.parent.glob(f".{self.path.stem}-*{self.path.suffix}"):
            part.unlink(missing_ok=True)

    def damaged(self, error: Exception) -> ValueError:
        """The error for a file whose contents do not fit together."""
        return ValueError(
            f"{self.path}: a damaged checkpoint, or none ({type(error).__name__}: {error}); remove it "
            "to begin the fit anew"
        )

    def _read(self) -> Saved:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(self.path), framework="pt") as file:
                header = json.loads(file.metadata()["densekit-fit"])
                # Copies: a view of the file has any alignment, on which rounding depends.
                names = list(file.keys())
                tensors = {name: file.get_tensor(name).clone() for name in names}
            values = dict(header.pop("values"))
            unlike = list(_differences(header, self.identity))
        except (
            SafetensorError,
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
        ) as error:
            raise self.damaged(error) from error
        if unlike:
            raise ValueError(
                f"{self.path} is the checkpoint of another fit: {'; '.join(unlike)}. Repeat that fit "
                "to finish it, or remove the file or give another checkpoint_dir to begin this one"
            )
        return Saved(tensors, values)


_UNLIKE = {
    "data": "other rows of X, or other columns",
    "context": "another context",
    "weights": "another sample_weight",
    "start": "other weights to start from (warm_start)",
}
"""What differs, where the digests say only that it does."""


def _differences(saved: Mapping[str, Any], current: Mapping[str, Any]) -> Iterable[str]:
    """The differences between two fits, in words."""
    for name, value in current.items():
        if name == "parameters":
            yield from _differences(saved[name], value)
        elif name not in saved or saved[name] != value:
            yield _UNLIKE.get(name, f"{name}={saved.get(name)!r} there, {value!r} here")


def plain(value: Any) -> Any:
    """A value as JSON has it, equal for equal values in any process.

    Examples
    --------
    >>> plain({"hidden_sizes": (8, 8), "support": {"age": "positive"}, "scale": np.float32(0.5)})
    {'hidden_sizes': [8, 8], 'support': {'age': 'positive'}, 'scale': 0.5}
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if hasattr(value, "__qualname__"):
        # The repr of a function holds its address.
        return f"{value.__module__}.{value.__qualname__}"
    state = getattr(value, "__dict__", None)
    return repr(value) if state is None else {type(value).__name__: plain(state)}


def digest(values: Iterable[Any]) -> str:
    """SHA-256 of tensors and of values that :func:`plain` takes, as hexadecimal digits.

    Examples
    --------
    >>> digest([3, "a"])[:8] == digest((3, "a"))[:8] != digest([3, "b"])[:8]
    True
    """
    total = hashlib.sha256()
    for value in values:
        if isinstance(value, Tensor):
            array = np.ascontiguousarray(value.detach().cpu().numpy())
            total.update(f"{array.dtype}{array.shape}".encode())
            total.update(array.data)
        else:
            total.update(json.dumps(plain(value)).encode())
    return total.hexdigest()
