"""Layers on columns in one node of autograd: what most networks of flows are made of.

The backward pass is written out, over the layers in turn, so that between two matrix products there can
be one compiled pass each way that reads and writes each number once (``chain_kernel.py``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from densekit.nets.compiled import compiled
from densekit.nets.triangular import Step, pull, push, push_back, whole

_KERNEL = "densekit.nets.chain_kernel"
Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Plan:
    """What a chain is besides its weights: of each layer the mask (broadcasts against the weight, or
    None) and the steps of :func:`~densekit.nets.triangular.stairs` over its rows (or None)."""

    name: str
    """Of the activation, where it has loops of its own."""
    activation: Activation
    random: bool
    """Whether the activation draws (dropout)."""
    masks: Sequence[Tensor | None]
    steps: Sequence[Sequence[Step] | None]


def squash(x: Tensor) -> Tensor:
    """What a conditioner reads of its input: asinh, the number itself near 0 and its logarithm far out.

    A network continues its last slope to infinity, so that an outlier in one feature would throw the
    parameters of all others off; and any finite input now gives finite parameters.
    """
    if torch._C._are_functorch_transforms_active():
        return torch.asinh(x)
    y: Tensor = _Asinh.apply(x)
    return y


def _asinh(x: Tensor) -> Tensor:
    # torch's own takes a number at a time on a CPU; its parts come in vectors, ten times as fast.
    # Beyond this the square has no float, and the logarithm stands still.
    t = x.abs().clamp(max=torch.finfo(x.dtype).max ** 0.5 / 2)
    root = torch.mul(t, t).add_(1).sqrt_().add_(1)
    return torch.mul(t, t).div_(root).add_(t).log1p_().copysign_(x)


class _Asinh(torch.autograd.Function):
    # (With a setup_context of its own torch looks the signature up at every call, for 40 microseconds.)

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
    r"""A network from columns (n_in, N) to columns (n_out, N).

    .. math:: h_1 = W_1 \operatorname{asinh}(x) + b_1, \quad
              h_{i+1} = h_i + W_{i+1}\,\sigma(h_i) + b_{i+1}, \quad y = W \sigma(h_k) + b

    with the sum left out where two neighbouring layers differ in width, and each W times its mask.

    Parameters
    ----------
    x : (n_in, N)
    weights : of each layer (rows, columns), or (A, B, columns) with A B rows in the order of the shape
    biases : of each layer (rows, 1); or (rows, N), where the samples differ
    plan : Plan

    Returns
    -------
    (n_out, N), differentiable any number of times (once, with dropout).
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
    """The chain as the formula has it."""
    last = len(plan.masks) - 1
    h, a = x, squash(x)
    for i, mask in enumerate(plan.masks):
        weight, bias = parameters[2 * i : 2 * i + 2]
        weight = weight if mask is None else weight * mask
        step = torch.addmm(bias, weight.flatten(0, -2), a)
        h = h + step if 0 < i < last and h.shape == step.shape else step
        a = plan.activation(h) if i < last else h
    return h


class _Chain(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: Plan, kept: bool, x: Tensor, *parameters: Tensor) -> Tensor:
        loops = None if plan.random else compiled(_KERNEL, x, *parameters)
        if loops and plan.name not in loops.ACTIVATIONS:
            loops = None
        last = len(plan.masks) - 1
        h, a = x, loops.asinh(x) if loops else _asinh(x)
        read, matrices, active = [a], [], []
        for i, (mask, steps) in enumerate(zip(plan.masks, plan.steps, strict=True)):
            weight, bias = parameters[2 * i : 2 * i + 2]
            matrices.append(whole(weight, mask))
            if i == last:
                h = push(matrices[-1], bias, a, steps)
                break
            below = h if i and len(h) == len(bias) else None
            if loops:
                h = push(matrices[-1], None, a, steps)
                if bias.shape[1] > 1:
                    h.add_(bias)
                    bias = bias.new_zeros(len(bias), 1)
                pair = h, loops.activate(plan.name, h, bias, below)
            else:
                h = push(matrices[-1], bias, a, steps)
                h = h if below is None else h.add_(below)
                with torch.set_grad_enabled(kept):  # the slope of any activation, dropout included
                    leaf = h.detach().requires_grad_(kept)
                    pair = leaf, plan.activation(leaf)
            a = pair[1].detach()
            if kept:
                active.append(pair)
                read.append(a)
        if kept:
            ctx.save_for_backward(x, *parameters)
            ctx.plan, ctx.kept, ctx.loops = plan, (read, matrices, active), loops
        return h

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, *parameters = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _again(ctx, g, x, parameters)
        plan, loops, (read, matrices, active) = ctx.plan, ctx.loops, ctx.kept
        last, needs = len(matrices) - 1, ctx.needs_input_grad[2:]
        found: list[Tensor | None] = [None] * (1 + len(parameters))
        for i in range(last, -1, -1):
            weight, bias = parameters[2 * i : 2 * i + 2]
            if needs[2 * i + 1]:
                gw = pull(g, read[i], plan.steps[i]).view(weight.shape)
                found[2 * i + 1] = gw if plan.masks[i] is None else gw.mul_(plan.masks[i])
            if needs[2 * i + 2]:
                found[2 * i + 2] = g.sum(1, keepdim=True) if bias.shape[1] == 1 else g
            if i == 0:
                break
            (h, a), above = active[i - 1], g
            g = push_back(matrices[i], above, plan.steps[i])
            residual = above if i < last and above.shape == g.shape else None
            if loops:
                loops.slope(plan.name, h, g, residual)
            else:
                (g,) = torch.autograd.grad(a, h, g, retain_graph=True)
                g = g if residual is None else g.add_(residual)
        if needs[0]:
            gx = push_back(matrices[0], g, plan.steps[0])
            found[0] = loops.asinh_slope(x, gx) if loops else gx.mul_((x * x).add_(1).rsqrt_())
        return None, None, *found


def _again(
    ctx: Any, g: Tensor, x: Tensor, parameters: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """The gradients as a graph of their own, where they shall be differentiated again."""
    if ctx.plan.random:
        raise RuntimeError(
            "a network with dropout has no second derivatives in training mode, which "
            "create_graph=True asks for: call eval() on it first"
        )
    tensors = (x, *parameters)
    wanted = [t for t, need in zip(tensors, ctx.needs_input_grad[2:], strict=True) if need]
    found = iter(
        torch.autograd.grad(_plain(x, parameters, ctx.plan), wanted, g, create_graph=True)
    )
    return None, None, *(next(found) if need else None for need in ctx.needs_input_grad[2:])
