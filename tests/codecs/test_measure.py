"""Measures and descriptions of columns, printed in words."""

import numpy as np
import pandas as pd

import densekit


def test_measures_and_descriptions_print_in_words():
    X = pd.DataFrame({"a": np.linspace(0, 1, 60) ** 2, "b": np.arange(60) % 2 == 0})
    description = densekit.describe(X)
    assert repr(description) == "Description(a: real; b: boolean, levels False, True)"
    measure = densekit.Gaussian(columns=description).fit(X).measure_
    assert repr(measure) == "Measure('a: Lebesgue; b: counting')"
