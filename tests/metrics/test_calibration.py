import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, ks_2samp, norm

from densekit.metrics import hpd_calibration, pit_calibration, pit_distances


def uniform(p_values):
    """Whether the shares of p-values below 5, 20 and 50 percent are those of a uniform distribution."""
    return all(
        binomtest(int((np.array(p_values) < level).sum()), len(p_values), level).pvalue > 1e-3
        for level in (0.05, 0.2, 0.5)
    )


def scores(model, rows):
    return model.logpdf(rows)


def test_the_truth_is_calibrated():
    pit, hpd, ratio = [], [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=101), rng.normal(size=97)  # few ties among possible distances
        pit.append(pit_calibration(x, y).p_value)
        found = hpd_calibration(scores(norm, x), scores(norm, y))
        hpd.append(found.p_value)
        ratio.append((found.value, found.standard_error))
    assert uniform(pit)
    assert uniform(hpd)
    # The mean of Kolmogorov's distribution, and what the docstring says of the truth.
    value, error = np.array(ratio).T
    assert value.mean() == pytest.approx(0.8687 * math.sqrt(1 / 101 + 1 / 97), rel=0.1)
    assert math.sqrt((error**2).mean()) == pytest.approx(value.std(), rel=0.3)


def test_distance_and_p_value_are_those_of_scipy():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 9, 50).astype(float), rng.integers(1, 9, 80).astype(float)
    theirs = ks_2samp(x, y, method="asymp")
    found = hpd_calibration(x, y)
    assert (found.value, found.p_value) == pytest.approx((theirs.statistic, theirs.pvalue))


@pytest.mark.parametrize("shift", [0.3, 1.0])
def test_pit_of_a_shift(shift):
    # sup |Phi(t) - Phi(t - s)| is at t = s/2; one column of two is wrong.
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2000, 2)), rng.normal([0, shift], size=(1500, 2))
    truth = 2 * norm.cdf(shift / 2) - 1
    by_column = pit_distances(x, y)
    found = pit_calibration(x, y)
    assert by_column[1] == pytest.approx(truth, abs=0.04)
    assert by_column[0] < 0.06
    assert found.value == pytest.approx(sum(by_column.values()) / 2)
    assert found.p_value < 1e-6


def test_pit_counts_a_nominal_column_once():
    x = pd.DataFrame({"n": np.arange(20.0), "c": ["a"] * 10 + ["b"] * 5 + ["d"] * 5})
    y = x.assign(c=["a"] * 4 + ["b"] * 11 + ["d"] * 5)
    assert pit_distances(x, y) == pytest.approx({"n": 0, "c": 0.3})
    assert pit_calibration(x, y).value == pytest.approx(0.15)


def test_pit_of_many_columns_is_not_misled_by_their_number():
    p = [
        pit_calibration(*np.random.default_rng(seed).normal(size=(2, 80, 30))).p_value
        for seed in range(150)
    ]
    assert binomtest(sum(v < 0.05 for v in p), len(p), 0.05, "greater").pvalue > 1e-3


@pytest.mark.parametrize("spread", [0.5, 0.8, 1.5, 3.0])
def test_hpd_of_a_model_too_narrow_or_too_wide(spread):
    # Scores fall with |x|, so that the distance is that of |Z| and |spread Z|.
    t = np.linspace(0, 10, 10_001)
    truth = np.abs(2 * norm.cdf(t) - 2 * norm.cdf(t / spread)).max()
    model = norm(scale=spread)
    for seed in range(3):
        x, z = np.random.default_rng(seed).normal(size=(2, 2000))
        found = hpd_calibration(scores(model, x), scores(model, spread * z))
        assert abs(found.value - truth) < 4 * found.standard_error < 0.12
        assert found.p_value < 1e-6


def test_hpd_with_rows_outside_the_support():
    inside = np.arange(14.0)
    found = hpd_calibration(np.concatenate([np.full(6, -math.inf), inside]), inside)
    assert found.value == pytest.approx(0.3)
    assert hpd_calibration(np.full(20, -math.inf), inside).value == 1


def test_hpd_of_one_score_for_all_shows_nothing():
    assert hpd_calibration(np.zeros(30), np.zeros(40)).value == pytest.approx(0)
    assert hpd_calibration(np.zeros(30), np.zeros(40)).p_value == 1


@pytest.mark.parametrize(
    ("data", "samples", "message"),
    [
        (np.zeros((20, 1)), np.zeros(20), r"scores_of_data has shape \(20, 1\)"),
        (
            np.zeros(20),
            np.zeros(9),
            r"scores_of_samples has shape \(9,\): must be \(n,\), n >= 10",
        ),
        (np.zeros(20), np.full(20, math.nan), r"scores_of_samples\[0\] is NaN"),
    ],
)
def test_bad_scores(data, samples, message):
    with pytest.raises(ValueError, match=message):
        hpd_calibration(data, samples)
