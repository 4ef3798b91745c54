"""Products with a masked matrix whose zeros make stairs: what lies above them is not multiplied."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

Step = tuple[int, int, int]
"""Rows from, rows to, and how many columns they read."""
_ROWS = 64
"""A step has at least so many rows: thinner products take longer than the zeros that they leave out."""
_STEPS = 4


def stairs(reads: Sequence[int]) -> list[Step] | None:
    """Steps over rows that read the first ``reads[r]`` columns each; None where one is enough.

    Examples
    --------
    >>> stairs([1] * 64 + [2] * 64)
    [(0, 64, 1), (64, 128, 2)]
    """
    n = len(reads)
    count = min(_STEPS, n // _ROWS)
    if count < 2:
        return None
    edges = [round(n * i / count) for i in range(count + 1)]
    return [(a, b, max(reads[a:b])) for a, b in itertools.pairwise(edges)]


def whole(weight: Tensor, mask: Tensor | None) -> Tensor:
    """weight * mask in rows that follow each other, (A B, K), with one pass over the numbers."""
    if mask is None:
        return weight.flatten(0, -2)
    return torch.mul(weight, mask, out=weight.new_empty(weight.shape)).flatten(0, -2)


def push(w: Tensor, bias: Tensor | None, x: Tensor, steps: Sequence[Step] | None) -> Tensor:
    """w x + bias, where the steps cover all of w that is not zero; None takes the whole of it."""
    if steps is None:
        return w @ x if bias is None else torch.addmm(bias, w, x)
    y = x.new_empty(len(w), x.shape[1])
    for a, b, k in steps:
        if bias is None:
            torch.mm(w[a:b, :k], x[:k], out=y[a:b])
        else:
            torch.addmm(bias[a:b], w[a:b, :k], x[:k], out=y[a:b])
    return y


def push_back(w: Tensor, g: Tensor, steps: Sequence[Step] | None) -> Tensor:
    """w' g."""
    if steps is None:
        return w.t() @ g
    y = g.new_empty(w.shape[1], g.shape[1])
    filled = 0
    for a, b, k in sorted(steps, key=lambda step: -step[2]):  # what is read furthest fills it
        if filled:
            y[:k].addmm_(w[a:b, :k].t(), g[a:b])
        else:
            torch.mm(w[a:b, :k].t(), g[a:b], out=y[:k])
            y[k:], filled = 0, k
    return y


def pull(g: Tensor, x: Tensor, steps: Sequence[Step] | None) -> Tensor:
    """g x', zero where the steps do not reach."""
    if steps is None:
        return g @ x.t()
    w = g.new_empty(len(g), len(x))
    for a, b, k in steps:
        torch.mm(g[a:b], x[:k].t(), out=w[a:b, :k])
        w[a:b, k:] = 0
    return w
