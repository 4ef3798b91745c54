"""A compiled loop that executes a list of instructions, which ``tape.py`` records.

Instructions are matrix products, and passes between them that load and store each number once.
Columns are rows of samples in memory, (rows, N). Samples are independent, so each thread executes
all instructions for its part of them. Importing this module imports numba.
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
"""Numbers per instruction: its code, then its arguments."""


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
def _scale(arg: Any, at: Any, parts: Any, stride: Any) -> Any:
    """to = the sum of ``of`` over threads (or a single one) times mask, for arrays (A, B, K) with
    strides.
    """
    A, B, K, masked = arg[4], arg[5], arg[6], arg[3] >= 0
    for a in range(A):
        for b in range(B):
            to = _row(at[arg[1]] + 4 * (a * arg[7] + b * arg[8]), K)
            of = at[arg[2]] + 4 * (a * arg[9] + b * arg[10])
            mask = _row(at[arg[3]] + 4 * (a * arg[11] + b * arg[12]) if masked else of, K)
            for p in range(parts if arg[13] else 1):
                _times(_row(of + 4 * p * stride, K), masked, mask, p > 0, to)


@numba.njit(fastmath=MATH, error_model="numpy")
def _diagonal(arg: Any, at: Any, off: Any, S: Any, n: Any) -> Any:
    """z = e^s x + b; adds s to the log-determinant."""
    D, total = arg[6], _row(at[arg[5]] + off, n)
    scales, shifts = _row(at[arg[3]], D), _row(at[arg[4]], D)
    whole = _total(scales)
    for i in range(n):
        total[i] += whole
    for d in range(D):
        xs, zs = _row(at[arg[1]] + d * S + off, n), _row(at[arg[2]] + d * S + off, n)
        factor, shift = exp(scales[d]), shifts[d]
        for i in range(n):
            zs[i] = factor * xs[i] + shift


@numba.njit(fastmath=MATH, error_model="numpy")
def _diagonal_inverse(arg: Any, at: Any, off: Any, S: Any, n: Any) -> Any:
    D, total = arg[6], _row(at[arg[5]] + off, n)
    scales, shifts = _row(at[arg[3]], D), _row(at[arg[4]], D)
    whole = _total(scales)
    for i in range(n):
        total[i] -= whole
    for d in range(D):
        zs, xs = _row(at[arg[1]] + d * S + off, n), _row(at[arg[2]] + d * S + off, n)
        factor, shift = exp(-scales[d]), shifts[d]
        for i in range(n):
            xs[i] = (zs[i] - shift) * factor


@numba.njit(fastmath=MATH, error_model="numpy")
def _diagonal_slope(arg: Any, at: Any, off: Any, S: Any, n: Any, slot: Any) -> Any:
    D, whole = arg[8], _total(_row(at[arg[4]] + off, n))
    scales, gs, gb = _row(at[arg[2]], D), _row(at[arg[6]] + slot, D), _row(at[arg[7]] + slot, D)
    for d in range(D):
        xs, gz = _row(at[arg[1]] + d * S + off, n), _row(at[arg[3]] + d * S + off, n)
        gx, factor, sum_g, sum_gx = (
            _row(at[arg[5]] + d * S + off, n),
            exp(scales[d]),
            F(0.0),
            F(0.0),
        )
        for i in range(n):
            g = gz[i]
            sum_g += g
            sum_gx += g * xs[i]
            gx[i] = g * factor
        gs[d], gb[d] = sum_gx * factor + whole, sum_g


_I = types.int64
_RUN = types.void(types.Array(_I, 2, "C"), _I, _I, types.Array(_I, 1, "C"), *[_I] * 6)


def _version() -> int:
    """Hash of the files of this package, since numba's cache only checks the file that defines a
    function.
    """
    files = sorted(Path(__file__).parent.glob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files))
    return int.from_bytes(digest.digest()[:7], "big")


def _machine(version: int) -> Any:
    # With a signature it is compiled on import rather than during a fit.
    @numba.njit(_RUN, nogil=True, fastmath=MATH, error_model="numpy", cache=True)
    def run(
        ops: Any, first: Any, stop: Any, at: Any, N: Any, low: Any, high: Any, part: Any, parts: Any,
        stride: Any,
    ) -> Any:  # fmt: skip
        """Instructions first ... stop - 1 for samples low ... high - 1 of N.

        ``at`` are addresses; of what each thread sums for itself that of the first thread's, ``stride``
        numbers apart.
        """
        if version < 0:  # Never true; using the version makes it part of the cache key.
            return
        old, n = blas_threads(1), high - low
        zero, one, S = F(0.0), F(1.0), 4 * N  # from one row of samples to the next
        off, slot = 4 * low, 4 * part * stride
        scratch = np.empty(n, np.float32)
        for t in range(first, stop):
            arg = ops[t]
            op: Any = arg[0]
            if op == PUSH:
                # y[a:b] (+)= W[a:b, :k] x[:k]; rows here are columns for BLAS.
                W, K, a, b, k, x, y = (
                    at[arg[1]],
                    arg[2],
                    arg[3],
                    arg[4],
                    arg[5],
                    at[arg[6]],
                    at[arg[7]],
                )
                sgemm(
                    0, 0, n, b - a, k, x + off, N, W + 4 * a * K, K,
                    one if arg[8] else zero, y + a * S + off, N,
                )  # fmt: skip
            elif op == BACK:
                # y[:k] (+)= W[a:b, :k]' g[a:b]
                W, K, a, b, k, g, y = (
                    at[arg[1]],
                    arg[2],
                    arg[3],
                    arg[4],
                    arg[5],
                    at[arg[6]],
                    at[arg[7]],
                )
                sgemm(
                    0, 1, n, k, b - a, g + a * S + off, N, W + 4 * a * K, K,
                    one if arg[8] else zero, y + off, N,
                )  # fmt: skip
            elif op == PULL:
                # W[a:b, :k] = g[a:b] x[:k]', and zero beyond
                g, x, K, a, b, k, W = (
                    at[arg[1]],
                    at[arg[2]],
                    arg[3],
                    arg[4],
                    arg[5],
                    arg[6],
                    at[arg[7]] + slot,
                )
                sgemm(1, 0, k, b - a, n, x + off, N, g + a * S + off, N, zero, W + 4 * a * K, K)
                if k < K:
                    for r in range(a, b):
                        _row(W + 4 * (r * K + k), K - k)[:] = zero
            elif op == ACTIVATE:
                for r in range(arg[6]):
                    h = at[arg[2]] + r * S + off
                    bias = _row(at[arg[3]] + 4 * r, 1)[0] if arg[3] >= 0 else zero
                    under = _row(at[arg[4]] + r * S + off if arg[4] >= 0 else h, n)
                    out = _row(at[arg[5]] + r * S + off, n)
                    layers.activate(arg[1], bias, arg[4] >= 0, under, _row(h, n), out)
            elif op == SLOPE:
                for r in range(arg[5]):
                    g = at[arg[3]] + r * S + off
                    over = _row(at[arg[4]] + r * S + off if arg[4] >= 0 else g, n)
                    h = _row(at[arg[2]] + r * S + off, n)
                    layers.slope(arg[1], arg[4] >= 0, over, h, _row(g, n))
            elif op == FILL:
                for r in range(arg[6], arg[7]):
                    bias = _row(at[arg[2]] + 4 * (r // arg[3] * arg[4] + r % arg[3] * arg[5]), 1)[
                        0
                    ]
                    _row(at[arg[1]] + r * S + off, n)[:] = bias
            elif op == SUM:
                out = _row(at[arg[2]] + slot, arg[3])
                for r in range(arg[3]):
                    out[r] = _total(_row(at[arg[1]] + r * S + off, n))
            elif op == ASINH:
                for r in range(arg[3]):
                    layers.asinh_row(
                        _row(at[arg[1]] + r * S + off, n), _row(at[arg[2]] + r * S + off, n)
                    )
            elif op == ASINH_SLOPE:
                for r in range(arg[4]):
                    x, ga = _row(at[arg[1]] + r * S + off, n), _row(at[arg[2]] + r * S + off, n)
                    layers.asinh_slope(x, ga, arg[5] != 0, _row(at[arg[3]] + r * S + off, n))
            elif op == ZERO:
                for r in range(arg[2]):
                    _row(at[arg[1]] + r * S + off, n)[:] = zero
            elif op == MOVE:
                _row(at[arg[2]] + off, n)[:] = _row(at[arg[1]] + off, n)
            elif op == AFFINE:
                total = _row(at[arg[4]] + off, n)
                for d in range(arg[5]):
                    raw = at[arg[2]] + d * arg[6] * S + off
                    x, z = _row(at[arg[1]] + d * S + off, n), _row(at[arg[3]] + d * S + off, n)
                    affine.forward_row(
                        _real(arg[8]), x, _row(raw, n), _row(raw + arg[7] * S, n), z, scratch
                    )
                    _add(scratch, total)
            elif op == AFFINE_SLOPE:
                gt = _row(at[arg[4]] + off, n)
                for d in range(arg[7]):
                    start = d * arg[8] * S + off
                    x, gz = _row(at[arg[1]] + d * S + off, n), _row(at[arg[3]] + d * S + off, n)
                    raw, gx = _row(at[arg[2]] + start, n), _row(at[arg[5]] + d * S + off, n)
                    gr, gb = _row(at[arg[6]] + start, n), _row(at[arg[6]] + start + arg[9] * S, n)
                    affine.backward_row(_real(arg[10]), x, raw, gz, gt, gx, gr, gb)
            elif op == SPLINE:
                D, K = arg[6], arg[7]
                x, z, raw = (
                    _row(at[arg[1]], D * N),
                    _row(at[arg[3]], D * N),
                    _row(at[arg[2]], D * (3 * K - 1) * N),
                )
                logs, bound = _row(at[arg[4]], D * N), _real(arg[10])
                spline.forward_loop(
                    x, raw, N, K, arg[8] * N, arg[9] * N, bound, low, high, z, logs
                )
                for d in range(D):
                    _add(_row(at[arg[4]] + d * S + off, n), _row(at[arg[5]] + off, n))
            elif op == SPLINE_SLOPE:
                D, K = arg[7], arg[8]
                x, gz, raw = (
                    _row(at[arg[1]], D * N),
                    _row(at[arg[3]], D * N),
                    _row(at[arg[2]], D * (3 * K - 1) * N),
                )
                gt, gx, graw = (
                    _row(at[arg[4]], N),
                    _row(at[arg[5]], D * N),
                    _row(at[arg[6]], D * (3 * K - 1) * N),
                )
                bound = _real(arg[11])
                spline.backward_loop(
                    x, raw, N, K, arg[9] * N, arg[10] * N, bound, low, high, gz, gt, 0, gx, graw
                )
            elif op == DIAGONAL:
                _diagonal(arg, at, off, S, n)
            elif op == DIAGONAL_SLOPE:
                _diagonal_slope(arg, at, off, S, n, slot)
            elif op == AFFINE_INVERSE:
                total = _row(at[arg[4]] + off, n)
                for d in range(arg[5]):
                    raw = at[arg[2]] + d * arg[6] * S + off
                    z, x = _row(at[arg[1]] + d * S + off, n), _row(at[arg[3]] + d * S + off, n)
                    affine.inverse(
                        _real(arg[8]), z, _row(raw, n), _row(raw + arg[7] * S, n), x, scratch
                    )
                    _add(scratch, total)
            elif op == SPLINE_INVERSE:
                D, K = arg[6], arg[7]
                z, x, raw = (
                    _row(at[arg[1]], D * N),
                    _row(at[arg[3]], D * N),
                    _row(at[arg[2]], D * (3 * K - 1) * N),
                )
                logs, bound = _row(at[arg[4]], D * N), _real(arg[10])
                spline.inverse_loop(
                    z, raw, N, K, arg[8] * N, arg[9] * N, bound, low, high, x, logs
                )
                for d in range(D):
                    _add(_row(at[arg[4]] + d * S + off, n), _row(at[arg[5]] + off, n))
            elif op == DIAGONAL_INVERSE:
                _diagonal_inverse(arg, at, off, S, n)
            elif op == LIMIT:
                for r in range(arg[2]):
                    _limit(_row(at[arg[1]] + r * S + off, n), _real(arg[3]))
            elif op == SHARE:
                share, total = _total(_row(at[arg[1]], arg[2])), _row(at[arg[3]] + off, n)
                for i in range(n):
                    total[i] += share
            elif op == SET_DIAGONAL:
                for d in range(arg[3]):
                    value = exp(_row(at[arg[2]] + 4 * d, 1)[0]) if arg[2] >= 0 else one
                    _row(at[arg[1]] + 4 * d * (arg[3] + 1), 1)[0] = value
            elif op == DIAGONAL_GRADIENT:
                # Gradients of exp(s) on a diagonal and of s in the log-determinant.
                for d in range(arg[5]):
                    to, factor = _row(at[arg[1]] + 4 * d, 1), exp(_row(at[arg[4]] + 4 * d, 1)[0])
                    to[0] = zero
                    for p in range(parts):
                        shift = 4 * p * stride
                        g = _row(at[arg[2]] + shift + 4 * d * (arg[5] + 1), 1)[0]
                        to[0] += g * factor + _row(at[arg[3]] + shift, 1)[0]
            else:
                _scale(arg, at, parts, stride)
        blas_threads(old)

    return run


run = _machine(_version())
"""Execute instructions first ... stop - 1 for samples low ... high - 1 of N."""
