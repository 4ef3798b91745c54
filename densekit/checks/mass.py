"""Does the score measure what it says: mass one, the right units, never better than the truth.

The bound on the truth is exact mathematics, not a rule of thumb. For rows :math:`x_i` of a law p
and any q with mass at most one, :math:`E \\prod q(x_i)/p(x_i) \\le 1`, so that by Markov
:math:`P(\\sum \\log q(x_i) - \\log p(x_i) > t) \\le e^{-t}`, whatever was fitted and however.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from densekit.checks.data import Data
from densekit.checks.subject import FEW, MANY, Subject, check, expect

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
    """Middles of boxes, (n, d), the volumes of the boxes, and what the model says there."""

    nodes: np.ndarray
    edges: list[np.ndarray]
    volume: float | np.ndarray
    logp: np.ndarray
    error: np.ndarray
    unsettled: float = 0.0
    """How far the mass still moved when boxes became smaller: edges of a density that has some."""

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
        """Four standard errors of the mass, and what the boxes leave open."""
        return slack_of(self.masses, self.error) + min(2 * self.unsettled, 0.03)

    def inside(self, boxes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A point in each of the boxes, (m,), of finite ends at random; (m, d)."""
        places = np.unravel_index(boxes, [len(e) - 1 for e in self.edges])
        out = self.nodes[boxes].copy()
        for j, (edge, place) in enumerate(zip(self.edges, places, strict=True)):
            low, high = edge[place], edge[place + 1]
            finite = np.isfinite(low) & np.isfinite(high)
            low, high = np.where(finite, low, out[:, j]), np.where(finite, high, out[:, j])
            out[:, j] = rng.uniform(low, high)
        return out


@dataclass(frozen=True)
class Axis:
    """Numbers in (0, 1) to a line or half a line, dense in the middle of the data and sparse far off, so
    that no tail is cut off: the middle and the scale are quantiles, whatever the moments are."""

    middle: float
    scale: float
    low: float | None = None

    @classmethod
    def of(cls, x: np.ndarray, low: float | None = None) -> "Axis":
        """The axis for numbers x, from ``low`` on where that is given."""
        lower, middle, upper = np.quantile(x, [0.25, 0.5, 0.75])
        scale = (upper - lower) or np.ptp(x) or 1.0
        if low is not None:
            return cls(float(middle), float(middle - low) or 1.0, low)
        return cls(float(middle), float(scale))

    def place(self, u: np.ndarray) -> np.ndarray:
        """x of u."""
        with np.errstate(divide="ignore"):
            if self.low is not None:
                return np.asarray(self.low + self.scale * u / (1 - u))
            return np.asarray(self.middle + self.scale * np.tan(math.pi * (u - 0.5)))

    def slope(self, u: np.ndarray) -> np.ndarray:
        """dx/du."""
        if self.low is not None:
            return np.asarray(self.scale / (1 - u) ** 2)
        return np.asarray(math.pi * self.scale / np.cos(math.pi * (u - 0.5)) ** 2)


def quadrature(
    subject: Subject, fitted: Any, data: Data, low: float | None = None, **options: Any
) -> Grid:
    """The density over the whole space, in boxes that follow the quantiles of the data and the draws;
    coarse, and fine where coarse does not come out at one."""
    about = np.concatenate(
        [np.asarray(data.X), np.asarray(subject.draw(fitted, subject.few(4000), **options))]
    )
    axes = [Axis.of(column[np.isfinite(column)], low) for column in about.T]
    d = len(axes)
    grid, masses = None, []
    coarse = subject.few(2048) if d == 1 else int(subject.few(72**2) ** 0.5)
    for n in (coarse, 2**15 if d == 1 else 256):
        grid = _boxes(subject, fitted, axes, n, options)
        masses.append(grid.mass)
        if abs(grid.mass - 1) < 0.003 or subject.kind(fitted) != "exact":
            break
    assert grid is not None
    return replace(grid, unsettled=abs(masses[0] - masses[-1]))


def _boxes(
    subject: Subject, fitted: Any, axes: list[Axis], n: int, options: dict[str, Any]
) -> Grid:
    u = (np.arange(n) + 0.5) / n
    sides = np.linspace(0, 1, n + 1)
    edges = [axis.place(sides) for axis in axes]
    for axis, edge in zip(axes, edges, strict=True):
        edge[-1] = np.inf
        edge[0] = -np.inf if axis.low is None else axis.low
    middles = np.meshgrid(*[axis.place(u) for axis in axes], indexing="ij")
    slopes = np.meshgrid(*[axis.slope(u) / n for axis in axes], indexing="ij")
    nodes = np.stack([m.ravel() for m in middles], 1)
    volume = np.prod([m.ravel() for m in slopes], axis=0)
    given = {k: np.broadcast_to(v, (len(nodes), v.shape[1])) for k, v in options.items()}
    logp, error = subject.log_density(fitted, nodes, **given)
    expect(not np.isnan(logp).any(), "no NaN", f"{np.isnan(logp).sum()} NaN scores")
    return Grid(nodes, edges, volume, logp, error)


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


@check(
    cause="a density over codes reported as if it were a mass", when=_our_tables, chance=2 * _FOUR
)
def sums_to_one_over_cells(subject: Subject) -> None:
    """The masses of the cells of discrete tables add up to one: three colors and a boolean, and five
    ordered levels and a boolean.

    Chance of a false alarm: none where scores are exact; for a bound or an estimate the mass stays
    within four standard errors but for 3.2e-5 of the time (normal law, one side).
    """
    for name in ("cells", "ranks"):
        fitted, mass, slack = enumerated(subject, name)
        expect_one(subject.kind(fitted), float(mass.sum()), slack, f"all {name}")


@check(
    cause="the step of one integer, 1/scale, is not in the score",
    when=_our_tables,
    chance=2 * _FOUR,
)
def sums_to_one_over_integers(subject: Subject) -> None:
    """The masses of the integers add up to one, and those of the days.

    Chance of a false alarm: none where scores are exact; for a bound or an estimate the mass stays
    within four standard errors but for 3.2e-5 of the time (normal law, one side).
    """
    for name, where in (("counts", "the integers"), ("days", "all days")):
        fitted, mass, slack = enumerated(subject, name)
        expect_one(subject.kind(fitted), float(mass.sum()), slack, where)


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
