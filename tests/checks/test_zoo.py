"""Correct densities that densekit did not write pass every check, and are what they say."""

import itertools

import numpy as np
import pytest
import zoo
import zoo_tables
from scipy import integrate
from subtle_contexts import Linear

from densekit.checks import check_id, density_checks

CHEAP = (zoo.Uniform, zoo.Cauchy, zoo.Histograms, zoo.Ring, zoo_tables.Bigram)
ALL = (*zoo.OF_NUMBERS, *zoo_tables.OF_MIXED_ROWS, Linear)


def pairs(kinds):
    return [pair for kind in kinds for pair in density_checks(kind())]


@pytest.mark.parametrize(("estimator", "check"), pairs(CHEAP), ids=check_id)
def test_a_correct_density_passes(estimator, check):
    check.at("quick")(estimator)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("estimator", "check"), pairs(k for k in ALL if k not in CHEAP), ids=check_id
)
def test_the_rest_of_the_zoo_passes(estimator, check):
    check(estimator)


def test_the_zoo_has_fifteen_densities():
    assert len(ALL) >= 15


@pytest.mark.parametrize("kind", zoo.OF_NUMBERS, ids=lambda kind: kind.__name__)
def test_a_density_of_one_column_integrates_to_one(kind):
    # Adaptive quadrature with the kinks named, none of the suite's own grids.
    X = np.random.default_rng(0).gamma(3.0, 2.0, (200, 1))
    made = kind().fit(X)

    def density(x):
        return float(np.exp(made.score_samples([[x]])[0]))

    edges = np.unique(
        np.concatenate([X.mean() + X.std() * np.linspace(-3, 6, 40), X[:, 0][[0, 1]]])
    )
    ends = [X.min() - 1e-9, X.max() + 1e-9, *edges]
    ends = np.unique(np.concatenate([ends, np.linspace(X.min(), X.max(), 21)]))
    inner = sum(integrate.quad(density, a, b, limit=200)[0] for a, b in itertools.pairwise(ends))
    outer = (
        integrate.quad(density, -np.inf, ends[0])[0] + integrate.quad(density, ends[-1], np.inf)[0]
    )
    assert inner + outer == pytest.approx(1, abs=2e-3)
