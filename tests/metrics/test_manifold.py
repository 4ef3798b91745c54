import math

import numpy as np
import pytest

from densekit.metrics import coverage, density, precision, recall

ALL = (precision, recall, density, coverage)


def test_balls_by_hand():
    # Nearest neighbors make the balls [-1, 1] [0, 2] [1, 5] [3, 11] [7, 23] [15, 47] of x
    # and [-3.5, -.5] [-2, 1] [-.5, 9.5] [4.5, 17.5] [11, 85] [48, 152] of y.
    x = [0.0, 1, 3, 7, 15, 31]
    y = [-2.0, -0.5, 4.5, 11, 48, 100]
    found = [metric(x, y, k=1).value for metric in ALL]
    # -0.5 is in one ball, 4.5 in two, 11 (on an edge) in two; two balls of x are empty.
    assert found[0] == pytest.approx(3 / 6)
    assert found[2] == pytest.approx(5 / 6)
    assert found[3] == pytest.approx(4 / 6)
    assert found[1] == 1
    # 31 is not in [4.5, 17.5], nor in the two last, which become [37, 39] and [38, 40].
    assert recall(x, [*y[:4], 38.0, 39.0], k=1).value == pytest.approx(5 / 6)


def test_disjoint_supports():
    x, y = np.random.default_rng(0).normal(size=(2, 80, 3))
    assert [metric(x, y + 1000).value for metric in ALL] == [0, 0, 0, 0]
    assert [metric(x, x).value for metric in (precision, recall, coverage)] == [1, 1, 1]


@pytest.mark.parametrize(("n", "m"), [(60, 60), (60, 120), (90, 40)])
def test_expectations_for_equal_laws(n, m):
    # Naeem et al.: each other row of x and each row of y is among the k nearest alike.
    for k in (3, 5):
        rng = np.random.default_rng(k)
        draws = [(rng.normal(size=(n, 2)), rng.normal(size=(m, 2))) for _ in range(100)]
        empty = math.prod((n - i) / (n + m - i) for i in range(1, k + 1))
        for metric, truth in ((density, 1.0), (coverage, 1 - empty)):
            found = [metric(x, y, k=k).value for x, y in draws]
            error = np.std(found) / math.sqrt(len(found))
            assert abs(np.mean(found) - truth) < 4 * error < 0.04


def test_equal_laws_have_high_precision_and_recall():
    x, y = np.random.default_rng(0).normal(size=(2, 600, 2))
    assert precision(x, y).value > 0.95
    assert recall(x, y).value > 0.95


def test_a_lost_mode_costs_variety_and_an_invented_one_fidelity():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(300, 2)), rng.normal(size=(300, 2)) + 30
    both = np.concatenate([rng.normal(size=(300, 2)), rng.normal(size=(300, 2)) + 30])
    lost = [metric(both, one).value for metric in ALL]
    assert lost[0] > 0.9
    assert lost[2] > 0.9
    assert lost[1] == pytest.approx(0.5, abs=0.05)
    assert lost[3] == pytest.approx(0.5, abs=0.05)
    invented = [metric(other, both).value for metric in ALL]
    assert invented[0] == pytest.approx(0.5, abs=0.05)
    assert invented[2] == pytest.approx(0.5, abs=0.06)
    assert invented[1] > 0.9


def test_an_outlier_inflates_precision_and_not_density():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 2)), rng.normal(size=(300, 2)) + 40
    assert precision(x, y).value == 0
    x[0] = 80
    assert precision(x, y).value > 0.9
    assert density(x, y).value < 0.5
    assert coverage(x, y).value < 0.05


def test_ties_of_wide_discrete_rows_count():
    # Each row of y is as far from x[0] as its nearest neighbors are, by other roundings.
    width = 300
    x = np.concatenate([np.zeros((1, width)), np.eye(width)[:20]])
    y = np.concatenate([np.eye(width)[20:40]])
    tight = precision(x.reshape(-1, 15, 20), y.reshape(-1, 15, 20))
    assert tight.value == 1


def test_bad_neighbors():
    x = np.zeros((20, 2))
    for metric in ALL:
        with pytest.raises(ValueError, match="k=0: the number of neighbors is at least 1"):
            metric(x, x, k=0)
        with pytest.raises(ValueError, match="neighborhood of k=9 needs at least 22 of each"):
            metric(x, x, k=9)
