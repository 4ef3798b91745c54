"""The rational-quadratic spline as compiled loops, for float32 on a CPU.

It computes the same as ``transforms/spline.py``. Torch makes some sixty passes over all numbers;
here a block of samples stays in registers and the nearest cache from softmax to log-slope, and the
backward pass recomputes the bin instead of loading saved results. Numba compiles it once per
machine and caches the result; no compiler is needed. Importing this module imports numba.
"""

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from densekit.kernels.limits import MIN_BIN, MIN_SLOPE, UNIT_SLOPE
from densekit.kernels.loops import MATH, F, exp, flat, log, run_in_threads, softplus, split_work

_W = 64
"""Samples per block: sixteen registers of the widest kind, and all buffers fit into the first-level
cache.
"""


# Offsets of the rows of a block's buffer. With one array and constant offsets the compiler knows that
# rows do not overlap, and vectorizes every loop over samples.
_U, _NUMBER, _SHARE0, _SHARE1, _BEFORE0, _BEFORE1 = range(0, 6 * _W, _W)
_RAW0, _RAW1, _SUM0, _SUM1 = range(6 * _W, 10 * _W, _W)
_G0, _G1, _G2, _G3, _G4, _G5, _G6, _G7 = range(10 * _W, 18 * _W, _W)  # gradients
_LENGTH = 18 * _W


@numba.njit(fastmath=MATH, error_model="numpy")
def _find(raw: Any, at: Any, row: Any, K: Any, m: Any, edge: Any, e: Any, b: Any) -> Any:
    """Compute the fractions of all bins in e, and the bin of each b[_U] in the other rows of b.

    ``raw[at + p * row + i]`` is parameter p of sample i; ``edge`` selects the cumulative sum that
    determines the bin.
    """
    s, least = F(1 - MIN_BIN * K), F(MIN_BIN)
    for c in range(2):
        r = raw[at + c * K * row : at + c * K * row + m]
        for i in range(m):
            b[_SUM1 + i] = r[i]
            b[_SUM0 + i] = F(0.0)
        for j in range(1, K):
            r = raw[at + (c * K + j) * row : at + (c * K + j) * row + m]
            for i in range(m):
                b[_SUM1 + i] = max(b[_SUM1 + i], r[i])
        for j in range(K):
            r = raw[at + (c * K + j) * row : at + (c * K + j) * row + m]
            ej = e[(c * K + j) * _W : (c * K + j + 1) * _W]
            for i in range(m):
                a = exp(r[i] - b[_SUM1 + i])
                ej[i] = a
                b[_SUM0 + i] += a
        for i in range(m):
            b[_SUM0 + i] = F(1.0) / b[_SUM0 + i]
        for j in range(K):
            ej = e[(c * K + j) * _W : (c * K + j + 1) * _W]
            for i in range(m):
                ej[i] *= b[_SUM0 + i]
    ej, fj = e[:_W], e[K * _W : (K + 1) * _W]
    r = raw[at + 2 * K * row : at + 2 * K * row + m]
    for i in range(m):
        b[_NUMBER + i] = F(0.0)
        b[_SUM0 + i] = F(0.0)
        b[_SUM1 + i] = F(0.0)
        b[_BEFORE0 + i] = F(0.0)
        b[_BEFORE1 + i] = F(0.0)
        b[_SHARE0 + i] = ej[i]
        b[_SHARE1 + i] = fj[i]
        b[_RAW0 + i] = r[i]
        b[_RAW1 + i] = r[i]
    for j in range(1, K):
        ej, fj = e[(j - 1) * _W : j * _W], e[(K + j - 1) * _W : (K + j) * _W]
        en, fn = e[j * _W : (j + 1) * _W], e[(K + j) * _W : (K + j + 1) * _W]
        after = min(j, K - 2)
        r = raw[at + (2 * K + j - 1) * row : at + (2 * K + j - 1) * row + m]
        rn = raw[at + (2 * K + after) * row : at + (2 * K + after) * row + m]
        place = F(j)
        for i in range(m):
            sum0, sum1 = b[_SUM0 + i] + ej[i], b[_SUM1 + i] + fj[i]
            b[_SUM0 + i] = sum0
            b[_SUM1 + i] = sum1
            right = b[_U + i] >= least * place + s * (sum0 if edge == 0 else sum1)
            b[_NUMBER + i] = place if right else b[_NUMBER + i]
            b[_BEFORE0 + i] = sum0 if right else b[_BEFORE0 + i]
            b[_BEFORE1 + i] = sum1 if right else b[_BEFORE1 + i]
            b[_SHARE0 + i] = en[i] if right else b[_SHARE0 + i]
            b[_SHARE1 + i] = fn[i] if right else b[_SHARE1 + i]
            b[_RAW0 + i] = r[i] if right else b[_RAW0 + i]
            b[_RAW1 + i] = rn[i] if right else b[_RAW1 + i]


@numba.njit(fastmath=MATH, error_model="numpy")
def _slope(raw: Any, number: Any, end: Any) -> Any:
    """Slope at a knot of bin ``number``, which is 1 in the bin at the end.

    It takes numbers instead of an array, whose reference count would prevent vectorization.
    """
    slope = softplus(raw + F(UNIT_SLOPE)) + F(MIN_SLOPE)
    return F(1.0) if number == end else slope


@numba.njit(fastmath=MATH, error_model="numpy")
def _box(x: Any, bound: Any) -> Any:
    return min(max((x + bound) * (F(0.5) / bound), F(0.0)), F(1.0))


@numba.njit(inline="always", fastmath=MATH, error_model="numpy")
def forward_loop(
    x: Any, raw: Any, N: Any, K: Any, feature: Any, row: Any, bound: Any, first: Any, stop: Any,
    y: Any, log_slope: Any,
) -> Any:  # fmt: skip
    """y and log dy/dx of samples first ... stop - 1."""
    e, b = np.empty(2 * K * _W, np.float32), np.empty(_LENGTH, np.float32)
    s, least, two, last = F(1 - MIN_BIN * K), F(MIN_BIN), F(2.0), F(K - 1)
    zero, one = F(0.0), F(1.0)
    for d in range(len(x) // N):
        for n in range(first, stop, _W):
            m, o = min(_W, stop - n), d * N + n
            xs, ys, slopes = x[o : o + m], y[o : o + m], log_slope[o : o + m]
            for i in range(m):
                b[_U + i] = _box(xs[i], bound)
            _find(raw, d * feature + n, row, K, m, 0, e, b)
            for i in range(m):
                d0 = _slope(b[_RAW0 + i], b[_NUMBER + i], zero)
                d1 = _slope(b[_RAW1 + i], b[_NUMBER + i], last)
                w, h = least + s * b[_SHARE0 + i], least + s * b[_SHARE1 + i]
                left = least * b[_NUMBER + i] + s * b[_BEFORE0 + i]
                low = least * b[_NUMBER + i] + s * b[_BEFORE1 + i]
                t = min(max((b[_U + i] - left) / w, zero), one)
                q, mean = t * (one - t), h / w
                bottom = one / (mean + (d0 + d1 - two * mean) * q)
                top = mean * t * t + d0 * q
                rise = d1 * t * t + two * mean * q + d0 * (one - t) * (one - t)
                inside = abs(xs[i]) < bound
                v = (low + h * top * bottom) * two * bound - bound
                ys[i] = v if inside else xs[i]
                g = log(mean * mean * bottom * bottom * rise)
                slopes[i] = g if inside else zero


@numba.njit(inline="always", fastmath=MATH, error_model="numpy")
def inverse_loop(
    y: Any, raw: Any, N: Any, K: Any, feature: Any, row: Any, bound: Any, first: Any, stop: Any,
    x: Any, log_slope: Any,
) -> Any:  # fmt: skip
    """x and log dx/dy of samples first ... stop - 1."""
    e, b = np.empty(2 * K * _W, np.float32), np.empty(_LENGTH, np.float32)
    s, least, two, last = F(1 - MIN_BIN * K), F(MIN_BIN), F(2.0), F(K - 1)
    zero, one, tiny = F(0.0), F(1.0), F(1e-30)
    for d in range(len(y) // N):
        for n in range(first, stop, _W):
            m, o = min(_W, stop - n), d * N + n
            xs, ys, slopes = x[o : o + m], y[o : o + m], log_slope[o : o + m]
            for i in range(m):
                b[_U + i] = _box(ys[i], bound)
            _find(raw, d * feature + n, row, K, m, 1, e, b)
            for i in range(m):
                d0 = _slope(b[_RAW0 + i], b[_NUMBER + i], zero)
                d1 = _slope(b[_RAW1 + i], b[_NUMBER + i], last)
                w, h = least + s * b[_SHARE0 + i], least + s * b[_SHARE1 + i]
                left = least * b[_NUMBER + i] + s * b[_BEFORE0 + i]
                up = max(b[_U + i] - least * b[_NUMBER + i] - s * b[_BEFORE1 + i], zero)
                mean = h / w
                curve = d0 + d1 - two * mean
                a = (mean - d0) * h + curve * up
                k = h * d0 - curve * up
                root = k + np.sqrt(max(k * k + F(4.0) * a * mean * up, zero))
                t = min(max(two * mean * up / max(root, tiny), zero), one)
                # One Newton step recovers the digits that the formula loses to cancellation.
                q = t * (one - t)
                bottom = one / (mean + curve * q)
                rise = d1 * t * t + two * mean * q + d0 * (one - t) * (one - t)
                miss = h * (mean * t * t + d0 * q) * bottom - up
                t = t - miss / (mean * mean * bottom * bottom * rise * w)
                t = min(max(t, zero), one)
                q = t * (one - t)
                bottom = one / (mean + curve * q)
                rise = d1 * t * t + two * mean * q + d0 * (one - t) * (one - t)
                inside = abs(ys[i]) < bound
                v = (left + t * w) * two * bound - bound
                xs[i] = v if inside else ys[i]
                g = -log(mean * mean * bottom * bottom * rise)
                slopes[i] = g if inside else zero


@numba.njit(inline="always", fastmath=MATH, error_model="numpy")
def backward_loop(
    x: Any, raw: Any, N: Any, K: Any, feature: Any, row: Any, bound: Any, first: Any, stop: Any,
    gy: Any, gl: Any, apart: Any, gx: Any, graw: Any,
) -> Any:  # fmt: skip
    """Gradients with respect to x and raw, from those of y and log dy/dx, which lie ``apart`` numbers
    from one feature to the next (0: one for all)."""
    e, b = np.empty(2 * K * _W, np.float32), np.empty(_LENGTH, np.float32)
    s, least, two, last = F(1 - MIN_BIN * K), F(MIN_BIN), F(2.0), F(K - 1)
    zero, one, unit = F(0.0), F(1.0), F(UNIT_SLOPE)
    for d in range(len(x) // N):
        for n in range(first, stop, _W):
            m, o, at = min(_W, stop - n), d * N + n, d * feature + n
            xs, gxs, gys = x[o : o + m], gx[o : o + m], gy[o : o + m]
            gls = gl[d * apart + n : d * apart + n + m]
            for i in range(m):
                b[_U + i] = _box(xs[i], bound)
            _find(raw, at, row, K, m, 0, e, b)
            for i in range(m):
                d0 = _slope(b[_RAW0 + i], b[_NUMBER + i], zero)
                d1 = _slope(b[_RAW1 + i], b[_NUMBER + i], last)
                number, share0, share1 = b[_NUMBER + i], b[_SHARE0 + i], b[_SHARE1 + i]
                w, h = least + s * share0, least + s * share1
                left = least * number + s * b[_BEFORE0 + i]
                t = min(max((b[_U + i] - left) / w, zero), one)
                t1, mean, per_width = one - t, h / w, one / w
                q, curve = t * t1, d0 + d1 - two * mean
                bottom = one / (mean + curve * q)
                top = mean * t * t + d0 * q
                rise = d1 * t * t + two * mean * q + d0 * t1 * t1
                inside = abs(xs[i]) < bound
                g_y = gys[i] * two * bound if inside else zero
                g_l = gls[i] if inside else zero
                scaled = g_y * bottom
                g_top = scaled * h
                g_bottom = -(g_top * top + two * g_l) * bottom
                g_rise = g_l / rise
                g_mean = two * g_l / mean + two * g_rise * q + g_top * t * t
                g_mean += g_bottom * (one - two * q)
                g_q = two * g_rise * mean + g_top * d0 + g_bottom * curve
                g_t = two * (g_rise * (d1 * t - d0 * t1) + g_top * mean * t) + g_q * (
                    one - two * t
                )
                g_t *= per_width
                g_height = s * (scaled * top + g_mean * per_width)
                g_width = -s * (g_mean * mean * per_width + g_t * t)
                gxs[i] = g_t * (F(0.5) / bound) if inside else gys[i]
                g0 = (g_rise * t1 * t1 + (g_top + g_bottom) * q) / (
                    one + exp(-b[_RAW0 + i] - unit)
                )
                g1 = (g_rise * t * t + g_bottom * q) / (one + exp(-b[_RAW1 + i] - unit))
                b[_G0 + i] = g_width
                b[_G1 + i] = g_height
                b[_G2 + i] = -s * g_t
                b[_G3 + i] = s * g_y
                b[_G4 + i] = zero if number == zero else g0
                b[_G5 + i] = zero if number == last else g1
                b[_G6 + i] = g_width * share0 - s * g_t * b[_BEFORE0 + i]
                b[_G7 + i] = g_height * share1 + s * g_y * b[_BEFORE1 + i]
            for j in range(K):
                ej, fj, place = e[j * _W : j * _W + m], e[(K + j) * _W : (K + j) * _W + m], F(j)
                to = graw[at + j * row : at + j * row + m]
                up = graw[at + (K + j) * row : at + (K + j) * row + m]
                for i in range(m):
                    own = b[_G0 + i] if b[_NUMBER + i] == place else zero
                    own = b[_G2 + i] if b[_NUMBER + i] > place else own
                    to[i] = ej[i] * (own - b[_G6 + i])
                for i in range(m):
                    own = b[_G1 + i] if b[_NUMBER + i] == place else zero
                    own = b[_G3 + i] if b[_NUMBER + i] > place else own
                    up[i] = fj[i] * (own - b[_G7 + i])
            for j in range(K - 1):
                to, place = graw[at + (2 * K + j) * row : at + (2 * K + j) * row + m], F(j)
                for i in range(m):
                    own = b[_G5 + i] if b[_NUMBER + i] == place else zero
                    to[i] = b[_G4 + i] if b[_NUMBER + i] == place + one else own


# The loops above are inlined. As separate functions their code would differ in the last bits between the
# process that compiles them and one that loads them from the cache.
@numba.njit(nogil=True, fastmath=MATH, error_model="numpy", cache=True)
def _forward(
    x: Any, raw: Any, N: Any, K: Any, feature: Any, row: Any, bound: Any, first: Any, stop: Any,
    y: Any, log_slope: Any,
) -> Any:  # fmt: skip
    forward_loop(x, raw, N, K, feature, row, bound, first, stop, y, log_slope)


@numba.njit(nogil=True, fastmath=MATH, error_model="numpy", cache=True)
def _inverse(
    y: Any, raw: Any, N: Any, K: Any, feature: Any, row: Any, bound: Any, first: Any, stop: Any,
    x: Any, log_slope: Any,
) -> Any:  # fmt: skip
    inverse_loop(y, raw, N, K, feature, row, bound, first, stop, x, log_slope)


@numba.njit(nogil=True, fastmath=MATH, error_model="numpy", cache=True)
def _backward(
    x: Any, raw: Any, N: Any, K: Any, feature: Any, row: Any, bound: Any, first: Any, stop: Any,
    gy: Any, gl: Any, apart: Any, gx: Any, graw: Any,
) -> Any:  # fmt: skip
    backward_loop(x, raw, N, K, feature, row, bound, first, stop, gy, gl, apart, gx, graw)


def _run(loop: Any, x: Tensor, raw: Tensor, bound: float, *others: Any) -> None:
    """The loop over all samples, in as many parts as there are threads with enough to do."""
    n = x.shape[-1]
    # Parameters may lie before the features or behind them: each has a stride of its own.
    strides = ((raw.shape[0] + 1) // 3, raw.stride(1) if raw.ndim == 3 else 0, raw.stride(0))
    given: tuple[Any, ...] = (flat(x), flat(raw), n, *strides, F(bound))
    run_in_threads(loop, [(*given, *part, *others) for part in split_work(n, x.numel(), _W)])


def _whole(x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
    """Detached and without gaps: x (D, N) or (N,) and raw (P, D, N) or (P, N), features and parameters
    in any order."""
    if raw.shape[1:] != x.shape:
        raise ValueError(
            f"raw parameters of shape {tuple(raw.shape)} are not those of numbers of shape "
            f"{tuple(x.shape)}: one set a number, {tuple(raw.shape[:1] + x.shape)}; expand them"
        )
    x = x.detach().contiguous()
    raw = raw.detach().reshape(len(raw), -1, x.shape[-1]) if raw.ndim > 3 else raw.detach()
    if not (raw.is_contiguous() or raw.transpose(0, -2).is_contiguous()):
        raw = raw.contiguous()
    return x, raw


def forward(x: Tensor, raw: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """y and log dy/dx, of the shape of x."""
    x, raw = _whole(x, raw)
    y, log_slope = torch.empty_like(x), torch.empty_like(x)
    _run(_forward, x, raw, bound, flat(y), flat(log_slope))
    return y, log_slope


def inverse(y: Tensor, raw: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """x and log dx/dy, of the shape of y."""
    y, raw = _whole(y, raw)
    x, log_slope = torch.empty_like(y), torch.empty_like(y)
    _run(_inverse, y, raw, bound, flat(x), flat(log_slope))
    return x, log_slope


def backward(
    x: Tensor, raw: Tensor, gy: Tensor, gl: Tensor, bound: float
) -> tuple[Tensor, Tensor]:
    """Gradients with respect to x and raw, of their shapes, from those of y and log dy/dx."""
    shape = raw.shape
    x, raw = _whole(x, raw)
    gy, gl = gy.contiguous(), gl.contiguous()
    gx, graw = torch.empty_like(x), torch.empty_like(raw)
    _run(_backward, x, raw, bound, flat(gy), flat(gl), x.shape[-1], flat(gx), flat(graw))
    return gx, graw.view(shape) if graw.shape != shape else graw
