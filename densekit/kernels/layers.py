"""Elementwise operations between the matrix products of a network, as compiled loops over a row of
samples.

Importing this module imports numba.
"""

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from densekit.kernels.loops import LIGHT, MATH, F, exp, flat, log, run_in_threads, split_work

ACTIVATIONS = {"relu": 0, "silu": 1}
_LARGEST = F(np.finfo(np.float32).max ** 0.5 / 2)
"""Larger numbers are clamped: their square would overflow, and the logarithm would not change."""


@numba.njit(fastmath=MATH, error_model="numpy")
def asinh_row(xs: Any, ys: Any) -> Any:
    """y = asinh(x)."""
    one, largest = F(1.0), _LARGEST
    for i in range(len(xs)):
        t = min(abs(xs[i]), largest)
        v = t + t * t / (one + np.sqrt(one + t * t))
        # log(1 + v), corrected for the rounding of 1 + v so that it is precise for small v.
        u = one + v
        near = u - one
        ratio = v / (near if near > F(0.0) else one)
        y1 = log(u) * ratio if near > F(0.0) else v
        ys[i] = y1 if xs[i] >= F(0.0) else -y1


@numba.njit(fastmath=MATH, error_model="numpy")
def asinh_slope(xs: Any, ga: Any, add: Any, gx: Any) -> Any:
    """gx (+)= ga / sqrt(1 + x^2)."""
    one, largest = F(1.0), _LARGEST
    if add:
        for i in range(len(xs)):
            t = min(abs(xs[i]), largest)
            gx[i] += ga[i] / np.sqrt(one + t * t)
    else:
        for i in range(len(xs)):
            t = min(abs(xs[i]), largest)
            gx[i] = ga[i] / np.sqrt(one + t * t)


@numba.njit(fastmath=MATH, error_model="numpy")
def activate(kind: Any, bias: Any, residual: Any, under: Any, hs: Any, out: Any) -> Any:
    """h += bias (+ under), and out = activation(h)."""
    zero, one, n = F(0.0), F(1.0), len(hs)
    if residual:
        for i in range(n):
            hs[i] = hs[i] + bias + under[i]
    else:
        for i in range(n):
            hs[i] = hs[i] + bias
    if kind == 0:
        for i in range(n):
            out[i] = zero if hs[i] < zero else hs[i]
    else:
        for i in range(n):
            out[i] = hs[i] / (one + exp(-hs[i]))


@numba.njit(fastmath=MATH, error_model="numpy")
def slope(kind: Any, residual: Any, over: Any, hs: Any, gs: Any) -> Any:
    """g = activation'(h) g (+ over)."""
    zero, one, n = F(0.0), F(1.0), len(hs)
    if kind == 0:
        for i in range(n):
            gs[i] = zero if hs[i] <= zero else gs[i]
    else:
        for i in range(n):
            s = one / (one + exp(-hs[i]))
            gs[i] = gs[i] * s * (one + hs[i] * (one - s))
    if residual:
        for i in range(n):
            gs[i] = gs[i] + over[i]


@numba.njit(nogil=True, fastmath=MATH, error_model="numpy", cache=True)
def _asinh(xs: Any, ys: Any) -> Any:
    asinh_row(xs, ys)


def asinh(x: Tensor) -> Tensor:
    """Inverse hyperbolic sine of all entries of a tensor."""
    x = x.contiguous()
    y, n = torch.empty_like(x), x.numel()
    xs, ys = flat(x), flat(y)
    run_in_threads(
        _asinh, [(xs[low:high], ys[low:high]) for low, high in split_work(n, n // LIGHT, 64)]
    )
    return y
