"""Results of the contract suite on estimators of other libraries."""

import numpy as np
import pytest
from foreign_mutants import Normal
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity

from densekit.checks import check_density_estimator, check_id, density_checks

UNITS, STYLE = "moves_with_the_units", {"frames_come_back_as_frames"}
FAILS = {
    # A bandwidth and a start have the units of the data; draws of a constant column are smeared by
    # the bandwidth; score is a sum; bandwidth_ is set before X is looked at; sample with
    # random_state=None draws from NumPy's global generator.
    KernelDensity: STYLE
    | {
        UNITS,
        "constant_columns",
        "score_is_the_mean",
        "a_failed_fit_leaves_nothing",
        "global_generators_are_left_alone",
    },
    # k-means starts by distances between raw rows; sample takes no seed and gives labels too;
    # float32 rows are fitted in float32.
    GaussianMixture: STYLE
    | {
        UNITS,
        "draws_have_the_shape_asked_for",
        # Draws come sorted by component.
        "draws_are_independent",
        "the_law_of_a_row_does_not_depend_on_n",
        "scores_do_not_depend_on_the_dtype",
        "global_generators_are_left_alone",
    },
}


class Plain:
    """Nothing but fit, score_samples and sample: no parameters, no score, no seed, no checks."""

    def __init__(self, width=1.0):
        self.width = width

    def fit(self, X):
        X = np.asarray(X, dtype=float)
        self.mean, self.scale = X.mean(0), X.std(0) * self.width
        return self

    def score_samples(self, X):
        z = (np.asarray(X, dtype=float) - self.mean) / self.scale
        return (-0.5 * z**2 - np.log(self.scale) - 0.5 * np.log(2 * np.pi)).sum(1)

    def sample(self, n_samples=1):
        rng = np.random.default_rng()
        return rng.normal(self.mean, self.scale, (n_samples, len(self.mean)))


def failing(estimator):
    names = set()
    for _, check in density_checks(estimator):
        try:
            check(estimator)
        except AssertionError:
            names.add(check.name)
    return names


@pytest.mark.parametrize("kind", FAILS, ids=lambda kind: kind.__name__)
def test_scikit_learn_fails_these_checks_and_no_other(kind):
    settings = {"bandwidth": 0.3} if kind is KernelDensity else {"n_components": 2}
    assert failing(kind(**settings)) == FAILS[kind]


def test_three_methods_are_enough_to_be_checked():
    failed = failing(Plain())
    # What a density is, it is; what scikit-learn's conventions ask, it lacks.
    assert {"unfitted_says_so", "draws_follow_the_seed", "nan_and_infinity_are_refused"} <= failed
    mathematics = ("integrates", "draws_follow_scores", "importance", "moves", "never", "scores")
    assert not [name for name in failed if name.startswith(mathematics)]


def test_fits_of_unlike_instances_without_parameters_are_not_mixed_up():
    name = "draws_resemble_the_data"
    right, wrong = Plain(), Plain(width=9.0)
    check = {c.name: c for _, c in density_checks(right)}[name]
    check(right)
    with pytest.raises(AssertionError, match=name):
        check(wrong)


def test_one_error_names_every_failed_check():
    with pytest.raises(AssertionError) as caught:
        check_density_estimator(KernelDensity(bandwidth=0.3))
    message = str(caught.value)
    assert message.startswith(f"KernelDensity fails {len(FAILS[KernelDensity])} of ")
    assert all(f"\n- KernelDensity fails {name}: " in message for name in FAILS[KernelDensity])


def test_an_estimator_that_cannot_fit_gets_one_line():
    class Stuck(Normal):
        def fit(self, X, y=None):
            raise NotFittedError("no")

    with pytest.raises(AssertionError, match="No other check was run"):
        check_density_estimator(Stuck())


def test_a_class_instead_of_an_instance_is_an_error():
    with pytest.raises(TypeError, match=r"pass KernelDensity\(\)"):
        check_density_estimator(KernelDensity)


def test_ids_are_readable():
    assert check_id(density_checks(Normal())[0][0]) == "Normal"
    assert all(check_id(check).isidentifier() for _, check in density_checks(Normal()))
