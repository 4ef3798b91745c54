"""Loops compiled by numba, where it is installed: which there are, and what is done without."""

import functools
import importlib
import importlib.util
import logging
import os
from types import ModuleType

import torch
from torch import Tensor, nn

_logger = logging.getLogger("densekit.kernels")
_logger.addHandler(logging.NullHandler())


@functools.cache
def _there() -> bool:
    if importlib.util.find_spec("numba") is None:
        _logger.info("flows are computed in plain torch: pip install 'densekit[fast]' for numba")
        return False
    return True


@functools.cache
def kernel(name: str) -> ModuleType | None:
    """The module of compiled loops with this name; None without numba, or with
    ``DENSEKIT_KERNELS=0`` in the environment. The first time on a machine takes some 20 seconds.

    Examples
    --------
    >>> loops = kernel("densekit.kernels.layers")
    >>> loops is None or hasattr(loops, "asinh")
    True
    """
    if os.environ.get("DENSEKIT_KERNELS") == "0" or not _there():
        return None
    _logger.info("loading %s; what a machine sees for the first time takes some 20 seconds", name)
    try:
        return importlib.import_module(name)
    # A numba that does not fit the numpy beside it, or finds no folder that it may write to.
    except (ImportError, RuntimeError) as error:
        _logger.warning("flows are computed in plain torch: numba does not work here (%s)", error)
        return None


def load_for(module: nn.Module) -> None:
    """Load what a module on a CPU will ask for, now and not within the first step of its training."""
    on_cpu = all(p.device.type == "cpu" for p in module.parameters())
    if on_cpu and any(hasattr(part, "written") for part in module.modules()):
        kernel("densekit.kernels.tape")


def compiled(name: str, *tensors: Tensor) -> ModuleType | None:
    """The same, where it serves these tensors: numbers in float32 on a CPU."""
    fits = all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)
    if not fits or not tensors[0].numel():
        return None
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return None
    return kernel(name)
