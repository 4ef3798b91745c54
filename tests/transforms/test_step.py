"""Steps, and bounds of the three layers with them for any weights and any input."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from densekit.transforms.planar import PlanarTransform
from densekit.transforms.radial import RadialTransform
from densekit.transforms.step import (
    LIMIT,
    MIN_SLOPE,
    above_minus_one,
    finite,
    limited,
    log_slope,
    positive,
    solve_step,
)
from densekit.transforms.sylvester import SylvesterTransform

LAYERS = {
    "planar": lambda d: PlanarTransform(d),
    "radial": lambda d: RadialTransform(d),
    "sylvester": lambda d: SylvesterTransform(d, d),
    "narrow sylvester": lambda d: SylvesterTransform(d, 1),
}
ANY_FLOAT = st.floats(allow_nan=False, allow_infinity=False, width=32)


def spread(layer, scale, seed=0):
    """The layer with other weights."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(scale * torch.randn(p.shape, generator=g, dtype=torch.float64))
    return layer


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bounds_hold_for_any_raw_number_and_zero_is_the_identity(dtype):
    raw = torch.tensor([-3e38, -1e4, -30.0, -1.0, 0.0, 1.0, 30.0, 1e4, 3e38], dtype=dtype)
    slack = 1e-6
    for function, low, high in (
        (lambda r: above_minus_one(limited(r)), MIN_SLOPE - 1, LIMIT),
        (limited, -LIMIT, LIMIT),
        (positive, 1 / LIMIT, LIMIT),
    ):
        y = function(raw)
        assert (low - slack < y).all()
        assert (y < high * (1 + slack)).all()
        assert (y.diff() >= 0).all()
        assert (function(torch.linspace(-9, 9, 99, dtype=dtype)).diff() > 0).all()
    zero = torch.zeros((), dtype=dtype)
    assert above_minus_one(zero) == pytest.approx(0, abs=1e-7)
    assert (limited(zero), positive(zero)) == (0, 1)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("c", [MIN_SLOPE - 1, -0.5, 0.0, 3.0, 1e3])
def test_a_step_is_undone_over_the_whole_line(c, dtype, atol):
    s = torch.tensor([0.0, 1e-30, 1e-6, 0.1, 1.0, 5.0, 1e3, 1e6, 1e30], dtype=dtype)
    s = torch.cat([s, -s])
    c = torch.tensor(c, dtype=dtype)
    y = s + c * torch.tanh(s)
    # What one rounding of y moves s by, where tanh is flat under a great c.
    slack = float(torch.finfo(dtype).eps * c.abs()) * 2
    inner = s.abs() < 2
    torch.testing.assert_close(solve_step(y, c)[inner], s[inner], atol=atol, rtol=atol)
    torch.testing.assert_close(solve_step(y, c), s, atol=atol + slack, rtol=atol)


@pytest.mark.parametrize("c", [MIN_SLOPE - 1, 0.0, 7.0])
def test_log_slope_is_that_of_autodiff(c):
    s = torch.linspace(-40, 40, 81, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad((s + c * torch.tanh(s)).sum(), s)
    torch.testing.assert_close(
        log_slope(s, torch.tensor(c, dtype=s.dtype)), slope.log(), atol=1e-12, rtol=0
    )
    assert slope.min() > MIN_SLOPE * (1 - 1e-12)


def test_finite_leaves_numbers_alone_that_a_step_can_reach():
    x = torch.tensor([0.0, -1e29, 3e38, torch.inf, -torch.inf, torch.nan])
    assert finite(x).tolist() == pytest.approx([0.0, -1e29, 1e30, 1e30, -1e30, 0.0])


@pytest.mark.parametrize("n_features", [1, 2, 5])
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize(("dtype", "tol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_layers_go_both_ways_also_in_far_tails(kind, n_features, dtype, tol):
    for seed in range(5):
        layer = spread(LAYERS[kind](n_features).to(dtype), 0.5, seed)
        g = torch.Generator().manual_seed(seed)
        x = 2 * torch.randn(n_features, 60, generator=g, dtype=torch.float64).to(dtype)
        x[0, :12] = torch.tensor(
            [1e2, -1e2, 1e4, -1e4, 1e6, -1e6, 1e12, -1e12, 1e30, -1e30, 0.0, 1e-30], dtype=dtype
        )
        with torch.no_grad():
            z, ladj = layer.to_noise(x)
            back, back_ladj = layer.to_data(z)
            forth = layer.to_noise(layer.to_data(x)[0])[0]
        # A number far out rounds the sums that all others see: errors are relative to the row.
        size = x.abs().amax(0).clamp_min(1)
        assert ((back - x).abs() <= tol * size).all()
        assert ((forth - x).abs() <= tol * size).all()
        near = size < 20
        torch.testing.assert_close(back_ladj[near], -ladj[near], atol=100 * tol, rtol=0)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", LAYERS)
def test_layers_of_one_column_increase_whatever_their_weights(kind, seed):
    x = torch.linspace(-30, 30, 6001, dtype=torch.float64)[None]
    for scale in (1.0, 5.0, 1e3):
        layer = spread(LAYERS[kind](1).double(), scale, seed)
        for way in (layer.to_noise, layer.to_data):
            y = way(x)[0][0]
            assert (y.diff() > 0).all()
        slope = layer.to_noise(x)[0][0].diff() / x[0].diff()
        assert slope.min() > 0.999 * MIN_SLOPE


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", LAYERS)
def test_the_jacobian_is_regular_whatever_the_weights(kind, seed):
    """Positive determinants and equal to autodiff's, with weights at their limits."""
    for scale in (3.0, 1e4):
        layer = spread(LAYERS[kind](3).double(), scale, seed)
        x = 3 * torch.randn(4, 3, generator=torch.Generator().manual_seed(seed)).double()
        for row in x:
            jacobian = torch.autograd.functional.jacobian(layer.inv, row)
            sign, logdet = torch.linalg.slogdet(jacobian)
            assert sign == 1
            torch.testing.assert_close(
                layer.to_noise(row[:, None])[1][0], logdet, atol=1e-6, rtol=1e-8
            )


@pytest.mark.parametrize("kind", LAYERS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_float32_whatever_makes_a_nan(kind, data):
    """Neither as input nor as weight; in both directions, for determinants and gradients."""
    layer = LAYERS[kind](2)
    x = torch.tensor(data.draw(hnp.arrays("float32", (2, 6), elements=ANY_FLOAT)))
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.tensor(data.draw(hnp.arrays("float32", p.shape, elements=ANY_FLOAT))))
    for way in (layer.to_noise, layer.to_data):
        y, ladj = way(x)
        assert not y.isnan().any()
        assert torch.isfinite(ladj).all()
        moderate = (y.abs() < 1e6).all(0)
        (y[:, moderate].sum() + ladj.sum()).backward()
        for p in layer.parameters():
            assert torch.isfinite(p.grad).all()
        layer.zero_grad()


def test_a_huge_number_across_the_subspace_has_finite_gradients():
    """A component orthogonal to the subspace does not saturate the step but affects its direction."""
    layer = SylvesterTransform(2, 1)
    with torch.no_grad():
        layer.reflections.vectors.copy_(torch.tensor([[0.0, 1.0]]))
        layer.raw.values.fill_(1.0)
    x = torch.tensor([[0.0, 0.0], [3.4e38, 0.0]])
    for way in (layer.to_noise, layer.to_data):
        layer.zero_grad()
        way(x)[1].sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in layer.parameters())
