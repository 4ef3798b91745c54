"""Common parts of compiled loops: vectorized exponential and logarithm, threads, flat memory.

The exponential and the logarithm are polynomials (Cephes, Moshier 1989), because calls of a
library would prevent vectorization; their relative error is about 1e-7. Importing this module
imports numba.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from torch import Tensor

F = np.float32
LIGHT = 16
"""A pass of a few operations per number takes this fraction of the time of a spline."""
SHARE = 16_384
"""Smallest amount of work for which another thread is started."""
MATH = {"contract", "nsz", "arcp"}
"""Optimizations that may fuse and reorder operations but preserve NaN and infinity."""


@intrinsic
def as_float(_: Any, bits: Any) -> Any:
    """Reinterpret the bits of an int32 as a float32."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), code


@intrinsic
def as_int(_: Any, number: Any) -> Any:
    """Reinterpret the bits of a float32 as an int32."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.int32(types.float32), code


@numba.njit(fastmath=MATH, error_model="numpy")
def exp(x: Any) -> Any:
    x = min(max(x, F(-87.0)), F(88.0))
    n = F(np.floor(x * F(1.44269504) + F(0.5)))
    r = x - n * F(0.693359375)
    r = r - n * F(-2.12194440e-4)
    p = F(1.9875691500e-4)
    p = p * r + F(1.3981999507e-3)
    p = p * r + F(8.3334519073e-3)
    p = p * r + F(4.1665795894e-2)
    p = p * r + F(1.6666665459e-1)
    p = p * r + F(5.0000001201e-1)
    y = p * r * r + r + F(1.0)
    return y * as_float(np.int32((np.int32(n) + np.int32(127)) << np.int32(23)))


@numba.njit(fastmath=MATH, error_model="numpy")
def log(x: Any) -> Any:
    """Natural logarithm of a positive normal number."""
    bits: Any = as_int(x)
    # The exponent for which the mantissa is between the square roots of 1/2 and 2.
    exponent = np.int32(np.int32(bits - np.int32(0x3F3504F3)) >> np.int32(23))
    m = as_float(np.int32(bits - np.int32(exponent << np.int32(23)))) - F(1.0)
    e = F(exponent)
    z = m * m
    p = F(7.0376836292e-2)
    p = p * m + F(-1.1514610310e-1)
    p = p * m + F(1.1676998740e-1)
    p = p * m + F(-1.2420140846e-1)
    p = p * m + F(1.4249322787e-1)
    p = p * m + F(-1.6668057665e-1)
    p = p * m + F(2.0000714765e-1)
    p = p * m + F(-2.4999993993e-1)
    p = p * m + F(3.3333331174e-1)
    y = m * z * p + e * F(-2.12194440e-4) - F(0.5) * z
    return m + y + e * F(0.693359375)


@numba.njit(fastmath=MATH, error_model="numpy")
def softplus(x: Any) -> Any:
    return max(x, F(0.0)) + log(F(1.0) + exp(-abs(x)))


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), "densekit-loops")


if hasattr(os, "register_at_fork"):
    # A forked process does not have these threads and would wait for them forever.
    os.register_at_fork(after_in_child=_pool.cache_clear)


def split_work(n: int, numbers: int, step: int = 1) -> list[tuple[int, int]]:
    """Split 0 ... n - 1 into parts for as many threads as have enough work.

    ``numbers`` is the total work; each part starts at a multiple of ``step``.
    """
    parts = max(1, min(torch.get_num_threads(), numbers // SHARE, n // step))
    cuts = [round(i * n / parts / step) * step for i in range(parts)] + [n]
    return [(cuts[i], cuts[i + 1]) for i in range(parts)]


def _call(loop: Callable[..., Any], call: tuple[Any, ...], keep: Any) -> None:
    loop(*call)


def run_in_threads(
    loop: Callable[..., Any], calls: Sequence[tuple[Any, ...]], keep: Any = None
) -> None:
    """Execute ``loop(*call)`` for each call in parallel.

    ``keep`` is referenced until all calls are finished, even if the caller is interrupted.
    """
    futures = [_pool().submit(_call, loop, call, keep) for call in calls[1:]]
    try:
        loop(*calls[0])
    finally:
        wait(futures)
    for part in futures:
        part.result()


def flat(x: Tensor) -> np.ndarray:
    """A one-dimensional view of the memory of a tensor."""
    return x.as_strided((x.numel(),), (1,)).numpy()
