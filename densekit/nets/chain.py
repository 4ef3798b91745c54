"""Layers on columns as one node of autograd, the common part of most networks of flows.

The backward pass is explicit, so that between two matrix products a single compiled pass can load
and store each number once (``kernels/machine.py``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from densekit.kernels.compiled import compiled
from densekit.nets.triangular import (
    Step,
    input_gradient,
    masked_product,
    masked_weight,
    weight_gradient,
)

_KERNEL = "densekit.kernels.layers"
Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Plan:
    """Structure of a chain besides its weights.

    ``masks`` are the masks of the layers (broadcast against the weight, or None). ``steps`` are
    those of :func:`~densekit.nets.triangular.stairs` (or None).
    """

    name: str
    """Name of the activation, by which compiled loops are selected."""
    activation: Activation
    random: bool
    """Whether the activation is random (dropout)."""
    masks: Sequence[Tensor | None]
    steps: Sequence[Sequence[Step] | None]

    def can_record(self) -> bool:
        """Whether the chain can be recorded on a tape."""
        return not self.random and self.name in ("relu", "silu") and len(self.masks) > 1


def squash(x: Tensor) -> Tensor:
    """Compress the inputs of a network: asinh, close to x near 0 and to a logarithm far out.

    A network extrapolates linearly, so that an outlier in one feature would dominate the
    parameters of all others. Squashing bounds this, and every finite input gives finite
    parameters.
    """
    if torch._C._are_functorch_transforms_active():
        return torch.asinh(x)
    y: Tensor = _Asinh.apply(x)
    return y


def _asinh(x: Tensor) -> Tensor:
    # torch.asinh is not vectorized on a CPU; these operations are and take a tenth of the time.
    # Beyond the clamp the square would overflow, and the logarithm does not change.
    t = x.abs().clamp(max=torch.finfo(x.dtype).max ** 0.5 / 2)
    root = torch.mul(t, t).add_(1).sqrt_().add_(1)
    return torch.mul(t, t).div_(root).add_(t).log1p_().copysign_(x)


class _Asinh(torch.autograd.Function):
    # There is no setup_context, because torch then inspects the signature at every call (40 us).

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        loops = compiled(_KERNEL, x)
        return loops.asinh(x) if loops else _asinh(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return g * (x * x + 1).rsqrt()


def chain(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], plan: Plan) -> Tensor:
    r"""Apply a network to columns, (n_in, N) to (n_out, N).

    .. math:: h_1 = W_1 \operatorname{asinh}(x) + b_1, \quad
              h_{i+1} = h_i + W_{i+1}\,\sigma(h_i) + b_{i+1}, \quad y = W \sigma(h_k) + b

    Consecutive layers of different width have no sum, and each W is multiplied by its mask.

    Parameters
    ----------
    x : Tensor of shape (n_in, N)
    weights : sequence of Tensor
        For each layer (rows, columns), or (A, B, columns) with A B rows in the order of the
        memory.
    biases : sequence of Tensor
        For each layer (rows, 1), or (A, B, 1) in the same order. The first may be (rows, N), one
        per sample.
    plan : Plan

    Returns
    -------
    Tensor of shape (n_out, N)
        Differentiable any number of times (once, with dropout).
    """
    parameters = [p for layer in zip(weights, biases, strict=True) for p in layer]
    if (
        x.device.type != "cpu"
        or torch.is_autocast_enabled("cpu")
        or torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
    ):
        return _plain(x, parameters, plan)
    y: Tensor = _Chain.apply(plan, torch.is_grad_enabled(), x, *parameters)
    return y


def _plain(x: Tensor, parameters: Sequence[Tensor], plan: Plan) -> Tensor:
    """The chain as in the formula."""
    last = len(plan.masks) - 1
    h, a = x, squash(x)
    for i, mask in enumerate(plan.masks):
        weight, bias = parameters[2 * i : 2 * i + 2]
        weight = weight if mask is None else weight * mask
        step = torch.addmm(bias.flatten(0, -2), weight.flatten(0, -2), a)
        h = h + step if 0 < i < last and h.shape == step.shape else step
        a = plan.activation(h) if i < last else h
    return h


def record(
    tape: Any, x: Any, weights: Sequence[Tensor], biases: Sequence[Tensor | None], plan: Plan,
    transposed: bool = False, initial: Any = None, side_product: Any = None, name: str = "kept",
) -> Any:  # fmt: skip
    """Record the chain on a ``kernels.tape.Tape``.

    With ``transposed``, the last weight and bias are (B, A, columns) for rows in the order (A, B).
    ``initial`` are rows added to the sums of the first layer. ``side_product`` is a weight and the
    rows it multiplies, which are added as well.
    """
    a: Any = tape.asinh(x)
    previous: Any = None
    *hidden, (last, last_bias, last_mask) = zip(weights, biases, plan.masks, strict=True)
    for i, (w, b, mask) in enumerate(hidden):
        h = tape.product(tape.matrix(w, mask), a, plan.steps[i])
        if i == 0 and side_product is not None:
            tape.product(tape.matrix(side_product[0]), side_product[1], onto=h)
        residual = initial if i == 0 else previous if previous.n == h.n else None
        a, previous = tape.activate(plan.name, h, b, residual), h
    matrix = tape.matrix(last, last_mask, transposed)
    return tape.output(matrix, a, last_bias, plan.steps[-1], transposed, name)


_TAPES: WeakKeyDictionary[Plan, dict[Any, Any]] = WeakKeyDictionary()


def _tape(plan: Plan, x: Tensor, parameters: Sequence[Tensor], keep: bool, needs_x: bool) -> Any:
    """The tape of the chain, or None if it is not compiled."""
    tapes = compiled("densekit.kernels.tape", x, *parameters)
    if tapes is None or not plan.can_record():
        return None
    # Parameters have to be contiguous, as their gradients will be. Torch reports mismatched shapes.
    dense = all(t.is_contiguous() or t.transpose(0, 1).is_contiguous() for t in parameters)
    has_shared_parameters = len(set(map(id, parameters))) < len(
        parameters
    )  # its gradient is a sum of both uses
    if has_shared_parameters or not dense or x.shape[0] != parameters[0].shape[-1]:
        return None
    per_sample_bias = parameters[1].shape[-1] > 1
    if per_sample_bias and parameters[1].shape != (len(parameters[0]), x.shape[1]):
        return None
    given = [*parameters[:1], *parameters[2:]] if per_sample_bias else parameters
    kept = _TAPES.setdefault(plan, {})
    key = (keep, needs_x, per_sample_bias, *((t.shape, t.stride()) for t in given))
    if key not in kept:
        tape = tapes.Tape(given, keep)
        weights, first = parameters[::2], parameters[1]
        biases = [None if per_sample_bias else first, *parameters[3::2]]
        initial = tape.input("initial", len(first)) if per_sample_bias else None
        columns = tape.input("x", x.shape[0])
        y = record(tape, columns, weights, biases, plan, initial=initial, name="y")
        inputs = (["x"] if needs_x else []) + (["initial"] if per_sample_bias else [])
        kept[key] = tape.close([y], inputs)
    return kept[key]


class _Chain(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: Plan, kept: bool, x: Tensor, *parameters: Tensor) -> Tensor:
        tape = _tape(plan, x, parameters, kept, kept and ctx.needs_input_grad[2])
        if tape:
            ctx.save_for_backward(x, *parameters)
            ctx.plan, ctx.tape = plan, tape
            tensors, given = _named(x, parameters)
            (y,), ctx.kept = tape.forward(tensors, given, x)
            return y
        last = len(plan.masks) - 1
        h, a = x, _asinh(x)
        read, matrices, active = [a], [], []
        for i, (mask, steps) in enumerate(zip(plan.masks, plan.steps, strict=True)):
            weight, bias = parameters[2 * i : 2 * i + 2]
            matrices.append(masked_weight(weight, mask))
            previous = h if i and len(h) == len(bias) else None
            h = masked_product(matrices[-1], bias.flatten(0, -2), a, steps)
            if i == last:
                break
            h = h if previous is None else h.add_(previous)
            with torch.set_grad_enabled(kept):  # Autograd provides the slope of any activation.
                leaf = h.detach().requires_grad_(kept)
                pair = leaf, plan.activation(leaf)
            a = pair[1].detach()
            if kept:
                active.append(pair)
                read.append(a)
        if kept:
            ctx.save_for_backward(x, *parameters)
            ctx.plan, ctx.tape, ctx.kept = plan, None, (read, matrices, active)
        return h

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, *parameters = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _differentiable_gradients(ctx, g, x, parameters)
        needs = ctx.needs_input_grad[2:]
        if ctx.tape:
            tensors, given = _named(x, parameters)
            outer, own = ctx.tape.backward(tensors, given, [g], ctx.kept)
            if "initial" in outer:  # of a first bias that differs between samples
                own.insert(1, outer["initial"])
            both = zip([outer.get("x"), *own], needs, strict=True)
            return None, None, *(t if need else None for t, need in both)
        plan, (read, matrices, active) = ctx.plan, ctx.kept
        last = len(matrices) - 1
        found: list[Tensor | None] = [None] * (1 + len(parameters))
        for i in range(last, -1, -1):
            weight, bias = parameters[2 * i : 2 * i + 2]
            if needs[2 * i + 1]:
                gw = weight_gradient(g, read[i], plan.steps[i]).view(weight.shape)
                found[2 * i + 1] = gw if plan.masks[i] is None else gw.mul_(plan.masks[i])
            if needs[2 * i + 2]:
                gb = g.sum(1, keepdim=True) if bias.shape[-1] == 1 else g
                found[2 * i + 2] = gb.view(bias.shape)
            if i == 0:
                break
            (h, a), above = active[i - 1], g
            g = input_gradient(matrices[i], above, plan.steps[i])
            residual = above if i < last and above.shape == g.shape else None
            (g,) = torch.autograd.grad(a, h, g, retain_graph=True)
            g = g if residual is None else g.add_(residual)
        if needs[0]:
            found[0] = input_gradient(matrices[0], g, plan.steps[0]).mul_((x * x).add_(1).rsqrt_())
        return None, None, *found


def _named(x: Tensor, parameters: Sequence[Tensor]) -> tuple[dict[str, Tensor], Sequence[Tensor]]:
    """The inputs of a tape by name, and the other parameters."""
    if parameters[1].shape[-1] == 1:
        return {"x": x.contiguous()}, parameters
    rest = [*parameters[:1], *parameters[2:]]
    return {"x": x.contiguous(), "initial": parameters[1].contiguous()}, rest


def _differentiable_gradients(
    ctx: Any, g: Tensor, x: Tensor, parameters: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """The gradients as a differentiable graph, for second derivatives."""
    if ctx.plan.random:
        raise RuntimeError(
            "a network with dropout has no second derivatives in training mode, which "
            "create_graph=True requires: call eval() on it first"
        )
    # Views are used because one tensor may depend on another.
    x, *parameters = tensors = [t.view_as(t) for t in (x, *parameters)]
    wanted = [t for t, need in zip(tensors, ctx.needs_input_grad[2:], strict=True) if need]
    found = iter(
        torch.autograd.grad(_plain(x, parameters, ctx.plan), wanted, g, create_graph=True)
    )
    return None, None, *(next(found) if need else None for need in ctx.needs_input_grad[2:])
