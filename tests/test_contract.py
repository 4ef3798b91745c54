"""Every estimator that the package has, against every check of the contract that applies to it."""

import pytest

import densekit
from densekit.checks import check_id, density_checks

PAIRS = [pair for kind in densekit.all_estimators().values() for pair in density_checks(kind())]


@pytest.mark.parametrize(("estimator", "check"), PAIRS, ids=check_id)
def test_contract(estimator, check, device):
    check(estimator.set_params(device=device))
