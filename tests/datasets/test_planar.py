import math

import numpy as np
import pytest
from scipy.stats import kstest, norm

from densekit.datasets import (
    Banana,
    Checkerboard,
    EightGaussians,
    GaussianGrid,
    Pinwheel,
    Spirals,
    TwoMoons,
)

# A truth, a box (left, right, bottom, top) with all of its mass that float64 sees, and the step
# of a rule that integrates it. On the board no cell center is on an edge.
CASES = {
    "moons": (TwoMoons(0.1), (-1.8, 2.8, -1.3, 1.8), 0.025),
    "wide": (TwoMoons(0.3), (-3.4, 4.4, -2.9, 3.4), 0.075),
    "thin": (TwoMoons(0.05), (-1.4, 2.4, -0.9, 1.4), 0.0125),
    "spirals": (Spirals(0.15), (-4.4, 4.4, -4.4, 4.4), 0.05),
    "checkerboard": (Checkerboard(), (-2.5, 2.5, -2.5, 2.5), 1 / 64),
    "eight": (EightGaussians(), (-6, 6, -6, 6), 0.08),
    "eight near": (EightGaussians(1.0, 0.5), (-5.5, 5.5, -5.5, 5.5), 0.1),
    "grid": (GaussianGrid(), (-4.5, 4.5, -4.5, 4.5), 1 / 64),
    "grid near": (GaussianGrid(1.0, 0.5), (-6.5, 6.5, -6.5, 6.5), 0.1),
    "pinwheel": (Pinwheel(), (-7, 7, -7, 7), 1 / 64),
    "pinwheel near": (Pinwheel(3, 0.4, 0.4, 0.1), (-9, 9, -9, 9), 0.05),
    "banana": (Banana(2.0, 0.3), (-17, 17, -90, 9), 0.125),
}
TRUTHS = {name: truth for name, (truth, _, _) in CASES.items()}
each_case = pytest.mark.parametrize(("truth", "box", "step"), CASES.values(), ids=CASES)
each_truth = pytest.mark.parametrize("truth", TRUTHS.values(), ids=TRUTHS)


@each_case
def test_density_integrates_to_one_and_entropy_is_its_integral(truth, box, step):
    x = np.arange(box[0], box[1], step) + step / 2
    y = np.arange(box[2], box[3], step) + step / 2
    logp = truth.log_prob(np.stack(np.meshgrid(x, y), -1).reshape(-1, 2))
    p = np.exp(logp)
    assert p.sum() * step**2 == pytest.approx(1, abs=1e-9)
    inside = p > 0
    entropy = -(p[inside] * logp[inside]).sum() * step**2
    assert truth.entropy == pytest.approx(entropy, abs=1e-7)
    assert truth.entropy_error == 0
    assert truth.base_measure == "lebesgue"


@each_truth
def test_entropy_is_the_mean_of_minus_log_prob(truth):
    scores = truth.log_prob(truth.sample(20_000, random_state=1))
    error = scores.std() / math.sqrt(len(scores))
    assert abs(-scores.mean() - truth.entropy) <= 4 * error + 1e-12


@each_truth
def test_density_is_that_of_the_sampler(truth):
    X = truth.sample(100_000, random_state=3)
    # Rounded, so that on the checkerboard every cell is inside one of the board's.
    low, high = (np.round(a, 2) for a in (X.min(0), X.max(0)))
    edges = np.linspace(low, high, 33).T
    counts = np.histogram2d(X[:, 0], X[:, 1], bins=edges)[0]
    # Mass of each cell by Gauss-Legendre.
    n = 8
    t, w = np.polynomial.legendre.leggauss(n)
    width = np.diff(edges)[:, :, None]
    x, y = (edges[:, :-1, None] + edges[:, 1:, None] + width * t).reshape(2, -1) / 2
    grid = np.stack(np.meshgrid(x, y, indexing="ij"), -1).reshape(-1, 2)
    p = np.exp(truth.log_prob(grid)).reshape(32, n, 32, n)
    mass = np.einsum("aibj,i,j->ab", p, w, w) * width[0, 0, 0] * width[1, 0, 0] / 4
    expected = mass * len(X)
    seen = expected > 20
    assert expected[seen].sum() > 0.9 * len(X)
    chi2 = ((counts[seen] - expected[seen]) ** 2 / expected[seen]).sum()
    assert abs(chi2 - seen.sum()) < 5 * math.sqrt(2 * seen.sum())


def test_arcs_are_uniform_in_angle():
    X = TwoMoons(0.02).sample(4000, random_state=0)
    upper = X[np.abs(np.hypot(X[:, 0], X[:, 1]) - 1) < 0.06]
    upper = upper[upper[:, 1] > 0.5]  # the lower arc never comes up here
    angle = np.arctan2(upper[:, 1], upper[:, 0])
    low, high = math.pi / 6, 5 * math.pi / 6
    assert kstest((angle - low) / (high - low), "uniform").pvalue > 1e-3


def test_the_arcs_are_those_of_scikit_learn():
    from sklearn.datasets import make_moons

    X, _ = make_moons(200, noise=None)
    noise = 0.02
    inside = math.log(1 / (2 * math.pi * noise * math.sqrt(2 * math.pi)))
    scores = TwoMoons(noise).log_prob(X)
    # A line's density across it, and half of that at the four ends.
    assert np.sort(scores)[4:] == pytest.approx(np.full(196, inside), abs=0.25)
    assert np.sort(scores)[:4] == pytest.approx(np.full(4, inside - math.log(2)), abs=0.02)


@pytest.mark.parametrize("curve", [TwoMoons, Spirals])
@pytest.mark.parametrize("noise", [0.02, 0.1, 1.0])
def test_nodes_of_the_quadrature_lie_close(curve, noise):
    centers, log_weight = curve(noise)._quadrature
    gaps = np.linalg.norm(np.diff(centers.reshape(2, -1, 2), axis=1), axis=2)
    assert gaps.max() <= noise / 2
    assert np.exp(log_weight).sum() == pytest.approx(1)


@pytest.mark.parametrize("noise", [0.05, 0.3])
def test_spirals_have_the_density_of_a_fine_sum_over_the_arms(noise):
    truth = Spirals(noise)
    X = truth.sample(20, random_state=0) + 0.1
    root = (np.arange(200_000) + 0.5) / 200_000  # the midpoint rule, to eight digits
    t = 3 * math.pi * root
    arm = np.stack([-t * np.cos(t), t * np.sin(t)], 1) / 3
    p = [norm(0, noise).pdf(x - s * arm).prod(1) @ root / 200_000 for x in X for s in (1, -1)]
    expected = np.log(np.reshape(p, (-1, 2)).sum(1))
    assert truth.log_prob(X) == pytest.approx(expected, abs=1e-8)


def test_spirals_turn_one_and_a_half_times():
    # On the axis at every half turn, a third of the angle away: density of a line across it.
    noise = 0.02
    t = np.array([1, 2]) * math.pi
    X = np.stack([-t * np.cos(t), t * np.sin(t)], 1) / 3
    # Angle t has density 2 t / (3 pi)^2, and the curve sqrt(1 + t^2) / 3 units per radian.
    line = (2 * t / (3 * math.pi) ** 2) / (np.sqrt(1 + t**2) / 3) / 2
    expected = np.log(line / (noise * math.sqrt(2 * math.pi)))
    assert Spirals(noise).log_prob(X) == pytest.approx(expected, abs=1e-3)


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


def test_eight_gaussians_lie_on_the_circle():
    # Far apart, each center has an eighth of a Gaussian's peak.
    truth = EightGaussians(3.0, 0.1)
    diagonal = 3 / math.sqrt(2)
    scores = truth.log_prob([[3, 0], [0, -3], [diagonal, -diagonal]])
    assert scores == pytest.approx(np.full(3, 2 * norm(scale=0.1).logpdf(0) - math.log(8)))


def test_grid_has_25_modes():
    X = GaussianGrid().sample(25_000, random_state=0)
    modes, counts = np.unique(np.round(X / 2), axis=0, return_counts=True)
    assert len(modes) == 25
    assert np.abs(modes).max() == 2
    assert ((counts - 1000) ** 2 / 1000).sum() < 60


def test_pinwheel_without_a_twist_is_five_gaussians():
    arms = 2 * math.pi * np.arange(5) / 5
    tips = 2 * np.stack([np.cos(arms), np.sin(arms)], 1)
    peak = norm(0, 0.6).logpdf(0) + norm(0, 0.02).logpdf(0) - math.log(5)
    scores = Pinwheel(5, 0.3, 0.01, twist=0.0).log_prob(tips)
    assert scores == pytest.approx(np.full(5, peak))


def test_pinwheel_turns_with_the_radius():
    truth, straight = Pinwheel(twist=0.25), Pinwheel(twist=0.0)
    for r in (0.7, 1.0, 1.6):
        angle = 0.25 * math.exp(r)
        bent = [[2 * r * math.cos(angle), 2 * r * math.sin(angle)]]
        assert truth.log_prob(bent) == pytest.approx(straight.log_prob([[2 * r, 0]]))


def test_banana_bends_to_the_stated_parabola():
    # The ridge has its top at b s^2, crosses zero at x = s, and the mean is zero.
    truth = Banana(3.0, 0.5)
    heights = np.linspace(-9, 9, 181)
    for x, top in ((0.0, 4.5), (3.0, 0.0), (-5.0, -8.0)):
        column = np.stack([np.full(181, x), heights], 1)
        assert heights[truth.log_prob(column).argmax()] == pytest.approx(top)
    X = truth.sample(10_000, random_state=0)
    assert abs(X.mean(0) / X.std(0) * 100).max() < 4


def test_banana_without_a_bend_is_gaussian():
    X = Banana(3.0, 0.0).sample(500, random_state=0)
    expected = norm(0, 3).logpdf(X[:, 0]) + norm().logpdf(X[:, 1])
    assert Banana(3.0, 0.0).log_prob(X) == pytest.approx(expected)


@pytest.mark.parametrize("name", [n for n in TRUTHS if n != "checkerboard"])
def test_far_rows_score_finite(name):
    assert np.isfinite(TRUTHS[name].log_prob([[1e3, -1e3], [0.0, 0.0]])).all()


@each_truth
def test_seeds(truth):
    state = np.random.get_state()[1].copy()
    assert (truth.sample(5, random_state=1) == truth.sample(5, random_state=1)).all()
    assert (truth.sample(5, random_state=1) != truth.sample(5, random_state=2)).any()
    assert (np.random.get_state()[1] == state).all()


@each_truth
@pytest.mark.parametrize("bad", [np.zeros(2), np.zeros((3, 3))])
def test_wrong_shapes_are_named(truth, bad):
    with pytest.raises(ValueError, match=r"scores rows of 2 numbers, shape \(n, 2\)"):
        truth.log_prob(bad)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TwoMoons(0.001), "noise=0.001: must be at least 0.02, or the quadrature"),
        (lambda: Spirals(math.nan), "noise=nan: must be at least 0.02"),
        (lambda: EightGaussians(radius=0), "radius=0: must be positive and finite"),
        (lambda: GaussianGrid(noise=-1), "noise=-1: must be positive and finite"),
        (lambda: Pinwheel(n_arms=0), "n_arms=0: must be at least 1"),
        (lambda: Pinwheel(tangential=math.inf), "tangential=inf: must be positive and finite"),
        (lambda: Banana(width=0.0), "width=0.0: must be positive and finite"),
    ],
)
def test_parameters_out_of_range_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
