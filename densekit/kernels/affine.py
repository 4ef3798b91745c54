"""The affine element as compiled loops, for float32 on a CPU.

It computes the same as ``transforms/affine.py``. Importing this module imports numba.
"""

from typing import Any

import numba
import torch
from torch import Tensor

from densekit.kernels.loops import LIGHT, MATH, F, exp, flat, run_in_threads, split_work


@numba.njit(fastmath=MATH, error_model="numpy")
def _tanh(x: Any) -> Any:
    return F(1.0) - F(2.0) / (F(1.0) + exp(x + x))


@numba.njit(fastmath=MATH, error_model="numpy")
def forward_row(limit: Any, xs: Any, r: Any, b: Any, zs: Any, slopes: Any) -> Any:
    """One feature: z = x e^a + b and its log-slope a = limit tanh(r / limit)."""
    for i in range(len(xs)):
        slope = limit * _tanh(r[i] / limit)
        slopes[i] = slope
        zs[i] = xs[i] * exp(slope) + b[i]


@numba.njit(fastmath=MATH, error_model="numpy")
def inverse(limit: Any, zs: Any, r: Any, b: Any, xs: Any, slopes: Any) -> Any:
    """One feature: x = (z - b) e^-a, and -a."""
    for i in range(len(zs)):
        slope = -limit * _tanh(r[i] / limit)
        slopes[i] = slope
        xs[i] = (zs[i] - b[i]) * exp(slope)


@numba.njit(fastmath=MATH, error_model="numpy")
def backward_row(limit: Any, xs: Any, r: Any, gz: Any, ga: Any, gx: Any, gr: Any, gb: Any) -> Any:
    """One feature: gradients with respect to x, r and b from those of z and a."""
    one = F(1.0)
    for i in range(len(xs)):
        t = _tanh(r[i] / limit)
        g = gz[i] * exp(limit * t)
        gx[i] = g
        gr[i] = (g * xs[i] + ga[i]) * (one - t * t)
        gb[i] = gz[i]


@numba.njit(nogil=True, fastmath=MATH, error_model="numpy", cache=True)
def _forward(
    first: Any, stop: Any, n: Any, feature: Any, row: Any, limit: Any, x: Any, raw: Any, z: Any, a: Any
) -> Any:  # fmt: skip
    for d in range(first, stop):
        raw_start, start = d * feature, d * n
        r, b = raw[raw_start : raw_start + n], raw[raw_start + row : raw_start + row + n]
        forward_row(limit, x[start : start + n], r, b, z[start : start + n], a[start : start + n])


@numba.njit(nogil=True, fastmath=MATH, error_model="numpy", cache=True)
def _backward(
    first: Any, stop: Any, n: Any, feature: Any, row: Any, limit: Any, x: Any, raw: Any,
    gz: Any, ga: Any, slope_stride: Any, gx: Any, graw: Any,
) -> Any:  # fmt: skip
    for d in range(first, stop):
        raw_start, start, slope_start = d * feature, d * n, d * slope_stride
        gr, gb = graw[raw_start : raw_start + n], graw[raw_start + row : raw_start + row + n]
        r, slopes = raw[raw_start : raw_start + n], ga[slope_start : slope_start + n]
        backward_row(
            limit,
            x[start : start + n],
            r,
            gz[start : start + n],
            slopes,
            gx[start : start + n],
            gr,
            gb,
        )


def _raw_and_strides(x: Tensor, raw: Tensor) -> tuple[Tensor, int, int, int]:
    """raw (2, D, N) or (2, N), the number of samples, and the strides between features and between
    parameters.
    """
    n = x.shape[-1]
    raw = raw.detach().reshape(2, -1, n)
    if raw.stride(2) != 1 or raw.transpose(0, 1).is_contiguous() is raw.is_contiguous():
        raw = raw.contiguous()
    return raw, n, raw.stride(1), raw.stride(0)


def forward(x: Tensor, raw: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    """z and log dz/dx, with the shape of x."""
    x = x.detach().contiguous()
    raw, n, *steps = _raw_and_strides(x, raw)
    z, a = torch.empty_like(x), torch.empty_like(x)
    arguments = (n, *steps, F(limit), flat(x), flat(raw), flat(z), flat(a))
    run_in_threads(
        _forward, [(*part, *arguments) for part in split_work(x.numel() // n, x.numel() // LIGHT)]
    )
    return z, a


def backward(
    x: Tensor, raw: Tensor, gz: Tensor, ga: Tensor, limit: float
) -> tuple[Tensor, Tensor]:
    """Gradients with respect to x and raw, from those of z and log dz/dx."""
    shape, x, gz = raw.shape, x.detach().contiguous(), gz.contiguous()
    raw, n, *steps = _raw_and_strides(x, raw)
    # The gradient of a sum over features is the same row for all of them.
    shared_gradient = ga.ndim == 2 and ga.stride() == (0, 1)
    ga = ga[0] if shared_gradient else ga.contiguous()
    gx, graw = torch.empty_like(x), torch.empty_like(raw)
    arguments = (
        n,
        *steps,
        F(limit),
        flat(x),
        flat(raw),
        flat(gz),
        flat(ga),
        0 if shared_gradient else n,
    )
    calls = [
        (*part, *arguments, flat(gx), flat(graw))
        for part in split_work(x.numel() // n, x.numel() // LIGHT)
    ]
    run_in_threads(_backward, calls)
    return gx, graw.view(shape)
