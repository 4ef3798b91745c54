"""Loops compiled by numba, where it is installed: which there are, and what is done without."""

import functools
import importlib
import importlib.util
import logging
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from densekit import clock

_logger = logging.getLogger("densekit.kernels")
_logger.addHandler(logging.NullHandler())


@functools.cache
def _there() -> bool:
    if importlib.util.find_spec("numba") is None:
        _logger.info("models are computed in plain torch: pip install 'densekit[fast]' for numba")
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
        with clock.current().paused():
            return importlib.import_module(name)
    # A numba that does not fit the numpy beside it, or finds no folder that it may write to.
    except (ImportError, RuntimeError) as error:
        _logger.warning("models are computed in plain torch: numba does not work here (%s)", error)
        return None


def load_for(module: nn.Module) -> None:
    """Load what a module on a CPU will ask for, now and not within the first step of its training."""
    if not all(p.device.type == "cpu" for p in module.parameters()):
        return
    parts = list(module.modules())
    if any(hasattr(part, "written") for part in parts):
        kernel("densekit.kernels.tape")
    for name in {part.loops for part in parts if isinstance(getattr(part, "loops", None), str)}:
        kernel(name)


def compiled(name: str, *tensors: Tensor) -> ModuleType | None:
    """The same, where it serves these tensors: numbers in float32 on a CPU."""
    fits = all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)
    if not fits or not tensors[0].numel():
        return None
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return None
    return kernel(name)


class Looped(torch.autograd.Function):
    """A formula as one loop each way, and as itself where it is differentiated again.

    ``Looped.apply(formula, there, back, *tensors)`` is ``there(*tensors)``; ``back`` is called with the
    tensors and the gradients of what came out, and gives one, or None, for each of the tensors.
    """

    @staticmethod
    def forward(
        ctx: Any,
        formula: Callable[..., Any],
        there: Callable[..., Any],
        back: Callable[..., Any],
        *tensors: Tensor,
    ) -> Any:
        ctx.save_for_backward(*tensors)
        ctx.formula, ctx.back = formula, back
        return there(*tensors)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        given, needs = ctx.saved_tensors, ctx.needs_input_grad[3:]
        if not torch.is_grad_enabled():
            return None, None, None, *ctx.back(*given, *slopes)
        # Views, since one may depend on another: what flows through it is not wanted here.
        given = [t.view_as(t) for t in given]
        wanted = [t for t, need in zip(given, needs, strict=True) if need]
        value = ctx.formula(*given)
        value = (value,) if isinstance(value, Tensor) else value
        pairs = [(v, g) for v, g in zip(value, slopes, strict=True) if v.requires_grad]
        value, slopes = zip(*pairs, strict=True)
        found = iter(torch.autograd.grad(value, wanted, slopes, create_graph=True))
        return None, None, None, *(next(found) if need else None for need in needs)
