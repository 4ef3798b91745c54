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
def _scale(args: Any, addr: Any, parts: Any, stride: Any) -> Any:
    """to = the sum of ``of`` over threads (or a single one) times mask, for arrays (A, B, K) with
    strides.
    """
    A, B, K, masked = args[4], args[5], args[6], args[3] >= 0
    for a in range(A):
        for b in range(B):
            to = _row(addr[args[1]] + 4 * (a * args[7] + b * args[8]), K)
            of = addr[args[2]] + 4 * (a * args[9] + b * args[10])
            mask = _row(addr[args[3]] + 4 * (a * args[11] + b * args[12]) if masked else of, K)
            for p in range(parts if args[13] else 1):
                _times(_row(of + 4 * p * stride, K), masked, mask, p > 0, to)


@numba.njit(fastmath=MATH, error_model="numpy")
def _diagonal(args: Any, addr: Any, offset: Any, S: Any, n: Any) -> Any:
    """z = e^s x + b; adds s to the log-determinant."""
    D, total = args[6], _row(addr[args[5]] + offset, n)
    scales, shifts = _row(addr[args[3]], D), _row(addr[args[4]], D)
    whole = _total(scales)
    for i in range(n):
        total[i] += whole
    for d in range(D):
        xs, zs = _row(addr[args[1]] + d * S + offset, n), _row(addr[args[2]] + d * S + offset, n)
        factor, shift = exp(scales[d]), shifts[d]
        for i in range(n):
            zs[i] = factor * xs[i] + shift


@numba.njit(fastmath=MATH, error_model="numpy")
def _diagonal_inverse(args: Any, addr: Any, offset: Any, S: Any, n: Any) -> Any:
    D, total = args[6], _row(addr[args[5]] + offset, n)
    scales, shifts = _row(addr[args[3]], D), _row(addr[args[4]], D)
    whole = _total(scales)
    for i in range(n):
        total[i] -= whole
    for d in range(D):
        zs, xs = _row(addr[args[1]] + d * S + offset, n), _row(addr[args[2]] + d * S + offset, n)
        factor, shift = exp(-scales[d]), shifts[d]
        for i in range(n):
            xs[i] = (zs[i] - shift) * factor


@numba.njit(fastmath=MATH, error_model="numpy")
def _diagonal_slope(args: Any, addr: Any, offset: Any, S: Any, n: Any, thread_offset: Any) -> Any:
    D, whole = args[8], _total(_row(addr[args[4]] + offset, n))
    scales, gs, gb = (
        _row(addr[args[2]], D),
        _row(addr[args[6]] + thread_offset, D),
        _row(addr[args[7]] + thread_offset, D),
    )
    for d in range(D):
        xs, gz = _row(addr[args[1]] + d * S + offset, n), _row(addr[args[3]] + d * S + offset, n)
        gx, factor, sum_g, sum_gx = (
            _row(addr[args[5]] + d * S + offset, n),
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
        ops: Any, first: Any, stop: Any, addr: Any, N: Any, low: Any, high: Any, part: Any, parts: Any,
        stride: Any,
    ) -> Any:  # fmt: skip
        """Instructions first ... stop - 1 for samples low ... high - 1 of N.

        ``at`` are addresses; of what each thread sums for itself that of the first thread's, ``stride``
        numbers apart.
        """
        if version < 0:  # Never true; using the version makes it part of the cache key.
            return
        previous_threads, n = blas_threads(1), high - low
        zero, one, S = F(0.0), F(1.0), 4 * N  # from one row of samples to the next
        offset, thread_offset = 4 * low, 4 * part * stride
        scratch = np.empty(n, np.float32)
        for t in range(first, stop):
            args = ops[t]
            op: Any = args[0]
            if op == PUSH:
                # y[a:b] (+)= W[a:b, :k] x[:k]; rows here are columns for BLAS.
                W, K, a, b, k, x, y = (
                    addr[args[1]],
                    args[2],
                    args[3],
                    args[4],
                    args[5],
                    addr[args[6]],
                    addr[args[7]],
                )
                sgemm(
                    0, 0, n, b - a, k, x + offset, N, W + 4 * a * K, K,
                    one if args[8] else zero, y + a * S + offset, N,
                )  # fmt: skip
            elif op == BACK:
                # y[:k] (+)= W[a:b, :k]' g[a:b]
                W, K, a, b, k, g, y = (
                    addr[args[1]],
                    args[2],
                    args[3],
                    args[4],
                    args[5],
                    addr[args[6]],
                    addr[args[7]],
                )
                sgemm(
                    0, 1, n, k, b - a, g + a * S + offset, N, W + 4 * a * K, K,
                    one if args[8] else zero, y + offset, N,
                )  # fmt: skip
            elif op == PULL:
                # W[a:b, :k] = g[a:b] x[:k]', and zero beyond
                g, x, K, a, b, k, W = (
                    addr[args[1]],
                    addr[args[2]],
                    args[3],
                    args[4],
                    args[5],
                    args[6],
                    addr[args[7]] + thread_offset,
                )
                sgemm(
                    1, 0, k, b - a, n, x + offset, N, g + a * S + offset, N, zero, W + 4 * a * K, K
                )
                if k < K:
                    for r in range(a, b):
                        _row(W + 4 * (r * K + k), K - k)[:] = zero
            elif op == ACTIVATE:
                for r in range(args[6]):
                    h = addr[args[2]] + r * S + offset
                    bias = _row(addr[args[3]] + 4 * r, 1)[0] if args[3] >= 0 else zero
                    under = _row(addr[args[4]] + r * S + offset if args[4] >= 0 else h, n)
                    out = _row(addr[args[5]] + r * S + offset, n)
                    layers.activate(args[1], bias, args[4] >= 0, under, _row(h, n), out)
            elif op == SLOPE:
                for r in range(args[5]):
                    g = addr[args[3]] + r * S + offset
                    over = _row(addr[args[4]] + r * S + offset if args[4] >= 0 else g, n)
                    h = _row(addr[args[2]] + r * S + offset, n)
                    layers.slope(args[1], args[4] >= 0, over, h, _row(g, n))
            elif op == FILL:
                for r in range(args[6], args[7]):
                    bias = _row(
                        addr[args[2]] + 4 * (r // args[3] * args[4] + r % args[3] * args[5]), 1
                    )[0]
                    _row(addr[args[1]] + r * S + offset, n)[:] = bias
            elif op == SUM:
                out = _row(addr[args[2]] + thread_offset, args[3])
                for r in range(args[3]):
                    out[r] = _total(_row(addr[args[1]] + r * S + offset, n))
            elif op == ASINH:
                for r in range(args[3]):
                    layers.asinh_row(
                        _row(addr[args[1]] + r * S + offset, n),
                        _row(addr[args[2]] + r * S + offset, n),
                    )
            elif op == ASINH_SLOPE:
                for r in range(args[4]):
                    x, ga = (
                        _row(addr[args[1]] + r * S + offset, n),
                        _row(addr[args[2]] + r * S + offset, n),
                    )
                    layers.asinh_slope(
                        x, ga, args[5] != 0, _row(addr[args[3]] + r * S + offset, n)
                    )
            elif op == ZERO:
                for r in range(args[2]):
                    _row(addr[args[1]] + r * S + offset, n)[:] = zero
            elif op == MOVE:
                _row(addr[args[2]] + offset, n)[:] = _row(addr[args[1]] + offset, n)
            elif op == AFFINE:
                total = _row(addr[args[4]] + offset, n)
                for d in range(args[5]):
                    raw = addr[args[2]] + d * args[6] * S + offset
                    x, z = (
                        _row(addr[args[1]] + d * S + offset, n),
                        _row(addr[args[3]] + d * S + offset, n),
                    )
                    affine.forward_row(
                        _real(args[8]), x, _row(raw, n), _row(raw + args[7] * S, n), z, scratch
                    )
                    _add(scratch, total)
            elif op == AFFINE_SLOPE:
                gt = _row(addr[args[4]] + offset, n)
                for d in range(args[7]):
                    start = d * args[8] * S + offset
                    x, gz = (
                        _row(addr[args[1]] + d * S + offset, n),
                        _row(addr[args[3]] + d * S + offset, n),
                    )
                    raw, gx = (
                        _row(addr[args[2]] + start, n),
                        _row(addr[args[5]] + d * S + offset, n),
                    )
                    gr, gb = (
                        _row(addr[args[6]] + start, n),
                        _row(addr[args[6]] + start + args[9] * S, n),
                    )
                    affine.backward_row(_real(args[10]), x, raw, gz, gt, gx, gr, gb)
            elif op == SPLINE:
                D, K = args[6], args[7]
                x, z, raw = (
                    _row(addr[args[1]], D * N),
                    _row(addr[args[3]], D * N),
                    _row(addr[args[2]], D * (3 * K - 1) * N),
                )
                logs, bound = _row(addr[args[4]], D * N), _real(args[10])
                spline.forward_loop(
                    x, raw, N, K, args[8] * N, args[9] * N, bound, low, high, z, logs
                )
                for d in range(D):
                    _add(_row(addr[args[4]] + d * S + offset, n), _row(addr[args[5]] + offset, n))
            elif op == SPLINE_SLOPE:
                D, K = args[7], args[8]
                x, gz, raw = (
                    _row(addr[args[1]], D * N),
                    _row(addr[args[3]], D * N),
                    _row(addr[args[2]], D * (3 * K - 1) * N),
                )
                gt, gx, graw = (
                    _row(addr[args[4]], N),
                    _row(addr[args[5]], D * N),
                    _row(addr[args[6]], D * (3 * K - 1) * N),
                )
                bound = _real(args[11])
                spline.backward_loop(
                    x, raw, N, K, args[9] * N, args[10] * N, bound, low, high, gz, gt, 0, gx, graw
                )
            elif op == DIAGONAL:
                _diagonal(args, addr, offset, S, n)
            elif op == DIAGONAL_SLOPE:
                _diagonal_slope(args, addr, offset, S, n, thread_offset)
            elif op == AFFINE_INVERSE:
                total = _row(addr[args[4]] + offset, n)
                for d in range(args[5]):
                    raw = addr[args[2]] + d * args[6] * S + offset
                    z, x = (
                        _row(addr[args[1]] + d * S + offset, n),
                        _row(addr[args[3]] + d * S + offset, n),
                    )
                    affine.inverse(
                        _real(args[8]), z, _row(raw, n), _row(raw + args[7] * S, n), x, scratch
                    )
                    _add(scratch, total)
            elif op == SPLINE_INVERSE:
                D, K = args[6], args[7]
                z, x, raw = (
                    _row(addr[args[1]], D * N),
                    _row(addr[args[3]], D * N),
                    _row(addr[args[2]], D * (3 * K - 1) * N),
                )
                logs, bound = _row(addr[args[4]], D * N), _real(args[10])
                spline.inverse_loop(
                    z, raw, N, K, args[8] * N, args[9] * N, bound, low, high, x, logs
                )
                for d in range(D):
                    _add(_row(addr[args[4]] + d * S + offset, n), _row(addr[args[5]] + offset, n))
            elif op == DIAGONAL_INVERSE:
                _diagonal_inverse(args, addr, offset, S, n)
            elif op == LIMIT:
                for r in range(args[2]):
                    _limit(_row(addr[args[1]] + r * S + offset, n), _real(args[3]))
            elif op == SHARE:
                share, total = (
                    _total(_row(addr[args[1]], args[2])),
                    _row(addr[args[3]] + offset, n),
                )
                for i in range(n):
                    total[i] += share
            elif op == SET_DIAGONAL:
                for d in range(args[3]):
                    value = exp(_row(addr[args[2]] + 4 * d, 1)[0]) if args[2] >= 0 else one
                    _row(addr[args[1]] + 4 * d * (args[3] + 1), 1)[0] = value
            elif op == DIAGONAL_GRADIENT:
                # Gradients of exp(s) on a diagonal and of s in the log-determinant.
                for d in range(args[5]):
                    to, factor = (
                        _row(addr[args[1]] + 4 * d, 1),
                        exp(_row(addr[args[4]] + 4 * d, 1)[0]),
                    )
                    to[0] = zero
                    for p in range(parts):
                        shift = 4 * p * stride
                        g = _row(addr[args[2]] + shift + 4 * d * (args[5] + 1), 1)[0]
                        to[0] += g * factor + _row(addr[args[3]] + shift, 1)[0]
            else:
                _scale(args, addr, parts, stride)
        blas_threads(previous_threads)

    return run


run = _machine(_version())
"""Execute instructions first ... stop - 1 for samples low ... high - 1 of N."""
