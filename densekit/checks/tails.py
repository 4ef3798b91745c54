"""Scores far from the data, and in other units."""

import numpy as np

from densekit.checks.data import join
from densekit.checks.subject import FEW, MANY, Subject, check, expect, numeric


def _tables(subject: Subject) -> bool:
    return subject.scores and subject.takes("table")


@check(cause="the sign of the score or of a term in it is flipped", when=_tables)
def scores_fall_off(subject: Subject) -> None:
    """Rows of the data score better than the same rows moved eight standard deviations away."""
    data = subject.data
    fitted = subject.fitted(data)
    rows = data.new[:200]
    near, _ = subject.log_density(fitted, rows)
    far, _ = subject.log_density(fitted, rows + 8 * data.X.std(0))
    # A held-out row outside a bounded support scores -inf, and says nothing of signs.
    inside = np.isfinite(near)
    expect(
        inside.mean() > 0.5, "finite scores of most held-out rows", f"{inside.mean():.0%} finite"
    )
    falls = float((near > far)[inside].mean())
    expect(
        falls > 0.9,
        "nine of ten rows of the data to score above the same rows moved eight deviations away",
        f"{falls:.0%}",
    )


@check(
    cause="scores that are clipped, or a floor under a density or a variance: the mass is infinite",
    when=lambda s: s.takes("table") and s.density in ("exact", "lower_bound"),
)
def tails_have_a_finite_mass(subject: Subject) -> None:
    """Along lines out to a million spreads log p(r) + log r falls from a thousand spreads on: else the
    mass of a line is infinite."""
    radii = np.logspace(3, 6, 13)
    for name in ("line", "plane", "columns3", "columns12"):
        data = subject.load(name)
        fitted = subject.fitted(data, MANY if name == "plane" else FEW)
        low, middle, high = np.quantile(data.X, [0.25, 0.5, 0.75], axis=0)
        d = len(middle)
        ways = [*np.eye(d)[: min(d, 3)], np.ones(d) / d**0.5]
        for way in [sign * way for way in ways for sign in (1, -1)]:
            rows = middle + radii[:, None] * way * (high - low)
            logp, _ = subject.log_density(fitted, rows)
            expect(not np.isnan(logp).any(), "scores that are numbers or -inf", "NaN")
            line = logp + np.log(radii)
            falls = bool(line[-1] < line[0] - 1) or line[-1] == -np.inf
            expect(
                falls,
                f"log p + log r to fall from 1e3 to 1e6 spreads along {way.round(2)[:4]} in {d} columns",
                f"{line[0]:.4g} and {line[-1]:.4g}",
            )


@check(
    cause="data are scaled inside and the log-determinant of that is not in the score; or fit depends "
    "on the units: a bandwidth, a floor under variances, a start by distances between raw rows",
    when=_tables,
)
def moves_with_the_units(subject: Subject) -> None:
    """Fitted to aX + b with the same seed, scores move by exactly -sum log|a|."""
    data = subject.data
    base, _ = subject.log_density(subject.fitted(data), data.rows)
    # Powers of two: standardizing them rounds nothing, so that both fits see the same numbers.
    for a, b, within in (
        (np.array([4.0, 0.125]), np.array([16.0, -8.0]), 2e-3),
        (np.array([2.0**-40, 2.0**40]), np.zeros(2), 2e-2),
    ):
        moved, _ = subject.log_density(subject.fit(data.X * a + b), data.rows * a + b)
        shift, want = moved - base, -np.log(a).sum()
        worst = float(np.abs(shift - want).max())
        expect(
            worst < within * (1 + np.abs(base).max() / 10),
            f"scores to move by {want:.4f} when columns are multiplied by {a.tolist()}",
            f"{shift.mean():.4f} on average, off by up to {worst:.4f}",
        )


@check(cause="standardization in float32, or a variance taken as E[x^2] - E[x]^2", when=_tables)
def survives_a_huge_offset(subject: Subject) -> None:
    """X + 1e8 scores as X does, and draws keep their spread."""
    data = subject.data
    base, _ = subject.log_density(subject.fitted(data), data.rows)
    fitted = subject.fit(data.X + 1e8)
    moved, _ = subject.log_density(fitted, data.rows + 1e8)
    worst = float(np.abs(moved - base).max())
    expect(worst < 0.05, "scores of X + 1e8 equal to those of X within 0.05", f"{worst:.3g} apart")
    spread = np.std(numeric(subject.draw(fitted, 400)), 0)
    wanted = np.std(numeric(subject.draw(subject.fitted(data), 400)), 0)
    near = (np.abs(spread / wanted - 1) < 0.5).all()
    expect(near, f"standard deviations of draws near {wanted}", f"{spread} after adding 1e8")


@check(cause="log of zero minus log of zero, or an exception instead of -inf", when=_tables)
def never_nan_far_away(subject: Subject) -> None:
    """Scores are numbers or -inf at any distance of a row."""
    data = subject.data
    fitted = subject.fitted(data)
    far = join(
        [data.X.mean(0) + sign * 10.0**k * np.eye(2) for k in (2, 5, 9) for sign in (1, -1)]
    )
    logp, _ = subject.log_density(fitted, far)
    expect(not np.isnan(logp).any(), "a number or -inf far away", f"{np.isnan(logp).sum()} NaN")
    expect(not (logp == np.inf).any(), "no +inf", f"{(logp == np.inf).sum()} of them")
