import math

import numpy as np
import pytest
from scipy.stats import kstest

from densekit.datasets import Checkerboard, TwoMoons, load

TRUTHS = [TwoMoons(0.1), TwoMoons(0.3), TwoMoons(0.05), Checkerboard()]
ids = ["moons", "wide", "thin", "checkerboard"]


@pytest.mark.parametrize("truth", TRUTHS, ids=ids)
def test_density_integrates_to_one(truth):
    # Cell centres, so that no point lies on an edge of the board.
    step = truth.noise / 4 if isinstance(truth, TwoMoons) else 1 / 64
    margin = 8 * truth.noise if isinstance(truth, TwoMoons) else 2
    x = np.arange(-1 - margin, 2 + margin, step) + step / 2
    y = np.arange(-1 - margin, 1 + margin, step) + step / 2
    grid = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    assert np.exp(truth.log_prob(grid)).sum() * step**2 == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("truth", TRUTHS, ids=ids)
def test_entropy_is_the_mean_of_minus_log_prob(truth):
    scores = truth.log_prob(truth.sample(20_000, random_state=1))
    error = scores.std() / math.sqrt(len(scores))
    assert abs(-scores.mean() - truth.entropy) <= 4 * error + 1e-12


def test_density_is_that_of_the_sampler():
    truth = TwoMoons(0.1)
    X = truth.sample(200_000, random_state=3)
    edges = np.linspace(-1.3, 2.3, 25), np.linspace(-0.8, 1.3, 15)
    counts = np.histogram2d(X[:, 0], X[:, 1], bins=edges)[0]
    # Mass of each cell by Gauss-Legendre.
    t, w = np.polynomial.legendre.leggauss(6)
    x = (edges[0][:-1, None] + edges[0][1:, None] + np.diff(edges[0])[:, None] * t) / 2
    y = (edges[1][:-1, None] + edges[1][1:, None] + np.diff(edges[1])[:, None] * t) / 2
    grid = np.stack(np.meshgrid(x.ravel(), y.ravel(), indexing="ij"), -1)
    p = np.exp(truth.log_prob(grid.reshape(-1, 2))).reshape(24, 6, 14, 6)
    area = np.diff(edges[0])[0] * np.diff(edges[1])[0] / 4
    mass = np.einsum("aibj,i,j->ab", p, w, w) * area
    expected = mass * len(X)
    seen = expected > 20
    chi2 = ((counts - expected) ** 2 / expected)[seen].sum()
    assert abs(chi2 - seen.sum()) < 5 * math.sqrt(2 * seen.sum())


def test_arcs_are_uniform_in_angle():
    X = TwoMoons(0.02).sample(4000, random_state=0)
    upper = X[np.abs(np.hypot(X[:, 0], X[:, 1]) - 1) < 0.06]
    upper = upper[upper[:, 1] > 0.5]  # the lower arc never comes up here
    angle = np.arctan2(upper[:, 1], upper[:, 0])
    low, high = math.pi / 6, 5 * math.pi / 6
    assert kstest((angle - low) / (high - low), "uniform").pvalue > 1e-3


def test_checkerboard_is_uniform_on_eight_cells():
    X = Checkerboard().sample(16_000, random_state=0)
    cells, counts = np.unique(np.floor(X), axis=0, return_counts=True)
    assert len(cells) == 8
    assert (cells.sum(1) % 2 == 0).all()
    assert ((counts - 2000) ** 2 / 2000).sum() < 30
    assert kstest((X - np.floor(X)).ravel(), "uniform").pvalue > 1e-3


def test_outside_the_board_is_minus_infinity():
    scores = Checkerboard().log_prob([[2.0, 0.5], [-2.1, -2.1], [0.5, -0.5], [-2.0, -2.0]])
    assert scores.tolist() == [-math.inf] * 3 + [-math.log(8)]


def test_far_rows_score_finite():
    assert np.isfinite(TwoMoons().log_prob([[1e3, -1e3]])).all()


def test_seeds():
    truth = TwoMoons()
    state = np.random.get_state()[1].copy()
    assert (truth.sample(5, random_state=1) == truth.sample(5, random_state=1)).all()
    assert (truth.sample(5, random_state=1) != truth.sample(5, random_state=2)).any()
    assert (np.random.get_state()[1] == state).all()


@pytest.mark.parametrize("name", ["two_moons", "checkerboard"])
def test_toys_know_their_truth(name):
    data = load(name)
    assert data.truth.log_prob(data.test).mean() == pytest.approx(-data.truth.entropy, abs=0.1)


@pytest.mark.parametrize("bad", [np.zeros(2), np.zeros((3, 3))])
def test_wrong_shapes_are_named(bad):
    with pytest.raises(ValueError, match=r"shape \(n, 2\)"):
        TwoMoons().log_prob(bad)


def test_noise_too_small_for_the_quadrature():
    with pytest.raises(ValueError, match="where the quadrature holds"):
        TwoMoons(0.001)


def test_the_arcs_are_those_of_scikit_learn():
    from sklearn.datasets import make_moons

    X, _ = make_moons(200, noise=None)
    noise = 0.02
    inside = math.log(1 / (2 * math.pi * noise * math.sqrt(2 * math.pi)))
    scores = TwoMoons(noise).log_prob(X)
    # A line's density across it, and half of that at the four ends.
    assert np.sort(scores)[4:] == pytest.approx(np.full(196, inside), abs=0.25)
    assert np.sort(scores)[:4] == pytest.approx(np.full(4, inside - math.log(2)), abs=0.02)
