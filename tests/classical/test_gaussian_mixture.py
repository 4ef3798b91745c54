"""GaussianMixture in the units of the data."""

import warnings

import numpy as np
import pytest
import torch
from scipy import special, stats
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as Reference

from densekit import Gaussian, GaussianMixture
from densekit.codecs.table import TableCodec
from densekit.distributions import em

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
    np.testing.assert_allclose(ours.score_samples(X), exact, atol=5e-3)


def matrices(est):
    """The components' covariances as (K, D, D)."""
    c, k = est.covariances_, len(est.weights_)
    if est.covariance_type == "tied":
        return np.stack([c] * k)
    return c if est.covariance_type == "full" else np.stack([np.diag(v) for v in c])


@pytest.mark.parametrize("kind", TYPES)
def test_attributes_are_the_density_in_the_units_of_the_data(kind):
    X = rows() * [1.0, 40.0] + [1e4, 0.0]
    est = GaussianMixture(n_components=3, covariance_type=kind, random_state=0).fit(X)
    shape = {"full": (3, 2, 2), "tied": (2, 2), "diag": (3, 2), "spherical": (3, 2)}[kind]
    assert (est.means_.shape, est.covariances_.shape) == ((3, 2), shape)
    parts = zip(est.weights_, est.means_, matrices(est), strict=True)
    density = sum(w * stats.multivariate_normal(m, c).pdf(X) for w, m, c in parts)
    np.testing.assert_allclose(est.score_samples(X), np.log(density), rtol=1e-9)
    assert est.converged_


def scikit_learns(est):
    """scikit-learn's mixture with the parameters of densekit's."""
    kind = est.covariance_type
    theirs = Reference(len(est.weights_), covariance_type="diag" if kind == "spherical" else kind)
    theirs.weights_, theirs.means_, theirs.covariances_ = (
        est.weights_,
        est.means_,
        est.covariances_,
    )
    theirs.precisions_cholesky_ = {
        "full": lambda c: np.linalg.cholesky(np.linalg.inv(c)),
        "tied": lambda c: np.linalg.cholesky(np.linalg.inv(c)),
    }.get(kind, lambda c: c**-0.5)(est.covariances_)
    return theirs


@pytest.mark.parametrize("kind", TYPES)
def test_predictions_and_criteria_are_scikit_learns_on_shared_parameters(kind):
    X = np.random.default_rng(2).normal(size=(200, 2)) * [1.0, 40.0] + [1e4, 0.0]
    est = GaussianMixture(n_components=4, covariance_type=kind, random_state=0).fit(X)
    theirs, new = scikit_learns(est), 1.5 * (X[:77] - X.mean(0)) + X.mean(0)
    ours = est.predict_proba(new)
    np.testing.assert_allclose(est.score_samples(new), theirs.score_samples(new), atol=1e-6)
    np.testing.assert_allclose(ours, theirs.predict_proba(new), atol=1e-6)
    np.testing.assert_array_equal(est.predict(new), theirs.predict(new))
    assert (ours.max(1) < 0.99).any()
    # A spherical component has one variance, whatever the number of columns.
    fewer = 4 * 2 - 4 if kind == "spherical" else 0
    assert est.aic(new) == pytest.approx(theirs.aic(new) - 2 * fewer, rel=1e-7)
    assert est.bic(new) == pytest.approx(theirs.bic(new) - fewer * np.log(77), rel=1e-7)


def test_predictions_where_columns_have_masses_follow_bayes():
    """p(k | cell) of integers: the mass of each component on the cell, by its distribution function."""
    rng = np.random.default_rng(0)
    X = np.where(rng.random(600) < 0.4, rng.poisson(4, 600), 60 + rng.poisson(30, 600))[:, None]
    est = GaussianMixture(
        n_components=2, dequantization_draws=4096, random_state=0, atom_share=None
    ).fit(X)
    assert est.density_kind_ == "lower_bound"
    loc, scale = est.means_[:, 0], np.sqrt(est.covariances_[:, 0, 0])
    cells = np.arange(12, 40)[:, None]
    law = stats.norm(loc, scale)
    # In the tail where the two do not round to one.
    below, above = law.cdf(cells + 1) - law.cdf(cells), law.sf(cells) - law.sf(cells + 1)
    mass = est.weights_ * np.where(cells < loc, below, above)
    wanted = mass / mass.sum(1, keepdims=True)
    np.testing.assert_allclose(est.predict_proba(cells), wanted, atol=0.02)
    assert ((wanted > 0.05) & (wanted < 0.95)).any()


def test_rows_outside_the_support_have_no_component():
    X = np.abs(rows())
    est = GaussianMixture(n_components=2, support="positive", random_state=0).fit(X)
    bad = X[:5].copy()
    bad[3, 1] = -1.0
    with pytest.raises(ValueError, match="row 3 of X is outside the support"):
        est.predict(bad)
    assert est.bic(bad) == np.inf


KINDS = {
    "separated": (1.0, 10.0),
    "overlapping": (1.0, 1.0),
    "tiny": (0.01, 1.0),
    "tinier": (1e-3, 1.0),
    "far": (1.0, 1e4),
}


def two_clusters(kind, n_dims, n, seed, k=2):
    """Clusters of a standard deviation about means in a line, and their true log-density."""
    sd, apart = KINDS[kind]
    rng = np.random.default_rng(seed)
    centers = np.zeros((k, n_dims))
    centers[:, 0] = apart * np.linspace(-1, 1, k)
    X = centers[np.arange(n) % k] + sd * rng.normal(size=(n, n_dims))
    each = stats.norm(centers, sd).logpdf(X[:, None]).sum(2)
    return X, special.logsumexp(each, axis=1) - np.log(k)


@pytest.mark.parametrize("n_dims", [1, 2, 5])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [2, 4])
def test_as_good_as_scikit_learns_on_clusters_of_any_size(kind, n_dims, k):
    X, _ = two_clusters(kind, n_dims, 500 * k, 0, k)
    new, truth = two_clusters(kind, n_dims, 2000, 1, k)
    restarts = [Reference(k, random_state=i).fit(X) for i in range(3)]
    theirs = max(restarts, key=lambda e: e.lower_bound_)
    ours = GaussianMixture(n_components=k, random_state=0).fit(X)
    assert ours.score(X) > theirs.score(X) - 0.02
    assert ours.score(new) > theirs.score(new) - 0.02
    # Nor by being wrong: each free parameter costs half a nat in all of the rows.
    free = k * (1 + n_dims * (n_dims + 3) / 2)
    assert ours.score(new) == pytest.approx(truth.mean(), abs=0.02 + free / (500 * k))
    if kind in ("separated", "overlapping") and k == 2:
        assert ours.score(X) < theirs.score(X) + 0.02


def test_the_two_tiny_clusters_of_the_issue():
    rng = np.random.default_rng(0)
    X = np.repeat([[-1.0], [1.0]], 500, 0) + 0.01 * rng.normal(size=(1000, 2))
    assert GaussianMixture(n_components=2, random_state=0).fit(X).score(X) > 5.65
    fixed = GaussianMixture(n_components=2, prior_rows=1.0, random_state=0).fit(X)
    assert fixed.score(X) > 5.65


def small_tables():
    for load in (load_iris, load_wine, load_diabetes, load_breast_cancer):
        X = load().data
        yield load.__name__[5:], X[:, [len(np.unique(x)) > 20 for x in X.T]]


@pytest.mark.parametrize("settings", [{}, {"n_components": 2}], ids=["auto", "two"])
@pytest.mark.parametrize(
    ("name", "X"), list(small_tables()), ids=lambda v: v if type(v) is str else ""
)
def test_never_below_the_gaussian_on_small_tables(name, X, settings):
    order = np.random.default_rng(0).permutation(len(X))
    fit, new = X[order[: 6 * len(X) // 10]], X[order[6 * len(X) // 10 :]]
    floor = Gaussian(random_state=0).fit(fit).score(new)
    assert GaussianMixture(random_state=0, **settings).fit(fit).score(new) > floor - 0.05


@pytest.mark.parametrize("n_components", ["auto", 3])
@pytest.mark.parametrize("covariance_type", ["full", "spherical"])
def test_whole_weights_are_repeated_rows(n_components, covariance_type):
    X = rows(240)
    weights = np.random.default_rng(1).integers(0, 4, 240)
    est = GaussianMixture(
        n_components=n_components, covariance_type=covariance_type, random_state=0
    )
    new = rows(40, seed=5)
    weighted = clone(est).fit(X, sample_weight=weights)
    again = np.repeat(X, weights, 0)
    shuffled = again[np.random.default_rng(2).permutation(len(again))]
    for repeated in (again, shuffled):
        plain = clone(est).fit(repeated)
        np.testing.assert_allclose(
            weighted.score_samples(new), plain.score_samples(new), atol=1e-6
        )
        assert (weighted.n_components_, weighted.prior_rows_) == (
            plain.n_components_,
            plain.prior_rows_,
        )
    unweighted = clone(est).fit(X).score_samples(new)
    assert np.abs(weighted.score_samples(new) - unweighted).max() > 1e-3


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


def test_a_given_time_replaces_the_default_iterations_and_counts_from_the_call(clock, monkeypatch):
    expect, encode = em.expect, TableCodec.encode

    def a_second_each(*given):
        clock.advance(1)
        return expect(*given)

    def slow(*given):
        clock.advance(40)
        return encode(*given)

    monkeypatch.setattr(em, "expect", a_second_each)
    monkeypatch.setattr(TableCodec, "encode", slow)
    X = np.random.default_rng(0).normal(size=(500, 4))
    fixed = {"n_components": 6, "prior_rows": 1.0, "tol": 1e-300, "n_init": 1, "random_state": 0}
    est = GaussianMixture(max_time=300, **fixed).fit(X)
    # Encoding took 40 of the 300 seconds; 200 iterations are no limit.
    assert 258 <= est.n_iter_ <= 260  # less what choosing the start takes
    assert GaussianMixture(max_time=300, max_iter=50, **fixed).fit(X).n_iter_ == 50


def test_a_default_budget_that_ended_before_convergence_is_warned_of():
    X = np.random.default_rng(0).normal(size=(500, 4))
    fixed = {"n_components": 6, "prior_rows": 1.0, "tol": 1e-300, "n_init": 1, "random_state": 0}
    with pytest.warns(
        ConvergenceWarning, match="default budget of 200 iterations.*Raise max_iter"
    ):
        est = GaussianMixture(**fixed).fit(X)
    assert est.n_iter_ == 200
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GaussianMixture(**fixed, max_iter=30).fit(X)
        GaussianMixture(n_components=2, random_state=0).fit(X)


def test_max_time_bounds_the_iterations(clock, monkeypatch):
    expect = em.expect

    def a_second_each(*given):
        clock.advance(1)
        return expect(*given)

    monkeypatch.setattr(em, "expect", a_second_each)
    X = np.random.default_rng(0).normal(size=(2000, 8))
    settings = {"n_components": 10, "tol": 1e-12, "max_iter": 2000, "random_state": 0}
    start = clock.now
    est = GaussianMixture(max_time=7, **settings).fit(X)
    assert est.n_iter_ <= 7  # choosing how many rows are imagined takes its part
    assert not est.converged_
    assert np.isfinite(est.score_samples(X[:100])).all()
    # The choice of what to fit and the codec count; 2000 iterations would take longer.
    assert clock.now - start == pytest.approx(7)
    # No time at all is one iteration, and the choice of K falls to one.
    assert GaussianMixture(max_time=1e-9, random_state=0).fit(X[:500]).n_components_ == 1
