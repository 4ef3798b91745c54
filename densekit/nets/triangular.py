"""Products with a weight whose mask is a block triangle, without multiplying most of the zeros."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

Step = tuple[int, int, int]
"""First row, end row, and number of leading columns that are not masked out in these rows."""
_MIN_ROWS = 64
"""Smallest number of rows of a step: thinner products are slower than multiplying the zeros."""
_MAX_STEPS = 4


def stairs(reads: Sequence[int]) -> list[Step] | None:
    """Cover a masked weight by steps; row r uses the first ``reads[r]`` columns. None if a single
    step suffices.

    Examples
    --------
    >>> stairs([1] * 64 + [2] * 64)
    [(0, 64, 1), (64, 128, 2)]
    """
    n = len(reads)
    count = min(_MAX_STEPS, n // _MIN_ROWS)
    if count < 2:
        return None
    edges = [round(n * i / count) for i in range(count + 1)]
    return [(a, b, max(reads[a:b])) for a, b in itertools.pairwise(edges)]


def masked_weight(weight: Tensor, mask: Tensor | None) -> Tensor:
    """weight * mask as contiguous rows (A B, K), computed in one pass."""
    if mask is None:
        return weight.flatten(0, -2)
    return torch.mul(weight, mask, out=weight.new_empty(weight.shape)).flatten(0, -2)


def masked_product(
    w: Tensor, bias: Tensor | None, x: Tensor, steps: Sequence[Step] | None
) -> Tensor:
    """w x + bias, where the steps cover all nonzero entries of w; None multiplies all of w."""
    if steps is None:
        return w @ x if bias is None else torch.addmm(bias, w, x)
    y = x.new_empty(len(w), x.shape[1])
    for a, b, k in steps:
        if bias is None:
            torch.mm(w[a:b, :k], x[:k], out=y[a:b])
        else:
            torch.addmm(bias[a:b], w[a:b, :k], x[:k], out=y[a:b])
    return y


def input_gradient(w: Tensor, g: Tensor, steps: Sequence[Step] | None) -> Tensor:
    """Gradient w' g with respect to the input."""
    if steps is None:
        return w.t() @ g
    y = g.new_empty(w.shape[1], g.shape[1])
    filled = 0
    # The step with the most columns comes first and initializes all rows of y.
    for a, b, k in sorted(steps, key=lambda step: -step[2]):
        if filled:
            y[:k].addmm_(w[a:b, :k].t(), g[a:b])
        else:
            torch.mm(w[a:b, :k].t(), g[a:b], out=y[:k])
            y[k:], filled = 0, k
    return y


def weight_gradient(g: Tensor, x: Tensor, steps: Sequence[Step] | None) -> Tensor:
    """Gradient g x' with respect to the weight, zero outside the steps."""
    if steps is None:
        return g @ x.t()
    w = g.new_empty(len(g), len(x))
    for a, b, k in steps:
        torch.mm(g[a:b], x[:k].t(), out=w[a:b, :k])
        w[a:b, k:] = 0
    return w
