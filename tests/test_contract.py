"""Every estimator that the package has, against every check of the contract that applies to it.

Models are small and efforts ``quick``. With ``--slow`` they have their own defaults and the efforts are
``standard``, as users have them.
"""

from small_models import QUICK

import densekit
from densekit.checks import check_id, density_checks


def pytest_generate_tests(metafunc):
    if "check" not in metafunc.fixturenames:
        return
    slow = metafunc.config.getoption("--slow")
    # The list is that of standard: quick leaves out another process, which the tests share.
    pairs = [
        (estimator, check if slow else check.at("quick"))
        for name, kind in densekit.all_estimators().items()
        for estimator, check in density_checks(kind(**({} if slow else QUICK.get(name, {}))))
    ]
    metafunc.parametrize(("estimator", "check"), pairs, ids=check_id)


def test_contract(estimator, check, device):
    check(estimator.set_params(device=device))


def test_small_models_are_models():
    assert set(QUICK) <= set(densekit.all_estimators())
