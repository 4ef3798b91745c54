"""Correct densities that densekit did not write pass every check, and are what they say."""

import numpy as np
import pytest
import zoo
import zoo_shapes
import zoo_tables
from subtle_contexts import Linear

from densekit.checks import check_id, density_checks

CHEAP = (
    zoo.Uniform,
    zoo.Cauchy,
    zoo.Histograms,
    zoo.Ring,
    zoo_shapes.CouplingFlow,
    zoo_tables.Bigram,
)
NUMBERS = (*zoo.OF_NUMBERS, *zoo_shapes.OF_SHAPES)
ALL = (*NUMBERS, *zoo_tables.OF_MIXED_ROWS, Linear)


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


def test_the_zoo_has_twenty_densities():
    assert len(ALL) >= 20


@pytest.mark.parametrize("kind", NUMBERS, ids=lambda kind: kind.__name__)
def test_a_density_of_one_column_integrates_to_one(kind):
    # Gauss and Legendre's rule between the kinks, and in 1/x beyond: none of the suite's own grids.
    X = np.random.default_rng(0).gamma(3.0, 2.0, (200, 1))
    made = kind().fit(X)
    spread, low, high = X.std(), X.min() - 1e-9, X.max() + 1e-9
    near = X.mean() + spread * np.linspace(-30, 30, 1201)
    cuts = np.unique(np.concatenate([near, [low, high], np.linspace(X.min(), X.max(), 21)]))
    nodes, weights = np.polynomial.legendre.leggauss(20)
    half = np.diff(cuts)[:, None] / 2
    x = cuts[:-1, None] + half * (nodes + 1)
    # Beyond, x = cut + t / (1 - t) for t in (0, 1), on both sides.
    t, by = (nodes + 1) / 2, weights / 2
    beyond = spread * t / (1 - t)
    tails = np.concatenate([cuts[-1] + beyond, cuts[0] - beyond])
    slopes = np.tile(by * spread / (1 - t) ** 2, 2)
    places = np.concatenate([x.ravel(), tails])
    density = np.exp(made.score_samples(places[:, None]))
    mass = density @ np.concatenate([(half * weights).ravel(), slopes])
    assert mass == pytest.approx(1, abs=2e-3)
