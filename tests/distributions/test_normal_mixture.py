"""Mixtures of normals against torch's own, at any distance and in any number of blocks."""

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from densekit.distributions import mixture as mixtures
from densekit.distributions.mixture import (
    NormalMixture,
    NormalScores,
    quadratic_features,
    symmetric,
)


def parameters(n_components=4, n_dims=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    draw = torch.randn(n_components, n_dims, n_dims, generator=g, dtype=torch.float64)
    scale = torch.linalg.cholesky(draw @ draw.mT / n_dims + 0.05 * torch.eye(n_dims))
    loc = 2 * torch.randn(n_components, n_dims, generator=g, dtype=torch.float64)
    return torch.rand(n_components, generator=g, dtype=torch.float64), loc, scale


def torch_mixture(weights, loc, scale):
    return MixtureSameFamily(Categorical(weights), MultivariateNormal(loc, scale_tril=scale))


@pytest.mark.parametrize("n_dims", [1, 2, 8])
@pytest.mark.parametrize("diagonal", [False, True])
def test_scores_equal_torch(n_dims, diagonal):
    weights, loc, scale = parameters(n_dims=n_dims)
    if diagonal:
        scale = torch.diag_embed(scale.diagonal(dim1=1, dim2=2))
    x = 3 * torch.randn(50, n_dims, dtype=torch.float64)
    ours = NormalMixture(weights, loc, scale.diagonal(dim1=1, dim2=2) if diagonal else scale)
    torch.testing.assert_close(ours.log_prob(x), torch_mixture(weights, loc, scale).log_prob(x))


def test_both_forms_agree():
    weights, loc, scale = parameters()
    scores = NormalScores(weights.log(), loc, scale)
    x = torch.randn(30, 3, dtype=torch.float64)
    quadratic = scores.quadratic(quadratic_features(x, full=True))
    assert (quadratic - scores.triangular(x)).abs().max() < 1e-10


@pytest.mark.parametrize("diagonal", [False, True])
def test_narrow_and_far_away_components_do_not_cancel(diagonal):
    """Standard deviation 1e-6 at 1e3: the quadratic form alone is off by 1e2 nats."""
    loc = torch.tensor([[1e3, 1e3], [0.0, 0.0]]).double()
    scale = torch.tensor([[1e-6, 1e-6], [1.0, 1.0]]).double()
    weights = torch.ones(2).double()
    x = loc[:1] + 1e-6
    d = NormalMixture(weights, loc, scale if diagonal else torch.diag_embed(scale))
    exact = torch_mixture(weights, loc, torch.diag_embed(scale)).log_prob(x)
    quadratic = d._scores.quadratic(quadratic_features(x, full=not diagonal)).logsumexp(0)
    assert (quadratic - exact).abs() > 1
    # The row itself is only given to 1e-10 of a standard deviation.
    torch.testing.assert_close(d.log_prob(x), exact, rtol=0, atol=1e-6)


def test_blocks_do_not_matter(monkeypatch):
    weights, loc, scale = parameters()
    x = torch.randn(53, 3, dtype=torch.float64)
    x[7] = 1e7
    whole = NormalMixture(weights, loc, scale).log_prob(x)
    monkeypatch.setattr(mixtures, "block_length", lambda width, device: 5)
    torch.testing.assert_close(NormalMixture(weights, loc, scale).log_prob(x), whole)


def test_features_unpack_to_products():
    x = torch.randn(20, 4, dtype=torch.float64)
    packed = quadratic_features(x, full=True)[5:].T
    torch.testing.assert_close(symmetric(packed, 4), x[:, :, None] * x[:, None, :])


@pytest.mark.parametrize("diagonal", [False, True])
def test_samples_have_the_moments(diagonal):
    torch.manual_seed(0)
    weights, loc, scale = parameters()
    if diagonal:
        scale = scale.diagonal(dim1=1, dim2=2)
    d = NormalMixture(weights, loc, scale)
    x = d.sample((40_000,))
    own = torch.diag_embed(scale.square()) if diagonal else scale @ scale.mT
    centered = loc - d.mean
    covariance = torch.einsum(
        "k,kij->ij", d.weights, own + centered[:, :, None] * centered[:, None]
    )
    torch.testing.assert_close(x.mean(0), d.mean, atol=0.05, rtol=0)
    torch.testing.assert_close(x.T.cov(), covariance, atol=0.15, rtol=0)
    # The order carries no information: neighbors are uncorrelated.
    assert torch.corrcoef(torch.stack([x[1:, 0], x[:-1, 0]]))[0, 1].abs() < 0.02


def test_gradient_is_that_of_the_density():
    d = NormalMixture(*parameters())
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(d.log_prob, x)


def test_shapes_and_expand():
    d = NormalMixture(*parameters())
    assert d.log_prob(torch.zeros(3)).shape == ()
    wide = d.expand((5,))
    x = wide.sample((2,))
    assert x.shape == (2, 5, 3)
    assert wide.log_prob(x).shape == (2, 5)


def test_shapes_that_do_not_match_are_named():
    with pytest.raises(ValueError, match=r"\(2,\), \(3, 1\) and \(3, 1\)"):
        NormalMixture(torch.ones(2), torch.ones(3, 1), torch.ones(3, 1))
