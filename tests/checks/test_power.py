"""A check states the smallest defect that it would have seen: does it see that one, and no smaller."""

import numpy as np
import power_mutants
import pytest
import torch
from foreign_mutants import Normal
from scipy import stats
from sklearn.mixture import GaussianMixture

from densekit import Gaussian
from densekit.checks import check_density_estimator, density_checks
from densekit.checks.agreement import independence, keys_of
from densekit.checks.effort import EFFORTS, Effort
from densekit.checks.mass import Axis
from densekit.checks.power import can_be_averaged, finding, weighted_mean
from densekit.checks.proposals import Proposal
from densekit.checks.sampled import expected_of, features
from densekit.checks.tables import columns, contextual


@pytest.mark.parametrize(
    ("broken", "name"),
    power_mutants.MEANT.items(),
    ids=lambda v: v if isinstance(v, str) else v.__name__,
)
def test_a_small_defect_is_caught_by_the_check_meant_for_it(broken, name):
    estimator = power_mutants.make(broken)
    checks = {check.name: check for _, check in density_checks(estimator)}
    with pytest.raises(AssertionError, match=rf"fails {name}: expected"):
        checks[name](estimator)


def test_a_defect_of_the_stated_size_is_seen_99_times_in_100():
    # A mean of n normals, at a level at which 20,000 repetitions can be counted.
    rng, n, level = np.random.default_rng(0), 50, 0.01
    stated = finding("shift", 0.0, 1 / n**0.5, n, level=level)
    noise = rng.normal(size=(20_000, n)).mean(1)
    seen = np.abs(noise + stated.smallest) > stated.limit
    false = np.abs(noise) > stated.limit
    assert abs(seen.mean() - 0.99) < 5 * (0.99 * 0.01 / 20_000) ** 0.5
    assert abs(false.mean() - level) < 5 * (level / 20_000) ** 0.5


def test_the_level_is_kept_for_skewed_terms_too():
    # Exponential terms: uncorrected, the studentized mean of 100 is too low six times as often.
    rng, n = np.random.default_rng(1), 100
    x = rng.exponential(size=(40_000, n)) - 1
    error = x.std(1) / n**0.5
    plain = [
        finding("", m, e, n, level=1e-3).failed for m, e in zip(x.mean(1), error, strict=True)
    ]
    corrected = [
        finding("", m, e, n, level=1e-3, skewness=2).failed
        for m, e in zip(x.mean(1), error, strict=True)
    ]
    assert np.mean(plain) > 3e-3
    # The correction is of first order, and 40,000 repetitions are counted to five deviations.
    assert np.mean(corrected) < 1e-3 + 5 * (1e-3 / 40_000) ** 0.5


@pytest.mark.parametrize(
    ("error", "wanted"),
    # One-sided at 1e-8 with 99 % power takes 7.94 errors: the figures of the optimal tests.
    [(0.5**0.5 / 35_000**0.5, 0.03), (1 / 25_000**0.5, 0.05), (0.3 / 57_000**0.5, 0.01)],
)
def test_optimal_tests_need_the_numbers_of_draws_that_theory_says(error, wanted):
    assert finding("", 0.0, error, 10**5, sides=1).smallest == pytest.approx(wanted, rel=0.02)


def test_a_mean_of_weights_without_variance_is_not_tested():
    rng = np.random.default_rng(2)
    assert can_be_averaged(np.exp(0.3 * rng.normal(size=10_000)))
    assert not can_be_averaged(rng.pareto(1.2, 10_000))
    assert not can_be_averaged(np.r_[np.ones(3), np.zeros(1000)])


def test_importance_weights_give_the_mean_of_the_other_law_within_their_error():
    rng = np.random.default_rng(3)
    x = rng.normal(0, 2, 100_000)
    weights = stats.norm.pdf(x, 1, 1) / stats.norm.pdf(x, 0, 2)
    mean, error = weighted_mean(weights, x**2)
    assert abs(mean - 2) < 5 * error < 0.1


@pytest.mark.parametrize("d", [1, 3, 12])
def test_a_proposal_draws_from_the_density_it_states(d):
    # E[f/q] = 1 for a density f that is narrower than q.
    rng = np.random.default_rng(4)
    x = rng.normal(5, 2, (2000, d)) ** 2
    proposal = Proposal.of(x, None, rng)
    drawn, log_q = proposal.draw(50_000, None, rng)
    f = stats.multivariate_normal(x.mean(0), np.diag(x.var(0) / 9))
    ratio = np.exp(f.logpdf(drawn) - log_q)
    assert abs(ratio.mean() - 1) < 6 * ratio.std() / len(ratio) ** 0.5


def test_a_feature_moves_by_the_size_of_its_defect():
    rng = np.random.default_rng(5)
    z = rng.normal(size=(400_000, 2))
    cold = 0.97 * z
    found = {what: f(cold).mean() - expected_of(what) for what, f in features(cold)}
    assert found["temperature of column 0, its spread less one"] == pytest.approx(-0.03, abs=5e-3)
    # Rows kept with probability (1 + 0.3 sin 2 pi u) / 1.3 have a density times 1 + 0.3 sin 2 pi u.
    u = stats.norm.cdf(z[:, 0])
    wavy = z[rng.random(len(z)) < (1 + 0.3 * np.sin(2 * np.pi * u)) / 1.3]
    found = {what: f(wavy).mean() for what, f in features(wavy)}
    assert found["wave sin(2 pi u) in column 0, its height"] == pytest.approx(0.3, abs=0.015)


def test_normals_and_cauchys_integrate_to_one_on_the_same_nodes():
    u = (np.arange(2048) + 0.5) / 2048
    axis = Axis.of(np.random.default_rng(6).normal(3, 2, 400))
    for law in (stats.norm(3, 2), stats.cauchy(3, 2), stats.norm(0, 0.5), stats.t(2, 5, 4)):
        mass = (law.pdf(axis.place(u)) * axis.slope(u)).sum() / 2048
        assert mass == pytest.approx(1, abs=1e-3)


def test_independent_draws_pass_and_a_little_memory_does_not():
    rng = np.random.default_rng(7)
    x = rng.normal(size=(100_000, 1))
    assert not [f for f in independence(x) if f.failed]
    memory = x.copy()
    memory[1:] += 0.05 * x[:-1]
    assert [f for f in independence(memory) if f.failed and "1 before" in f.what]


def test_keys_tell_rows_apart_that_differ_in_one_bit():
    x = np.random.default_rng(8).normal(size=(1000, 3))
    y = x.copy()
    y[:, 2] = np.nextafter(y[:, 2], 9)
    assert len(np.unique(np.r_[keys_of(x), keys_of(y)])) == 2000
    assert (keys_of(x) == keys_of(x.copy())).all()


@pytest.mark.parametrize("d", [1, 2, 5])
def test_the_stated_density_of_the_columns_has_mass_one(d):
    data = columns(d, 3)
    mixture = GaussianMixture(4, random_state=0).fit(data.X)
    # E[q/p] = 1 over rows of p, for a q whose support is inside that of p.
    center = data.X[np.abs(data.X - np.median(data.X, 0)).sum(1).argmin()]
    q = stats.multivariate_normal(center, np.cov(data.X.T).reshape(d, d) / 16)
    ratio = np.exp(q.logpdf(data.new) - data.truth)
    assert abs(ratio.mean() - 1) < 6 * ratio.std() / len(ratio) ** 0.5
    assert mixture.score(data.new) < data.truth.mean() + 0.2


def test_each_context_column_has_a_correlation_of_three_tenths_with_the_output():
    data = contextual(1)
    code = data.context["group"].cat.codes
    for c in (data.context["first"], data.context["second"], code):
        assert abs(np.corrcoef(c, data.X[:, 0])[0, 1]) > 0.3


def test_a_run_reports_what_it_would_have_seen():
    report = check_density_estimator(Normal(), effort="quick")
    assert report.chance < 1e-3
    assert "smallest seen with 99 % power" in str(report)
    assert 0 < report.smallest("mass in 3 columns") < 0.2
    with pytest.raises(ValueError, match="unheard"):
        report.smallest("unheard")


def test_an_unknown_effort_is_refused_by_name():
    with pytest.raises(ValueError, match=r"effort='lazy'.*'quick', 'standard', 'thorough'"):
        check_density_estimator(Normal(), effort="lazy")


def test_rows_are_as_many_as_the_time_allows():
    effort = Effort("mine", 1.0, 100, 10_000)
    assert [effort.rows(c) for c in (1e-9, 1e-3, 1.0)] == [10_000, 1000, 100]
    assert EFFORTS["quick"].seconds < EFFORTS["standard"].seconds < EFFORTS["thorough"].seconds


def test_the_transform_of_a_normal_is_its_mean_and_a_root_of_its_covariance():
    X = np.random.default_rng(9).normal(size=(300, 2)) @ [[2.0, 1.0], [0.0, 3.0]] + 7
    est = Gaussian(shrinkage=0.0).fit(X)
    made = est.transform_
    eye = torch.eye(2, dtype=torch.float64)
    root = (made(eye) - made(torch.zeros(2))).numpy()
    assert np.allclose(root.T @ root, np.cov(X.T, bias=True))
    assert np.allclose(made(torch.zeros(2)).numpy(), X.mean(0))


def test_a_density_without_a_transform_has_none():
    import densekit

    X = np.random.default_rng(10).normal(size=(60, 2))
    assert not hasattr(densekit.KernelDensity().fit(X), "transform_")
    atoms = np.where(X > 0.5, 0.0, X)
    assert not hasattr(Gaussian().fit(atoms), "transform_")
