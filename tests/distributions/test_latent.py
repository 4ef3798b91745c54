"""Latent variables: the bound is below the known marginal and converges to it."""

import itertools
import math

import pyro.distributions as dist
import pytest
import torch

from densekit.distributions import latent
from densekit.distributions.latent import LatentVariable

L, D, SIGMA = 2, 4, 0.7
W = torch.tensor([[1.0, 0.5], [-0.3, 1.2], [0.8, -0.7], [0.1, 0.4]], dtype=torch.float64)
MARGINAL = dist.MultivariateNormal(
    torch.zeros(D, dtype=torch.float64), W @ W.T + SIGMA**2 * torch.eye(D, dtype=torch.float64)
)
PRECISION = torch.eye(L, dtype=torch.float64) + W.T @ W / SIGMA**2


def noise(k, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(k, L, generator=generator, dtype=torch.float64)


def decoder(z):
    """Probabilistic principal components (Tipping & Bishop 1999): x = W z + noise."""
    return dist.Normal(z @ W.T, SIGMA).to_event(1)


def guide(x):
    """The exact mean of the posterior, and the best standard deviations without correlation."""
    loc = x @ W @ torch.linalg.inv(PRECISION) / SIGMA**2
    return loc, (1.2 * PRECISION.diagonal().rsqrt()).expand_as(loc)


def principal_components(bank, guide=guide, batch_shape=()):
    prior = dist.Normal(torch.zeros(L, dtype=torch.float64), 1).to_event(1)
    return LatentVariable(prior, decoder, guide, bank, torch.Size([D]), torch.Size(batch_shape))


@pytest.fixture(scope="module")
def rows():
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(1)
        return MARGINAL.sample((12,))


def test_with_the_exact_posterior_the_bound_is_the_truth():
    # With orthogonal columns the posterior has no correlation.
    w = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.5], [0.0, 0.0]], dtype=torch.float64)
    precision = torch.eye(L, dtype=torch.float64) + w.T @ w / SIGMA**2
    d = LatentVariable(
        dist.Normal(torch.zeros(L, dtype=torch.float64), 1).to_event(1),
        lambda z: dist.Normal(z @ w.T, SIGMA).to_event(1),
        lambda x: (
            x @ w / precision.diagonal() / SIGMA**2,
            precision.diagonal().rsqrt().expand(*x.shape[:-1], L),
        ),
        noise(5),
        torch.Size([D]),
    )
    x = torch.randn(7, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    covariance = w @ w.T + SIGMA**2 * torch.eye(D, dtype=torch.float64)
    truth = dist.MultivariateNormal(torch.zeros(D, dtype=torch.float64), covariance).log_prob(x)
    bound, error = d.log_prob_and_error(x)
    torch.testing.assert_close(bound, truth)
    torch.testing.assert_close(error, torch.zeros(7, dtype=torch.float64), atol=1e-9, rtol=0)


def test_the_expected_bound_is_below_the_marginal_and_rises_with_k(rows):
    truth = MARGINAL.log_prob(rows)
    means = []
    for k in (1, 4, 16, 64):
        log_w = principal_components(noise(k)).log_weights(rows, noise(k * 2000, seed=k))
        bounds = log_w.reshape(2000, k, -1).logsumexp(1) - math.log(k)
        error = bounds.std(0) / math.sqrt(2000)
        assert (bounds.mean(0) < truth + 4 * error).all()
        means.append(bounds.mean())
    assert all(a < b for a, b in itertools.pairwise(means))
    assert truth.mean() - means[0] > 0.02


def test_the_bound_converges_to_the_truth(rows):
    bound, error = principal_components(noise(50_000)).log_prob_and_error(rows)
    torch.testing.assert_close(bound, MARGINAL.log_prob(rows), atol=0.02, rtol=0)
    assert error.max() < 0.01


def test_one_draw_is_a_draw_of_the_evidence_lower_bound(rows):
    bank = noise(1)
    bound, error = principal_components(bank).log_prob_and_error(rows)
    loc, scale = guide(rows)
    z = loc + scale * bank
    q = dist.Normal(loc, scale).to_event(1)
    p = dist.Normal(torch.zeros(L, dtype=torch.float64), 1).to_event(1)
    expected = decoder(z).log_prob(rows) + p.log_prob(z) - q.log_prob(z)
    torch.testing.assert_close(bound, expected)
    assert torch.isinf(error).all()


def test_the_standard_error_covers_the_truth_as_often_as_it_says(rows):
    truth, inside = MARGINAL.log_prob(rows), []
    for seed in range(300):
        bound, error = principal_components(noise(400, seed)).log_prob_and_error(rows)
        inside.append(((bound - truth).abs() < 1.96 * error).double())
    coverage = torch.stack(inside).mean()
    assert 0.91 < coverage < 0.98


def test_draws_have_the_marginal_covariance():
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        x = principal_components(noise(4)).sample((40_000,))
    torch.testing.assert_close(x.T.cov(), MARGINAL.covariance_matrix, atol=0.08, rtol=0)


def test_a_score_depends_neither_on_the_batch_nor_on_how_draws_are_split(rows, monkeypatch):
    d = principal_components(noise(100))
    whole, error = d.log_prob_and_error(rows)
    alone = torch.stack([d.log_prob(row) for row in rows])
    torch.testing.assert_close(alone, whole)
    monkeypatch.setattr(latent, "_MAX_DECODER_ROWS", 7 * len(rows))
    again, error_again = d.log_prob_and_error(rows)
    torch.testing.assert_close(again, whole)
    torch.testing.assert_close(error_again, error)


def test_batch_shapes(rows):
    d = principal_components(noise(8), batch_shape=(12,))
    assert d.sample((3,)).shape == (3, 12, D)
    assert d.log_prob(rows.expand(5, 12, D)).shape == (5, 12)
    torch.testing.assert_close(d.log_prob(rows), principal_components(noise(8)).log_prob(rows))
    assert d.expand(torch.Size([5, 12])).sample().shape == (5, 12, D)


def test_rows_without_mass_score_minus_infinity_with_no_error():
    prior = dist.Normal(torch.zeros(L, dtype=torch.float64), 1).to_event(1)

    class Nowhere:
        def __init__(self, z):
            self.shape = z.shape[:-1]

        def log_prob(self, x):
            return torch.full(self.shape, -math.inf, dtype=torch.float64)

    d = LatentVariable(prior, Nowhere, guide, noise(8), torch.Size([D]))
    bound, error = d.log_prob_and_error(torch.zeros(3, D, dtype=torch.float64))
    assert (bound == -math.inf).all()
    assert (error == 0).all()
