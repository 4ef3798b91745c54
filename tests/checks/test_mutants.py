"""Each broken estimator is caught by the check that is meant for it; correct ones pass."""

import re

import foreign_mutants
import own_mutants
import power_mutants
import pytest
import subtle
from foreign_mutants import Normal

from densekit.checks import check_id, density_checks
from densekit.checks.subject import CHECKS

MEANT = [(kind(), name) for kind, name in foreign_mutants.MEANT.items()]
MEANT += [(own_mutants.make(kind), name) for kind, name in own_mutants.MEANT.items()]


def ids(value):
    return value if isinstance(value, str) else type(value).__name__


@pytest.mark.parametrize(("estimator", "check"), density_checks(Normal()), ids=check_id)
def test_a_correct_estimator_of_someone_else_passes(estimator, check):
    check(estimator)


@pytest.mark.parametrize(("broken", "name"), MEANT, ids=ids)
def test_a_broken_estimator_is_caught_by_the_check_meant_for_it(broken, name):
    checks = {check.name: check for _, check in density_checks(broken)}
    with pytest.raises(AssertionError) as caught:
        checks[name](broken)
    # What was expected, what came, and what usually causes it.
    kind = type(broken).__name__
    text = rf"(?s){kind} fails {name}: expected .+; got .+\. Usual cause: .+"
    assert re.fullmatch(text, str(caught.value))


def test_each_check_has_a_mutant_that_it_is_meant_for():
    # The one about devices runs where there is a GPU only.
    meant = {name for _, name in MEANT}
    meant |= {*power_mutants.MEANT.values(), *subtle.MEANT.values()}
    without = {check.name for check in CHECKS} - meant
    assert without == {"scores_do_not_depend_on_the_device"}
