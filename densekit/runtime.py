"""Where a computation runs and from which seed: the only file that knows devices and generators."""

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

_GENERATOR = threading.RLock()


def _renew_lock() -> None:
    """A forked child has no thread that could release a lock which was held at the fork."""
    global _GENERATOR
    _GENERATOR = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def resolve_device(name: str) -> torch.device:
    """The device called ``name``; ``"auto"`` takes a GPU where there is one.

    Raises
    ------
    ValueError
        No such device, or it is not on this machine.

    Examples
    --------
    >>> resolve_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(
            f"device={name!r}: no such device; use 'auto', 'cpu', 'cuda' or 'cuda:0'"
        ) from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device={name!r}: densekit runs on 'cpu' and 'cuda' only")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(f"device={name!r}: this machine has no CUDA GPU; use device='auto'")
        if (device.index or 0) >= torch.cuda.device_count():
            raise ValueError(f"device={name!r}: there are {torch.cuda.device_count()} GPUs only")
    return device


def resolve_seed(random_state: Any) -> int:
    """An integer seed from what scikit-learn calls a random state.

    None draws from the operating system and leaves NumPy's global generator alone; a ``RandomState``
    or ``Generator`` of the caller's is advanced by one draw, as it would be anywhere else.

    Raises
    ------
    ValueError
        Not None, a non-negative integer, a ``RandomState`` or a ``Generator``.

    Examples
    --------
    >>> resolve_seed(7)
    7
    """
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    if isinstance(random_state, int | np.integer) and not isinstance(random_state, bool):
        if 0 <= random_state < 2**32:
            return int(random_state)
    elif isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    elif isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**31 - 1))
    raise ValueError(
        f"random_state={random_state!r}: must be None, an integer from 0 to 2**32 - 1, "
        "a numpy RandomState or a numpy Generator"
    )


@contextlib.contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Draw from ``seed`` inside, and leave torch's global generators as they were found.

    torch's distributions take no generator of their own, so the global ones are set and put back;
    a lock keeps two threads from drawing from each other's stream. ``fit`` and ``sample`` hold it
    from beginning to end: they run one after the other within a process, and side by side in several.
    """
    device = torch.device(device)
    cuda = [device.index or 0] if device.type == "cuda" else []
    with _GENERATOR, torch.random.fork_rng(devices=cuda):
        _set_seed(seed, device)
        yield


def reseed(entropy: Sequence[int], device: torch.device) -> None:
    """Draw from a seed that is a function of several numbers from now on; inside :func:`seeded` only."""
    _set_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1), device)


def _set_seed(seed: int, device: torch.device) -> None:
    torch.random.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)


def generator_states(device: torch.device) -> dict[str, torch.Tensor]:
    """The states of the global generators that a computation on ``device`` draws from, by its type."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_generator_states(states: dict[str, torch.Tensor], device: torch.device) -> None:
    """Restore the states that :func:`generator_states` returned; inside :func:`seeded` only. The
    generator of a GPU is left alone if the states were taken on a CPU."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


def resolve_dtype(name: str) -> torch.dtype:
    """``"float32"`` or ``"float64"`` as torch's dtype."""
    return {"float32": torch.float32, "float64": torch.float64}[name]


def padded(rows: torch.Tensor) -> torch.Tensor:
    """Rows to a multiple of 32 by repeating the last: vectorized kernels round a ragged end
    differently, and a score must not depend on a row's place in its batch."""
    lack = -len(rows) % 32
    return rows if lack == 0 else torch.cat([rows, rows[-1:].expand(lack, *rows.shape[1:])])
