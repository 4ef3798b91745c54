"""GAN: the penalty is R1, the game converges where theory says so, no density is claimed."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from densekit import GAN
from densekit.gans.gan import _Adversaries


class Bowl(nn.Module):
    """A discriminator D(x) = a |x|^2 / 2, whose gradient is a x."""

    def __init__(self):
        super().__init__()
        self.curvature = nn.Parameter(torch.tensor(0.7))

    def forward(self, x):
        return 0.5 * self.curvature * x.square().sum(1, keepdim=True)


def module_with_bowl():
    module = _Adversaries(3, 0, 2, (4,))
    module.discriminator = Bowl()
    return module


def test_the_penalty_is_the_squared_gradient_at_real_rows():
    module, x = module_with_bowl(), torch.randn(50, 3)
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        with_r1 = GAN(r1=2.0)._discriminator_loss(module, x, None)
        torch.random.default_generator.manual_seed(0)
        without = GAN(r1=0.0)._discriminator_loss(module, x, None)
    expected = 0.5 * 2.0 * (0.7 * x).square().sum(1).mean()
    assert (with_r1 - without).item() == pytest.approx(expected.item(), rel=1e-4)
    (slope,) = torch.autograd.grad(with_r1 - without, module.discriminator.curvature)
    assert slope.item() == pytest.approx((0.7 * x.square().sum(1)).mean().item() * 2.0, rel=1e-4)


def test_the_losses_at_a_blind_discriminator_are_those_of_a_coin():
    module, x = _Adversaries(2, 0, 3, (8,)), torch.randn(40, 2)
    for p in module.discriminator.parameters():
        nn.init.zeros_(p)
    gan = GAN()
    assert gan._discriminator_loss(module, x, None).item() == pytest.approx(2 * np.log(2))
    assert gan._loss(module, x, None).item() == pytest.approx(np.log(2))


def test_the_discriminator_loss_does_not_reach_the_generator():
    module, x = _Adversaries(2, 0, 3, (8,)), torch.randn(40, 2)
    GAN()._discriminator_loss(module, x, None).backward()
    assert all(p.grad is None for p in module.generator.parameters())


def test_draws_of_a_fitted_game_have_the_moments_of_the_data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=1000)
    X = np.c_[100 + 5 * x, -3 + 0.1 * (0.8 * x + 0.6 * rng.normal(size=1000))]
    gan = GAN(max_steps=1500, hidden_sizes=(32, 32), random_state=0).fit(X)
    drawn = gan.sample(4000, random_state=0)
    np.testing.assert_allclose((drawn.mean(0) - X.mean(0)) / X.std(0), 0, atol=0.25)
    np.testing.assert_allclose(drawn.std(0), X.std(0), rtol=0.25)
    assert np.corrcoef(drawn.T)[0, 1] == pytest.approx(np.corrcoef(X.T)[0, 1], abs=0.15)
    assert stats.ks_2samp(drawn[:, 0], X[:, 0]).statistic < 0.15
    assert "all 1500 steps" in gan.history_["stop_reason"]


def test_a_context_is_obeyed():
    rng = np.random.default_rng(0)
    g = rng.integers(0, 2, 1000)
    X = (np.where(g, 4.0, -4.0) + 0.3 * rng.normal(size=1000))[:, None]
    gan = GAN(max_steps=800, hidden_sizes=(32, 32), random_state=0).fit(X, context=g[:, None])
    assert gan.sample(200, context=[[1]], random_state=0).mean() == pytest.approx(4, abs=0.6)
    assert gan.sample(200, context=[[0]], random_state=0).mean() == pytest.approx(-4, abs=0.6)


def test_there_is_no_density_and_the_error_says_what_to_do():
    gan = GAN(max_steps=5, hidden_sizes=(8,)).fit(np.random.default_rng(0).normal(size=(50, 2)))
    assert gan.density_kind_ == "none"
    assert not hasattr(gan, "score")
    with pytest.raises(AttributeError, match=r"GAN.*(no density|score_samples)"):
        gan.score_samples([[0.0, 0.0]])
    with pytest.raises(NotImplementedError, match="compare its draws"):
        gan.distribution_.log_prob(torch.zeros(2))
