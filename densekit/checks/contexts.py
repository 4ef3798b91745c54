"""Draws and scores under contexts of several columns, with another one in each row."""

from collections.abc import Iterator

import numpy as np

from densekit.checks.agreement import noise_findings, noise_of
from densekit.checks.power import Finding, finding, mean_of, weighted_mean
from densekit.checks.sampled import Sampled, context_features, sampled
from densekit.checks.subject import (
    MANY,
    OTHER_MAP,
    Subject,
    cause_under_context,
    check,
    expect,
)
from densekit.checks.tables import CONTEXTS

_FEATURES = ("first", "second", "group middle", "group high")
"""Names of the columns of ``context_features``."""


def _conditional(subject: Subject) -> bool:
    return subject.scores and subject.context == "features" and subject.takes("table")


def _sample(subject: Subject) -> Sampled:
    data = subject.load("contextual")
    return sampled(subject, subject.fitted(data, MANY // 2), data, 0.5)


def _standard(features: np.ndarray) -> np.ndarray:
    out: np.ndarray = (features - features.mean(0)) / features.std(0)
    return out


def _under_transform(found: Sampled, n: int) -> Iterator[Finding]:
    given = found.draws_given.iloc[:n].reset_index(drop=True)
    made = found.subject.transform(found.fitted, given)
    if made is None:
        return
    z = noise_of(made, found.draws[:n])
    yield from noise_findings(z, "under contexts")
    for k, column in enumerate(_standard(context_features(given)).T):
        for j in range(z.shape[1]):
            what = f"correlation of the noise of column {j} with context {_FEATURES[k]}"
            yield mean_of(what, z[:, j] * column)


def _by_importance(found: Sampled) -> Iterator[Finding]:
    x, weights = found.weighed[0], found.weights
    if not found.can_be_averaged:
        return
    spread = float(weights.std())
    skewness = float((((weights - weights.mean()) / max(spread, 1e-300)) ** 3).mean())
    n = len(weights)
    yield finding(
        "mass under contexts, less one", float(weights.mean()) - 1, spread / n**0.5, n,
        skewness=skewness, slack=1e-6,
    )  # fmt: skip
    ours, theirs = found.normal_scores(found.draws), found.normal_scores(x)
    one = _standard(context_features(found.draws_given))
    two = _standard(context_features(found.weighed_given))
    for k in range(one.shape[1]):
        for j in range(found.d):
            own = ours[:, j] * one[:, k]
            mean, error = weighted_mean(weights, theirs[:, j] * two[:, k])
            total = float(np.hypot(error, own.std() / len(own) ** 0.5))
            what = f"correlation of column {j} with context {_FEATURES[k]}"
            yield finding(
                what, float(own.mean()) - mean, total, min(n, len(own)), skewness=skewness / 8
            )


@check(
    cause=OTHER_MAP,
    when=lambda s: _conditional(s) and s.density == "exact",
    chance=(17 + 8 + 9) * 1e-8,
)
def draws_follow_scores_under_contexts(subject: Subject) -> None:
    """Given two numbers and a category, another one for each row, draws have the correlation with each
    that the scores say, and the noise that ``transform_`` makes of them has none.

    Chance of a false alarm: 1e-8 for each of 34 means, corrected for their skewness.
    """
    found = _sample(subject)
    slopes = _slopes(found.draws, found.draws_given)
    wanted = _slopes(found.data.X, found.data.context)
    shares = (slopes * wanted).sum(1) / (wanted**2).sum(1)
    results = list(_by_importance(found))
    subject.judge(
        [*results, *_under_transform(found, min(len(found.draws), 2**16))],
        "draws that depend on each column of the context as the scores do",
        cause_under_context(float(min(shares, key=abs))),
    )


def _slopes(x: np.ndarray, given: object) -> np.ndarray:
    """Standardized coefficients (k, d) of columns on the features of the contexts."""
    features = _standard(context_features(given))
    design = np.column_stack([np.ones(len(x)), features])
    out: np.ndarray = np.linalg.lstsq(design, (x - x.mean(0)) / x.std(0), rcond=None)[0][1:]
    return out


@check(
    cause="a column of the context is dropped or encoded as a constant: one of several, or a category",
    when=_conditional,
    chance=4 * 1e-8 + 1e-9,
)
def each_column_of_the_context_counts(subject: Subject) -> None:
    """Held-out rows score worse when one column of the context is that of other rows, and draws
    depend on each column as the data do.

    Chance of a false alarm: below 1e-9 once the data have been learned; the columns are worth half a nat
    each.
    """
    found = _sample(subject)
    data, fitted = found.data, found.fitted
    n = subject.few(len(data.new))
    rows, given = data.new[:n], data.new_context.iloc[:n].reset_index(drop=True)
    base, _ = subject.log_density(fitted, rows, context=given)
    order = np.random.default_rng(subject.seeded(4)).permutation(n)
    for name in CONTEXTS:
        other = given.copy()
        other[name] = given[name].iloc[order].array
        moved, _ = subject.log_density(fitted, rows, context=other)
        finite = np.isfinite(base)
        # Nats beyond 20 a row say no more than 20 do, and would only widen the error.
        loss = np.clip(base - moved, -20, 20)[finite]
        result = mean_of(f"nats a row that context {name} is worth", loss)
        expect(
            result.effect > max(result.limit, 0.02),
            f"rows to score {result.limit:.2g} nats worse under the context {name} of other rows",
            f"{result.effect:+.3g} nats",
        )
        subject.note(f"{result.what} ({result.effect:.2g}); rows compared", int(finite.sum()))
    wanted, got = _slopes(data.X, data.context), _slopes(found.draws, found.draws_given)
    ratio = (got * wanted).sum(1) / (wanted**2).sum(1)
    for name, part in zip(_FEATURES, ratio, strict=True):
        expect(
            0.5 < part < 1.6,
            f"draws that depend on context {name} as the data do, within half",
            f"{part:.2f} of it",
            cause_under_context(float(part)),
        )
