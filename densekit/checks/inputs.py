"""Bad and odd input: a clear error or a right answer, and nothing half-fitted left behind."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from sklearn.exceptions import NotFittedError

from densekit.checks.states import close
from densekit.checks.subject import Subject, check, expect, numeric, quiet, same


def _tables(subject: Subject) -> bool:
    return subject.takes("table")


def raised(act: Callable[[], Any]) -> Exception | None:
    """The error that ``act`` ends in, if it does."""
    try:
        with quiet():
            act()
    except Exception as error:
        return error
    return None


def expect_refusal(act: Callable[[], Any], what: str, *words: str) -> None:
    """A ValueError or TypeError whose message holds one of ``words``."""
    error = raised(act)
    got = "no error" if error is None else f"{type(error).__name__}: {error}"
    good = isinstance(error, ValueError | TypeError)
    expect(good, f"a ValueError or TypeError for {what}", got)
    names_cause = not words or any(word in str(error) for word in words)
    expect(names_cause, f"an error for {what} that mentions {' or '.join(words)}", got)


@check(cause="methods that do not begin with check_is_fitted")
def unfitted_says_so(subject: Subject) -> None:
    """Before fit every method raises ``NotFittedError``."""
    made = subject.fresh()
    actions: dict[str, Callable[[], Any]] = {"sample": partial(made.sample, 3)}
    if subject.scores:
        rows = subject.data.rows
        actions["score_samples"] = partial(made.score_samples, rows)
        if hasattr(made, "score"):
            actions["score"] = partial(made.score, rows)
    for name, act in actions.items():
        error = raised(act)
        got = type(error).__name__ if error else "no error"
        expect(isinstance(error, NotFittedError), f"NotFittedError from {name}", got)


@check(cause="input is not validated, so that NaN spreads into parameters or scores", when=_tables)
def nan_and_infinity_are_refused(subject: Subject) -> None:
    """NaN and infinity are refused by fit; scored rows with them are refused or get -inf."""
    data = subject.load("plane")
    fitted = subject.fitted(data)
    for value, words in ((np.nan, ("NaN", "nan", "missing")), (np.inf, ("inf", "Inf"))):
        X, rows = data.X.copy(), data.rows.copy()
        X[3, 1] = rows[3, 1] = value
        made = subject.fresh()
        if raised(partial(made.fit, X)) is None and subject.ours:
            finite = np.isfinite(numeric(subject.draw(made, 50))).all()
            missing = np.isnan(value) and _marginalizes(subject)
            expect(missing and finite, f"a ValueError for {value} in fit", "no error")
        else:
            expect_refusal(partial(made.fit, X), f"{value} in fit", *words)
        if not subject.scores:
            continue
        error = raised(partial(fitted.score_samples, rows))
        if error is None:
            score = float(np.asarray(fitted.score_samples(rows), dtype=float)[3])
            right = score == -np.inf or (np.isnan(value) and np.isfinite(score))
            expect(right, f"an error or -inf for a row with {value}", f"{score}")
        else:
            got = f"{type(error).__name__}: {error}"
            expect(isinstance(error, ValueError), f"a ValueError for {value}", got)


def _marginalizes(subject: Subject) -> bool:
    from densekit.discovery import capabilities

    return bool(capabilities(subject.estimator).missing)


@check(cause="widths are not compared with those of fit", when=lambda s: _tables(s) and s.scores)
def wrong_width_is_refused(subject: Subject) -> None:
    """Rows of another width, one-dimensional and three-dimensional arrays are refused."""
    data = subject.load("plane")
    fitted = subject.fitted(data)
    for rows in (data.rows[:, :1], np.c_[data.rows, data.rows], data.rows[:, 0], data.rows[None]):
        shape = rows.shape
        expect_refusal(partial(fitted.score_samples, rows), f"rows of shape {shape}")


@check(cause="no check of the number of rows")
def empty_and_single_rows(subject: Subject) -> None:
    """No rows are refused by fit; one row is refused, or fitted to give numbers."""
    for data in subject.each_modality:
        made = subject.fresh()
        expect_refusal(partial(made.fit, data.X[:0]), "no rows")
        error = raised(partial(made.fit, data.X[:1]))
        if error is None and data.modality != "text":
            finite = np.isfinite(numeric(subject.draw(made, 5))).all()
            expect(finite, "finite draws after one row, or a ValueError", "others")
        elif error is not None:
            got = f"{type(error).__name__}: {error}"
            expect(isinstance(error, ValueError), "a ValueError for one row", got)


@check(
    cause="division by a standard deviation of zero, or a floor under it in absolute units",
    when=_tables,
)
def constant_columns(subject: Subject) -> None:
    """A column that never varies is refused by name, or drawn back as it is."""
    X = subject.load("plane").X.copy()
    X[:, 0] = 5.0
    made = subject.fresh()
    error = raised(partial(made.fit, X))
    if error is not None:
        got = f"{type(error).__name__}: {error}"
        expect(isinstance(error, ValueError), "a ValueError for a constant column", got)
        return
    draws = numeric(subject.draw(made, 50))
    expect(np.isfinite(draws).all(), "finite draws", "others")
    spread = float(np.abs(draws[:, 0] - 5).max())
    expect(spread < 0.1, "draws of 5 in the column that is 5", f"up to {spread:.3g} off")
    if subject.scores:
        scores = np.asarray(made.score_samples(X[:9]), dtype=float)
        expect(np.isfinite(scores).all(), "finite scores with a constant column", f"{scores}")


@check(cause="object arrays are neither converted nor refused", when=_tables)
def object_arrays(subject: Subject) -> None:
    """Numbers in an object array are fitted as numbers or refused; words are refused by fit, or
    drawn back as words."""
    data = subject.load("plane")
    made = subject.fresh()
    error = raised(lambda: made.fit(data.X.astype(object)))
    if error is not None:
        got = f"{type(error).__name__}: {error}"
        expect(isinstance(error, ValueError | TypeError), "a ValueError or TypeError", got)
    elif subject.scores:
        a = subject.fitted(data).score_samples(data.rows)
        b = made.score_samples(data.rows.astype(object))
        expect(close(a, b, 5), "scores as for the same floats", f"{b} for {a}")
    if not subject.ours:
        words = data.X.astype(object)
        words[:, 0] = "word"
        expect_refusal(partial(made.fit, words), "words among numbers")


@check(
    cause="attributes are set before the input is found to be good, or the input is not checked"
)
def a_failed_fit_leaves_nothing(subject: Subject) -> None:
    """After a fit that was refused, the estimator is as it was: unfitted, or fitted as before."""
    data = subject.data
    bad: Any = [None, 3.5] if data.modality == "text" else data.X[:0]
    made = subject.fresh()
    expect_refusal(partial(made.fit, bad), "no rows")
    error = raised(partial(made.sample, 2))
    got = "a sample" if error is None else type(error).__name__
    expect(isinstance(error, NotFittedError), "NotFittedError after a failed fit", got)
    left = [k for k in vars(made) if k.endswith("_") and not k.startswith("_")]
    expect(not left or not subject.ours, "no fitted attributes after a failed fit", f"{left}")
    if subject.ours:
        fitted = copy.deepcopy(subject.fitted())
        before = subject.draw(fitted, 4)
        expect_refusal(partial(fitted.fit, bad), "no rows")
        kept = same(before, subject.draw(fitted, 4))
        expect(kept, "the earlier fit kept after a failed one", "another")


@check(
    cause="hyper-parameters are not checked, or checked without their name", when=lambda s: s.ours
)
def wrong_hyper_parameters_are_named(subject: Subject) -> None:
    """A hyper-parameter of the wrong kind or value is refused by fit, by name."""
    data = subject.data
    for name, value in (("device", "abacus"), ("dtype", "int3"), ("random_state", "seven"),
                        ("random_state", -1)):  # fmt: skip
        made = subject.fresh().set_params(**{name: value})
        expect_refusal(partial(made.fit, data.X), f"{name}={value!r}", name)
    for name, default in subject.params.items():
        if isinstance(default, int | float) and not isinstance(default, bool):
            made = subject.fresh().set_params(**{name: "many"})
            error = raised(partial(made.fit, data.X))
            names_cause = isinstance(error, ValueError | TypeError) and name in str(error)
            expect(names_cause, f"an error that names {name}='many'", repr(error))
