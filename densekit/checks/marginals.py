"""Holes in a row, and columns that are given: both are integrals of the density of full rows."""

import inspect
from typing import Any

import numpy as np

from densekit.checks.mass import Axis
from densekit.checks.subject import MANY, Subject, check, expect, quiet

_WITHIN = 0.05
"""Nats by which a marginal by quadrature may differ, beyond the errors that are stated."""


def takes_holes(subject: Subject) -> bool:
    """Whether NaN in a row is a cell that is missing, and integrated over."""
    from densekit.discovery import capabilities

    return (
        subject.ours and subject.scores and subject.takes("table")
        and bool(capabilities(subject.estimator).missing)
    )  # fmt: skip


def _takes_given(subject: Subject) -> bool:
    scores = getattr(type(subject.estimator), "score_samples", None)
    return (
        subject.scores and scores is not None and "given" in inspect.signature(scores).parameters
    )


def _fit(subject: Subject) -> tuple[Any, Any]:
    data = subject.load("columns3")
    with quiet():
        return data, subject.fitted(data, MANY // 2)


def integrated(subject: Subject, fitted: Any, rows: np.ndarray, holes: list[int]) -> np.ndarray:
    """Log of the density of rows (n, 3), integrated over the columns ``holes`` by the midpoint rule."""
    size = 400 if len(holes) == 1 else 48
    u = (np.arange(size) + 0.5) / size
    X = subject.load("columns3").X
    axes = [Axis.of(X[:, j]) for j in holes]
    places = np.meshgrid(*[axis.place(u) for axis in axes], indexing="ij")
    slopes = np.meshgrid(*[axis.slope(u) / size for axis in axes], indexing="ij")
    volume = np.prod([s.ravel() for s in slopes], axis=0)
    out = []
    for row in rows:
        full = np.repeat(row[None], len(volume), 0)
        for j, place in zip(holes, places, strict=True):
            full[:, j] = place.ravel()
        logp, _ = subject.log_density(fitted, full)
        out.append(float(np.log((np.exp(logp) * volume).sum())))
    return np.array(out)


@check(
    cause="a missing cell is filled with a mean or left out of the sum instead of integrated over",
    when=takes_holes,
    chance=1e-6,
)
def holes_are_integrated_out(subject: Subject) -> None:
    """Rows with one hole and with two score the integral of the density over these cells (quadrature).

    Chance of a false alarm: six standard errors of the score beyond 0.05 nats.
    """
    data, fitted = _fit(subject)
    rows = data.new[:4]
    for holes in ([0], [1], [2], [0, 2], [0, 1]):
        if subject.effort.name == "quick" and len(holes) > 1:
            break
        some = rows if len(holes) == 1 else rows[:2]
        missing = some.copy()
        missing[:, holes] = np.nan
        score, error = fitted.score_samples(missing, return_std=True)
        wanted = integrated(subject, fitted, some, holes)
        gap = np.abs(np.asarray(score, dtype=float) - wanted)
        allowed = _WITHIN + 6 * np.nan_to_num(np.asarray(error, dtype=float))
        i = int((gap / allowed).argmax())
        expect(
            (gap <= allowed).all(),
            f"{wanted[i]:.4f} +- {allowed[i]:.2g} nats with columns {holes} missing, the integral",
            f"{score[i]:.4f}",
        )


@check(
    cause="given= is read and not used, or the score is that of all columns",
    when=_takes_given,
    chance=1e-6,
)
def given_columns_obey_the_chain_rule(subject: Subject) -> None:
    """log p(x) is log p(given) + log p(rest | given), for each column and each pair of columns given;
    and p(rest | given) has mass one.

    Chance of a false alarm: six standard errors of the scores beyond 0.05 nats.
    """
    data, fitted = _fit(subject)
    rows = data.new[:12]
    whole, _ = subject.log_density(fitted, rows)
    for given in ([0], [1], [2], [0, 1], [0, 2], [1, 2]):
        missing = rows.copy()
        missing[:, [j for j in range(3) if j not in given]] = np.nan
        part, one = fitted.score_samples(missing, return_std=True)
        rest, two = fitted.score_samples(rows, given=given, return_std=True)
        errors = np.nan_to_num(np.asarray(one, dtype=float)) + np.nan_to_num(
            np.asarray(two, dtype=float)
        )
        gap = np.abs(whole - part - rest)
        allowed = 1e-3 + 6 * errors
        i = int((gap - allowed).argmax())
        expect(
            (gap <= allowed).all(),
            f"log p(x) = {whole[i]:.4f} from the parts with columns {given} given",
            f"{part[i]:.4f} + {rest[i]:.4f}",
        )
        moved = float(np.abs(np.asarray(rest, dtype=float) - whole).max())
        expect(moved > 1e-3, f"another score with columns {given} given than without", "the same")
    for column in range(3):
        given = [j for j in range(3) if j != column]
        axis, n = Axis.of(data.X[:, column]), 400
        u = (np.arange(n) + 0.5) / n
        nodes = np.repeat(rows[:1], n, 0)
        nodes[:, column] = axis.place(u)
        logp = np.asarray(fitted.score_samples(nodes, given=given), dtype=float)
        mass = float((np.exp(logp) * axis.slope(u) / n).sum())
        expect(abs(mass - 1) < 0.05, f"mass 1 of column {column} given the others", f"{mass:.4f}")
