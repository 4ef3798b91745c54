"""The compiled spline against the plain one: values, both ways, gradients, shapes, threads."""

import pytest
import torch

from densekit.transforms import spline, spline_plain
from densekit.transforms.spline import SplineElement

kernel = pytest.importorskip("densekit.kernels.spline", reason="numba is not installed")

BOUND = 5.0


def problem(K=8, D=5, N=200, spread=1.5, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = 3 * torch.randn(D, N, generator=g)
    raw = spread * torch.randn(3 * K - 1, D, N, generator=g)
    return x, raw


def truth(x, raw):
    y, slope, saved = spline_plain.forward(x.double(), raw.double(), BOUND)
    return y, slope, tuple(saved)


def expect_as_near(ours, plain, want):
    """About as near to the float64 value as plain float32 arithmetic comes, or within 1e-5."""
    allowed = 4 * (plain.double() - want).abs().max() + 1e-5
    assert (ours.double() - want).abs().max() <= allowed


@pytest.mark.parametrize("K", [2, 3, 8, 20])
@pytest.mark.parametrize("N", [1, 63, 64, 200])
def test_values_are_those_of_the_formula(K, N):
    x, raw = problem(K, N=N)
    ours, plain = kernel.forward(x, raw, BOUND), spline_plain.forward(x, raw, BOUND)
    for place, want in enumerate(truth(x, raw)[:2]):
        expect_as_near(ours[place], plain[place], want)


@pytest.mark.parametrize("K", [2, 8])
def test_gradients_are_those_of_the_formula_in_float64(K):
    x, raw = problem(K, spread=0.7)
    gy, gl = torch.randn_like(x), torch.randn_like(x)
    gx, graw = kernel.backward(x, raw, gy, gl, BOUND)
    want = spline_plain.backward(truth(x, raw)[2], gy.double(), gl.double(), BOUND)
    for ours, theirs in zip((gx, graw), want, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-3, atol=1e-4)


def test_gradients_are_those_of_differences():
    # Of the compiled values themselves: float32 allows wide steps only.
    x, raw = problem(4, D=1, N=40, spread=0.5)
    x = x.clamp(-4, 4)
    gx, graw = kernel.backward(x, raw, torch.ones_like(x), torch.zeros_like(x), BOUND)
    for p in range(len(raw)):
        step = torch.zeros_like(raw)
        step[p] = 0.02
        change = kernel.forward(x, raw + step, BOUND)[0] - kernel.forward(x, raw - step, BOUND)[0]
        torch.testing.assert_close(graw[p], change / 0.04, atol=2e-3, rtol=2e-2)
    inner = kernel.forward(x + 0.002, raw, BOUND)[0] - kernel.forward(x - 0.002, raw, BOUND)[0]
    assert ((inner / 0.004 - gx).abs() < 0.05 * gx.abs() + 0.02).float().mean() > 0.9


@pytest.mark.parametrize("K", [2, 8])
def test_the_inverse_is_that_of_the_formula(K):
    y, raw = problem(K)
    want = spline_plain.inverse(y.double(), raw.double(), BOUND)
    ours, plain = kernel.inverse(y, raw, BOUND), spline_plain.inverse(y, raw, BOUND)
    for place in (0, 1):
        expect_as_near(ours[place], plain[place], want[place])


def test_there_and_back():
    x, raw = problem(spread=0.3)
    y, slope = kernel.forward(x, raw, BOUND)
    back, slope_back = kernel.inverse(y, raw, BOUND)
    torch.testing.assert_close(back, x, atol=1e-5, rtol=0)
    torch.testing.assert_close(slope_back, -slope, atol=1e-4, rtol=0)


def test_parameters_may_lie_before_or_behind_the_features():
    x, raw = problem()
    behind = raw.transpose(0, 1).contiguous().transpose(0, 1)
    assert behind.stride() != raw.stride()
    g = torch.randn_like(x)
    for ours, theirs in zip(
        (*kernel.forward(x, behind, BOUND), *kernel.backward(x, behind, g, g, BOUND)),
        (*kernel.forward(x, raw, BOUND), *kernel.backward(x, raw, g, g, BOUND)),
        strict=True,
    ):
        assert torch.equal(ours, theirs)
    spread = raw[..., :1].expand_as(raw)
    assert torch.equal(
        kernel.forward(x, spread, BOUND)[0], kernel.forward(x, spread.contiguous(), BOUND)[0]
    )
    single = kernel.forward(x[0], raw[:, 0], BOUND)[0]
    assert torch.equal(single, kernel.forward(x, raw, BOUND)[0][0])


def test_threads_change_no_bit():
    x, raw = problem(D=9, N=8000)
    g = torch.randn_like(x)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = (*kernel.forward(x, raw, BOUND), *kernel.backward(x, raw, g, g, BOUND))
        torch.set_num_threads(3)
        shared = (*kernel.forward(x, raw, BOUND), *kernel.backward(x, raw, g, g, BOUND))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(alone, shared, strict=True))


def test_outside_and_at_the_edge_it_is_the_identity_and_nan_stays_nan():
    x = torch.tensor([[-1e30, -BOUND, BOUND, 7.0, torch.nan, torch.inf]])
    raw = torch.randn(11, 1, 6)
    y, slope = kernel.forward(x, raw, BOUND)
    assert torch.equal(y.nan_to_num(9.0), x.nan_to_num(9.0))
    assert (slope == 0).all()


@pytest.mark.parametrize("size", [1e2, 1e4, 1e30])
def test_any_raw_parameters_give_numbers(size):
    x, raw = problem(spread=size)
    y, slope = kernel.forward(x, raw, BOUND)
    assert torch.isfinite(y).all()
    assert torch.isfinite(slope).all()
    assert (y.abs() <= x.abs().clamp_min(BOUND)).all()


def test_the_element_uses_it_where_it_serves(monkeypatch):
    calls = []
    monkeypatch.setattr(kernel, "forward", lambda *a: calls.append(1) or kernel_forward(*a))
    kernel_forward = spline_plain_as_pair
    x, raw = problem(K=8)
    SplineElement(8, BOUND).forward(x, raw)
    assert calls == [1]
    SplineElement(8, BOUND).forward(x.double(), raw.double())
    assert calls == [1], "float64 is computed in plain torch"


def spline_plain_as_pair(x, raw, bound):
    return spline_plain.forward(x, raw, bound)[:2]


def test_without_it_the_same_flow_scores_the_same(monkeypatch):
    x, raw = problem()
    with_it = SplineElement(8, BOUND).forward(x, raw)
    monkeypatch.setattr(spline, "compiled", lambda *a: None)
    without = SplineElement(8, BOUND).forward(x, raw)
    for ours, theirs in zip(with_it, without, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-4)


def test_parameters_of_another_shape_are_named():
    x, raw = problem()
    with pytest.raises(ValueError, match=r"shape \(23, 5, 1\).*\(23, 5, 200\)"):
        kernel.forward(x, raw[..., :1], BOUND)
