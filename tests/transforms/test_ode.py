"""Flows of time: linear ones against matrix exponentials, free ones against themselves."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.distributions import MultivariateNormal

from densekit.nets.velocity import VelocityNet
from densekit.transforms.ode import ContinuousTransform


class Linear(nn.Module):
    """dy/dt = A y, of which everything is known."""

    def __init__(self, matrix):
        super().__init__()
        self.matrix = nn.Parameter(matrix)

    def forward(self, t, y, context=None):
        return self.matrix @ y

    def with_divergence(self, t, y, context=None, probes=None):
        if probes is None:
            return self(t, y), self.matrix.trace().expand(1, y.shape[1])
        forms = torch.einsum("dkn,de,ekn->kn", probes, self.matrix, probes)
        return self(t, y), forms.expand(-1, y.shape[1])


class Clock(Linear):
    """dy/dt = 3 t^2 y: the flow multiplies by e, and only if time runs from 0 to 1."""

    def forward(self, t, y, context=None):
        return 3 * t**2 * y

    def with_divergence(self, t, y, context=None, probes=None):
        return self(t, y), (3 * t**2 * len(y)).expand(1, y.shape[1])


def matrix(d=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 0.5 * torch.randn(d, d, generator=generator, dtype=torch.float64)


def free(d=3, n_context=0, n_steps=6, scale=0.4, seed=0):
    torch.manual_seed(seed)
    net = VelocityNet(d, (32, 32), n_context)
    net.last.data = scale * torch.randn_like(net.last)
    return ContinuousTransform(net, d, n_context, n_steps).eval()


def rows(d, n, dtype=torch.float64, seed=1):
    """Near, far and very far."""
    torch.manual_seed(seed)
    scale = torch.tensor([1.0, 1.0, 30.0, 1e3, 1e6], dtype=dtype)
    return (torch.randn(d, n, 5, dtype=dtype) * scale).flatten(1)


def test_a_linear_velocity_makes_the_gaussian_of_the_matrix_exponential():
    a = matrix()
    flow = ContinuousTransform(Linear(a), 3, n_steps=32).eval()
    y = torch.randn(3, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    end, ladj = flow.integrate(y, flow._even_grid(y))
    logp = ladj[0] - 0.5 * (end * end).sum(0) - 1.5 * math.log(2 * math.pi)
    back = torch.linalg.inv(torch.matrix_exp(a))
    truth = MultivariateNormal(torch.zeros(3, dtype=torch.float64), back @ back.T)
    assert torch.allclose(end, torch.matrix_exp(a) @ y, atol=1e-7)
    assert torch.allclose(logp, truth.log_prob(y.t()), atol=1e-6)


def test_the_chart_is_in_place_and_log_determinant():
    a = matrix()
    flow = ContinuousTransform(Linear(a), 3, n_steps=32).eval()
    x = 3 * torch.randn(3, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def known(x):
        return torch.sinh(torch.matrix_exp(a) @ torch.asinh(x))

    z, ladj = flow.to_noise(x)
    assert torch.allclose(z, known(x), rtol=1e-6)
    inside = torch.stack([torch.autograd.functional.jacobian(known, c) for c in x.t()])
    assert torch.allclose(ladj, torch.linalg.slogdet(inside)[1], atol=1e-6)


def test_time_runs_from_zero_to_one_and_back():
    flow = ContinuousTransform(Clock(matrix(2)), 2, n_steps=16).eval()
    y = torch.tensor([[0.5], [-2.0]], dtype=torch.float64)
    there, ladj = flow.integrate(y, flow._even_grid(y))
    assert torch.allclose(there, math.e * y, rtol=1e-6)
    assert ladj.item() == pytest.approx(2, abs=1e-6)
    back, ladj = flow.integrate(there, flow._even_grid(y).flip(0))
    assert torch.allclose(back, y, rtol=1e-5)
    assert ladj.item() == pytest.approx(-2, abs=1e-6)


def test_the_error_is_of_order_four():
    a, x = matrix(), torch.randn(3, 20, dtype=torch.float64)
    wrong = []
    for n in (4, 8):
        flow = ContinuousTransform(Linear(a), 3, n_steps=n).eval()
        end, _ = flow.integrate(x, flow._even_grid(x))
        wrong.append((end - torch.matrix_exp(a) @ x).abs().max().item())
    assert 12 < wrong[0] / wrong[1] < 20


@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("d", [1, 3])
def test_the_way_back_ends_where_the_way_forth_began(dtype, within, d):
    flow, x = free(d).to(dtype), rows(d, 100, dtype)
    with torch.no_grad():
        z, ladj = flow.to_noise(x)
        back, ladj_back = flow.to_data(z)
        once = torch.sinh(flow._solution(torch.asinh(z), flow._even_grid(z).flip(0), None))
    size = x.abs().clamp_min(1)
    assert ((z - x).abs() / size).max() > 0.5
    assert ((back - x).abs() / size).max() < within
    # Without corrections it would not.
    assert ((once - x).abs() / size).max() > 3 * within
    assert torch.allclose(ladj, -ladj_back, atol=2e-3)


def test_the_log_determinant_is_that_of_the_map_up_to_the_grid():
    x = rows(3, 1)
    wrong = {}
    for n in (4, 16):
        flow = free(n_steps=n).double()
        inside = [
            torch.autograd.functional.jacobian(
                lambda c, flow=flow: flow.to_noise(c[:, None])[0][:, 0], c
            )
            for c in x.t()
        ]
        expected = torch.linalg.slogdet(torch.stack(inside))[1]
        wrong[n] = (flow.to_noise(x)[1] - expected).abs().max().item()
    assert wrong[4] < 0.05
    assert wrong[16] < wrong[4] / 50


def test_one_column_is_moved_monotonically_and_its_density_integrates_to_one():
    flow = free(1, scale=0.5).double()
    x = torch.linspace(-12, 12, 4001, dtype=torch.float64)[None]
    with torch.no_grad():
        z, ladj = flow.to_noise(x)
    assert (z.diff() > 0).all()
    density = torch.exp(ladj - 0.5 * z[0] ** 2) / math.sqrt(2 * math.pi)
    assert torch.trapezoid(density, x[0]).item() == pytest.approx(1, abs=1e-3)


def test_gradients_are_those_of_finite_differences():
    flow = free(2, n_context=1, n_steps=2).double()
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    c = torch.randn(1, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(flow.to_noise, (x, c), rtol=1e-4)
    assert torch.autograd.gradcheck(flow.to_data, (x, c), rtol=1e-4)
    weight = flow.velocity.last
    (slope,) = torch.autograd.grad(flow.to_noise(x, c)[1].sum(), weight)
    step, h = torch.randn_like(weight), 1e-5
    with torch.no_grad():
        weight += h * step
        above = flow.to_noise(x, c)[1].sum()
        weight -= 2 * h * step
        below = flow.to_noise(x, c)[1].sum()
    assert (slope * step).sum().item() == pytest.approx(
        ((above - below) / (2 * h)).item(), rel=1e-5
    )


def test_columns_do_not_see_each_other():
    flow, x = free().double(), rows(3, 3)
    z, ladj = flow.to_noise(x)
    alone = [flow.to_noise(x[:, i : i + 1]) for i in range(x.shape[1])]
    assert torch.allclose(z, torch.cat([a[0] for a in alone], 1), rtol=1e-12)
    assert torch.allclose(ladj, torch.cat([a[1] for a in alone]), atol=1e-12)


def test_training_takes_other_steps_each_time_and_scoring_does_not():
    flow, x = free(), torch.randn(3, 5)
    assert torch.equal(flow.to_noise(x)[0], flow.to_noise(x)[0])
    flow.train()
    assert not torch.equal(flow.to_noise(x)[0], flow.to_noise(x)[0])
    grid = flow._random_grid(x)
    assert (grid.diff() > 0).all()
    assert (grid[0], grid[-1], len(grid)) == (0, 1, flow.n_steps + 1)


def test_far_out_is_finite():
    flow = free(scale=1.0)
    x = torch.tensor([[1e6, 0.0, -1e6], [0.0, -1e6, 1e6], [1.0, 1e6, 1e6]])
    z, ladj = flow.to_noise(x)
    assert z.isfinite().all()
    assert ladj.isfinite().all()


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3)
)
def test_no_finite_number_makes_nan(values):
    flow = free(n_steps=2, scale=1.0)
    x = torch.tensor(values)[:, None]
    with torch.no_grad():
        for way in (flow.to_noise, flow.to_data):
            y, ladj = way(x)
            assert not y.isnan().any()
            assert not ladj.isnan().any()
