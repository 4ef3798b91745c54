"""Expectation-maximization against its definition and against scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture as Reference

from densekit.distributions import em
from densekit.distributions import mixture as mixtures
from densekit.distributions.em import Penalty

TYPES = ("full", "tied", "diag", "spherical")


def clusters(n=400, n_dims=2, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, n_dims)) * rng.uniform(0.2, 1, n_dims)
    x += 3 * rng.normal(size=(4, n_dims))[rng.integers(4, size=n)]
    return torch.tensor((x - x.mean(0)) / x.std(0))


@pytest.mark.parametrize("kind", TYPES)
def test_same_start_same_end_as_scikit_learn(kind):
    """From the same centers and precisions, ten iterations end at the same parameters."""
    x, k = clusters(), 4
    torch.manual_seed(0)
    start = em.start(x, None, k, 1, kind, Penalty(1e-6))
    covariance = {
        "full": lambda s: s @ s.mT,
        "tied": lambda s: s[0] @ s[0].T,
        "diag": lambda s: s.square(),
        "spherical": lambda s: s.square().mean(1),
    }[kind](start.scale[0])
    precision = covariance.inverse() if kind in ("full", "tied") else 1 / covariance
    reference = Reference(
        k,
        covariance_type=kind,
        tol=1e-12,
        max_iter=10,
        weights_init=start.log_weights[0].exp().numpy(),
        means_init=start.loc[0].numpy(),
        precisions_init=precision.numpy(),
    )
    # It warns that ten iterations are not enough, which is what is wanted here.
    with pytest.warns(UserWarning, match="did not converge"):
        reference.fit(x.numpy())
    ours = em.fit(x, None, start, kind, 1e-12, 10, Penalty(1e-6))
    assert ours.n_iter == 10
    assert ours.lower_bound == pytest.approx(reference.lower_bound_, abs=1e-9)
    np.testing.assert_allclose(ours.mixture.loc, reference.means_, atol=1e-6)
    np.testing.assert_allclose(ours.mixture.log_weights.exp(), reference.weights_, atol=1e-7)


@pytest.mark.parametrize("kind", TYPES)
def test_likelihood_never_falls(kind):
    x = clusters(seed=3)
    torch.manual_seed(1)
    m = em.start(x, None, 5, 2, kind, Penalty(1e-9))
    before = torch.full((2,), -np.inf).double()
    for _ in range(15):
        sums, loglik = em.expect(x, None, m)
        assert (loglik >= before - 1e-9).all()
        before, m = loglik, em.maximize(sums, 2, kind, Penalty(1e-9))


def test_one_component_is_the_sample_moments():
    x = clusters()
    penalty = Penalty(1e-12)
    fitted = em.fit(
        x, None, em.start(x, None, 1, 1, "full", penalty), "full", 1e-9, 5, penalty
    ).mixture
    torch.testing.assert_close(fitted.loc[0], x.mean(0))
    torch.testing.assert_close(fitted.scale[0] @ fitted.scale[0].T, x.T.cov(correction=0))


def test_restarts_are_independent_and_the_best_is_kept():
    x = clusters(n=300, seed=2)
    torch.manual_seed(0)
    several = em.start(x, None, 6, 5, "full", Penalty(1e-6))
    alone = [
        em.fit(x, None, several[torch.tensor([i])], "full", 1e-5, 100, Penalty(1e-6)).lower_bound
        for i in range(5)
    ]
    together = em.fit(x, None, several, "full", 1e-5, 100, Penalty(1e-6))
    assert len({round(a, 6) for a in alone}) > 1
    assert together.lower_bound == pytest.approx(max(alone), abs=1e-9)


def test_a_restart_goes_on_when_another_has_converged():
    x, penalty = clusters(n=300, seed=2), Penalty(1e-6)
    torch.manual_seed(0)
    alone = em.start(x, None, 6, 1, "full", penalty)
    # Identical components never part: that restart is done at its second iteration.
    stuck = em.Mixtures(*(v[:, :1].expand_as(v).clone() for v in vars(alone).values()))
    both = em.Mixtures(
        *(torch.cat(p) for p in zip(vars(stuck).values(), vars(alone).values(), strict=True))
    )
    expected = em.fit(x, None, alone, "full", 1e-6, 100, penalty)
    got = em.fit(x, None, both, "full", 1e-6, 100, penalty)
    assert expected.n_iter > 5
    assert got.n_iter == expected.n_iter
    assert got.lower_bound == pytest.approx(expected.lower_bound, abs=1e-12)


def test_wide_rows_take_another_way_to_the_same_sums(monkeypatch):
    x = clusters(n=203)
    torch.manual_seed(0)
    m = em.start(x, None, 3, 2, "full", Penalty(1e-6))
    narrow = em.expect(x, None, m)
    monkeypatch.setattr(mixtures, "MAX_PRODUCT_COLUMNS", 1)
    torch.manual_seed(0)
    torch.testing.assert_close(em.start(x, None, 3, 2, "full", Penalty(1e-6)).scale, m.scale)
    torch.testing.assert_close(em.expect(x, None, m), narrow)


def test_blocks_do_not_matter(monkeypatch):
    x = clusters(n=203)
    torch.manual_seed(0)
    m = em.start(x, None, 3, 2, "full", Penalty(1e-6))
    sums, loglik = em.expect(x, None, m)
    monkeypatch.setattr(mixtures, "block_length", lambda width, device: 17)
    torch.testing.assert_close(em.expect(x, None, m), (sums, loglik))


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("k", [1, 3])
def test_imagined_rows_are_averaged_in(kind, k):
    """The formula of Penalty, from the sums of hard clusters."""
    x, a, d = clusters()[:60] * 0.7, 25.0, 2
    label = torch.arange(60) % k if k == 1 else torch.tensor([0] * 5 + [1] * 20 + [2] * 35)
    parts = [x[label == j] for j in range(k)]
    features = mixtures.quadratic_features(x, kind in ("full", "tied"))
    sums = torch.stack([features[:, label == j].sum(1) for j in range(k)])
    got = em.maximize(sums[None], d, kind, Penalty(1e-12, rows=a)).scale[0]
    got = got @ got.mT if kind in ("full", "tied") else torch.diag_embed(got.square())
    n = torch.tensor([[len(part)] for part in parts]).double()
    sample = torch.stack([part.T.cov(correction=0) for part in parts])
    if kind == "tied":
        sample, n = (n[..., None] * sample).sum(0, keepdim=True) / 60, torch.tensor([[60.0]])
    variance = sample.diagonal(dim1=1, dim2=2)
    if kind == "spherical":
        variance = variance.mean(1, keepdim=True).expand_as(variance)
    if kind in ("diag", "spherical"):
        sample = torch.diag_embed(variance)
    shared = (n / n.sum() * ((n * variance + a * k ** (-2 / d)) / (n + a)).log()).sum(0).exp()
    imagined = torch.diag_embed((n * variance + a * shared) / (n + a))
    wanted = (n[..., None] * sample + a * imagined) / (n[..., None] + a)
    torch.testing.assert_close(got, wanted.expand_as(got))


@pytest.mark.parametrize("kind", TYPES)
def test_a_step_with_whole_weights_is_one_with_repeated_rows(kind):
    x = clusters(n=203)
    weights = torch.arange(203) % 4 + 1
    torch.manual_seed(0)
    m = em.start(x, None, 3, 2, kind, Penalty(1e-6))
    got = em.expect(x, weights.double(), m)
    torch.testing.assert_close(got, em.expect(x.repeat_interleave(weights, 0), None, m))


def test_weights_draw_the_centers():
    """Where nearly all weight is on two clusters, no center is drawn in the third."""
    torch.manual_seed(0)
    x = torch.randn(300, 2).double() * 0.01 + 5 * torch.eye(3)[torch.arange(300) % 3, :2]
    weights = torch.where(torch.arange(300) % 3 == 2, 1e-9, 1.0).double()
    centers = em.kmeans_plus_plus(x, weights, 2, 20)
    assert (centers.amax(-1) > 4).all()


def test_widths_are_those_of_normals_and_of_narrow_clusters():
    rng = np.random.default_rng(0)
    sign = rng.choice([-1.0, 1.0], 20_000)
    x = np.c_[3 * rng.normal(size=20_000), sign + 0.01 * rng.normal(size=20_000)]
    even = torch.ones(20_000).double()
    # Two halves as wide as 0.01 are as wide as 0.02.
    wanted = torch.tensor([3.0, 0.02]).double()
    torch.testing.assert_close(em.widths(torch.tensor(x), even), wanted, rtol=0.05, atol=0)
    # Rows of weight 3 are as three, and what has no weight has no width.
    half = torch.tensor(np.where(sign > 0, 3.0, 1e-12))
    alone = em.widths(torch.tensor(x), half)[1]
    assert alone.item() == pytest.approx(0.01, rel=0.1)


def test_far_outliers_take_the_careful_form():
    x = clusters()
    x[0] = 1e6
    m = em.start(x, None, 3, 1, "full", Penalty(1e-8))
    m.scale *= 1e-3
    _, loglik = em.expect(x, None, m)
    one = torch.distributions.MultivariateNormal(m.loc[0], scale_tril=m.scale[0])
    exact = (one.log_prob(x[:, None]) + m.log_weights[0]).logsumexp(1).mean()
    torch.testing.assert_close(loglik[0], exact, rtol=1e-9, atol=0)


def test_plus_plus_finds_separate_clusters():
    torch.manual_seed(0)
    x = (
        torch.randn(300, 2) * 0.01
        + torch.tensor([[0.0, 0], [5, 0], [0, 5]])[torch.arange(300) % 3]
    )
    even = torch.ones(300)
    labels = em.lloyd(x, even, em.kmeans_plus_plus(x, even, 3, 4))
    for restart in labels:
        assert len({tuple(restart[i::3].unique().tolist()) for i in range(3)}) == 3


@pytest.mark.parametrize("kind", TYPES)
def test_more_components_than_distinct_rows(kind):
    x = torch.tensor([[0.0, 0.0], [1.0, 1.0]]).double().repeat(5, 1)
    torch.manual_seed(0)
    penalty = Penalty(1e-6)
    fitted = em.fit(x, None, em.start(x, None, 4, 2, kind, penalty), kind, 1e-3, 20, penalty)
    assert np.isfinite(fitted.lower_bound)
    assert all(v.isfinite().all() for v in vars(fitted.mixture).values())
