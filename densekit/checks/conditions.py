"""Draws under conditions on columns of the table, and cells that are filled in."""

from typing import Any

import numpy as np

from densekit.checks.marginals import takes_holes
from densekit.checks.mass import Axis
from densekit.checks.subject import MANY, Subject, check, expect, quiet

_N = 1000
_BINS = np.arange(1, 8) / 8
_APART = 0.15
"""Total variation, over eight bins of equal mass, between draws and the density. Of 1,000
independent draws chance makes 0.033, with a standard deviation of 0.009; the rest is room for weighted
candidates."""


def _draws_under_conditions(subject: Subject) -> bool:
    return takes_holes(subject) and hasattr(subject.estimator, "impute")


def _fit(subject: Subject) -> tuple[Any, np.ndarray, list[str]]:
    """A fit of three columns, their rows, and the names of the columns."""
    data = subject.load("columns3")
    with quiet():
        fitted = subject.fitted(data, MANY // 2)
    return fitted, data.X, [c.name for c in fitted.schema_.columns]


def _nodes(subject: Subject, fitted: Any, parts: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n, 3) of a grid, and the mass of each, (n,), that adds up to one; a part is a value, an
    interval, or an axis."""
    size = [200 if isinstance(p, Axis) else 60 if isinstance(p, tuple) else 1 for p in parts]
    places, slopes = [], []
    for part, n in zip(parts, size, strict=True):
        u = (np.arange(n) + 0.5) / n
        if isinstance(part, Axis):
            places.append(part.place(u))
            slopes.append(part.slope(u))
        elif isinstance(part, tuple):
            places.append(part[0] + (part[1] - part[0]) * u)
            slopes.append(np.ones(n))
        else:
            places.append(np.array([part]))
            slopes.append(np.ones(1))
    rows = np.stack([p.ravel() for p in np.meshgrid(*places, indexing="ij")], 1)
    volume = np.prod([s.ravel() for s in np.meshgrid(*slopes, indexing="ij")], axis=0)
    logp, _ = subject.log_density(fitted, rows)
    mass = np.exp(logp - logp.max()) * volume
    return rows, mass / mass.sum()


def _expect_law(
    draws: np.ndarray, nodes: np.ndarray, mass: np.ndarray, column: int, where: str
) -> None:
    """Draws (n,) of a column fill eight bins of equal mass."""
    order = np.argsort(nodes[:, column], kind="stable")
    place, each = nodes[order, column], mass[order]
    cuts = np.unique(place[np.searchsorted(np.cumsum(each), _BINS)])
    want = np.bincount(np.searchsorted(cuts, place), each, len(cuts) + 1)
    got = np.bincount(np.searchsorted(cuts, draws), minlength=len(cuts) + 1) / len(draws)
    apart = 0.5 * float(np.abs(got - want).sum())
    mean = float(place @ each)
    expect(
        apart < _APART,
        f"total variation below {_APART} between column {column} {where} and its density given the "
        f"others, of mean {mean:.4g}",
        f"{apart:.3f}, of mean {draws.mean():.4g}",
    )


@check(
    cause="one of several conditions is written over the draws and not conditioned on, an interval is "
    "reached by clipping, or the density of the other columns is that without conditions",
    when=_draws_under_conditions,
    chance=2e-9,
)
def draws_under_conditions_follow_the_scores(subject: Subject) -> None:
    """Under two values, and under a value and an interval, draws keep what was asked for, and the other
    columns are drawn by the density of full rows.

    Chance of a false alarm: the limit on the total variation is ten standard deviations and more.
    """
    fitted, X, names = _fit(subject)
    low, high = np.quantile(X[:, 1], [0.9, 0.98])
    first, second = float(np.median(X[:, 0])), float(np.quantile(X[:, 1], 0.95))
    axis = Axis.of(X[:, 2])
    with quiet():
        drawn = np.asarray(
            subject.draw(fitted, _N, context={names[0]: first, names[1]: second}), dtype=float
        )
    kept = np.allclose(drawn[:, :2], [first, second], rtol=1e-6)
    expect(kept, f"draws with the values {first:.6g} and {second:.6g}", f"{drawn[0, :2]}")
    rows, mass = _nodes(subject, fitted, [first, second, axis])
    _expect_law(drawn[:, 2], rows, mass, 2, "of draws under values of two columns")
    with quiet():
        drawn = np.asarray(
            subject.draw(fitted, _N, context={names[0]: first, names[1]: (low, high)}), dtype=float
        )
    inside = ((drawn[:, 1] >= low) & (drawn[:, 1] <= high)).mean()
    expect(inside == 1, f"draws from {low:.4g} to {high:.4g}", f"{inside:.1%} of them")
    rows, mass = _nodes(subject, fitted, [first, (low, high), axis])
    for column in (1, 2):
        _expect_law(drawn[:, column], rows, mass, column, "of draws under a value and an interval")


@check(
    cause="missing cells are filled with a mean, with draws that know nothing of the row, or known "
    "cells are changed",
    when=_draws_under_conditions,
    chance=1e-9,
)
def imputed_cells_follow_the_scores(subject: Subject) -> None:
    """Missing cells are filled with draws given the cells that the row has, which stay as they were.

    Chance of a false alarm: the limit on the total variation is ten standard deviations and more.
    """
    fitted, X, _ = _fit(subject)
    known = [
        float(np.quantile(column, q)) for column, q in zip(X.T, (0.5, 0.95, 0.1), strict=True)
    ]
    for hole in (2, 1):
        parts: list[Any] = list(known)
        parts[hole] = Axis.of(X[:, hole])
        missing = np.repeat(np.array([known]), _N, 0)
        missing[:, hole] = np.nan
        with quiet():
            filled = np.asarray(
                fitted.impute(missing, random_state=subject.seeded(2)), dtype=float
            )
        expect(np.isfinite(filled).all(), "no missing cell", f"{np.isnan(filled).sum()} of them")
        others = [j for j in range(3) if j != hole]
        same = bool((filled[:, others] == missing[:, others]).all())
        expect(same, "known cells as they were", "others")
        rows, mass = _nodes(subject, fitted, parts)
        _expect_law(filled[:, hole], rows, mass, hole, "of imputed cells")
