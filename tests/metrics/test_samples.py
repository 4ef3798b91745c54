import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from densekit.metrics import energy_distance, two_sample_auc


@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0])
def test_energy_distance_of_two_normals(shift):
    # E|N(m, 2)| = 2 / sqrt(pi) exp(-m^2/4) + m (1 - 2 Phi(-m / sqrt 2)).
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4000, 1)), rng.normal(shift, size=(4000, 1))
    cross = 2 / math.sqrt(math.pi) * math.exp(-(shift**2) / 4)
    cross += shift * (1 - 2 * norm.cdf(-shift / math.sqrt(2)))
    truth = 2 * cross - 4 / math.sqrt(math.pi)
    assert energy_distance(x, y) == pytest.approx(truth, abs=0.02 * (1 + truth))


def test_energy_distance_is_unbiased():
    rng = np.random.default_rng(0)
    found = [energy_distance(*rng.normal(size=(2, 12, 2))) for _ in range(1500)]
    assert abs(np.mean(found)) < 4 * np.std(found) / math.sqrt(len(found))


def test_energy_distance_knows_no_units():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 3)), rng.normal(size=(60, 3))
    units = np.array([1e-9, 1.0, 1e9])
    assert energy_distance(x * units, y * units) == pytest.approx(energy_distance(x, y))


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


def test_images_and_mixed_tables():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 17, size=(40, 8, 8), dtype=np.uint8)
    assert energy_distance(images, np.zeros_like(images)) > 1
    frame = pd.DataFrame(
        {
            "n": rng.normal(size=60),
            "c": pd.Categorical(rng.choice(["a", "b"], 60)),
            "t": pd.date_range("2020-01-01", periods=60),
            "b": rng.uniform(size=60) < 0.5,
        }
    )
    assert two_sample_auc(frame, frame.assign(c="z")).value > 0.95
    assert energy_distance(frame, frame.iloc[::-1, ::-1]) == pytest.approx(
        energy_distance(frame, frame)
    )


def test_bad_samples():
    x = np.zeros((20, 2))
    with pytest.raises(ValueError, match="2 entries and rows of Y 3"):
        energy_distance(x, np.zeros((20, 3)))
    with pytest.raises(ValueError, match="Y has NaN"):
        two_sample_auc(x, np.full((20, 2), np.nan))
    with pytest.raises(ValueError, match="10 of each"):
        two_sample_auc(x, x[:5])
    with pytest.raises(ValueError, match="2 of each"):
        energy_distance(x, x[:1])
