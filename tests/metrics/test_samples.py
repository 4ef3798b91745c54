import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2, norm, wasserstein_distance

from densekit.metrics import (
    SAMPLE_METRICS,
    Estimate,
    energy_distance,
    mmd,
    sliced_wasserstein,
    two_sample_auc,
)


@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0])
def test_energy_distance_of_two_normals(shift):
    # E|N(m, 2)| = 2 / sqrt(pi) exp(-m^2/4) + m (1 - 2 Phi(-m / sqrt 2)).
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4000, 1)), rng.normal(shift, size=(4000, 1))
    cross = 2 / math.sqrt(math.pi) * math.exp(-(shift**2) / 4)
    cross += shift * (1 - 2 * norm.cdf(-shift / math.sqrt(2)))
    truth = 2 * cross - 4 / math.sqrt(math.pi)
    found = energy_distance(x, y, max_rows=4000)
    assert abs(found.value - truth) < 4 * found.standard_error < 0.2


@pytest.mark.parametrize(("shift", "spread"), [(0.0, 1.0), (0.7, 1.0), (0.0, 2.0)])
def test_mmd_of_normals_is_the_kernels_closed_form(shift, spread):
    # E exp(-|d|^2 / 2 s^2) of d ~ N(m, v I) is (1 + v/s^2)^(-D/2) exp(-|m|^2 / 2 (s^2 + v)).
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2000, 3)), rng.normal(shift, spread, size=(1500, 3))
    s2 = 2 * chi2(3).median()

    def kernel(m, v):
        return (1 + v / s2) ** -1.5 * math.exp(-3 * m**2 / (2 * (s2 + v)))

    truth = kernel(0, 2) + kernel(0, 2 * spread**2) - 2 * kernel(shift, 1 + spread**2)
    found = mmd(x, y)
    assert abs(found.value - truth) < 4 * found.standard_error < 0.03


@pytest.mark.parametrize("metric", [energy_distance, mmd])
def test_discrepancies_are_unbiased(metric):
    rng = np.random.default_rng(0)
    found = [metric(rng.normal(size=(9, 2)), rng.normal(size=(12, 2))).value for _ in range(1200)]
    assert abs(np.mean(found)) < 4 * np.std(found) / math.sqrt(len(found))


def test_mmd_of_few_distinct_rows():
    # More than half of the distances are zero: the median is no bandwidth.
    x = np.array([[0.0]] * 9 + [[1.0]])
    assert 0.5 < mmd(x, 1 - x).value <= 2
    assert mmd(np.ones((5, 2)), np.ones((5, 2))).value == 0


@pytest.mark.parametrize("p", [1, 2])
def test_sliced_wasserstein_of_one_column(p):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=40), rng.gamma(2, size=70)
    if p == 1:
        truth = wasserstein_distance(x, y) / x.std()
    else:  # of sizes whose quotient is whole
        x, y = x[:35], np.sort(y)
        truth = math.sqrt(((np.repeat(np.sort(x), 2) - y) ** 2).mean()) / x.std()
    assert sliced_wasserstein(x, y, p=p).value == pytest.approx(truth, rel=1e-9)


@pytest.mark.parametrize("width", [1, 4, 16])
def test_sliced_wasserstein_of_a_shift(width):
    rng = np.random.default_rng(width)
    x, shift = rng.normal(size=(60, width)), rng.normal(size=width)
    truth = np.linalg.norm(shift) / math.sqrt(width)
    found = sliced_wasserstein(x, np.repeat(x, 3, axis=0) + shift * x.std(0), n_projections=48)
    assert found.value == pytest.approx(truth, rel=1e-9)
    # Of order 1 it is the mean length of a projection of the shift.
    if width == 4:
        found = sliced_wasserstein(x, x + shift * x.std(0), p=1, n_projections=4000)
        mean = math.gamma(2) / (math.gamma(2.5) * math.sqrt(math.pi))
        assert found.value == pytest.approx(np.linalg.norm(shift) * mean, rel=0.02)


def test_sliced_wasserstein_of_normals():
    # W2 of N(0, I) and N(0, s^2 I) is |1 - s| in every direction.
    x, y = np.random.default_rng(0).normal(size=(2, 4000, 5))
    found = sliced_wasserstein(x, 1.5 * y)
    assert abs(found.value - 0.5) < 4 * found.standard_error < 0.1


@pytest.mark.parametrize("name", sorted(set(SAMPLE_METRICS) - {"two_sample_auc"}))
@pytest.mark.parametrize("shift", [0.0, 0.8])
def test_standard_error_is_the_spread_over_repetitions(name, shift):
    # The jackknife is too large by the square root of 2 where a U-statistic degenerates.
    high = 1.7 if shift == 0 and name in ("energy_distance", "mmd") else 1.45
    found = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=(200, 2)), rng.normal(shift, size=(150, 2))
        found.append(SAMPLE_METRICS[name](x, y, random_state=0))
    spread = np.std([f.value for f in found], ddof=1)
    claimed = math.sqrt(np.mean([f.standard_error**2 for f in found]))
    assert 0.65 * spread < claimed < high * spread


def test_energy_distance_knows_no_units():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 3)), rng.normal(size=(60, 3))
    units = np.array([1e-9, 1.0, 1e9])
    scaled, plain = energy_distance(x * units, y * units), energy_distance(x, y)
    assert scaled.value == pytest.approx(plain.value)
    assert scaled.standard_error == pytest.approx(plain.standard_error)


def test_auc_of_the_same_distribution_is_a_half():
    rng = np.random.default_rng(0)
    found = [two_sample_auc(*rng.normal(size=(2, 150, 3)), random_state=i) for i in range(4)]
    z = [(f.value - 0.5) / f.standard_error for f in found]
    assert max(map(abs, z)) < 3.5


def test_auc_of_a_shift_is_the_bayes_classifiers():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(1500, 1)), rng.normal(1.5, size=(1500, 1))
    best = norm.cdf(1.5 / math.sqrt(2))
    assert best - 0.05 < two_sample_auc(x, y).value < best + 0.02


def test_auc_uses_what_the_margins_hide():
    rng = np.random.default_rng(2)
    z = rng.normal(size=400)
    x = np.stack([z, z], 1)
    y = rng.normal(size=(400, 2))
    assert two_sample_auc(x, y).value > 0.9


def test_auc_of_sorted_data_takes_rows_from_everywhere():
    x = np.arange(1000.0)
    found = two_sample_auc(x, np.random.default_rng(0).uniform(0, 999, 100))
    assert abs(found.value - 0.5) < 4 * found.standard_error


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "n": rng.normal(size=60),
            "c": pd.Categorical(rng.choice(["a", "b"], 60)),
            "t": pd.date_range("2020-01-01", periods=60),
            "b": rng.uniform(size=60) < 0.5,
        }
    )


@pytest.mark.parametrize("name", SAMPLE_METRICS)
def test_every_metric_takes_images_and_mixed_tables(name, frame):
    metric = SAMPLE_METRICS[name]
    images = np.random.default_rng(0).integers(0, 17, size=(60, 8, 9), dtype=np.uint8)
    for good, bad in (
        (metric(images, images[::-1], random_state=1), metric(images, images // 17)),
        (
            metric(frame, frame.iloc[::-1, ::-1], random_state=1),
            metric(frame, frame.assign(n=9.0)),
        ),
    ):
        assert isinstance(good, Estimate)
        assert math.isfinite(good.standard_error)
        if name in ("precision", "recall", "density", "coverage"):
            assert good.value > 0.9 > 0.5 > bad.value
        else:
            assert good.value < 0.55
            assert bad.value > good.value + 0.2


@pytest.mark.parametrize("name", SAMPLE_METRICS)
def test_larger_sets_are_drawn_from_by_the_seed(name):
    x, y = np.random.default_rng(0).normal(size=(2, 300, 4))
    metric = SAMPLE_METRICS[name]
    first, again, other = (metric(x, y, max_rows=40, random_state=i) for i in (0, 0, 1))
    assert first == again != other
    assert metric(x, y, max_rows=300) == metric(x, y)


@pytest.mark.parametrize("name", SAMPLE_METRICS)
def test_bad_samples(name):
    metric, x = SAMPLE_METRICS[name], np.zeros((20, 2))
    with pytest.raises(ValueError, match="rows of X have 2 entries and rows of Y 3"):
        metric(x, np.zeros((20, 3)))
    with pytest.raises(ValueError, match="Y: Column 'x0' contains NaN: 20 missing"):
        metric(x, np.full((20, 2), np.nan))
    with pytest.raises(ValueError, match=r"X has 20 rows and Y 1: .* needs at least \d+ of each"):
        metric(x, x[:1])
    with pytest.raises(TypeError, match="X holds texts"):
        metric(["a", "b"], ["c", "d"])


def test_bad_settings_of_sliced_wasserstein():
    x = np.zeros((20, 2))
    with pytest.raises(ValueError, match="p=3: the order is 1 or 2"):
        sliced_wasserstein(x, x, p=3)
    with pytest.raises(ValueError, match="n_projections=0"):
        sliced_wasserstein(x, x, n_projections=0)
