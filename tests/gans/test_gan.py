"""GAN: the R1 penalty, convergence where theory predicts it, and no density."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn

from densekit import GAN
from densekit.codecs.schema import Schema
from densekit.distributions.implicit import Implicit
from densekit.gans.gan import GANModule, squared_gradient_norm
from densekit.nets.mlp import MLP


class Bowl(nn.Module):
    """A discriminator D(x) = a |x|^2 / 2, whose gradient is a x."""

    def __init__(self):
        super().__init__()
        self.curvature = nn.Parameter(torch.tensor(0.7))

    def forward(self, x):
        return 0.5 * self.curvature * x.square().sum(1, keepdim=True)


def schema_of(cardinality, width):
    d = len(cardinality)
    arrays = (np.array(cardinality), np.zeros(d, bool), np.array(width, float))
    return Schema("table", (d,), *arrays, np.zeros(d), np.ones(d))


def game(n_dims, latent_dim, width):
    schema = schema_of([0] * n_dims, [0.0] * n_dims)
    nets = MLP(latent_dim, (width,), n_dims), MLP(n_dims, (width,), 1)
    return GANModule(*nets, latent_dim, schema)


def module_with_bowl():
    module = game(3, 2, 4)
    module.discriminator = Bowl()
    return module


def test_the_penalty_is_the_squared_gradient_at_real_rows():
    module, x = module_with_bowl(), torch.randn(50, 3)
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        with_r1 = GAN(r1=2.0)._discriminator_loss(module, x, None).mean()
        torch.random.default_generator.manual_seed(0)
        without = GAN(r1=0.0)._discriminator_loss(module, x, None).mean()
    expected = 0.5 * 2.0 * (0.7 * x).square().sum(1).mean()
    assert (with_r1 - without).item() == pytest.approx(expected.item(), rel=1e-4)
    (slope,) = torch.autograd.grad(with_r1 - without, module.discriminator.curvature)
    assert slope.item() == pytest.approx((0.7 * x.square().sum(1)).mean().item() * 2.0, rel=1e-4)


def test_the_squared_gradient_norm_is_that_of_the_function_and_can_be_differentiated():
    x = torch.randn(20, 3, dtype=torch.float64, requires_grad=True)
    y = (x.sin() * torch.tensor([1.0, 2.0, 0.0])).sum(1)
    slope = squared_gradient_norm(y, x)
    torch.testing.assert_close(slope, x[:, 0].cos() ** 2 + 4 * x[:, 1].cos() ** 2)
    (again,) = torch.autograd.grad(slope.sum(), x)
    torch.testing.assert_close(again[:, 0], -(2 * x[:, 0]).sin())


def test_the_discriminator_sees_the_middle_of_every_interval():
    schema = schema_of([0, 4, 0], [0.0, 0.0, 0.5])
    module = GANModule(MLP(2, (4,), 3), MLP(3, (4,), 1), 2, schema)
    typed = torch.tensor([[0.3, 0.0, 1.0], [-2.0, 3.0, -1.5]])
    noisy = schema.relax(typed, torch.rand(2, 3))[0]
    expected = torch.tensor(
        [[0.3, stats.norm.ppf(1 / 8), 1.25], [-2, stats.norm.ppf(7 / 8), -1.25]]
    )
    torch.testing.assert_close(module.center(noisy), expected.float(), atol=1e-5, rtol=1e-5)


def test_the_losses_at_a_blind_discriminator_are_those_of_a_coin():
    module, x = game(2, 3, 8), torch.randn(40, 2)
    for p in module.discriminator.parameters():
        nn.init.zeros_(p)
    gan = GAN()
    assert gan._discriminator_loss(module, x, None).mean().item() == pytest.approx(2 * np.log(2))
    assert gan._loss(module, x, None).mean().item() == pytest.approx(np.log(2))


def test_the_discriminator_loss_does_not_reach_the_generator():
    module, x = game(2, 3, 8), torch.randn(40, 2)
    GAN()._discriminator_loss(module, x, None).mean().backward()
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
    with pytest.raises(NotImplementedError, match="compare samples"):
        gan.distribution_.log_prob(torch.zeros(2))


def test_each_player_has_its_own_learning_rate_and_betas():
    gan = GAN(discriminator_learning_rate=0.5, betas=(0.1, 0.9))
    module = game(2, 3, 8)
    critic, forger = gan._players(module)
    assert (critic.learning_rate, forger.learning_rate) == (0.5, None)
    assert critic.betas == forger.betas == (0.1, 0.9)
    assert {id(p) for p in critic.parameters} == {id(p) for p in module.discriminator.parameters()}
    assert {id(p) for p in forger.parameters} == {id(p) for p in module.generator.parameters()}


def test_betas_that_are_no_pair_are_refused():
    with pytest.raises(ValueError, match="betas"):
        GAN(betas=(0.5,), max_steps=1).fit(np.random.default_rng(0).normal(size=(20, 2)))


def test_integers_and_categories_come_back_as_such():
    rng = np.random.default_rng(0)
    X = pd.DataFrame(
        {
            "count": rng.poisson(3.0, 400),
            "kind": pd.Categorical(rng.choice(["a", "b", "c"], 400, p=[0.7, 0.2, 0.1])),
            "size": rng.normal(50.0, 3.0, 400),
        }
    )
    gan = GAN(max_steps=1000, hidden_sizes=(32, 32), random_state=0).fit(X)
    drawn = gan.sample(1000, random_state=0)
    assert (drawn.dtypes == X.dtypes).all()
    assert drawn["count"].mean() == pytest.approx(3, abs=0.6)
    assert (drawn["kind"] == "a").mean() == pytest.approx(0.7, abs=0.15)


def test_draws_can_be_differentiated_and_follow_the_batch_shape():
    d = Implicit(lambda z: 3 * z, torch.zeros(2), torch.Size([2]))
    assert d.expand(torch.Size([4])).sample((5,)).shape == (5, 4, 2)
    weight = torch.tensor(2.0, requires_grad=True)
    Implicit(lambda z: weight * z, torch.zeros(2), torch.Size([2])).rsample((3,)).sum().backward()
    assert weight.grad is not None


@pytest.mark.slow
def test_no_mode_of_a_ring_of_eight_is_lost():
    rng = np.random.default_rng(0)
    angle = 2 * np.pi * rng.integers(8, size=4000) / 8
    X = 2 * np.c_[np.cos(angle), np.sin(angle)] + 0.1 * rng.normal(size=(4000, 2))
    drawn = GAN(random_state=0).fit(X).sample(4000, random_state=0)
    centers = 2 * np.c_[np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4)]
    distance = np.linalg.norm(drawn[:, None] - centers, axis=-1)
    near = distance.min(1) < 0.4
    assert near.mean() > 0.7
    share = np.bincount(distance.argmin(1)[near], minlength=8) / len(drawn)
    assert share.min() > 0.05
