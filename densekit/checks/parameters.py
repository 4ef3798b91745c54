"""Parameters that are set after ``fit``, and weights of rows."""

import copy
import typing
import warnings
from typing import Any

import numpy as np
from sklearn.base import clone

from densekit.checks.data import take
from densekit.checks.states import expect_twin
from densekit.checks.subject import Subject, check, expect, quiet, same
from densekit.params import check_parameters, words_of


@check(
    cause="a parameter of drawing or scoring that _build puts into the module, and nothing reads "
    "afterward: name it in _at_once, and hand it to the module in _distribution",
    when=lambda s: s.ours,
)
def parameters_set_after_fit_act_or_are_warned_of(subject: Subject) -> None:
    """A parameter that is set after ``fit`` acts at the next call, or the call warns of it by name and
    uses the model as it was fitted; it is passed over only where a new fit would change nothing."""
    data = subject.data
    before = _outcome(subject, subject.fitted(data), data)
    free = {*subject.estimator._names_of_fit(), "device", "max_length"}
    for name in sorted(set(subject.params) - free):
        value = other_value(subject.fitted(data), name)
        if value is None:
            continue
        changed = copy.deepcopy(subject.fitted(data)).set_params(**{name: value})
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            after = _outcome(subject, changed, data)
        if any(name in str(w.message) for w in caught):
            expect(
                same(before, after), f"the fitted model where {name} waits for a fit", "another"
            )
        elif same(before, after):
            anew = _outcome(subject, subject.fitted(data, **{name: value}), data)
            wanted = f"{name}={value!r}, set after fit, to act or to be warned of, as a new fit obeys it"
            expect(same(before, anew), wanted, "the same scores and draws, silently")


def _outcome(subject: Subject, fitted: Any, data: Any) -> list[Any]:
    scores = [fitted.score_samples(data.rows)] if subject.scores else []
    return [*scores, subject.draw(fitted, 9, seed=5)]


def other_value(estimator: Any, name: str) -> Any:
    """Another legal value of a parameter; None where none is found.

    Examples
    --------
    >>> from densekit import VAE
    >>> other_value(VAE(), "hidden_sizes"), other_value(VAE(), "activation")
    ((129, 128), 'elu')
    """
    value, hint = (
        getattr(estimator, name),
        typing.get_type_hints(type(estimator), include_extras=True),
    )
    candidates: list[Any] = list(words_of(hint[name]))
    if isinstance(value, bool):
        candidates = [not value]
    elif isinstance(value, int):
        candidates += [value + 1, value - 1]
    elif isinstance(value, float):
        candidates += [0.8 * value, 1.2 * value, 0.5]
    elif isinstance(value, tuple) and value and isinstance(value[0], int | float):
        candidates += [(value[0] + 1, *value[1:]), (0.5 * value[0] + 0.1, *value[1:])]
    else:
        candidates += [3, 0.5, True]
    for candidate in candidates:
        if same(candidate, value):
            continue
        try:
            check_parameters(clone(estimator).set_params(**{name: candidate}))
        except (TypeError, ValueError):
            continue
        return candidate
    return None


@check(
    cause="weights that _fit does not read, or rows of weight zero that something before it does",
    when=lambda s: s.ours,
)
def weights_count_and_rows_of_weight_zero_do_not(subject: Subject) -> None:
    """A fit with weights is that of the rows of positive weight, and not that without weights; a model
    that takes no weights refuses them by name."""
    data = subject.data
    place = np.arange(len(data.X))
    weights = np.where(place % 3 > 0, 1.0 + place % 2, 0.0)
    made = subject.fresh()
    if not made._capabilities.weights:
        try:
            made.fit(data.X, sample_weight=weights)
        except ValueError as error:
            named = subject.name in str(error) and "sample_weight" in str(error)
            expect(named, f"an error that names {subject.name} and sample_weight", str(error))
            return
        expect(False, "a ValueError for sample_weight", "none")
    kept = np.flatnonzero(weights)
    rows = take(data.X, kept)
    with quiet():
        whole = made.fit(data.X, sample_weight=weights)
        few = subject.fresh().fit(rows, sample_weight=weights[kept])
        plain = subject.fresh().fit(rows)
    expect_twin(subject, whole, few, data, "without the rows of weight zero")
    ignored = same(_outcome(subject, few, data), _outcome(subject, plain, data))
    expect(not ignored, "other scores or draws with weights than without", "the same")
