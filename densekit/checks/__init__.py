"""The contract of a density estimator, as checks that anyone can run on anything.

>>> from densekit.checks import check_density_estimator
>>> from sklearn.neighbors import KernelDensity
>>> try:
...     check_density_estimator(KernelDensity())
... except AssertionError as error:
...     "score_is_the_mean" in str(error)
True

One test per check, with pytest::

    @pytest.mark.parametrize(("estimator", "check"), density_checks(MyDensity()), ids=check_id)
    def test_contract(estimator, check):
        check(estimator)

An estimator needs ``fit(X)``, ``sample(n_samples, random_state=...)`` and ``score_samples(X)`` by
scikit-learn's conventions. One that is no :class:`densekit.DensityEstimator` claims nothing about
itself and is taken to be an exact density over tables of numbers. Without ``get_params`` it is copied
instead of cloned, and should be handed over unfitted.

``check_density_estimator`` returns a :class:`Report` of the smallest defects that its draws would have
shown; ``effort="thorough"`` takes more of them, ``"quick"`` fewer.

Checks are seeded: one that fails fails again. ``check(estimator, seed=1)`` is another repetition, with
other data, fits and draws, and ``check.chance`` bounds how often a correct estimator fails it.
"""

from typing import Any

from densekit.checks import (
    agreement,
    batches,
    conditions,
    contexts,
    draws,
    images,
    inputs,
    marginals,
    mass,
    parameters,
    roundtrips,
    shapes,
    states,
    supports,
    tails,
)
from densekit.checks.power import Finding
from densekit.checks.report import Report
from densekit.checks.subject import CHECKS, Check, Subject

__all__ = ["Check", "Finding", "Report", "check_density_estimator", "check_id", "density_checks"]

_FIRST = states.fit_returns_self


def density_checks(estimator: Any, effort: str = "standard") -> list[tuple[Any, Check]]:
    """The checks that apply to ``estimator``, each as a pair ``(estimator, check)``.

    Parameters
    ----------
    estimator : object
        An instance; its own hyper-parameters are used, with fits cut short.
    effort : {"quick", "standard", "thorough"}
        How many draws and rows statistical checks take, by what one costs: for 0.03, 2 or 30 seconds
        a sample, a third of it where there are optimizer steps. ``"quick"`` leaves out another
        process and columns beyond the third.

    Returns
    -------
    pairs : list of (estimator, check)
        ``check(estimator)`` returns what it found, or raises an ``AssertionError``.
    """
    subject = Subject(estimator)
    slow = {"saved_and_loaded_in_a_new_process"} if effort == "quick" else set()
    return [
        (estimator, check.at(effort))
        for check in sorted(CHECKS, key=_place)
        if check.applies(subject) and check.name not in slow
    ]


def check_density_estimator(estimator: Any, effort: str = "standard") -> Report:
    """Run every check that applies to ``estimator``.

    Parameters
    ----------
    estimator : object
        An instance.
    effort : {"quick", "standard", "thorough"}
        As for :func:`density_checks`.

    Returns
    -------
    report : Report
        What was estimated, and the smallest defects that would have been seen with 99 % power.

    Raises
    ------
    TypeError
        ``estimator`` is a class and not an instance.
    ValueError
        ``effort`` is none of the three.
    AssertionError
        One error naming every check that failed: what was expected, what came, how large the defect
        is, and what usually causes it.
    """
    if isinstance(estimator, type):
        raise TypeError(
            f"check_density_estimator takes an instance: pass {estimator.__name__}(), whose "
            "hyper-parameters are used, and not the class"
        )
    try:
        _FIRST.at(effort)(estimator)
    except AssertionError as error:
        raise AssertionError(f"{error}\nNo other check was run.") from error
    failures, count, chance = [], 0, 0.0
    findings: dict[str, tuple[Finding, ...]] = {}
    for _, check in density_checks(estimator, effort):
        count, chance = count + 1, chance + check.chance
        try:
            findings[check.name] = check(estimator)
        except AssertionError as error:
            failures.append(str(error))
    if failures:
        listed = "\n".join(f"- {failure}" for failure in failures)
        raise AssertionError(
            f"{type(estimator).__name__} fails {len(failures)} of {count} checks:\n{listed}"
        )
    return Report(type(estimator).__name__, effort, count, chance, findings)


def check_id(value: Any) -> str:
    """A readable id for pytest: the class of the estimator, or the name of the check."""
    return value.name if isinstance(value, Check) else type(value).__name__


_MODULES = (
    mass, tails, supports, draws, agreement, batches, contexts, marginals, conditions, roundtrips,
    images, states, parameters, shapes, inputs,
)  # fmt: skip
"""Importing them puts their checks on the list; in the order of what a density is before what an
estimator should do."""
_PLACES = {module.__name__: place for place, module in enumerate(_MODULES)}


def _place(check: Check) -> int:
    return _PLACES.get(check.function.__module__, len(_PLACES))
