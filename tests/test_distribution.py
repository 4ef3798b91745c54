"""A fitted estimator is a Pyro distribution: scored, sampled, and a latent of SVI and NUTS."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.optim import Adam

from densekit import Gaussian, GaussianMixture, KernelDensity, NeuralSplineFlow, RealNVP

FAST = {"max_steps": 200, "n_transforms": 2, "hidden_sizes": (16,), "random_state": 0}
EXACT = [
    Gaussian(random_state=0),
    GaussianMixture(n_components=3, random_state=0),
    KernelDensity(random_state=0),
    NeuralSplineFlow(**FAST),
    RealNVP(**FAST),
]


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=400)
    return np.c_[10 + 2 * x, -5 + (x + 0.5 * rng.normal(size=400))]


@pytest.fixture(scope="module", params=EXACT, ids=lambda e: type(e).__name__)
def fitted(request):
    return request.param.fit(data())


def test_it_scores_and_samples_in_the_units_of_the_data(fitted):
    d, X = fitted.distribution_, data()
    assert isinstance(d, dist.TorchDistribution)
    assert (d.batch_shape, d.event_shape) == ((), (2,))
    np.testing.assert_allclose(
        d.log_prob(torch.tensor(X)).detach().numpy(), fitted.score_samples(X), rtol=1e-4, atol=1e-4
    )
    drawn = d.sample((5000,)).numpy()
    np.testing.assert_allclose(drawn.mean(0), X.mean(0), atol=5 * X.std(0).max() / 70)


def test_nuts_finds_the_posterior_under_it_as_a_prior(fitted):
    """A Gaussian observation of a latent drawn from the estimator: the posterior mean by importance
    sampling with the estimator's own draws is the reference."""
    d = fitted.distribution_
    observed = torch.tensor([12.0], dtype=torch.float64)

    def model():
        x = pyro.sample("x", d)
        pyro.sample("y", dist.Normal(x[..., 0], 1.0), obs=observed[0])

    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        draws = d.sample((20_000,))
        weight = torch.softmax(-0.5 * (draws[:, 0] - 12.0) ** 2, 0)
        reference = (weight[:, None] * draws).sum(0)
        # A draw of the prior that the posterior does not expect: the chain has to move.
        start = {"x": draws[(draws[:, 0] - 9.0).abs().argmin()]}
        mcmc = MCMC(
            NUTS(model),
            num_samples=250,
            warmup_steps=100,
            initial_params=start,
            disable_progbar=True,
        )
        mcmc.run()
    samples = mcmc.get_samples()["x"]
    assert (samples.std(0) > 0.2).all()
    assert (abs(samples.mean(0) - reference) < 0.5).all()


def test_svi_runs_with_it_as_a_latent(fitted):
    d = fitted.distribution_
    pyro.clear_param_store()

    def model():
        x = pyro.sample("x", d)
        pyro.sample("y", dist.Normal(x[..., 0], 1.0), obs=torch.tensor(12.0, dtype=torch.float64))

    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        guide = AutoNormal(model, init_loc_fn=pyro.infer.autoguide.init_to_median)
        svi = SVI(model, guide, Adam({"lr": 0.05}), Trace_ELBO())
        losses = [svi.step() for _ in range(150)]
    assert np.isfinite(losses).all()
    assert np.mean(losses[-30:]) < np.mean(losses[:10])
    pyro.clear_param_store()
