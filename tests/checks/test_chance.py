"""How often the checks are wrong about an estimator that is right."""

import numpy as np
import pytest
from foreign_mutants import Normal
from scipy import stats

from densekit.checks import check_id, density_checks
from densekit.checks.data import SETS
from densekit.checks.draws import g_test
from densekit.checks.mass import slack_of
from densekit.checks.subject import CHECKS, Subject

LEFT_TO_CHANCE = [check for check in CHECKS if check.chance]


def test_the_whole_suite_is_wrong_less_than_once_in_a_thousand_runs():
    assert 0 < sum(check.chance for check in CHECKS) < 1e-3


@pytest.mark.parametrize("check", LEFT_TO_CHANCE, ids=check_id)
def test_the_docstring_of_a_check_left_to_chance_says_where_its_number_comes_from(check):
    assert "Chance of a false alarm: " in check.function.__doc__


@pytest.mark.parametrize("seed", range(1, 13))
def test_a_correct_estimator_passes_with_other_data_fits_and_draws(seed):
    for estimator, check in density_checks(Normal(), effort="quick"):
        if check.chance:
            check(estimator, seed)


@pytest.mark.parametrize("name", SETS)
def test_each_repetition_has_data_of_its_own(name):
    one, two = (Subject(Normal(), seed).load(name) for seed in (1, 2))
    assert len(one.X) == len(two.X)
    assert str(one.X) != str(two.X)


@pytest.mark.parametrize(
    "name", ["line", "plane", "positive", "cells", "counts", "shades", "strings"]
)
def test_rows_of_each_repetition_follow_the_stated_truth(name):
    # Minus the mean log-truth estimates the entropy: two halves of one law agree.
    one, two = (SETS[name](seed).truth for seed in (3, 4))
    error = np.sqrt(one.var() / len(one) + two.var() / len(two))
    assert abs(one.mean() - two.mean()) < 5 * error


def test_a_fit_and_its_draws_change_with_the_repetition():
    one, two = (Subject(Normal(), seed) for seed in (1, 2))
    draws = [s.draw(s.fitted(s.load("plane")), 3) for s in (one, two)]
    assert not np.allclose(*draws)
    again = Subject(Normal(), 1)
    assert np.array_equal(draws[0], again.draw(again.fitted(again.load("plane")), 3))


@pytest.mark.parametrize("level", [0.05, 0.01])
def test_the_g_test_is_wrong_as_often_as_it_says(level):
    rng = np.random.default_rng(0)
    mass = rng.dirichlet(np.full(36, 0.5))
    p = np.array([g_test(rng.multinomial(4000, mass), mass)[0] for _ in range(4000)])
    # Five standard deviations, and a tenth for the law of chi squared holding in the limit only.
    assert abs((p < level).mean() - level) < 0.1 * level + 5 * np.sqrt(level / len(p))


def test_the_g_test_finds_a_bin_that_is_too_full():
    rng = np.random.default_rng(1)
    mass, other = np.full(14, 1 / 14), np.full(14, 1 / 14)
    other[3] *= 1.6
    p = g_test(rng.multinomial(4000, other / other.sum()), mass)[0]
    assert p < 1e-6


def test_a_density_beats_the_truth_no_more_often_than_markov_allows():
    # N(m, 1) with m fitted to other rows, against N(0, 1): sum log q - log p > t with P < e^-t.
    rng = np.random.default_rng(2)
    x, m = rng.normal(size=(4000, 50)), 0.1 * rng.normal(size=(4000, 1))
    excess = (stats.norm.logpdf(x, m) - stats.norm.logpdf(x)).sum(1)
    for t in (1.0, 2.0, 3.0):
        assert (excess > t).mean() < np.exp(-t)


def test_slack_does_not_grow_with_the_mass_that_it_is_meant_to_judge():
    mass, error = np.full(10, 0.1), np.full(10, 0.2)
    assert slack_of(mass, error) == pytest.approx(0.8)
    assert slack_of(50 * mass, error) == pytest.approx(0.8)
    assert slack_of(0.5 * mass, error) == pytest.approx(0.4)
