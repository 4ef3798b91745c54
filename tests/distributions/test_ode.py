"""Hutchinson's estimator: unbiased, honest about its error, the same for a row in any company."""

import math

import pyro
import pytest
import torch
from torch.distributions import MultivariateNormal

from densekit.distributions.flow import FlowDistribution
from densekit.distributions.ode import HutchinsonFlow, HutchinsonModule, random_signs
from densekit.nets.velocity import VelocityNet
from densekit.transforms.ode import ContinuousTransform


def transform(d=5, n_context=0, hidden_sizes=(16, 16), seed=0, n_steps=3):
    torch.manual_seed(seed)
    net = VelocityNet(d, hidden_sizes, n_context)
    net.last.data = 0.3 * torch.randn_like(net.last)
    return ContinuousTransform(net, d, n_context, n_steps).double().eval()


def rows(n, d=5, seed=1):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def signs(d, k, seed):
    torch.manual_seed(seed)
    return random_signs(d, k).double()


def test_estimates_are_unbiased_and_their_standard_error_is_honest():
    flow, x = transform(n_steps=1), rows(6)
    exact = FlowDistribution(flow).log_prob(x)
    with torch.no_grad():
        runs = [HutchinsonFlow(flow, signs(5, 12, s)).log_prob_and_error(x) for s in range(400)]
    logp, error = (torch.stack(r) for r in zip(*runs, strict=True))
    off = logp - exact
    assert (off.std(0) > 0.02).all()
    assert (off.mean(0).abs() < 4 * off.std(0) / 20).all()
    # The mean square of the standard errors is the variance that they estimate.
    assert torch.allclose(error.square().mean(0).sqrt(), off.std(0), rtol=0.15)


def test_all_signs_there_are_give_the_exact_trace():
    flow, x = transform(3), rows(4, 3)
    grid = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3)
    logp = HutchinsonFlow(flow, grid.t()).log_prob(x)
    assert torch.allclose(logp, FlowDistribution(flow).log_prob(x), atol=1e-12)


def test_a_diagonal_velocity_has_no_error():
    class Diagonal(torch.nn.Module):
        def with_divergence(self, t, y, context=None, probes=None):
            v = torch.arange(1.0, 4.0, dtype=y.dtype)[:, None] * y / 4
            forms = (
                probes * torch.arange(1.0, 4.0, dtype=y.dtype)[:, None, None] / 4 * probes
            ).sum(0)
            return v, forms.expand(-1, y.shape[1])

    flow = ContinuousTransform(Diagonal(), 3, n_steps=16).eval()
    x = rows(4, 3)
    logp, error = HutchinsonFlow(flow, signs(3, 4, 0)).log_prob_and_error(x)
    scale = torch.exp(torch.arange(1.0, 4.0, dtype=torch.float64) / 4)
    z = torch.sinh(scale * torch.asinh(x))
    slope = scale * torch.cosh(scale * torch.asinh(x)) / torch.cosh(torch.asinh(x))
    known = (-0.5 * z**2 - 0.5 * math.log(2 * math.pi) + slope.log()).sum(1)
    assert torch.allclose(logp, known, atol=1e-6)
    assert error.max() < 1e-12


def test_a_row_scores_the_same_alone_and_in_company():
    flow = HutchinsonFlow(transform(), signs(5, 4, 0))
    x = torch.cat([rows(20), 1e4 * rows(5)])
    together, errors = flow.log_prob_and_error(x)
    alone = [flow.log_prob_and_error(row) for row in x]
    assert torch.allclose(together, torch.stack([a[0] for a in alone]), rtol=1e-12)
    assert torch.allclose(errors, torch.stack([a[1] for a in alone]), rtol=1e-9)


def test_draws_are_those_of_the_exact_flow_and_have_its_density():
    flow = transform(2)
    torch.manual_seed(0)
    with torch.no_grad():
        x = HutchinsonFlow(flow, signs(2, 4, 0)).sample((20_000,))
        # E exp(log N(x) - log p(x)) is one, N a Gaussian that p covers.
        q = MultivariateNormal(x.mean(0), 0.5 * torch.cov(x.t()))
        ratio = (q.log_prob(x) - FlowDistribution(flow).log_prob(x)).exp()
    assert ratio.mean().item() == pytest.approx(1, abs=5 * ratio.std().item() / 20_000**0.5)


def test_training_takes_the_exact_trace_where_it_is_closed():
    flow, x = transform(), rows(6)
    flow.train()
    torch.manual_seed(3)
    logp, error = HutchinsonFlow(flow, signs(5, 4, 3)).log_prob_and_error(x)
    torch.manual_seed(3)
    signs(5, 4, 3)
    assert torch.allclose(logp, FlowDistribution(flow).log_prob(x))
    assert not error.any()


def test_training_of_deep_networks_has_probes_of_its_own_for_each_row_and_is_unbiased():
    flow, x = transform(hidden_sizes=(8, 8, 8)), rows(1).expand(4000, 5)
    exact = FlowDistribution(flow).log_prob(x[0])
    flow._random_grid = flow._even_grid
    with torch.no_grad():
        logp, _ = HutchinsonFlow(flow.train(), signs(5, 4, 0)).log_prob_and_error(x)
    assert logp.std() > 0.02
    assert logp.mean().item() == pytest.approx(exact.item(), abs=4 * logp.std().item() / 4000**0.5)


def test_shapes_context_and_expansion():
    module = HutchinsonModule(transform(2, n_context=1), 6).double()
    context = torch.tensor([[0.0], [3.0], [-1.0]], dtype=torch.float64)
    d = module(context)
    assert (d.batch_shape, d.event_shape) == ((3,), (2,))
    x = torch.zeros(4, 1, 2, dtype=torch.float64)
    logp, error = d.log_prob_and_error(x)
    assert logp.shape == error.shape == (4, 3)
    assert (error > 0).all()
    each = torch.stack([module(c).log_prob(x[0, 0]) for c in context])
    assert torch.allclose(logp[0], each)
    assert each.std() > 1e-3
    assert d.expand([5, 3]).sample().shape == (5, 3, 2)
    assert d.log_prob(torch.zeros(0, 1, 2, dtype=torch.float64)).shape == (0, 3)


def test_the_bank_is_kept_with_the_weights():
    one, other = (HutchinsonModule(transform(2, seed=s), 6) for s in (0, 1))
    assert not torch.equal(one.probes, other.probes)
    other.load_state_dict(one.state_dict())
    x = rows(3, 2)
    assert torch.equal(one.double()().log_prob(x), other.double()().log_prob(x))
    assert set(one.probes.unique().tolist()) == {-1.0, 1.0}


def test_it_is_a_pyro_site():
    d = HutchinsonModule(transform(2), 4).double()()
    trace = pyro.poutine.trace(lambda: pyro.sample("x", d)).get_trace()
    trace.compute_log_prob()
    assert trace.nodes["x"]["log_prob_sum"].isfinite()
