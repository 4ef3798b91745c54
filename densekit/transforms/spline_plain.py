"""The rational-quadratic spline in torch, with an explicit backward pass.

``spline.py`` has the formula. Parameters are on the first axis and samples on the last, so that
every operation runs over contiguous samples. The backward pass stores the softmax and the numbers
of the selected bin; autograd would store every intermediate result of all K bins.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from densekit.kernels.limits import MIN_BIN, MIN_SLOPE, UNIT_SLOPE


class _Bins(NamedTuple):
    """All bins of all splines: softmax fractions of width and height, and their cumulative sums
    before each bin.
    """

    share: Tensor  # (2, K, *S)
    before: Tensor  # (2, K, *S)


class _Bin(NamedTuple):
    """The selected bin of each value, in units of the box [0, 1]^2; each field has shape S."""

    number: Tensor  # (1, *S), int64
    share: Tensor  # (2, *S)
    before: Tensor  # (2, *S)
    raw0: Tensor  # raw slope left, right
    raw1: Tensor
    first: Tensor  # whether it is the first, the last bin
    last: Tensor
    width: Tensor
    height: Tensor
    left: Tensor
    low: Tensor
    slope0: Tensor
    slope1: Tensor
    mean: Tensor  # height / width


def _all_bins(raw: Tensor, n_bins: int) -> _Bins:
    share = torch.softmax(raw[: 2 * n_bins].unflatten(0, (2, n_bins)), 1)
    before = torch.empty_like(share)
    before[:, 0] = 0
    for j in range(1, n_bins):
        torch.add(before[:, j - 1], share[:, j - 1], out=before[:, j])
    return _Bins(share, before)


def _find(u: Tensor, raw: Tensor, bins: _Bins, axis: int) -> _Bin:
    """The bin that contains u in [0, 1], by left edges (axis 0) or lower edges (axis 1)."""
    K = bins.share.shape[1]
    s = 1 - MIN_BIN * K
    edges = bins.before[axis, 1:]
    index_of_bin = torch.zeros_like(u)
    for j in range(1, K):  # Counting the edges below u needs neither branches nor sorting.
        index_of_bin += u >= torch.mul(edges[j - 1], s).add_(MIN_BIN * j)
    index = index_of_bin.long()[None]
    both = index.expand(2, *index.shape)
    share = bins.share.gather(1, both)[:, 0]
    before = bins.before.gather(1, both)[:, 0]
    width, height = torch.mul(share, s).add_(MIN_BIN).unbind(0)
    left, low = torch.mul(before, s).add_(index_of_bin, alpha=MIN_BIN).unbind(0)
    first, last = index_of_bin == 0, index_of_bin == K - 1
    slopes = raw[2 * K :]
    raw0 = slopes.gather(0, (index - 1).clamp_(min=0))[0].add_(UNIT_SLOPE)
    raw1 = slopes.gather(0, index.clamp(max=K - 2))[0].add_(UNIT_SLOPE)
    slope0 = F.softplus(raw0).add_(MIN_SLOPE).masked_fill_(first, 1.0)
    slope1 = F.softplus(raw1).add_(MIN_SLOPE).masked_fill_(last, 1.0)
    return _Bin(
        index, share, before, raw0, raw1, first, last,
        width, height, left, low, slope0, slope1, height / width,
    )  # fmt: skip


class _Value(NamedTuple):
    """The terms of the formula at one point."""

    t: Tensor  # theta
    t1: Tensor  # 1 - theta
    q: Tensor  # theta (1 - theta)
    t2: Tensor  # theta^2
    curve: Tensor  # d + d' - 2 delta
    top: Tensor  # numerator of y
    inverse_bottom: Tensor  # 1 / denominator of y
    slope: Tensor  # the bracket in dy/dx


def _evaluate(t: Tensor, b: _Bin) -> _Value:
    t1 = 1 - t
    q = t * t1
    t2 = t * t
    curve = torch.add(b.slope0, b.slope1).sub_(b.mean, alpha=2)
    inverse_bottom = torch.addcmul(b.mean, curve, q).reciprocal_()
    top = torch.mul(b.mean, t2).addcmul_(b.slope0, q)
    slope = torch.mul(b.slope1, t2).addcmul_(b.mean, q, value=2).addcmul_(b.slope0, t1 * t1)
    return _Value(t, t1, q, t2, curve, top, inverse_bottom, slope)


def _log_slope(v: _Value, b: _Bin) -> Tensor:
    return torch.mul(b.mean, v.inverse_bottom).square_().mul_(v.slope).log_()


def _to_box(x: Tensor, bound: float) -> Tensor:
    return torch.add(x, bound).mul_(0.5 / bound).clamp_(0, 1)


def forward(x: Tensor, raw: Tensor, bound: float) -> tuple[Tensor, Tensor, list[Tensor]]:
    """y, log dy/dx, and what the backward pass needs."""
    bins = _all_bins(raw, (raw.shape[0] + 1) // 3)
    u = _to_box(x, bound)
    b = _find(u, raw, bins, 0)
    v = _evaluate((u - b.left).div_(b.width).clamp_(0, 1), b)
    outside = ~(x.abs() < bound)
    y = torch.mul(b.height, v.top).mul_(v.inverse_bottom).add_(b.low)
    y = torch.where(outside, x, y.mul_(2 * bound).sub_(bound))
    log_slope = _log_slope(v, b).masked_fill_(outside, 0.0)
    return y, log_slope, [outside, bins.share, *b, *v]


def backward(
    saved: tuple[Tensor, ...], gy: Tensor, gl: Tensor, bound: float
) -> tuple[Tensor, Tensor]:
    """Gradients with respect to x and the raw parameters, from those of y and log dy/dx."""
    outside, shares = saved[:2]
    b, v = _Bin(*saved[2 : 2 + len(_Bin._fields)]), _Value(*saved[2 + len(_Bin._fields) :])
    K = shares.shape[1]
    gy_box = torch.mul(gy, 2 * bound).masked_fill_(outside, 0.0)
    gl_in = gl.masked_fill(outside, 0.0)
    scaled = gy_box * v.inverse_bottom
    g_top = scaled * b.height
    g_bottom = torch.mul(g_top, v.top).add_(gl_in, alpha=2).mul_(v.inverse_bottom).neg_()
    g_slope = gl_in / v.slope
    g_height = scaled * v.top
    g_mean = (gl_in / b.mean).mul_(2).addcmul_(g_slope, v.q, value=2).addcmul_(g_top, v.t2)
    g_mean.add_(g_bottom).addcmul_(g_bottom, v.q, value=-2)
    g1 = torch.mul(g_slope, v.t2).addcmul_(g_bottom, v.q)
    g0 = torch.add(g_top, g_bottom).mul_(v.q).addcmul_(g_slope, v.t1 * v.t1)
    g_q = torch.mul(g_slope, b.mean).mul_(2).addcmul_(g_top, b.slope0)
    g_q.addcmul_(g_bottom, v.curve)
    g_t = torch.mul(b.slope1, v.t).addcmul_(b.slope0, v.t1, value=-1).mul_(g_slope)
    g_t.addcmul_(g_top, b.mean * v.t).mul_(2).add_(g_q).addcmul_(g_q, v.t, value=-2)
    per_width = b.width.reciprocal()
    g_t.mul_(per_width)
    g_height.addcmul_(g_mean, per_width)
    g_width = torch.mul(g_mean, b.mean).mul_(per_width).addcmul_(g_t, v.t).neg_()
    gx = torch.where(outside, gy, g_t * (0.5 / bound))

    s = 1 - MIN_BIN * K
    g_share = torch.stack([g_width, g_height]).mul_(s)
    g_before = torch.stack([g_t.neg_(), gy_box]).mul_(s)
    center = torch.mul(g_share, b.share).addcmul_(g_before, b.before)
    graw = torch.empty(3 * K - 1, *gy.shape, dtype=gy.dtype, device=gy.device)
    g_bins = graw[: 2 * K].unflatten(0, (2, K))
    for j in range(K):  # Bins to the left of the selected one contribute to its cumulative sum.
        torch.mul(g_before, b.number[0] > j, out=g_bins[:, j])
    g_bins.scatter_(1, b.number.expand(2, *b.number.shape), g_share[:, None])
    g_bins.sub_(center[:, None]).mul_(shares)
    g_slopes = graw[2 * K :].zero_()
    g0.mul_(torch.sigmoid(b.raw0)).masked_fill_(b.first, 0.0)
    g1.mul_(torch.sigmoid(b.raw1)).masked_fill_(b.last, 0.0)
    g_slopes.scatter_(0, (b.number - 1).clamp_(min=0), g0[None])
    g_slopes.scatter_add_(0, b.number.clamp(max=K - 2), g1[None])
    return gx, graw


def inverse(y: Tensor, raw: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """x with f(x) = y, and log dx/dy."""
    bins = _all_bins(raw, (raw.shape[0] + 1) // 3)
    v = _to_box(y, bound)
    b = _find(v, raw, bins, 1)
    rise = (v - b.low).clamp_(min=0)
    at = _evaluate(_solve(rise, b), b)
    # One Newton step recovers the digits that the quadratic formula loses to cancellation.
    miss = torch.mul(b.height, at.top).mul_(at.inverse_bottom).sub_(rise)
    slope = torch.mul(b.mean, at.inverse_bottom).square_().mul_(at.slope).mul_(b.width)
    at = _evaluate(at.t.sub(miss.div_(slope)).clamp_(0, 1), b)
    outside = ~(y.abs() < bound)
    x = torch.addcmul(b.left, at.t, b.width).mul_(2 * bound).sub_(bound)
    log_slope = _log_slope(at, b).masked_fill_(outside, 0.0)
    return torch.where(outside, y, x), log_slope.neg_()


def _solve(rise: Tensor, b: _Bin) -> Tensor:
    """Relative position in [0, 1] at which the bin has increased by ``rise``, the root of a quadratic
    equation.
    """
    bent = torch.add(b.slope0, b.slope1).sub_(b.mean, alpha=2).mul_(rise)
    a = torch.sub(b.mean, b.slope0).mul_(b.height).add_(bent)
    m = torch.mul(b.height, b.slope0).sub_(bent)
    c = torch.mul(b.mean, rise)
    root = torch.mul(m, m).addcmul_(a, c, value=4).clamp_(min=0).sqrt_().add_(m)
    return c.mul_(2).div_(root).nan_to_num_(nan=0.0).clamp_(0, 1)
