"""Elementwise operations of a transformer as compiled loops over tokens, for float32 on a CPU.

They compute the same as ``nets/tokenwise.py``. Importing this module imports numba and compiles
the loops, or loads them from the cache.
"""

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from densekit.kernels.loops import LIGHT, MATH, F, exp, flat, run_in_threads, split_work

SUMS = MATH | {"reassoc"}
"""Optimizations that may also reorder sums, without which they would not be vectorized."""
_ROW, _INT = numba.float32[::1], numba.int64


def _loop(*kinds: Any) -> Any:
    return numba.njit(
        numba.void(*kinds), nogil=True, fastmath=SUMS, error_model="numpy", cache=True
    )


@numba.njit(fastmath=SUMS, error_model="numpy")
def _inverse_root(xs: Any, tiny: Any) -> Any:
    """Inverse root of the mean square."""
    total = F(0.0)
    for j in range(len(xs)):
        total += xs[j] * xs[j]
    return F(1.0) / np.sqrt(total / F(len(xs)) + tiny)


@numba.njit(fastmath=SUMS, error_model="numpy")
def _norm_back(xs: Any, gs: Any, tiny: Any, out: Any) -> Any:
    """Gradient of x times its inverse root mean square."""
    r, total = _inverse_root(xs, tiny), F(0.0)
    for j in range(len(xs)):
        total += gs[j] * xs[j]
    c = total / F(len(xs)) * r * r
    for j in range(len(xs)):
        out[j] = r * (gs[j] - c * xs[j])


@_loop(_INT, _INT, _INT, numba.float32, _ROW, _ROW)
def _norm(first: Any, stop: Any, width: Any, tiny: Any, x: Any, y: Any) -> None:
    for i in range(first, stop):
        xs, ys = x[i * width : (i + 1) * width], y[i * width : (i + 1) * width]
        r = _inverse_root(xs, tiny)
        for j in range(width):
            ys[j] = r * xs[j]


@_loop(_INT, _INT, _INT, numba.float32, _ROW, _ROW, _ROW)
def _norm_backward(first: Any, stop: Any, width: Any, tiny: Any, x: Any, gy: Any, gx: Any) -> None:
    for i in range(first, stop):
        low, high = i * width, (i + 1) * width
        _norm_back(x[low:high], gy[low:high], tiny, gx[low:high])


@_loop(_INT, _INT, _INT, _ROW, _ROW)
def _gate(first: Any, stop: Any, width: Any, x: Any, y: Any) -> None:
    one = F(1.0)
    for i in range(first, stop):
        at = 2 * i * width
        a, b = x[at : at + width], x[at + width : at + 2 * width]
        ys = y[i * width : (i + 1) * width]
        for j in range(width):
            ys[j] = a[j] * b[j] / (one + exp(-a[j]))


@_loop(_INT, _INT, _INT, _ROW, _ROW, _ROW)
def _gate_backward(first: Any, stop: Any, width: Any, x: Any, gy: Any, gx: Any) -> None:
    one = F(1.0)
    for i in range(first, stop):
        at = 2 * i * width
        a, b = x[at : at + width], x[at + width : at + 2 * width]
        ga, gb = gx[at : at + width], gx[at + width : at + 2 * width]
        gs = gy[i * width : (i + 1) * width]
        for j in range(width):
            s = one / (one + exp(-a[j]))
            gb[j] = gs[j] * a[j] * s
            ga[j] = gs[j] * b[j] * s * (one + a[j] * (one - s))


@_loop(_INT, _INT, _INT, _INT, _ROW, _ROW, _ROW)
def _switch(first: Any, stop: Any, width: Any, step: Any, x: Any, added: Any, y: Any) -> None:
    one = F(1.0)
    for i in range(first, stop):
        at, to, ys = 2 * i * width, i * step, y[i * width : (i + 1) * width]
        a, b = x[at : at + width], x[at + width : at + 2 * width]
        c, d = added[to : to + width], added[to + width : to + 2 * width]
        for j in range(width):
            ys[j] = (a[j] + c[j]) / (one + exp(-b[j] - d[j]))


@_loop(_INT, _INT, _INT, _INT, _ROW, _ROW, _ROW, _ROW)
def _switch_backward(
    first: Any, stop: Any, width: Any, step: Any, x: Any, added: Any, gy: Any, gx: Any
) -> None:
    one = F(1.0)
    for i in range(first, stop):
        at, to, gs = 2 * i * width, i * step, gy[i * width : (i + 1) * width]
        a, b = x[at : at + width], x[at + width : at + 2 * width]
        c, d = added[to : to + width], added[to + width : to + 2 * width]
        ga, gb = gx[at : at + width], gx[at + width : at + 2 * width]
        for j in range(width):
            s = one / (one + exp(-b[j] - d[j]))
            g = gs[j] * s
            ga[j] = g
            gb[j] = g * (a[j] + c[j]) * (one - s)


@_loop(_INT, _INT, _INT, _INT, _INT, numba.float32, _ROW, _ROW, _ROW, _ROW, _ROW, _ROW)
def _turn(
    first: Any, stop: Any, n_turned: Any, n_left: Any, half: Any, tiny: Any,
    x: Any, cos: Any, sin: Any, gain: Any, y: Any, left: Any,
) -> None:  # fmt: skip
    for i in range(first, stop):
        c, s = cos[i * half : (i + 1) * half], sin[i * half : (i + 1) * half]
        for h in range(n_turned):
            at, to = (i * (n_turned + n_left) + h) * 2 * half, (i * n_turned + h) * 2 * half
            r = gain[h] * _inverse_root(x[at : at + 2 * half], tiny)
            a, b = x[at : at + half], x[at + half : at + 2 * half]
            u, v = y[to : to + half], y[to + half : to + 2 * half]
            for j in range(half):
                u[j] = r * (a[j] * c[j] - b[j] * s[j])
                v[j] = r * (a[j] * s[j] + b[j] * c[j])
        at, to = (i * (n_turned + n_left) + n_turned) * 2 * half, i * n_left * 2 * half
        for j in range(n_left * 2 * half):
            left[to + j] = x[at + j]


@_loop(
    _INT, _INT, _INT, _INT, _INT, numba.float32,
    _ROW, _ROW, _ROW, _ROW, _ROW, _ROW, _ROW, _ROW,
)  # fmt: skip
def _turn_backward(
    first: Any, stop: Any, n_turned: Any, n_left: Any, half: Any, tiny: Any,
    x: Any, cos: Any, sin: Any, gain: Any, gy: Any, gleft: Any, gx: Any, ggain: Any,
) -> None:  # fmt: skip
    back = np.empty(2 * half, F)
    for i in range(first, stop):
        c, s = cos[i * half : (i + 1) * half], sin[i * half : (i + 1) * half]
        for h in range(n_turned):
            at, to = (i * (n_turned + n_left) + h) * 2 * half, (i * n_turned + h) * 2 * half
            xs = x[at : at + 2 * half]
            u, v = gy[to : to + half], gy[to + half : to + 2 * half]
            total = F(0.0)
            for j in range(half):
                p, q = u[j] * c[j] + v[j] * s[j], v[j] * c[j] - u[j] * s[j]
                total += p * xs[j] + q * xs[half + j]
                back[j], back[half + j] = gain[h] * p, gain[h] * q
            ggain[h] += total * _inverse_root(xs, tiny)
            _norm_back(xs, back, tiny, gx[at : at + 2 * half])
        at, to = (i * (n_turned + n_left) + n_turned) * 2 * half, i * n_left * 2 * half
        for j in range(n_left * 2 * half):
            gx[at + j] = gleft[to + j]


def _parts(x: Tensor) -> list[tuple[int, int]]:
    return split_work(len(x), x.numel() // LIGHT)


def norm(x: Tensor, tiny: float) -> Tensor:
    """Rows (m, width) divided by the root of their mean square."""
    x = x.contiguous()
    y = torch.empty_like(x)
    given = (x.shape[1], F(tiny), flat(x), flat(y))
    run_in_threads(_norm, [(*part, *given) for part in _parts(x)])
    return y


def norm_backward(x: Tensor, gy: Tensor, tiny: float) -> tuple[Tensor]:
    """The gradient with respect to x."""
    x, gy = x.contiguous(), gy.contiguous()
    gx = torch.empty_like(x)
    given = (x.shape[1], F(tiny), flat(x), flat(gy), flat(gx))
    run_in_threads(_norm_backward, [(*part, *given) for part in _parts(x)])
    return (gx,)


def gate(x: Tensor) -> Tensor:
    """SwiGLU: (m, 2 width) to silu of the first half times the second half."""
    x = x.contiguous()
    y = x.new_empty(len(x), x.shape[1] // 2)
    given = (y.shape[1], flat(x), flat(y))
    run_in_threads(_gate, [(*part, *given) for part in _parts(x)])
    return y


def gate_backward(x: Tensor, gy: Tensor) -> tuple[Tensor]:
    """The gradient with respect to x."""
    x, gy = x.contiguous(), gy.contiguous()
    gx = torch.empty_like(x)
    given = (gy.shape[1], flat(x), flat(gy), flat(gx))
    run_in_threads(_gate_backward, [(*part, *given) for part in _parts(x)])
    return (gx,)


def switch(x: Tensor, *added: Tensor) -> Tensor:
    """Gated linear unit: (m, 2 width), plus ``added`` if given, to the first half times the sigmoid
    of the second.
    """
    x = x.contiguous()
    y = x.new_empty(len(x), x.shape[1] // 2)
    step, more = _added(x, added)
    given = (y.shape[1], step, flat(x), more, flat(y))
    run_in_threads(_switch, [(*part, *given) for part in _parts(x)])
    return y


def switch_backward(x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
    """The gradients with respect to x and ``added``, which are equal."""
    *added, gy = rest
    x, gy = x.contiguous(), gy.contiguous()
    gx = torch.empty_like(x)
    step, more = _added(x, added)
    given = (gy.shape[1], step, flat(x), more, flat(gy), flat(gx))
    run_in_threads(_switch_backward, [(*part, *given) for part in _parts(x)])
    return (gx,) * (1 + len(added))


def _added(x: Tensor, added: Sequence[Tensor]) -> tuple[int, np.ndarray]:
    """The rows of ``added``, and the number of entries from one of its rows to the next."""
    if added:
        return x.shape[1], flat(added[0].contiguous())
    return 0, np.zeros(x.shape[1], F)


def turn(x: Tensor, cos: Tensor, sin: Tensor, gain: Tensor, tiny: float) -> tuple[Tensor, Tensor]:
    """Split heads (m, h, d) into those with a gain, normalized and rotated, and the others."""
    x, cos, sin, gain = (t.contiguous() for t in (x, cos, sin, gain))
    m, heads, d = x.shape
    y, left = x.new_empty(m, len(gain), d), x.new_empty(m, heads - len(gain), d)
    given = (len(gain), heads - len(gain), d // 2, F(tiny), flat(x), flat(cos), flat(sin))
    run_in_threads(
        _turn, [(*part, *given, flat(gain), flat(y), flat(left)) for part in _parts(x.flatten(1))]
    )
    return y, left


def turn_backward(
    x: Tensor, cos: Tensor, sin: Tensor, gain: Tensor, gy: Tensor, gleft: Tensor, tiny: float
) -> tuple[Tensor, None, None, Tensor]:
    """Gradients with respect to x and the gains; the angles are not learned."""
    x, cos, sin, gain, gy, gleft = (t.contiguous() for t in (x, cos, sin, gain, gy, gleft))
    _, heads, d = x.shape
    gx, parts = torch.empty_like(x), _parts(x.flatten(1))
    ggain = x.new_zeros(len(parts), len(gain))
    given = (len(gain), heads - len(gain), d // 2, F(tiny), flat(x), flat(cos), flat(sin))
    run_in_threads(
        _turn_backward,
        [
            (*part, *given, flat(gain), flat(gy), flat(gleft), flat(gx), flat(g))
            for part, g in zip(parts, ggain, strict=True)
        ],
    )
    return gx, None, None, ggain.sum(0)
