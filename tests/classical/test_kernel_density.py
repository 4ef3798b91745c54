"""KernelDensity and its bandwidths, against brute force and scikit-learn."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.neighbors import KernelDensity as Reference

from densekit import Gaussian, KernelDensity
from densekit.classical import kde
from densekit.distributions import kernel as kernels
from densekit.distributions.bandwidth import LeaveOneOut, cross_validated, rule_of_thumb
from densekit.distributions.kernel import KERNELS


def rows(n=150, n_dims=2, seed=0):
    return np.random.default_rng(seed).normal(size=(n, n_dims)) * [3.0, 0.1][:n_dims] + 7


def brute_force(points, bandwidth, kernel):
    """Each row scored by scikit-learn's density of the other rows."""
    others = (np.delete(points, i, 0) for i in range(len(points)))
    return [
        Reference(bandwidth=bandwidth, kernel=kernel).fit(o).score_samples(points[i : i + 1])[0]
        for i, o in enumerate(others)
    ]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("bandwidth", ["auto", "scott", "silverman", "cv", 0.8])
def test_scores_equal_scikit_learn(kernel, bandwidth):
    X, new = rows(), rows(50, seed=1)
    est = KernelDensity(kernel=kernel, bandwidth=bandwidth, covariance="diag").fit(X)
    loc, scale = X.mean(0), X.std(0)
    reference = Reference(kernel=kernel, bandwidth=est.bandwidth_).fit((X - loc) / scale)
    exact = reference.score_samples((new - loc) / scale) - np.log(scale).sum()
    np.testing.assert_allclose(est.score_samples(new), exact, atol=1e-8)


@pytest.mark.parametrize("rule", ["scott", "silverman"])
def test_rules_equal_scikit_learn(rule):
    X = rows()
    reference = Reference(bandwidth=rule).fit(X).bandwidth_
    assert KernelDensity(bandwidth=rule).fit(X).bandwidth_ == pytest.approx(reference)


@pytest.mark.parametrize("kernel", ["epanechnikov", "tophat"])
def test_rules_keep_the_kernel_as_wide(kernel):
    """Noise of every kernel has the standard deviation that the rule gives."""
    torch.manual_seed(0)
    h = rule_of_thumb("scott", 500, 3, kernel)
    noise = kernels.KernelDistribution(torch.zeros(1, 3), h, kernel).sample((20_000,))
    gaussian = rule_of_thumb("scott", 500, 3, "gaussian")
    assert noise.std(0).mean().item() == pytest.approx(gaussian, rel=0.02)


@pytest.mark.parametrize("kernel", KERNELS)
def test_leave_one_out_equals_brute_force(kernel, monkeypatch):
    monkeypatch.setattr(kernels, "tile_shape", lambda device: (7, 11))
    points = np.random.default_rng(0).normal(size=(40, 2))
    points[1] = points[0]
    points[2] = [50.0, 0.0]
    x = torch.tensor(points)
    with np.errstate(divide="ignore"):
        exact = [np.mean(brute_force(points, 90 / math.sqrt(2) ** b, kernel)) for b in range(8)]
    got = LeaveOneOut(x).log_likelihood(90.0, 8, kernel)
    np.testing.assert_allclose(got, exact, atol=1e-9)


def test_leave_one_out_does_not_underflow():
    """An outlier at 1,000 bandwidths costs half a million nats, no more and no less."""
    x = torch.tensor([[0.0], [0.0], [1000.0]]).double()
    got = LeaveOneOut(x).log_likelihood(1.0, 1, "gaussian").item()
    log_phi = -0.5 * math.log(2 * math.pi)
    exact = (2 * (log_phi - math.log(2)) + log_phi - 500_000) / 3
    assert got == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
def test_cv_is_the_maximum(kernel):
    points = np.random.default_rng(1).normal(size=(60, 1))
    chosen = cross_validated(LeaveOneOut(torch.tensor(points)), 60, kernel)
    best = np.mean(brute_force(points, chosen, kernel))
    grid = chosen * np.geomspace(0.3, 3, 25)
    with np.errstate(divide="ignore"):
        others = [np.mean(brute_force(points, h, kernel)) for h in grid]
    # The tophat's likelihood jumps wherever a pair comes into reach.
    assert best >= max(others) - (0.05 if kernel == "tophat" else 1e-6)


def test_cv_adapts_where_the_rule_of_thumb_oversmooths():
    X = np.r_[rows() * 0.01, rows(seed=3) * 0.01 + 50]
    new = np.r_[rows(seed=4) * 0.01, rows(seed=5) * 0.01 + 50]
    scott, cv = (KernelDensity(bandwidth=b).fit(X).score(new) for b in ("scott", "cv"))
    assert cv > scott + 1


@pytest.mark.parametrize("kernel", KERNELS)
def test_integrates_to_one_in_the_units_of_the_data(kernel):
    X = rows(30)
    est = KernelDensity(kernel=kernel).fit(X)
    x, y = np.meshgrid(np.linspace(-15, 30, 700), np.linspace(6, 8, 700), indexing="ij")
    density = np.exp(est.score_samples(np.c_[x.ravel(), y.ravel()]))
    assert density.sum() * (45 / 699) * (2 / 699) == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("kernel", KERNELS)
def test_samples_lie_where_the_density_is(kernel):
    X = rows()
    est = KernelDensity(kernel=kernel, bandwidth=0.3).fit(X)
    drawn = est.sample(2000, random_state=0)
    assert np.isfinite(est.score_samples(drawn)).all()
    # E[1/p] over the samples' own support is its area: the importance identity for the unit box.
    low, high = X.min(0), X.max(0)
    inside = ((drawn > low) & (drawn < high)).all(1)
    grid = np.random.default_rng(0).uniform(low, high, size=(4000, 2))
    mass = np.exp(est.score_samples(grid)).mean() * np.prod(high - low)
    assert inside.mean() == pytest.approx(mass, abs=0.05)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shape", [(2, 3), (50, 1), (6, 40)])
@pytest.mark.parametrize("bandwidth", ["scott", "cv", "auto"])
def test_few_rows(kernel, shape, bandwidth):
    X = np.random.default_rng(0).normal(size=shape)
    est = KernelDensity(kernel=kernel, bandwidth=bandwidth).fit(X)
    assert np.isfinite(est.score_samples(X)).all()
    assert est.sample(5).shape == (5, shape[1])


def test_a_wrong_bandwidth_is_named():
    with pytest.raises(ValueError, match="bandwidth=0"):
        KernelDensity(bandwidth=0.0).fit(rows())
    with pytest.raises(ValueError, match="did you mean 'scott'"):
        KernelDensity(bandwidth="scot").fit(rows())


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("whole", [False, True])
def test_leave_one_out_with_weights_is_the_one_with_repeated_rows(kernel, whole, monkeypatch):
    """A point that is left out leaves its copies behind, or takes them with it."""
    monkeypatch.setattr(kernels, "tile_shape", lambda device: (7, 11))
    points = np.random.default_rng(0).normal(size=(25, 2))
    times = np.arange(25) % 3 + 1
    often = np.repeat(points, times, 0)
    h, exact = 3.0, []
    for i, x in enumerate(often):
        others = often[(often != x).any(1)] if whole else np.delete(often, i, 0)
        exact.append(Reference(bandwidth=h, kernel=kernel).fit(others).score_samples(x[None])[0])
    held = LeaveOneOut(torch.tensor(points), torch.tensor(times).double(), whole=whole)
    got = held.log_likelihood(h, 1, kernel).item()
    assert got == pytest.approx(np.mean(exact), abs=1e-9)


@pytest.mark.parametrize("kernel", KERNELS)
def test_some_points_left_out_score_as_they_do_among_all(kernel, monkeypatch):
    monkeypatch.setattr(kernels, "tile_shape", lambda device: (5, 7))
    points = np.random.default_rng(0).normal(size=(40, 2))
    exact, some = np.array(brute_force(points, 2.0, kernel)), [3, 4, 17, 38]
    held = LeaveOneOut(torch.tensor(points), places=torch.tensor(some))
    assert held.log_likelihood(2.0, 1, kernel).item() == pytest.approx(exact[some].mean())


def test_the_default_is_the_best_of_its_rules():
    """Ten columns near a curve: rules for a normal oversmooth by two nats."""
    rng = np.random.default_rng(0)
    t = rng.uniform(-3, 3, (1200, 1))
    X = np.sin(t * np.arange(1, 11) + np.arange(10)) + 0.1 * rng.normal(size=(1200, 10))
    fit, new = X[:800], X[800:]
    score = {
        b: KernelDensity(bandwidth=b, covariance="diag").fit(fit).score(new)
        for b in ("auto", "scott", "cv")
    }
    assert score["auto"] > score["scott"] + 2
    assert score["auto"] == pytest.approx(score["cv"], abs=1e-3)
    assert KernelDensity().bandwidth == "auto"


def test_of_many_rows_some_are_left_out(monkeypatch):
    monkeypatch.setattr(kde, "_MAX_PAIRS", 0)
    monkeypatch.setattr(kde, "_MIN_LEFT_OUT", 200)
    X = rows(2000)
    some = KernelDensity(covariance="diag", random_state=0).fit(X).bandwidth_
    every = KernelDensity(bandwidth="cv").fit(X).bandwidth_
    assert some != every
    assert some == pytest.approx(every, rel=0.25)
    assert some != KernelDensity(covariance="diag", random_state=1).fit(X).bandwidth_


def test_the_default_stands_repeated_rows():
    """Where each row comes twice, leaving out one copy has no best bandwidth but zero."""
    X = rows(200)
    once, twice = (
        KernelDensity(covariance="diag", random_state=0).fit(x).bandwidth_
        for x in (X, np.repeat(X, 2, 0))
    )
    assert twice == pytest.approx(once, rel=1e-3)
    assert KernelDensity(bandwidth="cv").fit(np.repeat(X, 2, 0)).bandwidth_ < 0.1 * once


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("bandwidth", ["auto", "cv", "silverman", 0.7])
def test_whole_weights_are_repeated_rows(kernel, bandwidth):
    X, new = rows(), rows(40, seed=1)
    weights = np.random.default_rng(0).integers(0, 4, len(X))
    est = KernelDensity(kernel=kernel, bandwidth=bandwidth, random_state=0)
    weighted = est.fit(X, sample_weight=weights).score_samples(new)
    repeated = est.fit(np.repeat(X, weights, 0)).score_samples(new)
    np.testing.assert_allclose(weighted, repeated, atol=1e-6)
    unweighted = est.fit(X).score_samples(new)
    np.testing.assert_raises(
        AssertionError, np.testing.assert_allclose, weighted, unweighted, atol=1e-3
    )


def test_fractions_weigh_the_kernels():
    X = rows(20)
    weights = np.random.default_rng(0).exponential(size=20)
    est = KernelDensity(bandwidth=0.5).fit(X, sample_weight=weights)
    mean = np.average(X, axis=0, weights=weights)
    scale = np.sqrt(np.average((X - mean) ** 2, axis=0, weights=weights))
    reference = Reference(bandwidth=0.5).fit((X - mean) / scale, sample_weight=weights)
    exact = reference.score_samples((X - mean) / scale) - np.log(scale).sum()
    np.testing.assert_allclose(est.score_samples(X), exact, atol=1e-8)


def correlated(n, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 3)) @ [[1.0, 0.9, 0.0], [0.0, 0.1, 0.3], [0.0, 0.0, 2.0]] + [
        5,
        -2,
        1,
    ]


def test_a_full_covariance_integrates_to_one():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 2)) @ [[1.0, 0.8], [0.0, 0.2]]
    est = KernelDensity(covariance="full", bandwidth=0.4).fit(X)
    x, y = np.meshgrid(np.linspace(-7, 7, 900), np.linspace(-6, 6, 900), indexing="ij")
    density = np.exp(est.score_samples(np.c_[x.ravel(), y.ravel()]))
    assert density.sum() * (14 / 899) * (12 / 899) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("bandwidth", [0.2, 0.7])
def test_a_full_covariance_keeps_the_moments_of_the_rows(bandwidth):
    """The mean and the covariance of a mixture: those of its centers, and h^2 C of each kernel."""
    X = correlated(4000)
    est = KernelDensity(covariance="full", bandwidth=bandwidth, random_state=0).fit(X)
    law = est._distribution(None)
    factor = law.scale_tril
    centers = law.points @ factor.T
    found = torch.cov(centers.T, correction=0) + bandwidth**2 * factor @ factor.T
    torch.testing.assert_close(found, factor @ factor.T, rtol=1e-2, atol=1e-3)
    drawn = est.sample(100_000, random_state=0)
    np.testing.assert_allclose(drawn.mean(0), X.mean(0), atol=0.05)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(X.T), atol=0.1)


def test_the_largest_full_bandwidth_is_the_gaussian():
    X, new = correlated(80), correlated(20, seed=1)
    est = KernelDensity(covariance="full", bandwidth=1.0, random_state=0).fit(X)
    covariance = est.scale_tril_ @ est.scale_tril_.T
    scale = X.std(0)
    exact = stats.multivariate_normal(X.mean(0), covariance * np.outer(scale, scale))
    np.testing.assert_allclose(est.score_samples(new), exact.logpdf(new), atol=1e-8)


def test_the_default_takes_the_covariance_that_held_out_rows_prefer():
    """Thirty columns that vary along three directions, as many small tables do."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 3)) @ rng.normal(size=(3, 30)) + 0.05 * rng.normal(size=(400, 30))
    fit, new = X[:150], X[150:]
    est = KernelDensity(random_state=0).fit(fit)
    assert est.covariance_ == "full"
    assert est.score(new) > Gaussian(random_state=0).fit(fit).score(new) - 0.2
    assert est.score(new) > KernelDensity(covariance="diag").fit(fit).score(new) + 5
    ring = rng.uniform(0, 2 * np.pi, 600)
    X = np.c_[np.cos(ring), np.sin(ring)] + 0.02 * rng.normal(size=(600, 2))
    assert KernelDensity(random_state=0).fit(X).covariance_ == "diag"


def test_weights_of_a_full_covariance_are_repeated_rows():
    X, new = correlated(120), correlated(20, seed=1)
    counts = np.random.default_rng(0).integers(0, 4, len(X))
    est = KernelDensity(covariance="full", random_state=0)
    found = est.fit(X, sample_weight=counts).score_samples(new)
    repeated = est.fit(np.repeat(X, counts, 0)).score_samples(new)
    np.testing.assert_allclose(found, repeated, atol=1e-6)


@pytest.mark.parametrize("wrong", [{"kernel": "tophat"}, {"bandwidth": 1.5}, {"bandwidth": "cv"}])
def test_a_full_covariance_that_cannot_be_kept_is_refused(wrong):
    with pytest.raises(ValueError, match='covariance="full" with'):
        KernelDensity(covariance="full", **wrong).fit(rows())
