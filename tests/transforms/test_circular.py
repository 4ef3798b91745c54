"""Bijections of the circle: onto, once round, without a seam, and there and back."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from densekit.transforms.autoregressive import AutoregressiveTransform
from densekit.transforms.circular import CircularSpline, ToCircle, wrap
from densekit.transforms.coupling import CouplingTransform
from densekit.transforms.mixed import Mixed
from densekit.transforms.spline import SplineElement

EXACT = [(torch.float32, 1e-5), (torch.float64, 1e-10)]


def raw_of(element, n, dtype, seed=0, spread=1.5):
    g = torch.Generator().manual_seed(seed)
    return spread * torch.randn(element.n_params, n, generator=g, dtype=dtype)


def apart(a, b):
    """Distance on the circle, in half turns."""
    return wrap(a - b).abs().max().item()


@pytest.mark.parametrize(("dtype", "tolerance"), EXACT)
def test_there_and_back(dtype, tolerance):
    spline = CircularSpline(6, turn=0.3)
    raw = raw_of(spline, 2000, dtype)
    x = torch.linspace(-1, 1, 2000, dtype=dtype)
    z, log_slope = spline.forward(x, raw)
    back, log_back = spline.inverse(z, raw)
    assert ((z >= -1) & (z <= 1)).all()
    assert ((back >= -1) & (back <= 1)).all()
    # Where the map is flat z holds fewer digits of x, and x fewer of z where it is steep.
    flat = log_back.exp().clamp_min(1)
    assert (wrap(back - x).abs() / flat).max() < tolerance
    assert (
        wrap(spline.forward(back, raw)[0] - z).abs() / log_slope.exp().clamp_min(1)
    ).max() < tolerance
    gentle = raw_of(spline, 2000, dtype, spread=0.3)
    back, log_back = spline.inverse(*spline.forward(x, gentle)[:1], gentle)
    assert apart(back, x) < tolerance
    assert (spline.forward(x, gentle)[1] + log_back).abs().max() < 10 * tolerance


def test_once_round_increasing_and_without_a_seam():
    spline = CircularSpline(5)
    raw = raw_of(spline, 1, torch.float64).expand(-1, 40001)
    x = torch.linspace(-1, 1, 40001, dtype=torch.float64)
    z, log_slope = spline.forward(x, raw)
    steps = wrap(z.diff())
    assert (steps > 0).all()
    assert steps.sum().item() == pytest.approx(2, abs=1e-9)
    assert torch.trapezoid(log_slope.exp(), x).item() == pytest.approx(2, abs=1e-4)
    assert z[0].item() == pytest.approx(z[-1].item(), abs=1e-12)
    assert log_slope[0].item() == pytest.approx(log_slope[-1].item(), abs=1e-12)
    slope_there = log_slope[0].abs()
    assert slope_there > 0.05  # learned, and not 1


def test_the_log_slope_is_that_of_autodiff():
    spline = CircularSpline(4)
    raw = raw_of(spline, 50, torch.float64)
    for way in (spline.forward, spline.inverse):
        x = torch.linspace(-0.99, 0.97, 50, dtype=torch.float64).requires_grad_()
        y, log_slope = way(x, raw)
        (slope,) = torch.autograd.grad(y.sum(), x)
        assert torch.allclose(slope.log(), log_slope, atol=1e-10)


def test_the_start_is_the_identity():
    spline = CircularSpline(8, turn=0.6)
    x = torch.linspace(-1, 0.999, 100, dtype=torch.float64)
    z, log_slope = spline.forward(x, spline.start().double()[:, None].expand(-1, 100))
    assert apart(z, x) < 1e-7
    assert log_slope.abs().max() < 1e-7


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=5), st.floats(-1e6, 1e6, width=32)
)
def test_any_turn_gives_a_point_of_the_circle(points, turn):
    spline = CircularSpline(4)
    x = torch.tensor(points)
    raw = torch.zeros(spline.n_params, len(points))
    raw[-1] = turn
    for way in (spline.forward, spline.inverse):
        y, log_slope = way(x, raw)
        assert ((y >= -1) & (y <= 1)).all()
        assert torch.isfinite(log_slope).all()


@pytest.mark.parametrize(("dtype", "tolerance"), EXACT)
def test_to_the_circle_and_back(dtype, tolerance):
    to = ToCircle(2, {1: (0.4, 0.7)}).to(dtype)
    u = torch.linspace(-0.999, 0.999, 500, dtype=dtype)
    z = torch.stack([u * 1e6, u])
    x, back_ladj = to.to_data(z)
    again, ladj = to.to_noise(x)
    assert torch.equal(again[0], z[0])
    assert (again[1] - u).abs().max() < tolerance
    assert (ladj + back_ladj).abs().max() < 10 * tolerance
    w = torch.tensor([[0.0], [0.3]], dtype=dtype, requires_grad=True)
    y, ladj = to.to_noise(w)
    slope = torch.autograd.grad(y[1].sum(), w)[0][1]
    assert slope.log().item() == pytest.approx(ladj.item(), abs=tolerance)
    assert y[1].item() == pytest.approx(math.erf((0.7 * 0.3 + 0.4) / math.sqrt(2)), abs=tolerance)


@settings(max_examples=50, deadline=None)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_any_float_comes_to_the_circle_and_back_finite(value):
    to = ToCircle(1, {0: (0.0, 1.0)})
    u, ladj = to.to_noise(torch.tensor([[value]]))
    assert u.abs() <= 1
    assert not ladj.isnan()
    x, ladj = to.to_data(u)
    assert x.isfinite()
    assert ladj.isfinite()


def layer(kind, angles=(1, 3)):
    torch.manual_seed(0)
    spline, circle = SplineElement(5, 3.0), CircularSpline(5, 0.3)
    element = Mixed([circle if d in angles else spline for d in range(4)])
    if kind == "coupling":
        kept = torch.tensor([True, True, False, False])
        made = CouplingTransform(kept, element, (16, 16), 1, angles=angles)
    else:
        made = AutoregressiveTransform(
            4, element, (16, 16), 1, reverse=kind == "reversed", angles=angles
        )
    for weight in made.parameters():
        weight.data.add_(0.1 * torch.randn_like(weight))
    return made


@pytest.mark.parametrize("kind", ["autoregressive", "reversed", "coupling"])
@pytest.mark.parametrize(("dtype", "tolerance"), EXACT)
def test_a_mixed_layer_there_and_back(kind, dtype, tolerance):
    made = layer(kind).to(dtype)
    x = (2 * torch.rand(4, 200) - 1).to(dtype)
    x[0] *= 1e3
    context = torch.randn(1, 200).to(dtype)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            z, ladj = made.to_noise(x, context)
            back, back_ladj = made.to_data(z, context)
        off = torch.where(torch.tensor([[False], [True]] * 2), wrap(back - x), back - x).abs()
        assert (off / x.abs().clamp_min(1)).max() < 10 * tolerance
        assert (ladj + back_ladj).abs().max() < 100 * tolerance


@pytest.mark.parametrize("kind", ["autoregressive", "reversed", "coupling"])
def test_a_mixed_layer_has_autodiffs_log_determinant_and_no_seam(kind):
    made = layer(kind).double()
    x = 0.9 * (2 * torch.rand(4, 3, dtype=torch.float64) - 1)
    context = torch.randn(1, 3, dtype=torch.float64)
    ladj = made.to_noise(x, context)[1]
    for n in range(3):
        one = lambda v, n=n: made.to_noise(v[:, None], context[:, n : n + 1])[0][:, 0]  # noqa: E731
        jacobian = torch.autograd.functional.jacobian(one, x[:, n])
        assert torch.linalg.slogdet(jacobian)[1].item() == pytest.approx(ladj[n].item(), abs=1e-9)
    ends = x[:, :1].repeat(1, 2)
    ends[1], ends[3] = torch.tensor([-1.0, 1.0]), torch.tensor([1.0, -1.0])
    z, ladj = made.to_noise(ends, context[:, :1].expand(-1, 2))
    assert wrap(z[[1, 3]].diff()).abs().max() < 1e-12
    assert z[[0, 2]].diff().abs().max() < 1e-12
    assert ladj.diff().abs().item() < 1e-12
