"""The element-wise passes of ``chain.py`` as compiled loops, for float32 on a CPU.

Between two matrix products lies one pass each way: bias, residual sum and activation forward; the
activation's slope and the residual's gradient backward. Importing this imports numba.
"""

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from densekit.nets.loops import LIGHT, MATH, F, exp, flat, log, share_out, shares

ACTIVATIONS = {"relu": 0, "silu": 1}
_LARGEST = F(np.finfo(np.float32).max ** 0.5 / 2)
"""Beyond it the square has no float, and the logarithm stands still."""


@numba.njit(nogil=True, fastmath=MATH, error_model="numpy", cache=True)
def _asinh(first: Any, stop: Any, x: Any, y: Any) -> Any:
    one, largest = F(1.0), _LARGEST
    xs, ys = x[first:stop], y[first:stop]
    for i in range(len(xs)):
        t = min(abs(xs[i]), largest)
        v = t + t * t / (one + np.sqrt(one + t * t))
        # The logarithm of 1 + v for small v too, from that of the float next to it.
        u = one + v
        near = u - one
        ratio = v / (near if near > F(0.0) else one)
        y1 = log(u) * ratio if near > F(0.0) else v
        ys[i] = y1 if xs[i] >= F(0.0) else -y1


@numba.njit(nogil=True, fastmath=MATH, error_model="numpy", cache=True)
def _asinh_slope(first: Any, stop: Any, x: Any, g: Any) -> Any:
    one = F(1.0)
    xs, gs = x[first:stop], g[first:stop]
    for i in range(len(xs)):
        gs[i] *= one / np.sqrt(one + xs[i] * xs[i])


@numba.njit(nogil=True, fastmath=MATH, error_model="numpy", cache=True)
def _activate(
    first: Any, stop: Any, kind: Any, residual: Any, n: Any, bias: Any, below: Any, h: Any, a: Any
) -> Any:
    """Rows first ... stop - 1 of h += bias (+ below), and a = activation(h)."""
    zero, one = F(0.0), F(1.0)
    for r in range(first, stop):
        hs, out, b = h[r * n : r * n + n], a[r * n : r * n + n], bias[r]
        if residual:
            under = below[r * n : r * n + n]
            for i in range(n):
                hs[i] = hs[i] + b + under[i]
        else:
            for i in range(n):
                hs[i] = hs[i] + b
        if kind == 0:
            for i in range(n):
                out[i] = zero if hs[i] < zero else hs[i]
        else:
            for i in range(n):
                out[i] = hs[i] / (one + exp(-hs[i]))


@numba.njit(nogil=True, fastmath=MATH, error_model="numpy", cache=True)
def _slope(
    first: Any, stop: Any, kind: Any, residual: Any, n: Any, h: Any, above: Any, g: Any
) -> Any:
    """Rows first ... stop - 1 of g = activation'(h) g (+ above)."""
    zero, one = F(0.0), F(1.0)
    for r in range(first, stop):
        hs, gs = h[r * n : r * n + n], g[r * n : r * n + n]
        if kind == 0:
            for i in range(n):
                gs[i] = zero if hs[i] <= zero else gs[i]
        else:
            for i in range(n):
                s = one / (one + exp(-hs[i]))
                gs[i] = gs[i] * s * (one + hs[i] * (one - s))
        if residual:
            over = above[r * n : r * n + n]
            for i in range(n):
                gs[i] = gs[i] + over[i]


def _each(loop: Any, *arrays: Tensor) -> None:
    n = arrays[0].numel()
    rows = [flat(a) for a in arrays]
    share_out(loop, [(*part, *rows) for part in shares(n, n // LIGHT, 64)])


def asinh(x: Tensor) -> Tensor:
    """The inverse hyperbolic sine."""
    x = x.contiguous()
    y = torch.empty_like(x)
    _each(_asinh, x, y)
    return y


def asinh_slope(x: Tensor, g: Tensor) -> Tensor:
    """g / sqrt(1 + x^2), in the place of g."""
    _each(_asinh_slope, x.contiguous(), g)
    return g


def activate(name: str, h: Tensor, bias: Tensor, below: Tensor | None) -> Tensor:
    """h (R, N) becomes h + bias (R, 1) + below (R, N); what comes back is its activation."""
    a, n = torch.empty_like(h), h.shape[1]
    fixed = (ACTIVATIONS[name], below is not None, n)
    rows = [flat(bias), flat(h if below is None else below), flat(h), flat(a)]
    share_out(_activate, [(*part, *fixed, *rows) for part in shares(len(h), h.numel() // LIGHT)])
    return a


def slope(name: str, h: Tensor, g: Tensor, above: Tensor | None) -> None:
    """g (R, N) becomes what it is below an activation of h, plus ``above``."""
    n, fixed = h.shape[1], (ACTIVATIONS[name], above is not None)
    rows = [flat(h), flat(g if above is None else above.contiguous()), flat(g)]
    share_out(_slope, [(*part, *fixed, n, *rows) for part in shares(len(g), g.numel() // LIGHT)])
