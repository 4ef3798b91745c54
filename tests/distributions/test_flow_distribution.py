import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS

from densekit.distributions.flow import FlowModule
from densekit.transforms.affine import AffineElement
from densekit.transforms.autoregressive import AutoregressiveTransform
from densekit.transforms.columns import Stack
from densekit.transforms.coupling import CouplingTransform, binary_split
from densekit.transforms.linear import LULinear
from densekit.transforms.spline import SplineElement


def flow(n_features=2, n_context=0, dtype=torch.float64, spread=0.15):
    torch.manual_seed(0)
    layers = [
        AutoregressiveTransform(n_features, SplineElement(6, 4.0), (16, 16), n_context),
        LULinear(n_features),
        CouplingTransform(binary_split(n_features, 0), AffineElement(), (16,), n_context),
        AutoregressiveTransform(n_features, SplineElement(6, 4.0), (16,), n_context, True),
    ]
    module = FlowModule(Stack(layers)).to(dtype)
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(spread * torch.randn(p.shape, generator=g, dtype=torch.float64).to(dtype))
    return module


def test_untrained_flow_is_the_standard_normal():
    law = FlowModule(Stack([AutoregressiveTransform(3, SplineElement(), (16,))]))()
    x = torch.randn(50, 3)
    normal = dist.Normal(torch.zeros(3), 1.0).to_event(1)
    torch.testing.assert_close(law.log_prob(x), normal.log_prob(x), atol=1e-4, rtol=1e-4)


def test_flow_integrates_to_one_in_one_and_two_dimensions():
    grid = torch.linspace(-12, 12, 801, dtype=torch.float64)
    with torch.no_grad():
        law = flow(2)()
        one = flow(1)().log_prob(grid[:, None]).exp().sum() * 0.03
        xy = torch.cartesian_prod(grid, grid)
        two = torch.cat([law.log_prob(c) for c in xy.split(20000)]).exp().sum() * 0.03**2
    assert one.item() == pytest.approx(1, abs=1e-3)
    assert two.item() == pytest.approx(1, abs=2e-3)


def test_flow_scores_like_pyros_transformed_distribution():
    module = flow(3)
    base = dist.Normal(torch.zeros(3, dtype=torch.float64), 1.0).to_event(1)
    law = dist.TransformedDistribution(base, [module.transform])
    x = 2 * torch.randn(4, 7, 3, dtype=torch.float64)
    torch.testing.assert_close(module().log_prob(x), law.log_prob(x))


def test_flow_samples_agree_with_its_scores():
    """E_p[q(x)/p(x)] = 1 for any density q, and E_p[log p] is minus the entropy found on a grid."""
    law = flow(2)()
    torch.manual_seed(0)
    x = law.sample((20000,))
    with torch.no_grad():
        logp = law.log_prob(x)
        grid = torch.linspace(-12, 12, 601, dtype=torch.float64)
        cells = torch.cartesian_prod(grid, grid)
        score = torch.cat([law.log_prob(c) for c in cells.split(20000)])
    q = dist.Normal(x.mean(0), 0.3 * x.std(0)).to_event(1)
    ratio = (q.log_prob(x) - logp).exp()
    assert ratio.mean().item() == pytest.approx(1, abs=5 * ratio.std().item() / math.sqrt(len(x)))
    expected = (score.exp() * score).sum().item() * 0.04**2
    error = logp.std().item() / math.sqrt(len(x))
    assert logp.mean().item() == pytest.approx(expected, abs=5 * error + 2e-3)


def test_flow_shapes_with_and_without_context():
    plain, given = flow(2)(), flow(2, 3)(torch.randn(4, 3, dtype=torch.float64))
    assert plain.batch_shape == ()
    assert plain.event_shape == (2,)
    assert given.batch_shape == (4,)
    assert plain.sample().shape == (2,)
    assert plain.sample((5, 6)).shape == (5, 6, 2)
    assert given.sample((5,)).shape == (5, 4, 2)
    assert plain.log_prob(torch.zeros(2, dtype=torch.float64)).shape == ()
    assert given.log_prob(torch.zeros(2, dtype=torch.float64)).shape == (4,)
    assert given.log_prob(torch.zeros(5, 4, 2, dtype=torch.float64)).shape == (5, 4)
    assert plain.expand([3, 4]).sample((2,)).shape == (2, 3, 4, 2)
    assert given.expand([3, 4]).log_prob(torch.zeros(2, dtype=torch.float64)).shape == (3, 4)


def test_context_rows_are_scored_each_by_its_own():
    module, context = flow(2, 3), torch.randn(4, 3, dtype=torch.float64)
    x = torch.randn(4, 2, dtype=torch.float64)
    together = module(context).log_prob(x)
    alone = torch.stack([module(c).log_prob(v) for c, v in zip(context, x, strict=True)])
    torch.testing.assert_close(together, alone)


def test_rsample_is_differentiable_and_sample_is_not():
    law = flow(2)()
    assert law.rsample((3,)).requires_grad
    assert not law.sample((3,)).requires_grad


def test_far_out_the_score_is_low_but_never_nan():
    law = flow(3, dtype=torch.float32)()
    x = torch.tensor([1e3, 1e6, 1e30, 3.4e38])[:, None].expand(4, 3)
    logp = law.log_prob(x)
    assert torch.isfinite(logp[:2]).all()
    assert not torch.isnan(logp).any()


def test_nuts_draws_from_a_flow():
    torch.manual_seed(0)
    module = FlowModule(Stack([AutoregressiveTransform(2, SplineElement(4, 3.0), (8,))]))
    with torch.no_grad():
        module.transform.transforms[0].net.last_bias.add_(0.5 * torch.randn(11, 2, 1))
    module.requires_grad_(False)

    def model():
        pyro.sample("x", module())

    pyro.set_rng_seed(0)
    mcmc = MCMC(NUTS(model), num_samples=120, warmup_steps=60, disable_progbar=True)
    mcmc.run()
    x = mcmc.get_samples()["x"]
    direct = module().sample((20000,))
    assert ((x.mean(0) - direct.mean(0)).abs() < 0.6 * direct.std(0)).all()
    assert ((x.std(0) / direct.std(0)).log().abs() < 0.5).all()
