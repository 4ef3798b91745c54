import numpy as np
import pytest

from densekit import SylvesterFlow


@pytest.mark.parametrize("n_columns", [1, 2, 5])
def test_sylvester_takes_no_more_units_than_there_are_columns(n_columns):
    flow = SylvesterFlow(n_transforms=6, max_steps=1, n_units=3).fit(
        np.random.default_rng(0).normal(size=(30, n_columns))
    )
    assert flow.module_.transform.transforms[1].n_units == min(3, n_columns)


def test_sylvester_names_a_wrong_number_of_units():
    with pytest.raises(ValueError, match="n_units"):
        SylvesterFlow(n_units=0).fit(np.eye(4))
