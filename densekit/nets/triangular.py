"""Products with a masked matrix whose zeros make stairs: what lies above them is not multiplied."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Step = tuple[int, int, int]
"""Rows from, rows to, and how many columns they read."""
_ROWS = 64
"""A step has at least so many rows: thinner products take longer than the zeros that they leave out."""
_STEPS = 4


def stairs(reads: Sequence[int]) -> list[Step]:
    """Steps over rows that read the first ``reads[r]`` columns each.

    Examples
    --------
    >>> stairs([1] * 64 + [2] * 64)
    [(0, 64, 1), (64, 128, 2)]
    """
    n = len(reads)
    count = max(1, min(_STEPS, n // _ROWS))
    edges = [round(n * i / count) for i in range(count + 1)]
    return [(a, b, max(reads[a:b])) for a, b in itertools.pairwise(edges)]


def masked_product(
    x: Tensor, weight: Tensor, bias: Tensor, mask: Tensor, steps: Sequence[Step]
) -> Tensor:
    r"""(W * mask) x + b, where ``steps`` cover all that the mask leaves.

    Parameters
    ----------
    x : (K, N)
    weight : (M, K) or (A, B, K), rows in the order of its shape, whatever that of its memory
    bias : (A B, 1)
    mask : broadcasts against weight
    steps : as from :func:`stairs`, over the A B rows

    Returns
    -------
    (M, N) or (A B, N), differentiable any number of times.
    """
    if (
        len(steps) == 1
        or x.device.type != "cpu"
        or torch.is_autocast_enabled("cpu")
        or torch.compiler.is_compiling()
    ):
        return torch.addmm(bias, (weight * mask).flatten(0, -2), x)
    y: Tensor = _Stairs.apply(x, weight, bias, mask, steps)
    return y


def _masked(weight: Tensor, mask: Tensor) -> Tensor:
    """In rows that follow each other, with one pass over the numbers."""
    return torch.mul(weight, mask, out=weight.new_empty(weight.shape)).flatten(0, -2)


class _Stairs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mask: Tensor, steps: Sequence[Step]
    ) -> Tensor:
        w = _masked(weight, mask)
        y = x.new_empty(len(w), x.shape[1])
        for a, b, k in steps:
            torch.addmm(bias[a:b], w[a:b, :k], x[:k], out=y[a:b])
        ctx.save_for_backward(x, weight, mask, w)
        ctx.steps = steps
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None]:
        x, weight, mask, w = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph: what is returned is differentiated again
            gx = (weight * mask).flatten(0, -2).t() @ g
            return gx, (g @ x.t()).view(weight.shape) * mask, g.sum(1, keepdim=True), None, None
        gw, gx = torch.zeros_like(w), torch.zeros_like(x)
        for a, b, k in ctx.steps:
            torch.mm(g[a:b], x[:k].t(), out=gw[a:b, :k])
            gx[:k].addmm_(w[a:b, :k].t(), g[a:b])
        gw = gw.view(weight.shape).mul_(mask)
        return gx, gw, g.sum(1, keepdim=True), None, None
