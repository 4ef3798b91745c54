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

Checks are seeded: one that fails fails again. ``check(estimator, seed=1)`` is another repetition, with
other data, fits and draws, and ``check.chance`` bounds how often a correct estimator fails it.
"""

from typing import Any

from densekit.checks import (
    agreement,
    batches,
    draws,
    images,
    inputs,
    mass,
    parameters,
    roundtrips,
    shapes,
    states,
)
from densekit.checks.subject import CHECKS, Check, Subject

__all__ = ["Check", "check_density_estimator", "check_id", "density_checks"]

_FIRST = states.fit_returns_self


def density_checks(estimator: Any) -> list[tuple[Any, Check]]:
    """The checks that apply to ``estimator``, each as a pair ``(estimator, check)``.

    Parameters
    ----------
    estimator : object
        An instance; its own hyper-parameters are used, with fits cut short.

    Returns
    -------
    pairs : list of (estimator, check)
        ``check(estimator)`` returns None or raises an ``AssertionError``.
    """
    subject = Subject(estimator)
    return [(estimator, check) for check in CHECKS if check.applies(subject)]


def check_density_estimator(estimator: Any) -> None:
    """Run every check that applies to ``estimator``.

    Raises
    ------
    TypeError
        ``estimator`` is a class and not an instance.
    AssertionError
        One error naming every check that failed: what was expected, what came, and what usually
        causes it.
    """
    if isinstance(estimator, type):
        raise TypeError(
            f"check_density_estimator takes an instance: pass {estimator.__name__}(), whose "
            "hyper-parameters are used, and not the class"
        )
    try:
        _FIRST(estimator)
    except AssertionError as error:
        raise AssertionError(f"{error}\nNo other check was run.") from error
    failures, count = [], 0
    for _, check in density_checks(estimator):
        count += 1
        try:
            check(estimator)
        except AssertionError as error:
            failures.append(str(error))
    if failures:
        listed = "\n".join(f"- {failure}" for failure in failures)
        raise AssertionError(
            f"{type(estimator).__name__} fails {len(failures)} of {count} checks:\n{listed}"
        )


def check_id(value: Any) -> str:
    """A readable id for pytest: the class of the estimator, or the name of the check."""
    return value.name if isinstance(value, Check) else type(value).__name__


_MODULES = (mass, draws, agreement, batches, roundtrips, images, states, parameters, shapes, inputs)
"""Importing them puts their checks on the list."""
