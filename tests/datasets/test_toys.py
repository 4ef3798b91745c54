import math

import numpy as np
import pytest

from densekit.datasets.toys import TOYS

each_toy = pytest.mark.parametrize("toy", TOYS, ids=lambda toy: toy.__name__)


@each_toy
def test_toys_know_their_truth(toy):
    data = toy()
    scores = data.truth.log_prob(data.test)
    error = math.hypot(scores.std() / math.sqrt(len(scores)), data.truth.entropy_error)
    assert abs(scores.mean() + data.truth.entropy) <= 4 * error + 1e-12
    fitted = data.truth.log_prob(data.train)
    assert abs(fitted.mean() + data.truth.entropy) <= 4 * error + 1e-12


@each_toy
def test_toys_are_the_same_at_every_call(toy):
    data = toy()
    assert data.digest == toy().digest
    assert data.name == toy.__name__
    assert toy.__doc__.startswith(f"{len(data.train)}, {len(data.valid)} and {len(data.test)} ")


@each_toy
def test_measure_and_dimensions_are_those_of_the_rows(toy):
    data = toy()
    counted = data.modality != "table"
    assert data.truth.base_measure == ("counting" if counted else "lebesgue")
    assert data.truth.n_dims == data.n_dims


@each_toy
def test_what_is_known_of_the_entries_is_true(toy):
    data = toy()
    if data.modality == "table":  # scores with the declared support: nothing is outside
        from densekit import Gaussian

        model = Gaussian(**data.domain).fit(data.train)
        assert np.isfinite(model.score_samples(data.test)).all()
    assert data.schema.modality == data.modality


def test_a_model_of_the_right_family_reaches_the_entropy():
    from densekit import GaussianMixture
    from densekit.datasets.toys import eight_gaussians

    data = eight_gaussians()
    model = GaussianMixture(n_components=8, random_state=0).fit(data.train)
    gap = data.truth.log_prob(data.test) - model.score_samples(data.test)
    assert -0.01 < gap.mean() < 0.03
