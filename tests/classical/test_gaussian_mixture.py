"""GaussianMixture in the units of the data."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.mixture import GaussianMixture as Reference

from densekit import GaussianMixture
from densekit.classical import em

TYPES = ("full", "tied", "diag", "spherical")
SEPARATE = np.array([[-20.0, 0.0], [20.0, 0.0], [0.0, 30.0]])


def rows(n=600, seed=0):
    rng = np.random.default_rng(seed)
    return SEPARATE[np.arange(n) % 3] + rng.normal(size=(n, 2)) * [1.0, 3.0]


@pytest.mark.parametrize("kind", ["full", "tied", "diag"])
def test_likelihood_equals_scikit_learn(kind):
    X = rows()
    Z = (X - X.mean(0)) / X.std(0)
    reference = Reference(3, covariance_type=kind, tol=1e-8, random_state=0).fit(Z)
    ours = GaussianMixture(
        n_components=3, covariance_type=kind, tol=1e-8, prior_rows=0.0, random_state=0
    ).fit(X)
    assert ours.lower_bound_ == pytest.approx(reference.lower_bound_, abs=1e-6)
    exact = reference.score_samples(Z) - np.log(X.std(0)).sum()
    np.testing.assert_allclose(ours.score_samples(X), exact, atol=1e-3)


@pytest.mark.parametrize("kind", TYPES)
def test_attributes_say_the_density(kind):
    X = rows()
    est = GaussianMixture(n_components=3, covariance_type=kind, random_state=0).fit(X)
    shape = {"full": (3, 2, 2), "tied": (2, 2), "diag": (3, 2), "spherical": (3,)}[kind]
    assert est.covariances_.shape == shape
    covariances = {
        "full": lambda c: c,
        "tied": lambda c: np.stack([c] * 3),
        "diag": lambda c: np.stack([np.diag(v) for v in c]),
        "spherical": lambda c: np.stack([v * np.eye(2) for v in c]),
    }[kind](est.covariances_)
    Z = (X - X.mean(0)) / X.std(0)
    parts = zip(est.weights_, est.means_, covariances, strict=True)
    density = sum(w * stats.multivariate_normal(m, c).pdf(Z) for w, m, c in parts)
    np.testing.assert_allclose(est.score_samples(X), np.log(density) - np.log(X.std(0)).sum())
    assert est.converged_


@pytest.mark.parametrize("kind", TYPES)
def test_integrates_to_one(kind):
    X = rows(200)
    est = GaussianMixture(n_components=3, covariance_type=kind, random_state=0).fit(X)
    x, y = np.meshgrid(np.linspace(-60, 60, 500), np.linspace(-60, 90, 500), indexing="ij")
    density = np.exp(est.score_samples(np.c_[x.ravel(), y.ravel()]))
    assert density.sum() * (120 / 499) * (150 / 499) == pytest.approx(1, abs=1e-6)


def test_auto_finds_the_clusters():
    est = GaussianMixture(random_state=0).fit(rows(900))
    assert est.n_components_ == 4  # the smallest power of two that separates three
    assert GaussianMixture(random_state=0).fit(rows(900)[::3]).n_components_ == 1


def test_samples_come_from_the_components():
    X = rows()
    drawn = GaussianMixture(n_components=3, random_state=0).fit(X).sample(3000, random_state=1)
    nearest = np.square(drawn[:, None] - SEPARATE).sum(2)
    assert nearest.min(1).max() < 15**2
    assert stats.chisquare(np.bincount(nearest.argmin(1))).pvalue > 1e-3


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("shape", [(100, 30), (2, 3), (50, 1), (6, 40)])
def test_defaults_hold_on_few_rows(kind, shape):
    X = np.random.default_rng(0).normal(size=shape)
    est = GaussianMixture(covariance_type=kind, random_state=0).fit(X)
    assert np.isfinite(est.score_samples(3 * X)).all()
    assert est.sample(5).shape == (5, shape[1])


def test_many_small_components_do_not_fall_over_on_new_rows():
    rng = np.random.default_rng(0)
    X, new = rng.normal(size=(100, 30)), rng.normal(size=(100, 30))
    assert GaussianMixture(n_components=8, random_state=0).fit(X).score(new) > -200


def test_more_components_than_rows_is_an_error():
    with pytest.raises(ValueError, match="n_components=9 is more than the 5 rows"):
        GaussianMixture(n_components=9).fit(np.random.default_rng(0).normal(size=(5, 2)))


def test_float32_scores_agree():
    X = rows()
    double = GaussianMixture(n_components=3, random_state=0).fit(X).score_samples(X)
    single = GaussianMixture(n_components=3, random_state=0, dtype="float32").fit(X)
    np.testing.assert_allclose(single.score_samples(X), double, atol=2e-3)


def test_gradient_flows_to_the_data():
    d = GaussianMixture(n_components=3, random_state=0).fit(rows()).distribution_
    x = torch.tensor([[1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(d.log_prob, x)


def test_max_time_bounds_the_iterations(clock, monkeypatch):
    expect = em.expect

    def a_second_each(*given):
        clock.advance(1)
        return expect(*given)

    monkeypatch.setattr(em, "expect", a_second_each)
    X = np.random.default_rng(0).normal(size=(2000, 8))
    settings = {"n_components": 10, "tol": 1e-12, "max_iter": 2000, "random_state": 0}
    est = GaussianMixture(max_time=7, **settings).fit(X)
    assert est.n_iter_ == 7
    assert not est.converged_
    assert np.isfinite(est.score_samples(X[:100])).all()
    # No time at all is one iteration, and the choice of K falls to one.
    assert GaussianMixture(max_time=1e-9, random_state=0).fit(X[:500]).n_components_ == 1
