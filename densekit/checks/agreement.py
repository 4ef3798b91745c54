"""Draws against scores in one to twelve columns, with the number of draws that the effort allows.

A fitted density p and its sampler should be one law. Where there is a transform, its inverse must make
standard normal noise of the draws, in any number of columns. Else means over draws are compared with
means under p, by importance sampling. Each mean is one that a defect moves most: squares for a
temperature, products for a correlation, waves for a density that is multiplied by one.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from densekit.checks.mass import slack_of
from densekit.checks.power import (
    Finding,
    can_be_averaged,
    finding,
    mean_of,
    two_means,
    weighted_mean,
)
from densekit.checks.sampled import Sampled, expected_of, features, sampled
from densekit.checks.subject import FEW, MANY, Subject, check, expect, quiet
from densekit.checks.tables import WIDTHS

_MAIN = 3
"""Columns of the sample that most draws go into."""
_EFFECTIVE = 400
"""Equal weights that the weights behind a mean must be worth."""
_TESTS = sum(8 * d + d * (d - 1) // 2 for d in WIDTHS)


def _tables(subject: Subject) -> bool:
    return subject.takes("table") and subject.scores


def _exact(subject: Subject) -> bool:
    return _tables(subject) and subject.density == "exact"


def samples(subject: Subject, widths: tuple[int, ...] = WIDTHS) -> Iterator[Sampled]:
    """The shared samples of each number of columns."""
    if subject.effort.name == "quick":
        widths = tuple(d for d in widths if d in (1, _MAIN))
    for d in sorted(widths, key=lambda d: d != _MAIN):
        data = subject.load(f"columns{d}")
        with quiet():
            fitted = subject.fitted(data, MANY // 4 if d == _MAIN else FEW)
        yield sampled(subject, fitted, data, 1.0 if d == _MAIN else 0.2)


def noise_of(made: Any, x: np.ndarray) -> np.ndarray:
    """The noise (n, d) that a transform makes of rows."""
    import torch

    with torch.no_grad():
        parts = [made.inv(torch.as_tensor(x[i : i + 2**17])) for i in range(0, len(x), 2**17)]
        z: np.ndarray = torch.cat(parts).double().numpy()
    return z


def noise_findings(z: np.ndarray, where: str) -> Iterator[Finding]:
    """Whether rows (n, d) are standard normal."""
    for what, f in features(z):
        yield mean_of(f"{what} {where}", f(z), expected_of(what))


def importance_findings(found: Sampled, where: str) -> Iterator[Finding]:
    """Whether draws have the means that the scores say."""
    x, weights = found.weighed[0], found.weights
    if not found.can_be_averaged:
        return
    ours, theirs = found.normal_scores(found.draws), found.normal_scores(x)
    for what, f in features(ours):
        terms = f(theirs)
        part = weights[terms != 0]
        # Few rows, or some of great weight, behind a mean: its standard error would be too small.
        if part.sum() ** 2 < _EFFECTIVE * (part**2).sum() or not can_be_averaged(part):
            continue
        mean, error = weighted_mean(weights, terms)
        own = f(ours)
        spread = own.std() / len(own) ** 0.5
        total = float(np.hypot(error, spread))
        part = weights * (terms - mean) / weights.mean()
        skewness = float((part**3).mean() / max((part**2).mean(), 1e-300) ** 1.5)
        yield finding(
            f"{what} {where}", float(own.mean()) - mean, total, min(len(own), len(x)),
            skewness=skewness * min(1.0, error / total) ** 3, slack=1e-9,
        )  # fmt: skip


_APART = (
    "sample and score_samples are of different laws: draws too cold or too warm, a correlation or a "
    "column left out on the way, an inverse of another map"
)


@check(cause=_APART, when=_exact, chance=_TESTS * 1e-8)
def draws_follow_scores_in_many_columns(subject: Subject) -> None:
    """Draws of 1 to 12 columns have the locations, temperatures, waves and correlations that the scores
    say: by importance sampling, or from ``transform_`` where that needs too many draws.

    Chance of a false alarm: 1e-8 for each of 277 means, corrected for their skewness.
    """
    for found in samples(subject):
        where = f"({found.d} columns)"
        results = list(importance_findings(found, where))
        made = subject.transform(found.fitted)
        if not results and made is not None:
            results = list(noise_findings(noise_of(made, found.draws), where))
        subject.judge(results, "draws that have the means of the scores")


@check(
    cause="draws are not made by the transform that is scored, or its noise is not standard normal: "
    "a temperature, another mean or scale of the base, columns that share noise",
    when=_tables,
    chance=_TESTS * 1e-8,
)
def noise_of_draws_is_standard_normal(subject: Subject) -> None:
    """The inverse of ``transform_`` makes independent standard normal columns of draws.

    Chance of a false alarm: 1e-8 for each of 277 means, corrected for their skewness.
    """
    for found in samples(subject):
        made = subject.transform(found.fitted)
        if made is None:
            return
        z = noise_of(made, found.draws)
        expect(np.isfinite(z).all(), "finite noise of draws", f"{(~np.isfinite(z)).sum()} others")
        subject.judge(noise_findings(z, f"({found.d} columns)"), "standard normal noise")


@check(
    cause="a normalizing constant is off by a little, or in more than two columns only; a part of the "
    "space is scored that has no mass, or the other way round",
    when=lambda s: _tables(s) and s.density in ("exact", "lower_bound"),
    chance=len(WIDTHS) * 1e-8,
)
def mass_is_one_in_many_columns(subject: Subject) -> None:
    """The mean of p/q over rows of a proposal q is one, in 1 to 12 columns; of a bound at most one.

    Chance of a false alarm: 1e-8 for each number of columns, corrected for the skewness of p/q. Where
    the largest ratios have a tail too heavy for a standard error, or draws have larger ratios than
    rows of q have, nothing is tested and the report says so. A bound may exceed a mass of one by four
    of its Monte Carlo standard errors, which rows do not average out: they share one bank of noise.
    """
    for found in samples(subject):
        error, weights = found.weighed[2], found.weights
        expect(not np.isnan(weights).any(), "no NaN", f"{np.isnan(weights).sum()} NaN scores")
        if not found.can_be_averaged:
            subject.note(
                f"mass in {found.d} columns not tested; rows of too unlike weights", len(weights)
            )
            continue
        n, spread = len(weights), float(weights.std())
        skewness = float((((weights - weights.mean()) / max(spread, 1e-300)) ** 3).mean())
        exact = subject.kind(found.fitted) == "exact"
        result = finding(
            f"mass in {found.d} columns, less one", float(weights.mean()) - 1, spread / n**0.5, n,
            skewness=skewness, sides=2 if exact else 1,
            slack=1e-6 if exact else 0.01 + slack_of(weights / n, error),
        )  # fmt: skip
        subject.judge([result], "mass 1" if exact else "mass of at most 1 of a bound")


@check(
    cause="draws share noise: with the draw before, between batches, between halves of a batch "
    "(antithetic ones), or a generator is seeded anew for each batch",
    when=lambda s: s.takes("table"),
    chance=10 * _MAIN * 1e-8,
)
def draws_are_independent(subject: Subject) -> None:
    """Draws do not depend on the draw one or two before, half the sample before, or in the same block;
    both halves have one law; no row is drawn twice.

    Chance of a false alarm: 1e-8 for each of 10 means of 3 columns, corrected for their skewness.
    """
    for found in samples(subject, (_MAIN,)):
        x = found.draws
        distinct = len(np.unique(keys_of(x)))
        expect(
            len(x) - distinct <= 1e-3 * len(x),
            f"{len(x)} distinct draws",
            f"{distinct} distinct ones",
        )
        known = [*independence(found.normal_scores(x)), *within_calls(found)]
        subject.judge(known, "draws that know nothing of one another")


def within_calls(found: Sampled, size: int = 16) -> Iterator[Finding]:
    """Dependence between the draws of one call of ``sample(size)``: draws that share an offset, or that
    are made to have the mean or the spread of the model."""
    calls = 400 if found.subject.effort.name == "standard" else 100
    made = [
        np.asarray(found.subject.draw(found.fitted, size, seed=50_000 + i), dtype=float)
        for i in range(calls)
    ]
    middle = found.normal_scores(found.draws).mean(0)
    blocks = np.stack([found.normal_scores(rows) - middle for rows in made])
    for j in range(found.d):
        for what, terms in (("", blocks[:, :, j]), ("of squares ", blocks[:, :, j] ** 2)):
            terms = terms - terms.mean()
            pairs = terms.sum(1) ** 2 - (terms**2).sum(1)
            yield mean_of(
                f"correlation {what}within calls of {size} in column {j}",
                pairs / (size * (size - 1)),
                unit=float(terms.var()) or 1.0,
            )


def keys_of(x: np.ndarray) -> np.ndarray:
    """A number for each row (n, d), equal for equal rows and unlike for others but for 1 in 10^19."""
    odd = np.random.default_rng(0).integers(1, 2**62, x.shape[1], dtype=np.uint64) * 2 + 1
    bits = np.ascontiguousarray(x + 0.0, dtype=np.float64).view(np.uint64).reshape(x.shape)
    bits = bits ^ (bits >> np.uint64(29))
    keys: np.ndarray = (bits * odd).sum(1, dtype=np.uint64)
    return keys


def independence(s: np.ndarray) -> Iterator[Finding]:
    """Dependence between rows (n, d) that should be independent, and unlike halves."""
    s = s - s.mean(0)
    n = len(s)
    for j, column in enumerate(s.T):
        unit = float(column.var()) or 1.0
        for lag in (1, 2, n // 2):
            yield mean_of(
                f"correlation with the draw {lag} before in column {j}",
                column[lag:] * column[:-lag],
                unit=unit,
            )
        for size in (16, 250):
            blocks = column[: n // size * size].reshape(-1, size)
            if len(blocks) < 30:
                continue
            terms = (blocks.sum(1) ** 2 / unit - size) / (size * (size - 1))
            yield mean_of(f"correlation within blocks of {size} in column {j}", terms)
        half = n // 2
        yield two_means(f"shift between halves in column {j}", column[:half], column[half:])
        yield two_means(
            f"temperature between halves in column {j}",
            column[:half] ** 2 / 2,
            column[half:] ** 2 / 2,
        )
