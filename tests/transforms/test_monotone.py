"""The monotone network against its formula, itself inverted, and autodiff."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from densekit.transforms.monotone import MonotoneElement

BINS = (1, 2, 3, 12)


def draw(n_bins, n=400, dtype=torch.float64, spread=1.0, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = 3 * torch.randn(3, n, generator=g, dtype=torch.float64)
    raw = spread * torch.randn(2 * n_bins + 5, 3, n, generator=g, dtype=torch.float64)
    return x.to(dtype), raw.to(dtype)


@pytest.mark.parametrize("n_bins", BINS)
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_inverse_undoes_it_also_far_out(n_bins, dtype, atol):
    element = MonotoneElement(n_bins)
    x, raw = draw(n_bins, dtype=dtype)
    x[:, :8] = torch.tensor([-1e6, -5.0, -1e-3, 0.0, 1e-30, 3.0, 1e6, 1e15], dtype=dtype)
    z, ladj = element.forward(x, raw)
    back, back_ladj = element.inverse(z, raw)
    torch.testing.assert_close(back, x, atol=atol, rtol=atol)
    torch.testing.assert_close(back_ladj, -ladj, atol=20 * atol, rtol=0)


@pytest.mark.parametrize("n_bins", BINS)
@pytest.mark.parametrize("way", ["forward", "inverse"])
def test_log_slope_is_that_of_autodiff(n_bins, way):
    x, raw = draw(n_bins)
    x.requires_grad_()
    y, ladj = getattr(MonotoneElement(n_bins), way)(x, raw)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(ladj, slope.log(), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("way", ["forward", "inverse"])
def test_gradients_by_finite_differences(way):
    x, raw = draw(3, n=6)
    element = MonotoneElement(3)
    inputs = (x.requires_grad_(), raw.requires_grad_())
    assert torch.autograd.gradcheck(getattr(element, way), inputs)


def test_value_is_the_integral_of_the_windows():
    """The formula of the docstring, integrated by the trapezoidal rule."""
    element = MonotoneElement(4)
    raw = draw(4, n=1)[1][:, 0]
    y = torch.linspace(-30, 30, 400_001, dtype=torch.float64)
    bounded = [limit * torch.tanh(raw / limit) for limit in (1.0, 2.0, 3.0)]
    steep = torch.log(torch.tensor(1000.0, dtype=torch.float64))
    width = (element._log_width[:, None] + bounded[2][:4]).exp()
    start = -width[:2].sum() + element._middle_knot
    knots = torch.cat([start[None], start + width.cumsum(0)[:, 0]])
    inner = (steep * torch.tanh(raw[5:9] / steep)).exp()
    v = torch.cat([bounded[0][4:5].exp(), inner, bounded[0][9:10].exp()])
    edges = torch.sigmoid((y - knots[:, None]) / (0.3 * bounded[1][10].exp()))
    one, zero = torch.ones(1, len(y)).double(), torch.zeros(1, len(y)).double()
    windows = torch.cat([one, edges]) - torch.cat([edges, zero])
    a, c = bounded[0][11], raw[12]
    truth = torch.cumulative_trapezoid((v * windows).sum(0), y)
    x = (y[1:] - c) / a.exp()
    z, _ = element.forward(x, raw.expand(-1, len(x)))
    torch.testing.assert_close(z - z[0], truth - truth[0], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("n_bins", BINS)
def test_increases_whatever_its_parameters_and_is_affine_in_the_tails(n_bins):
    element = MonotoneElement(n_bins)
    x = torch.linspace(-8, 8, 4001, dtype=torch.float64)[None]
    raw = draw(n_bins, n=1, spread=20.0)[1][:, :1].expand(-1, 1, x.shape[1])
    z, ladj = element.forward(x, raw)
    assert (z.diff() > 0).all()
    assert (ladj.abs() <= torch.log(torch.tensor(1001.0)) + 1).all()
    far = torch.tensor([[1e4, 2e4, 3e4]], dtype=torch.float64)
    for side in (far, -far):
        z, ladj = element.forward(side, raw[..., :3])
        torch.testing.assert_close(z.diff()[0, 0], z.diff()[0, 1], rtol=1e-9, atol=0)
        assert ladj.abs().max() <= 2


@pytest.mark.parametrize("n_bins", [*BINS, 100])
def test_zeros_and_the_start_are_the_identity_and_units_learn_apart(n_bins):
    element = MonotoneElement(n_bins)
    x = draw(n_bins)[0]
    for raw in (torch.zeros(element.n_params), element.start()):
        z, ladj = element.forward(x, raw.double()[:, None, None].expand(-1, *x.shape))
        torch.testing.assert_close(z, x, atol=1e-13, rtol=0)
        torch.testing.assert_close(ladj, torch.zeros_like(x), atol=1e-13, rtol=0)
    raw = element.start().double().requires_grad_()
    z, ladj = element.forward(x, raw[:, None, None].expand(-1, *x.shape))
    (gradient,) = torch.autograd.grad((z**4 - ladj).sum(), raw)
    slopes = gradient[n_bins : 2 * n_bins + 2]
    assert len(torch.unique(slopes)) == n_bins + 2


@given(
    x=st.floats(width=32, allow_nan=False, allow_infinity=False),
    raw=st.lists(st.floats(-1e4, 1e4, width=32), min_size=13, max_size=13),
)
def test_never_nan_for_any_float32(x, raw):
    element = MonotoneElement(4)
    x, raw = torch.tensor([x]), torch.tensor(raw)[:, None]
    for way in (element.forward, element.inverse):
        y, ladj = way(x, raw)
        assert not y.isnan().any()
        assert torch.isfinite(ladj).all()
        if x.abs() < 1e37:
            assert torch.isfinite(y).all()
