"""What a failure says: the expected value, the size of the defect, and a cause that fits it."""

import re

import own_mutants
import power_mutants
import pytest
import subtle_contexts

from densekit.checks import density_checks

_ABOUT_CONTEXTS = (
    "conditional_draws_follow_the_context",
    "draws_follow_scores_under_contexts",
    "each_column_of_the_context_counts",
    "transforms_there_and_back_under_contexts",
)


def failures(estimator, names=_ABOUT_CONTEXTS):
    """What the checks of these names say that the estimator fails."""
    stated = []
    for _, check in density_checks(estimator):
        if check.name in names:
            try:
                check(estimator)
            except AssertionError as error:
                stated.append(str(error))
    return stated


@pytest.mark.parametrize(
    "broken",
    [
        subtle_contexts.WrongInverseUnderContext(),
        subtle_contexts.InverseForgetsContext(),
        power_mutants.make(power_mutants.NineTenthsOfTheContext),
    ],
    ids=lambda broken: type(broken).__name__,
)
def test_a_sampler_that_uses_the_context_in_another_way_is_not_said_to_miss_it(broken):
    stated = failures(broken)
    assert stated
    assert not [text for text in stated if "does not reach the sampler" in text]


@pytest.mark.parametrize(
    "broken",
    [
        subtle_contexts.ContextIgnoredInDraws(),
        power_mutants.make(power_mutants.SamplerIgnoresTheSecondContext),
    ],
    ids=lambda broken: type(broken).__name__,
)
def test_a_sampler_that_misses_a_column_of_the_context_is_said_to(broken):
    stated = failures(broken)
    assert [text for text in stated if "does not reach the sampler" in text]


def test_draws_of_the_context_of_another_row_are_said_to_be():
    broken = own_mutants.make(own_mutants.DrawsOfAnotherContext)
    (text,) = failures(broken, ("conditional_draws_follow_the_context",))
    assert "the context of another row" in text
    assert "does not reach" not in text


@pytest.mark.parametrize(
    ("broken", "name", "size"),
    [
        (power_mutants.ThreePercentTooCold(), "draws_follow_scores_in_many_columns", -0.03),
        (power_mutants.OnePercentTooMuchMass(), "mass_is_one_in_many_columns", 0.01),
    ],
)
def test_a_failure_states_the_size_of_the_defect(broken, name, size):
    (text,) = failures(broken, (name,))
    found = re.search(
        r"got .+?: ([+-][\d.]+) of \d+ \(smallest seen with 99 % power [\d.]+\)", text
    )
    assert float(found[1]) == pytest.approx(size, abs=0.01)
