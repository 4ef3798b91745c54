"""The Gaussianizing element against SciPy, itself inverted, and autodiff; normal tails far out."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from densekit.transforms.gaussianize import (
    MIN_SLOPE,
    GaussianizeElement,
    normal_tail,
    tail_quantile,
)

SIZES = (1, 2, 3, 16)


def draw(n_components, n=300, dtype=torch.float64, spread=0.7, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = 3 * torch.randn(3, n, generator=g, dtype=torch.float64)
    raw = spread * torch.randn(3 * n_components, 3, n, generator=g, dtype=torch.float64)
    return x.to(dtype), raw.to(dtype)


@pytest.mark.parametrize(("dtype", "digits"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_normal_tail_is_scipys(dtype, digits):
    u = torch.tensor([-1e6, -40, -8, -1, -1e-9, 0, 0.5, 3, 9, 29, 31, 300, 1e6], dtype=dtype)
    tail, hazard = normal_tail(u)
    at = u.double().numpy()
    np.testing.assert_allclose(tail, stats.norm.logsf(at), rtol=digits, atol=1e-300)
    # The hazard is sqrt(2/pi) / erfcx(u / sqrt 2).
    with np.errstate(divide="ignore"):
        truth = 0.5 * np.log(2 / np.pi) - np.log(special.erfcx(at / np.sqrt(2)))
    near = np.isfinite(truth)
    np.testing.assert_allclose(hazard[near], truth[near], rtol=digits, atol=digits)
    assert (hazard[~near] < -700).all()


def test_gradients_of_the_tail_keep_their_digits_far_out():
    u = torch.tensor([-9.0, 0.0, 4.0, 29.0, 31.0, 1e3, 1e6], requires_grad=True)
    tail, hazard = normal_tail(u)
    (d_tail,) = torch.autograd.grad(tail.sum(), u, retain_graph=True)
    (d_hazard,) = torch.autograd.grad(hazard.sum(), u)
    at = u.detach().double()
    h = normal_tail(at)[1].exp()
    torch.testing.assert_close(-d_tail.double(), h, rtol=2e-5, atol=1e-12)
    # d log h / du = h - u, which is nearly 1/u; the difference is taken in float64 where that can.
    truth = torch.where(at < 100, h - at, 1 / at)
    torch.testing.assert_close(d_hazard.double(), truth, rtol=3e-4, atol=1e-12)


@pytest.mark.parametrize(("dtype", "digits"), [(torch.float32, 3e-7), (torch.float64, 1e-13)])
def test_tail_quantile_undoes_the_tail(dtype, digits):
    q = torch.tensor([0, 1e-3, 1, 6, 9, 9.5, 10, 12, 37, 1e2, 1e4, 1e6, 1e15], dtype=dtype)
    back = tail_quantile(normal_tail(q)[0])
    torch.testing.assert_close(back, q, atol=digits, rtol=digits)


@pytest.mark.parametrize("n_components", SIZES)
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_inverse_undoes_it_also_far_out(n_components, dtype, atol):
    element = GaussianizeElement(n_components)
    x, raw = draw(n_components, dtype=dtype)
    x[:, :8] = torch.tensor([-1e6, -40.0, -1e-3, 0.0, 1e-30, 20.0, 1e6, 1e15], dtype=dtype)
    z, ladj = element.forward(x, raw)
    back, back_ladj = element.inverse(z, raw)
    torch.testing.assert_close(back, x, atol=atol, rtol=atol)
    torch.testing.assert_close(back_ladj, -ladj, atol=20 * atol, rtol=0)


@pytest.mark.parametrize("n_components", SIZES)
@pytest.mark.parametrize("way", ["forward", "inverse"])
def test_log_slope_is_that_of_autodiff(n_components, way):
    x, raw = draw(n_components)
    x[:, :2] = torch.tensor([-60.0, 300.0])  # by logarithms
    x.requires_grad_()
    y, ladj = getattr(GaussianizeElement(n_components), way)(x, raw)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(ladj, slope.log(), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("way", ["forward", "inverse"])
def test_gradients_by_finite_differences(way):
    x, raw = draw(2, n=2)
    x[0, 0] = 25.0
    element = GaussianizeElement(2)
    inputs = (x.requires_grad_(), raw.requires_grad_())
    assert torch.autograd.gradcheck(getattr(element, way), inputs)


def test_value_is_scipys_quantile_of_the_mixture():
    element = GaussianizeElement(2)
    raw = np.array([0.4, -0.3, 0.2, -1.1, 0.1, 0.6])
    x = np.linspace(-4, 4, 41)
    weight = special.softmax(element._log_weight.double().numpy() + raw[:2])
    loc = element._loc.double().numpy() + raw[2:4]
    limit = np.array([1.0, 2.5])
    log_scale = element._log_scale.double().numpy() + limit * np.tanh(raw[4:] / limit)
    scale = np.exp(log_scale)
    F = (weight * stats.norm.cdf(x[:, None], loc, scale)).sum(1)
    z, _ = element.forward(torch.tensor(x), torch.tensor(raw)[:, None])
    truth = (1 - MIN_SLOPE) * stats.norm.ppf(F) + MIN_SLOPE * x
    np.testing.assert_allclose(z, truth, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_ways_of_computing_agree_where_they_meet(dtype):
    """The mass beyond passes 1e-30 at about 11.5: nothing may jump there."""
    element = GaussianizeElement(4)
    raw = draw(4, n=1)[1][:, :1, :1].to(dtype)
    for side in (-1, 1):
        x = side * torch.linspace(5, 60, 5501, dtype=dtype)[None]
        z, ladj = element.forward(x, raw)
        assert (side * z.diff() > 0).all()
        assert ladj.diff().abs().max() < 0.02


@pytest.mark.parametrize("n_components", SIZES)
def test_increases_whatever_its_parameters(n_components):
    element = GaussianizeElement(n_components)
    x = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    for seed in range(3):
        raw = draw(n_components, n=1, spread=5.0, seed=seed)[1][:, 0]
        z, ladj = element.forward(x, raw)
        assert (z.diff() > 0).all()
        assert (ladj >= np.log(MIN_SLOPE) - 1e-12).all()


def test_the_start_is_nearly_the_standard_normal_and_the_identity_far_out():
    for n_components in (1, 2, 8, 16, 32):
        element = GaussianizeElement(n_components)
        raw = element.start().double()[:, None]
        x = torch.linspace(-6, 6, 101, dtype=torch.float64)
        z, ladj = element.forward(x, raw)
        assert (z - x).abs().max() < 0.3
        assert ladj.abs().max() < 0.5
        assert ladj[x.abs() < 2.5].abs().mean() < 0.1
        far = torch.tensor([-1e6, 1e6, 1e3], dtype=torch.float64)
        torch.testing.assert_close(element.forward(far, raw)[0], far, atol=0.01, rtol=0)
    assert torch.equal(GaussianizeElement(1).start(), torch.zeros(3))


@given(
    x=st.floats(width=32, allow_nan=False, allow_infinity=False),
    raw=st.lists(st.floats(-1e4, 1e4, width=32), min_size=12, max_size=12),
)
def test_never_nan_for_any_float32(x, raw):
    element = GaussianizeElement(4)
    x, raw = torch.tensor([x]), torch.tensor(raw)[:, None]
    for way in (element.forward, element.inverse):
        y, ladj = way(x, raw)
        assert not y.isnan().any()
        assert torch.isfinite(ladj).all()
        if way == element.forward:
            assert torch.isfinite(y).all()


def test_gradients_are_finite_far_out_in_float32():
    element = GaussianizeElement(4)
    x = torch.tensor([0.0, 30.0, -1e6, 1e15, 3e38]).requires_grad_()
    raw = draw(4, n=2, dtype=torch.float32)[1][:, 0, :1].requires_grad_()
    z, ladj = element.forward(x, raw)
    (z.clamp(-1e7, 1e7).sum() + ladj.sum()).backward()
    assert torch.isfinite(x.grad).all()
    assert torch.isfinite(raw.grad).all()
