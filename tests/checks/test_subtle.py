"""Estimators that are broken by little, or where few look, are caught by the checks meant for them."""

import inspect

import pytest
import subtle
import subtle_contexts
import subtle_draws
import subtle_holes
import subtle_scores
import subtle_tables

from densekit.checks import density_checks

MODULES = (subtle_contexts, subtle_draws, subtle_holes, subtle_scores, subtle_tables)
BASES = {
    "Affine", "Bigram", "Linear", "Noisy", "Rescored", "RemembersRows", "Small", "Table", "Transformed",
}  # fmt: skip


def ids(value):
    return value if isinstance(value, str) else value.__name__


@pytest.mark.parametrize(("broken", "name"), subtle.MEANT.items(), ids=ids)
def test_a_subtle_mutant_is_caught_by_the_check_meant_for_it(broken, name):
    checks = {check.name: check for _, check in density_checks(broken())}
    with pytest.raises(AssertionError, match=name):
        checks[name](broken())


def test_each_subtle_mutant_has_a_check_or_a_reason_why_it_has_none():
    made = {
        kind
        for module in MODULES
        for name, kind in vars(module).items()
        if inspect.isclass(kind) and kind.__module__ == module.__name__
        if not name.startswith("_") and name not in BASES
    }
    assert made == set(subtle.MEANT) | set(subtle.UNSEEN)
    assert not set(subtle.MEANT) & set(subtle.UNSEEN)


def test_each_subtle_mutant_says_what_is_wrong_with_it():
    assert all("__doc__" in vars(kind) and kind.__doc__ for kind in subtle.MEANT)
