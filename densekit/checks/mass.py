"""Does the score measure what it says: mass one, the right units, never better than the truth.

The bound on the truth is exact mathematics, not a rule of thumb. For rows :math:`x_i` of a law p
and any q with mass at most one, :math:`E \\prod q(x_i)/p(x_i) \\le 1`, so that by Markov
:math:`P(\\sum \\log q(x_i) - \\log p(x_i) > t) \\le e^{-t}`, whatever was fitted and however.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from densekit.checks.data import Data, join
from densekit.checks.subject import FEW, MANY, Subject, check, expect, numeric, quiet

_CHANCE = math.log(1e5)
"""Nats by which a fair score beats the truth in sum once in 100,000 times."""

_FOUR = 3.2e-5
"""How often a normal variable is more than four standard deviations too high."""


def slack_of(mass: np.ndarray, error: np.ndarray) -> float:
    """Four standard errors of a sum of masses, errors taken to agree, as with one bank of noise.

    They are relative errors of a sum that is one at most: a sum of fifty gets no slack of fifties.
    """
    return 4 * float((mass * error).sum()) / max(1.0, float(mass.sum()))


@dataclass(frozen=True)
class Grid:
    """Midpoints of equal boxes, (n, d), the volume of a box, and what the model says there."""

    nodes: np.ndarray
    edges: list[np.ndarray]
    volume: float
    logp: np.ndarray
    error: np.ndarray

    @property
    def masses(self) -> np.ndarray:
        """Mass of each box by the midpoint rule."""
        return np.exp(self.logp) * self.volume

    @property
    def mass(self) -> float:
        """Mass of the whole."""
        return float(self.masses.sum())

    @property
    def slack(self) -> float:
        """Four standard errors of the mass."""
        return slack_of(self.masses, self.error)


def quadrature(
    subject: Subject, fitted: Any, data: Data, low: float | None = None, **options: Any
) -> Grid:
    """The density on a box that holds the data and the draws with half their range around them;
    coarse, and fine where coarse does not come out at one."""
    about = np.concatenate(
        [np.asarray(data.X), np.asarray(subject.draw(fitted, subject.few(4000), **options))]
    )
    about = about[np.isfinite(about).all(1)]
    start, stop = about.min(0), about.max(0)
    margin = (stop - start) / 2
    start, stop = (start - margin if low is None else np.full_like(start, low)), stop + margin
    grid = None
    coarse = subject.few(2048) if len(start) == 1 else int(subject.few(72**2) ** 0.5)
    for n in (coarse, 2**15 if len(start) == 1 else 256):
        edges = [np.linspace(a, b, n + 1) for a, b in zip(start, stop, strict=True)]
        middles = np.meshgrid(*[(e[1:] + e[:-1]) / 2 for e in edges], indexing="ij")
        nodes = np.stack([m.ravel() for m in middles], 1)
        volume = float(np.prod((stop - start) / n))
        given = {k: np.broadcast_to(v, (len(nodes), v.shape[1])) for k, v in options.items()}
        logp, error = subject.log_density(fitted, nodes, **given)
        expect(not np.isnan(logp).any(), "no NaN", f"{np.isnan(logp).sum()} NaN scores")
        grid = Grid(nodes, edges, volume, logp, error)
        if abs(grid.mass - 1) < 0.003 or subject.kind(fitted) != "exact":
            break
    assert grid is not None
    return grid


def expect_one(kind: str, mass: float, slack: float, where: str) -> None:
    """The mass is one; of a bound, at most one and not next to nothing."""
    if kind == "exact":
        expect(abs(mass - 1) < 0.015 + slack, f"mass 1 over {where}", f"{mass:.4f}")
    elif kind == "lower_bound":
        limits = f"mass in [0.05, {1.015 + slack:.3f}] of a lower bound over {where}"
        expect(0.05 < mass < 1.015 + slack, limits, f"{mass:.4f}")
    else:
        expect(abs(mass - 1) < 0.1 + slack, f"mass {1:.0f} +- 0.1 over {where}", f"{mass:.4f}")


def _tables(subject: Subject) -> bool:
    return subject.scores and subject.takes("table")


def _our_tables(subject: Subject) -> bool:
    return _tables(subject) and subject.ours


_UNNORMALIZED = "a normalizing constant, or a log-determinant, left out or of the wrong sign"


@check(cause=_UNNORMALIZED, when=_tables, chance=_FOUR)
def integrates_to_one_on_a_line(subject: Subject) -> None:
    """The density of one column has mass one (quadrature).

    Chance of a false alarm: none where scores are exact; for a bound or an estimate the mass stays
    within four standard errors but for 3.2e-5 of the time (normal law, one side).
    """
    data = subject.load("line")
    fitted = subject.fitted(data)
    grid = quadrature(subject, fitted, data)
    expect_one(subject.kind(fitted), grid.mass, grid.slack, "the line")


@check(cause=_UNNORMALIZED, when=_tables, chance=_FOUR)
def integrates_to_one_on_a_plane(subject: Subject) -> None:
    """The density of two columns has mass one (quadrature).

    Chance of a false alarm: none where scores are exact; for a bound or an estimate the mass stays
    within four standard errors but for 3.2e-5 of the time (normal law, one side).
    """
    data = subject.load("plane")
    fitted = subject.fitted(data, MANY)
    grid = quadrature(subject, fitted, data)
    expect_one(subject.kind(fitted), grid.mass, grid.slack, "the plane")


@check(
    cause="the Jacobian of the map onto the support is missing",
    when=lambda s: _our_tables(s),
    chance=_FOUR,
)
def integrates_to_one_over_positive_numbers(subject: Subject) -> None:
    """With ``support="positive"`` the mass of (0, inf) is one.

    Chance of a false alarm: none where scores are exact; for a bound or an estimate the mass stays
    within four standard errors but for 3.2e-5 of the time (normal law, one side).
    """
    data = subject.load("positive")
    fitted = subject.fitted(data, support="positive")
    grid = quadrature(subject, fitted, data, low=0.0)
    expect_one(subject.kind(fitted), grid.mass, grid.slack, "the positive numbers")


def enumerated(subject: Subject, name: str, steps: int = FEW) -> tuple[Any, np.ndarray, float]:
    """A fit, the mass of every row there can be, and four standard errors of their sum."""
    data = subject.load(name)
    fitted = subject.fitted(data, steps)
    logp, error = subject.log_density(fitted, data.every)
    expect(not np.isnan(logp).any(), "no NaN", f"{np.isnan(logp).sum()} NaN scores")
    mass = np.exp(logp) * (1.0 if data.copies is None else data.copies)
    return fitted, mass, slack_of(mass, error)


@check(cause="a density over codes reported as if it were a mass", when=_our_tables, chance=_FOUR)
def sums_to_one_over_cells(subject: Subject) -> None:
    """The masses of the six cells of a discrete table add up to one.

    Chance of a false alarm: none where scores are exact; for a bound or an estimate the mass stays
    within four standard errors but for 3.2e-5 of the time (normal law, one side).
    """
    fitted, mass, slack = enumerated(subject, "cells")
    expect_one(subject.kind(fitted), float(mass.sum()), slack, "all six cells")


@check(
    cause="the step of one integer, 1/scale, is not in the score", when=_our_tables, chance=_FOUR
)
def sums_to_one_over_integers(subject: Subject) -> None:
    """The masses of the integers add up to one.

    Chance of a false alarm: none where scores are exact; for a bound or an estimate the mass stays
    within four standard errors but for 3.2e-5 of the time (normal law, one side).
    """
    fitted, mass, slack = enumerated(subject, "counts")
    expect_one(subject.kind(fitted), float(mass.sum()), slack, "the integers")


@check(
    cause="the end of a string is not scored, or the longest strings lose the rest of the mass",
    when=lambda s: s.scores and s.takes("text"),
    chance=_FOUR,
)
def sums_to_one_over_strings(subject: Subject) -> None:
    """The masses of all strings up to the longest add up to one, unknown symbols included.

    Chance of a false alarm: none where scores are exact; for a bound or an estimate the mass stays
    within four standard errors but for 3.2e-5 of the time (normal law, one side).
    """
    fitted, mass, slack = enumerated(subject, "strings")
    expect_one(subject.kind(fitted), float(mass.sum()), slack, "all strings")


def proposal(draws: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images from discretized, reflected normals around draws, and their log-mass, known exactly.

    A tenth of the images is uniform, so that mass far from every draw is not overlooked.
    """
    from scipy import special

    rng = np.random.default_rng(seed)
    centers = draws.reshape(len(draws), -1).astype(float)
    scale = np.maximum(centers.std(0) * len(centers) ** (-1 / (4 + centers.shape[1])), 2.0)
    x = centers[rng.integers(0, len(centers), n)] + rng.normal(0, scale, (n, centers.shape[1]))
    x = np.where(rng.random((n, 1)) < 0.1, rng.uniform(0, 256, x.shape) - 0.5, x)
    x = np.clip(np.floor(x + 0.5), 0, 255).astype(int)
    # The mass of each level under each center, once: what remains is to look it up.
    edges = np.concatenate([[-np.inf], np.arange(255) + 0.5, [np.inf]])
    levels = np.diff(special.ndtr((edges[:, None, None] - centers) / scale), axis=0)
    near = np.ones((n, len(centers)))
    for j, level in enumerate(x.T):
        near *= levels[level, :, j]
    with np.errstate(divide="ignore"):  # far from every center; the uniform tenth is there
        near = np.log(near.mean(1))
    far = -x.shape[1] * math.log(256)
    return x, np.logaddexp(math.log(0.9) + near, math.log(0.1) + far)


@check(
    cause="pixels scored as numbers and not as the 256 masses they are",
    when=lambda s: s.scores and s.takes("image"),
    chance=_FOUR,
)
def sums_to_one_over_images(subject: Subject) -> None:
    """The masses of all 2 x 2 images add up to one (importance sampling around the draws).

    Chance of a false alarm: five standard errors of the importance weights, 5.7e-7, and the four of
    :func:`integrates_to_one_on_a_line`.
    """
    fitted = subject.fitted(subject.load("images"))
    draws = subject.draw(fitted, 400)
    x, log_q = proposal(draws, subject.few(4000), subject.seeded(5))
    logp, error = subject.log_density(fitted, x.astype(np.uint8).reshape(-1, 2, 2))
    weight = np.exp(logp - log_q)
    noise = 5 * float(weight.std() / math.sqrt(len(weight)))
    slack = noise + slack_of(weight / len(weight), error)
    expect_one(subject.kind(fitted), float(weight.mean()), slack, "all images")


@check(
    cause="a constant added to the score, a Jacobian of the wrong sign, a bound above the truth",
    when=lambda s: s.scores,
    chance=5 * (1e-5 + _FOUR),
)
def never_beats_the_truth(subject: Subject) -> None:
    """Held-out rows score no better than under the law that made them, beyond chance.

    Chance of a false alarm: 1e-5 for each of at most five data sets by Markov's inequality, whatever
    was fitted, and four standard errors where the score has one.
    """
    names = ["plane"] if subject.takes("table") else []
    names += ["line", "cells", "counts"] if _our_tables(subject) else []
    names += ["images"] if subject.takes("image") else []
    names += ["shades"] if subject.only_images else []
    names += ["strings"] if subject.takes("text") else []
    for name in names:
        data = subject.load(name)
        fitted = subject.fitted(data, MANY if data is subject.data else FEW)
        assert data.truth is not None
        n = subject.few(len(data.truth))
        logp, error = subject.log_density(fitted, data.new[:n])
        excess = float((logp - data.truth[:n]).sum())
        chance = _CHANCE + 4 * float(error.sum())
        if subject.kind(fitted) == "estimate":
            chance += 0.1 * len(logp)
        expect(
            excess < chance,
            f"at most {chance:.1f} nats above the true density over {len(logp)} rows of {name}",
            f"{excess:.1f}, or {excess / len(logp):+.3f} a row",
        )


@check(cause="the sign of the score or of a term in it is flipped", when=_tables)
def scores_fall_off(subject: Subject) -> None:
    """Rows of the data score better than the same rows moved eight standard deviations away."""
    data = subject.data
    fitted = subject.fitted(data)
    near, _ = subject.log_density(fitted, data.new[:200])
    far, _ = subject.log_density(fitted, data.new[:200] + 8 * data.X.std(0))
    expect(
        near.mean() > far.mean(),
        f"rows of the data to score above {far.mean():.2f}, the score of rows far off",
        f"{near.mean():.2f}",
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
    """Scores are numbers or -inf however far off a row lies."""
    data = subject.data
    fitted = subject.fitted(data)
    far = join(
        [data.X.mean(0) + sign * 10.0**k * np.eye(2) for k in (2, 5, 9) for sign in (1, -1)]
    )
    logp, _ = subject.log_density(fitted, far)
    expect(not np.isnan(logp).any(), "a number or -inf far away", f"{np.isnan(logp).sum()} NaN")
    expect(not (logp == np.inf).any(), "no +inf", f"{(logp == np.inf).sum()} of them")


@check(cause="the support is not consulted when scoring", when=_our_tables)
def minus_infinity_outside_the_support(subject: Subject) -> None:
    """Rows outside a stated support score -inf; rows inside a finite number."""
    for name, support, outside in (
        ("positive", "positive", [[-1.0], [-1e-9]]),
        ("unit", ("interval", 0.0, 1.0), [[-0.1], [1.1], [7.0]]),
    ):
        data = subject.load(name)
        fitted = subject.fitted(data, support=support)
        logp, _ = subject.log_density(fitted, np.array(outside))
        expect((logp == -np.inf).all(), f"-inf outside support={support!r}", f"{logp.tolist()}")
        inside, _ = subject.log_density(fitted, data.rows)
        expect(np.isfinite(inside).all(), f"finite scores inside {support!r}", f"{inside}")
        draws = numeric(subject.draw(fitted, 500))
        low, high = (0.0, np.inf) if name == "positive" else (0.0, 1.0)
        kept = ((draws >= low) & (draws <= high)).all()
        expect(kept, f"draws inside {support!r}", f"from {draws.min()} to {draws.max()}")
    cells = subject.load("cells")
    odd = cells.rows.assign(color="mauve")
    with quiet():
        try:
            logp, _ = subject.log_density(subject.fitted(cells), odd)
        except ValueError as error:
            expect("mauve" in str(error), "an error that names the unseen 'mauve'", str(error))
        else:
            expect((logp == -np.inf).all(), "-inf for a category never seen", f"{logp}")


@check(
    cause="the place or the end of a string is counted without the prompt",
    when=lambda s: s.scores and s.context == "prompt",
)
def prompts_condition(subject: Subject) -> None:
    """P(x given prompt) sums to one over what may follow, and obeys the chain rule."""
    fitted = subject.fitted(subject.load("strings"))
    data = subject.load("strings")
    short = [i for i, word in enumerate(data.every) if len(word) < 3]
    follows = [data.every[i] for i in short]
    logp, _ = subject.log_density(fitted, follows, context=["a"] * len(follows))
    assert data.copies is not None
    mass = float((np.exp(logp) * data.copies[short]).sum())
    expect(abs(mass - 1) < 0.015, "mass 1 over all that may follow the prompt 'a'", f"{mass:.4f}")
    whole, _ = subject.log_density(fitted, ["a" + word for word in follows])
    spread = float(np.ptp(whole - logp))
    rule = "log P(prompt + x) - log P(x given prompt) the same for all x"
    expect(spread < 1e-3, rule, f"a spread of {spread:.3g}")


@check(
    cause="the context is not given to every factor of the density, or is ignored",
    when=lambda s: s.scores and s.context == "features" and s.takes("table"),
    chance=2 * _FOUR,
)
def conditional_density_integrates_to_one(subject: Subject) -> None:
    """p(x given c) has mass one over x for each fixed c, and moves with c.

    Chance of a false alarm: twice that of :func:`integrates_to_one_on_a_line`.
    """
    data = subject.load("conditional")
    fitted = subject.fitted(data, MANY // 2)
    peaks = []
    for value in (-0.7, 0.6):
        grid = quadrature(subject, fitted, data, context=np.array([[value]]))
        expect_one(subject.kind(fitted), grid.mass, grid.slack, f"x given c = {value}")
        peaks.append(float((grid.nodes[:, 0] * grid.masses).sum() / grid.mass))
    gap = peaks[1] - peaks[0]
    expect(2.6 < gap < 7.8, "means of x given c = -0.7 and 0.6 about 5.2 apart", f"{gap:.2f}")
