"""Proposals of importance sampling find narrow parts of a density, or say that they did not."""

import numpy as np
import pytest
from foreign_mutants import Normal
from scipy import special, stats
from zoo import ScalesApart

from densekit.checks import density_checks
from densekit.checks.power import can_be_averaged
from densekit.checks.proposals import Proposal
from densekit.checks.sampled import Sampled
from densekit.checks.subject import Subject
from densekit.checks.tables import columns

_N_COLUMNS = 12


class TwoNormals:
    """A wide normal, and a narrow one of weight 0.2 at a place of its own."""

    def __init__(self, apart, narrow):
        self.apart, self.narrow = apart, narrow

    def draw(self, n, rng):
        near = rng.random((n, 1)) < 0.2
        z = rng.normal(size=(n, _N_COLUMNS))
        return np.where(near, self.apart + self.narrow * z, z)

    def log_density(self, x):
        near = stats.norm.logpdf(x, self.apart, self.narrow).sum(1) + np.log(0.2)
        return np.logaddexp(near, stats.norm.logpdf(x).sum(1) + np.log(0.8))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("apart", "narrow"), [(0.0, 0.03), (0.0, 0.3), (1.5, 0.02), (3.0, 0.1)])
def test_a_narrow_part_of_twelve_columns_has_its_mass(apart, narrow, seed):
    rng, law = np.random.default_rng(seed), TwoNormals(apart, narrow)
    proposal = Proposal.of(law.draw(4000, rng), None, rng)
    x, log_q = proposal.draw(20_000, None, rng)
    ratio = np.exp(law.log_density(x) - log_q)
    assert can_be_averaged(ratio)
    assert abs(ratio.mean() - 1) < 6 * ratio.std() / len(ratio) ** 0.5 < 0.1


@pytest.mark.parametrize("seed", range(20))
def test_scales_a_hundred_apart_are_no_false_alarm_in_twelve_columns(seed, monkeypatch):
    # The effort chooses the number of rows by the time that one takes, which no test may depend on.
    monkeypatch.setattr(Sampled, "_rows", lambda self, cost: 100_000)
    subject = Subject(ScalesApart(), seed)
    data = subject.load(f"columns{_N_COLUMNS}")
    found = Sampled(subject, subject.fitted(data), data, 0.2)
    assert found.can_be_averaged
    error = found.weights.std() / len(found.weights) ** 0.5
    assert abs(found.weights.mean() - 1) < 6 * error < 0.1


class Hidden(Normal):
    """A fifth of the draws is a thousandth of a spread around the mean: no proposal looks so near."""

    def score_samples(self, X):
        z = self._whiten(X)
        wide, d = super().score_samples(X), z.shape[1]
        near = -0.5 * (1e6 * z**2).sum(1) - self._log_scale() + d * np.log(1e3)
        near -= 0.5 * d * np.log(2 * np.pi)
        return special.logsumexp([wide + np.log(0.8), near + np.log(0.2)], axis=0)

    def _noise(self, n, random_state):
        rng = np.random.default_rng(random_state)
        scale = np.where(rng.random((n, 1)) < 0.2, 1e-3, 1.0)
        return scale * rng.normal(size=(n, len(self.mean_)))


def test_a_part_that_the_proposal_misses_is_seen_from_the_draws(monkeypatch):
    # A proposal of one normal has no row in the narrow part: all its weights are near 0.8.
    monkeypatch.setattr(Proposal, "of", _one_normal)
    subject = Subject(Hidden(), 0)
    data = columns(3)
    found = Sampled(subject, subject.fitted(data), data, 0.05)
    assert can_be_averaged(found.weights)
    assert abs(found.weights.mean() - 0.8) < 0.1
    assert not found.can_be_averaged


def _one_normal(x, features, rng):
    return Proposal([Wide(x)], np.ones(1), None)


class Wide:
    def __init__(self, x):
        self.d = x.shape[1]
        self.law = stats.multivariate_normal(x.mean(0), 1.5 * np.cov(x.T))

    def draw(self, n, rng):
        return self.law.rvs(n, random_state=rng).reshape(n, self.d)

    def log_density(self, x):
        return self.law.logpdf(x)


def test_a_mass_that_is_not_tested_is_reported(monkeypatch):
    monkeypatch.setattr(Proposal, "of", _one_normal)
    checks = {c.name: c for _, c in density_checks(Hidden(), effort="quick")}
    stated = [str(f) for f in checks["mass_is_one_in_many_columns"](Hidden())]
    assert any("not tested" in one for one in stated)
