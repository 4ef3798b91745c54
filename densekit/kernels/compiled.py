"""Access to the loops compiled by numba, if it is installed."""

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
def _has_numba() -> bool:
    if importlib.util.find_spec("numba") is None:
        _logger.info("models are computed in plain torch: pip install 'densekit[fast]' for numba")
        return False
    return True


@functools.cache
def kernel(name: str) -> ModuleType | None:
    """The module of compiled loops with this name, or None without numba or with
    ``DENSEKIT_KERNELS=0``.

    The first import on a machine compiles for some 20 seconds.

    Examples
    --------
    >>> loops = kernel("densekit.kernels.layers")
    >>> loops is None or hasattr(loops, "asinh")
    True
    """
    if os.environ.get("DENSEKIT_KERNELS") == "0" or not _has_numba():
        return None
    _logger.info("loading %s; what a machine sees for the first time takes some 20 seconds", name)
    try:
        with clock.current().paused():
            return importlib.import_module(name)
    # numba may not support the installed NumPy, or may not find a folder for its cache.
    except (ImportError, RuntimeError) as error:
        _logger.warning("models are computed in plain torch: numba does not work here (%s)", error)
        return None


def load_for(module: nn.Module) -> None:
    """Load the loops that a module on a CPU will use, so that this does not happen in a step of
    training.
    """
    if not all(p.device.type == "cpu" for p in module.parameters()):
        return
    parts = list(module.modules())
    if any(hasattr(part, "can_record") for part in parts):
        kernel("densekit.kernels.tape")
    for name in {part.loops for part in parts if isinstance(getattr(part, "loops", None), str)}:
        kernel(name)


def compiled(name: str, *tensors: Tensor) -> ModuleType | None:
    """The module of compiled loops with this name, if it supports these tensors: float32 on a CPU."""
    fits = all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)
    if not fits or not tensors[0].numel():
        return None
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return None
    return kernel(name)


class Looped(torch.autograd.Function):
    """A formula as a compiled loop with a compiled gradient.

    ``Looped.apply(formula, forward_loop, backward_loop, *tensors)`` returns
    ``forward_loop(*tensors)``. ``backward_loop`` takes the tensors and the gradients of the
    outputs, and returns the gradient of each tensor or None. Second derivatives use the formula
    itself.
    """

    @staticmethod
    def forward(
        ctx: Any,
        formula: Callable[..., Any],
        forward_loop: Callable[..., Any],
        backward_loop: Callable[..., Any],
        *tensors: Tensor,
    ) -> Any:
        ctx.save_for_backward(*tensors)
        ctx.formula, ctx.backward_loop = formula, backward_loop
        return forward_loop(*tensors)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        tensors, needs = ctx.saved_tensors, ctx.needs_input_grad[3:]
        if not torch.is_grad_enabled():
            return None, None, None, *ctx.backward_loop(*tensors, *slopes)
        # Views are used because one tensor may depend on another, whose gradient is not wanted here.
        tensors = [t.view_as(t) for t in tensors]
        wanted = [t for t, need in zip(tensors, needs, strict=True) if need]
        value = ctx.formula(*tensors)
        value = (value,) if isinstance(value, Tensor) else value
        pairs = [(v, g) for v, g in zip(value, slopes, strict=True) if v.requires_grad]
        value, slopes = zip(*pairs, strict=True)
        gradients = iter(torch.autograd.grad(value, wanted, slopes, create_graph=True))
        return None, None, None, *(next(gradients) if need else None for need in needs)
