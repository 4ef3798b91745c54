"""Expectation-maximisation against its definition and against scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture as Reference

from densekit.classical import em
from densekit.classical.em import Penalty
from densekit.distributions import mixture as mixtures

TYPES = ("full", "tied", "diag", "spherical")


def clusters(n=400, n_dims=2, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, n_dims)) * rng.uniform(0.2, 1, n_dims)
    x += 3 * rng.normal(size=(4, n_dims))[rng.integers(4, size=n)]
    return torch.tensor((x - x.mean(0)) / x.std(0))


@pytest.mark.parametrize("kind", TYPES)
def test_same_start_same_end_as_scikit_learn(kind):
    """From the same centres and precisions, ten iterations end at the same parameters."""
    x, k = clusters(), 4
    torch.manual_seed(0)
    start = em.start(x, k, 1, kind, Penalty(1e-6))
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
    ours = em.fit(x, start, kind, 1e-12, 10, Penalty(1e-6))
    assert ours.n_iter == 10
    assert ours.lower_bound == pytest.approx(reference.lower_bound_, abs=1e-9)
    np.testing.assert_allclose(ours.mixture.loc, reference.means_, atol=1e-6)
    np.testing.assert_allclose(ours.mixture.log_weights.exp(), reference.weights_, atol=1e-7)


@pytest.mark.parametrize("kind", TYPES)
def test_likelihood_never_falls(kind):
    x = clusters(seed=3)
    torch.manual_seed(1)
    m = em.start(x, 5, 2, kind, Penalty(1e-9))
    before = torch.full((2,), -np.inf).double()
    for _ in range(15):
        sums, loglik = em.expect(x, m)
        assert (loglik >= before - 1e-9).all()
        before, m = loglik, em.maximise(sums, 2, kind, Penalty(1e-9))


def test_one_component_is_the_sample_moments():
    x = clusters()
    penalty = Penalty(1e-12)
    fitted = em.fit(x, em.start(x, 1, 1, "full", penalty), "full", 1e-9, 5, penalty).mixture
    torch.testing.assert_close(fitted.loc[0], x.mean(0))
    torch.testing.assert_close(fitted.scale[0] @ fitted.scale[0].T, x.T.cov(correction=0))


def test_restarts_are_independent_and_the_best_is_kept():
    x = clusters(n=300, seed=2)
    torch.manual_seed(0)
    several = em.start(x, 6, 5, "full", Penalty(1e-6))
    alone = [
        em.fit(x, several[torch.tensor([i])], "full", 1e-5, 100, Penalty(1e-6)).lower_bound
        for i in range(5)
    ]
    together = em.fit(x, several, "full", 1e-5, 100, Penalty(1e-6))
    assert len({round(a, 6) for a in alone}) > 1
    assert together.lower_bound == pytest.approx(max(alone), abs=1e-9)


def test_a_restart_goes_on_when_another_has_converged():
    x, penalty = clusters(n=300, seed=2), Penalty(1e-6)
    torch.manual_seed(0)
    alone = em.start(x, 6, 1, "full", penalty)
    # Identical components never part: that restart is done at its second iteration.
    stuck = em.Mixtures(*(v[:, :1].expand_as(v).clone() for v in vars(alone).values()))
    both = em.Mixtures(
        *(torch.cat(p) for p in zip(vars(stuck).values(), vars(alone).values(), strict=True))
    )
    expected = em.fit(x, alone, "full", 1e-6, 100, penalty)
    got = em.fit(x, both, "full", 1e-6, 100, penalty)
    assert expected.n_iter > 5
    assert got.n_iter == expected.n_iter
    assert got.lower_bound == pytest.approx(expected.lower_bound, abs=1e-12)


def test_wide_rows_take_another_way_to_the_same_sums(monkeypatch):
    x = clusters(n=203)
    torch.manual_seed(0)
    m = em.start(x, 3, 2, "full", Penalty(1e-6))
    narrow = em.expect(x, m)
    monkeypatch.setattr(mixtures, "_WIDE", 1)
    torch.manual_seed(0)
    torch.testing.assert_close(em.start(x, 3, 2, "full", Penalty(1e-6)).scale, m.scale)
    torch.testing.assert_close(em.expect(x, m), narrow)


def test_blocks_do_not_matter(monkeypatch):
    x = clusters(n=203)
    torch.manual_seed(0)
    m = em.start(x, 3, 2, "full", Penalty(1e-6))
    sums, loglik = em.expect(x, m)
    monkeypatch.setattr(mixtures, "block_length", lambda width, device: 17)
    torch.testing.assert_close(em.expect(x, m), (sums, loglik))


@pytest.mark.parametrize("kind", TYPES)
def test_imagined_rows_are_averaged_in(kind):
    """With all weight on one component, n rows and a imagined ones: (n S + a v I) / (n + a)."""
    x, n = clusters()[:50], 50
    torch.manual_seed(0)
    scale = em.start(x, 1, 1, kind, Penalty(1e-12, rows=25.0, spread=0.5)).scale[0, 0]
    got = scale @ scale.T if kind in ("full", "tied") else scale.square().diag()
    sample = x.T.cov(correction=0)
    if kind == "diag":
        sample = sample.diag().diag()
    elif kind == "spherical":
        sample = torch.eye(2).double() * sample.diag().mean()
    torch.testing.assert_close(got, (n * sample + 25 * 0.5 * torch.eye(2)) / (n + 25))


def test_far_outliers_take_the_careful_form():
    x = clusters()
    x[0] = 1e6
    m = em.start(x, 3, 1, "full", Penalty(1e-8))
    m.scale *= 1e-3
    _, loglik = em.expect(x, m)
    one = torch.distributions.MultivariateNormal(m.loc[0], scale_tril=m.scale[0])
    exact = (one.log_prob(x[:, None]) + m.log_weights[0]).logsumexp(1).mean()
    torch.testing.assert_close(loglik[0], exact, rtol=1e-9, atol=0)


def test_plus_plus_finds_separate_clusters():
    torch.manual_seed(0)
    x = (
        torch.randn(300, 2) * 0.01
        + torch.tensor([[0.0, 0], [5, 0], [0, 5]])[torch.arange(300) % 3]
    )
    labels = em.lloyd(x, em.plus_plus(x, 3, 4))
    for restart in labels:
        assert len({tuple(restart[i::3].unique().tolist()) for i in range(3)}) == 3


@pytest.mark.parametrize("kind", TYPES)
def test_more_components_than_distinct_rows(kind):
    x = torch.tensor([[0.0, 0.0], [1.0, 1.0]]).double().repeat(5, 1)
    torch.manual_seed(0)
    penalty = Penalty(1e-6)
    fitted = em.fit(x, em.start(x, 4, 2, kind, penalty), kind, 1e-3, 20, penalty)
    assert np.isfinite(fitted.lower_bound)
    assert all(v.isfinite().all() for v in vars(fitted.mixture).values())
