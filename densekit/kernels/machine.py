"""A list of instructions, done by one compiled loop: ``tape.py`` writes them.

Matrix products, and between them passes that read and write each number once. Columns are rows of
samples in memory, (rows, N); samples are independent of each other, so each thread takes its own through
all instructions. Importing this imports numba.
"""

import hashlib
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import carray
from numba.core import types
from numba.extending import intrinsic

from densekit.kernels import affine, layers, spline
from densekit.kernels.blas import blas_threads, sgemm
from densekit.kernels.loops import MATH, F, as_float, exp

(
    SCALE, FILL, PUSH, BACK, PULL, SUM, ZERO, MOVE, ASINH, ASINH_SLOPE, ACTIVATE, SLOPE,
    AFFINE, AFFINE_SLOPE, SPLINE, SPLINE_SLOPE, DIAGONAL, DIAGONAL_SLOPE, SHARE, SET_DIAGONAL,
    DIAGONAL_GRADIENT, AFFINE_INVERSE, SPLINE_INVERSE, DIAGONAL_INVERSE, LIMIT,
) = range(25)  # fmt: skip
WIDTH = 14
"""Numbers of an instruction: what it is, then its arguments."""


@intrinsic
def _pointer(_: Any, address: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), code


@numba.njit(fastmath=MATH, error_model="numpy")
def _row(address: Any, n: Any) -> Any:
    return carray(_pointer(address), n, np.float32)


@numba.njit(fastmath=MATH, error_model="numpy")
def _real(bits: Any) -> Any:
    return as_float(np.int32(bits))


@numba.njit(fastmath=MATH | {"reassoc"}, error_model="numpy")
def _total(xs: Any) -> Any:
    total = F(0.0)
    for i in range(len(xs)):
        total += xs[i]
    return total


@numba.njit(fastmath=MATH, error_model="numpy")
def _limit(xs: Any, bound: Any) -> Any:
    for i in range(len(xs)):
        x = bound if xs[i] > bound else xs[i]
        xs[i] = -bound if x < -bound else x


@numba.njit(fastmath=MATH, error_model="numpy")
def _add(xs: Any, to: Any) -> Any:
    for i in range(len(xs)):
        to[i] += xs[i]


@numba.njit(fastmath=MATH, error_model="numpy")
def _times(of: Any, masked: Any, mask: Any, add: Any, to: Any) -> Any:
    n = len(of)
    if masked:
        if add:
            for i in range(n):
                to[i] += of[i] * mask[i]
        else:
            for i in range(n):
                to[i] = of[i] * mask[i]
    elif add:
        for i in range(n):
            to[i] += of[i]
    else:
        for i in range(n):
            to[i] = of[i]


@numba.njit(fastmath=MATH, error_model="numpy")
def _scale(o: Any, at: Any, parts: Any, stride: Any) -> Any:
    """to = the sum of ``of`` over threads, or of one, times mask: arrays (A, B, K) with steps of their
    own."""
    A, B, K, masked = o[4], o[5], o[6], o[3] >= 0
    for a in range(A):
        for b in range(B):
            to = _row(at[o[1]] + 4 * (a * o[7] + b * o[8]), K)
            of = at[o[2]] + 4 * (a * o[9] + b * o[10])
            mask = _row(at[o[3]] + 4 * (a * o[11] + b * o[12]) if masked else of, K)
            for p in range(parts if o[13] else 1):
                _times(_row(of + 4 * p * stride, K), masked, mask, p > 0, to)


@numba.njit(fastmath=MATH, error_model="numpy")
def _diagonal(o: Any, at: Any, o0: Any, S: Any, n: Any) -> Any:
    """z = e^s x + b, and s to the log-determinant."""
    D, total = o[6], _row(at[o[5]] + o0, n)
    scales, shifts = _row(at[o[3]], D), _row(at[o[4]], D)
    whole = _total(scales)
    for i in range(n):
        total[i] += whole
    for d in range(D):
        xs, zs = _row(at[o[1]] + d * S + o0, n), _row(at[o[2]] + d * S + o0, n)
        factor, shift = exp(scales[d]), shifts[d]
        for i in range(n):
            zs[i] = factor * xs[i] + shift


@numba.njit(fastmath=MATH, error_model="numpy")
def _diagonal_inverse(o: Any, at: Any, o0: Any, S: Any, n: Any) -> Any:
    D, total = o[6], _row(at[o[5]] + o0, n)
    scales, shifts = _row(at[o[3]], D), _row(at[o[4]], D)
    whole = _total(scales)
    for i in range(n):
        total[i] -= whole
    for d in range(D):
        zs, xs = _row(at[o[1]] + d * S + o0, n), _row(at[o[2]] + d * S + o0, n)
        factor, shift = exp(-scales[d]), shifts[d]
        for i in range(n):
            xs[i] = (zs[i] - shift) * factor


@numba.njit(fastmath=MATH, error_model="numpy")
def _diagonal_slope(o: Any, at: Any, o0: Any, S: Any, n: Any, own: Any) -> Any:
    D, whole = o[8], _total(_row(at[o[4]] + o0, n))
    scales, gs, gb = _row(at[o[2]], D), _row(at[o[6]] + own, D), _row(at[o[7]] + own, D)
    for d in range(D):
        xs, gz = _row(at[o[1]] + d * S + o0, n), _row(at[o[3]] + d * S + o0, n)
        gx, factor, sum_g, sum_gx = _row(at[o[5]] + d * S + o0, n), exp(scales[d]), F(0.0), F(0.0)
        for i in range(n):
            g = gz[i]
            sum_g += g
            sum_gx += g * xs[i]
            gx[i] = g * factor
        gs[d], gb[d] = sum_gx * factor + whole, sum_g


_I = types.int64
_RUN = types.void(types.Array(_I, 2, "C"), _I, _I, types.Array(_I, 1, "C"), *[_I] * 6)


def _version() -> int:
    """Of the files of this room: numba's cache compares but the one that a function stands in."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    told = hashlib.sha256(b"".join(path.read_bytes() for path in files))
    return int.from_bytes(told.digest()[:7], "big")


def _machine(version: int) -> Any:
    # With its signature it is compiled when it is imported, and not at some time within a fit.
    @numba.njit(_RUN, nogil=True, fastmath=MATH, error_model="numpy", cache=True)
    def run(
        ops: Any, first: Any, stop: Any, at: Any, N: Any, low: Any, high: Any, part: Any, parts: Any,
        stride: Any,
    ) -> Any:  # fmt: skip
        """Instructions first ... stop - 1 for samples low ... high - 1 of N.

        ``at`` are addresses; of what each thread sums for itself that of the first thread's, ``stride``
        numbers apart.
        """
        if version < 0:  # no version is: it is looked at to be part of what is cached
            return
        before, n = blas_threads(1), high - low
        zero, one, S = F(0.0), F(1.0), 4 * N  # from one row of samples to the next
        o0, own = 4 * low, 4 * part * stride
        scratch = np.empty(n, np.float32)
        for t in range(first, stop):
            o = ops[t]
            op: Any = o[0]
            if op == PUSH:
                # y[a:b] (+)= W[a:b, :k] x[:k]; what lies in rows here lies in columns for BLAS.
                W, K, a, b, k, x, y = at[o[1]], o[2], o[3], o[4], o[5], at[o[6]], at[o[7]]
                sgemm(
                    0, 0, n, b - a, k, x + o0, N, W + 4 * a * K, K,
                    one if o[8] else zero, y + a * S + o0, N,
                )  # fmt: skip
            elif op == BACK:
                # y[:k] (+)= W[a:b, :k]' g[a:b]
                W, K, a, b, k, g, y = at[o[1]], o[2], o[3], o[4], o[5], at[o[6]], at[o[7]]
                sgemm(
                    0, 1, n, k, b - a, g + a * S + o0, N, W + 4 * a * K, K,
                    one if o[8] else zero, y + o0, N,
                )  # fmt: skip
            elif op == PULL:
                # W[a:b, :k] = g[a:b] x[:k]', and zero beyond
                g, x, K, a, b, k, W = at[o[1]], at[o[2]], o[3], o[4], o[5], o[6], at[o[7]] + own
                sgemm(1, 0, k, b - a, n, x + o0, N, g + a * S + o0, N, zero, W + 4 * a * K, K)
                if k < K:
                    for r in range(a, b):
                        _row(W + 4 * (r * K + k), K - k)[:] = zero
            elif op == ACTIVATE:
                for r in range(o[6]):
                    h = at[o[2]] + r * S + o0
                    bias = _row(at[o[3]] + 4 * r, 1)[0] if o[3] >= 0 else zero
                    under = _row(at[o[4]] + r * S + o0 if o[4] >= 0 else h, n)
                    out = _row(at[o[5]] + r * S + o0, n)
                    layers.activate(o[1], bias, o[4] >= 0, under, _row(h, n), out)
            elif op == SLOPE:
                for r in range(o[5]):
                    g = at[o[3]] + r * S + o0
                    over = _row(at[o[4]] + r * S + o0 if o[4] >= 0 else g, n)
                    h = _row(at[o[2]] + r * S + o0, n)
                    layers.slope(o[1], o[4] >= 0, over, h, _row(g, n))
            elif op == FILL:
                for r in range(o[6], o[7]):
                    bias = _row(at[o[2]] + 4 * (r // o[3] * o[4] + r % o[3] * o[5]), 1)[0]
                    _row(at[o[1]] + r * S + o0, n)[:] = bias
            elif op == SUM:
                out = _row(at[o[2]] + own, o[3])
                for r in range(o[3]):
                    out[r] = _total(_row(at[o[1]] + r * S + o0, n))
            elif op == ASINH:
                for r in range(o[3]):
                    layers.asinh_row(
                        _row(at[o[1]] + r * S + o0, n), _row(at[o[2]] + r * S + o0, n)
                    )
            elif op == ASINH_SLOPE:
                for r in range(o[4]):
                    x, ga = _row(at[o[1]] + r * S + o0, n), _row(at[o[2]] + r * S + o0, n)
                    layers.asinh_slope(x, ga, o[5] != 0, _row(at[o[3]] + r * S + o0, n))
            elif op == ZERO:
                for r in range(o[2]):
                    _row(at[o[1]] + r * S + o0, n)[:] = zero
            elif op == MOVE:
                _row(at[o[2]] + o0, n)[:] = _row(at[o[1]] + o0, n)
            elif op == AFFINE:
                total = _row(at[o[4]] + o0, n)
                for d in range(o[5]):
                    raw = at[o[2]] + d * o[6] * S + o0
                    x, z = _row(at[o[1]] + d * S + o0, n), _row(at[o[3]] + d * S + o0, n)
                    affine.there(_real(o[8]), x, _row(raw, n), _row(raw + o[7] * S, n), z, scratch)
                    _add(scratch, total)
            elif op == AFFINE_SLOPE:
                gt = _row(at[o[4]] + o0, n)
                for d in range(o[7]):
                    start = d * o[8] * S + o0
                    x, gz = _row(at[o[1]] + d * S + o0, n), _row(at[o[3]] + d * S + o0, n)
                    raw, gx = _row(at[o[2]] + start, n), _row(at[o[5]] + d * S + o0, n)
                    gr, gb = _row(at[o[6]] + start, n), _row(at[o[6]] + start + o[9] * S, n)
                    affine.back(_real(o[10]), x, raw, gz, gt, gx, gr, gb)
            elif op == SPLINE:
                D, K = o[6], o[7]
                x, z, raw = (
                    _row(at[o[1]], D * N),
                    _row(at[o[3]], D * N),
                    _row(at[o[2]], D * (3 * K - 1) * N),
                )
                logs, bound = _row(at[o[4]], D * N), _real(o[10])
                spline.forward_loop(x, raw, N, K, o[8] * N, o[9] * N, bound, low, high, z, logs)
                for d in range(D):
                    _add(_row(at[o[4]] + d * S + o0, n), _row(at[o[5]] + o0, n))
            elif op == SPLINE_SLOPE:
                D, K = o[7], o[8]
                x, gz, raw = (
                    _row(at[o[1]], D * N),
                    _row(at[o[3]], D * N),
                    _row(at[o[2]], D * (3 * K - 1) * N),
                )
                gt, gx, graw = (
                    _row(at[o[4]], N),
                    _row(at[o[5]], D * N),
                    _row(at[o[6]], D * (3 * K - 1) * N),
                )
                bound = _real(o[11])
                spline.backward_loop(
                    x, raw, N, K, o[9] * N, o[10] * N, bound, low, high, gz, gt, 0, gx, graw
                )
            elif op == DIAGONAL:
                _diagonal(o, at, o0, S, n)
            elif op == DIAGONAL_SLOPE:
                _diagonal_slope(o, at, o0, S, n, own)
            elif op == AFFINE_INVERSE:
                total = _row(at[o[4]] + o0, n)
                for d in range(o[5]):
                    raw = at[o[2]] + d * o[6] * S + o0
                    z, x = _row(at[o[1]] + d * S + o0, n), _row(at[o[3]] + d * S + o0, n)
                    affine.inverse(
                        _real(o[8]), z, _row(raw, n), _row(raw + o[7] * S, n), x, scratch
                    )
                    _add(scratch, total)
            elif op == SPLINE_INVERSE:
                D, K = o[6], o[7]
                z, x, raw = (
                    _row(at[o[1]], D * N),
                    _row(at[o[3]], D * N),
                    _row(at[o[2]], D * (3 * K - 1) * N),
                )
                logs, bound = _row(at[o[4]], D * N), _real(o[10])
                spline.inverse_loop(z, raw, N, K, o[8] * N, o[9] * N, bound, low, high, x, logs)
                for d in range(D):
                    _add(_row(at[o[4]] + d * S + o0, n), _row(at[o[5]] + o0, n))
            elif op == DIAGONAL_INVERSE:
                _diagonal_inverse(o, at, o0, S, n)
            elif op == LIMIT:
                for r in range(o[2]):
                    _limit(_row(at[o[1]] + r * S + o0, n), _real(o[3]))
            elif op == SHARE:
                share, total = _total(_row(at[o[1]], o[2])), _row(at[o[3]] + o0, n)
                for i in range(n):
                    total[i] += share
            elif op == SET_DIAGONAL:
                for d in range(o[3]):
                    value = exp(_row(at[o[2]] + 4 * d, 1)[0]) if o[2] >= 0 else one
                    _row(at[o[1]] + 4 * d * (o[3] + 1), 1)[0] = value
            elif op == DIAGONAL_GRADIENT:
                # Of exp(s) on a diagonal, and of s in the log-determinant.
                for d in range(o[5]):
                    to, factor = _row(at[o[1]] + 4 * d, 1), exp(_row(at[o[4]] + 4 * d, 1)[0])
                    to[0] = zero
                    for p in range(parts):
                        shift = 4 * p * stride
                        g = _row(at[o[2]] + shift + 4 * d * (o[5] + 1), 1)[0]
                        to[0] += g * factor + _row(at[o[3]] + shift, 1)[0]
            else:
                _scale(o, at, parts, stride)
        blas_threads(before)

    return run


run = _machine(_version())
"""Instructions first ... stop - 1 for samples low ... high - 1 of N."""
