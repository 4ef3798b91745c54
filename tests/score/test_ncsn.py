"""The score model: its loss against closed forms, and fits to densities that are known."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm

from densekit import NoiseConditionalScore
from densekit.score.ncsn import _ScoreModule


def quick(**parameters):
    defaults = {"hidden_sizes": (64, 64), "max_steps": 600, "dropout": 0.0, "random_state": 0}
    return NoiseConditionalScore(**{**defaults, **parameters})


class TrueScore(_ScoreModule):
    """The score of standard normal data, off by a factor."""

    def __init__(self, n_dims, factor=1.0):
        super().__init__(torch.nn.Identity(), n_dims, 2, None)
        self.factor = factor

    def score(self, x, sigma, context):
        return -self.factor * x / (1 + sigma[:, None] ** 2)


def loss_of(factor, n=20_000):
    torch.manual_seed(0)
    module = TrueScore(3, factor).eval()
    return NoiseConditionalScore()._loss(module, torch.randn(n, 3), None).mean().item()


def test_the_loss_of_the_true_score_is_the_closed_form_and_the_least():
    # sigma s + noise has variance 1 / (1 + sigma^2) in each of three dimensions.
    low, high = math.log(0.01), math.log(20.0)
    t = torch.linspace(low, high, 10_001, dtype=torch.float64)
    expected = 1.5 * torch.trapezoid(1 / (1 + (2 * t).exp()), t).item() / (high - low)
    assert loss_of(1.0) == pytest.approx(expected, rel=0.02)
    assert loss_of(1.0) < min(loss_of(0.8), loss_of(1.2))


def test_held_out_loss_is_finite_for_one_row_and_has_context_repeated():
    module = TrueScore(2).eval()
    loss = NoiseConditionalScore()._loss(module, torch.ones(1, 2), torch.ones(1, 3))
    assert loss.shape == (1,)
    assert loss.isfinite().all()


def test_columns_that_nearly_coincide():
    rng = np.random.default_rng(0)
    covariance = np.array([[4.0, 1.99], [1.99, 1.0]])
    X = rng.multivariate_normal([3.0, -1.0], covariance, size=2000)
    est = quick(random_state=0).fit(X)
    truth = multivariate_normal([3.0, -1.0], covariance)
    T = truth.rvs(300, random_state=1)
    assert np.mean(truth.logpdf(T)) - est.score(T) < 0.1
    draws = est.sample(3000, random_state=0)
    assert np.mean(truth.logpdf(draws)) == pytest.approx(-truth.entropy(), abs=0.35)
    assert np.cov(draws.T) == pytest.approx(covariance, rel=0.15)


def test_two_modes_integrate_to_one_and_are_both_drawn():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(-2, 0.5, (600, 1)), rng.normal(2, 0.5, (1400, 1))])
    est = quick().fit(X)
    grid = np.linspace(-8, 8, 801)
    density = np.exp(est.score_samples(grid[:, None]))
    truth = 0.3 * norm(-2, 0.5).pdf(grid) + 0.7 * norm(2, 0.5).pdf(grid)
    assert np.trapezoid(density, grid) == pytest.approx(1, abs=0.01)
    assert np.trapezoid(np.abs(density - truth), grid) < 0.2
    for sampler in ("langevin", "ode"):
        est.sampler = sampler
        est.module_.schedule = est._build(est.schema_, None).schedule
        assert np.mean(est.sample(3000, random_state=0) < 0) == pytest.approx(0.3, abs=0.05)


def test_context_moves_the_density():
    rng = np.random.default_rng(0)
    c = rng.uniform(-1, 1, (3000, 1))
    X = 2 * c + 0.3 * rng.normal(size=(3000, 1))
    est = quick().fit(X, context=c)
    for value in (-0.7, 0.5):
        draws = est.sample(2000, context=np.array([[value]]), random_state=0)
        assert draws.mean() == pytest.approx(2 * value, abs=0.1)
        assert draws.std() == pytest.approx(0.3, abs=0.08)
    same = est.score_samples(np.full((2, 1), 1.0), context=np.array([[0.5], [-0.5]]))
    assert same[0] > norm(1, 0.3).logpdf(1) - 0.3
    assert same[1] < same[0] - 5


def test_probes_agree_with_the_exact_trace_within_their_error():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6)) + rng.exponential(size=(500, 1))
    est = quick(max_steps=200, dtype="float64").fit(X)
    exact, little = est.score_samples(X[:50], return_std=True)
    assert exact.dtype == np.float64
    est.set_params(n_probes=3)
    logp, error = est.score_samples(X[:50], return_std=True)
    assert little.max() < 0.1 < error.mean()
    # Three directions of six give two degrees of freedom: wide tails, so a quantile and a wide one.
    assert np.quantile(np.abs(logp - exact) / error, 0.8) < 4


def test_the_frame_and_the_probes_are_saved_with_the_weights():
    X = np.random.default_rng(0).normal(size=(100, 3)) * [1, 10, 100]
    est = quick(max_steps=30).fit(X)
    module = est._build(est.schema_, None)
    module.load_state_dict(est.module_.state_dict())
    x = torch.randn(5, 3)
    assert torch.equal(module.eval()().log_prob(x), est.module_().log_prob(x))
    assert not torch.equal(module.frame.whiten, torch.eye(3))


def test_small_images():
    rng = np.random.default_rng(0)
    X = np.where(rng.random((400, 1, 1)) < 0.5, 40, 200) + rng.integers(-20, 20, (400, 3, 3))
    X = X.astype(np.uint8)
    est = quick().fit(X)
    draws = est.sample(500, random_state=0)
    assert draws.dtype == np.uint8
    assert draws.shape == (500, 3, 3)
    # Every picture is dark or light as a whole.
    light = draws > 120
    assert np.mean(light.all((1, 2)) | ~light.any((1, 2))) > 0.95
    assert 0.35 < light.mean() < 0.65
    assert est.score(X[:50]) > est.score(rng.integers(0, 256, (50, 3, 3)).astype(np.uint8)) + 10


def test_no_deprecation_of_torch_reaches_the_user():
    code = (
        "import numpy as np; from densekit import NoiseConditionalScore\n"
        "X = np.random.default_rng(0).normal(size=(50, 2))\n"
        "est = NoiseConditionalScore(hidden_sizes=(8,), max_steps=3, n_ode_steps=4).fit(X)\n"
        "est.score_samples(X[:2]), est.sample(2)"
    )
    command = [sys.executable, "-W", "error:`torch.jit.script`", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
