"""scikit-learn's own checks on every estimator that takes tables. Failures are expected of the checks of
weights alone, of models that refuse weights."""

import pytest
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

import densekit
from densekit.checks import check_id

# In double precision, since check_methods_sample_order_invariance asks for 1e-9 whatever the dtype:
# one unit in the last place of float32 is 1e-7, and vector instructions round a row by its place.
CHEAP = {"max_steps": 5, "device": "cpu"}
ESTIMATORS = [
    kind(**{k: v for k, v in CHEAP.items() if k in kind._names()})
    for kind in densekit.all_estimators(modality="table").values()
]
# Public checks that parametrize_with_checks leaves out and that apply to any estimator.
LEFT_OUT = ("check_dataframe_column_names_consistency", "check_n_features_in_after_fitting")
OF_WEIGHTS = [
    name
    for name in vars(estimator_checks)
    if name.startswith("check_") and "sample_weight" in name
]


def expected_failures(estimator):
    """Checks that ask for weights, of a model whose ``fit`` refuses them."""
    takes = estimator._capabilities.weights
    return {} if takes else dict.fromkeys(OF_WEIGHTS, "fit refuses sample_weight by name")


@parametrize_with_checks(ESTIMATORS, expected_failed_checks=expected_failures)
def test_sklearn_estimator_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("name", LEFT_OUT)
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=check_id)
def test_sklearn_checks_left_out(estimator, name):
    getattr(estimator_checks, name)(type(estimator).__name__, estimator)
