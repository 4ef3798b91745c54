"""Supports of every form, and tables of mixed columns: where a density lives, and over what."""

from typing import Any

import numpy as np

from densekit.checks.data import N_FIT, Data
from densekit.checks.draws import bin_line, expect_agreement
from densekit.checks.mass import Axis, expect_one, slack_of
from densekit.checks.subject import Subject, check, expect, numeric, quiet
from densekit.checks.tables import inflated_frame, instants_frame, seconds

_N = 4000
"""Draws that are compared with the mass of bins."""
_FOUR = 3.2e-5
"""How often a normal variable is more than four standard deviations too high."""
_FIVE, _OF_FIVE = 2.9e-7, 5 / 4
"""The same of five, and what makes five standard errors of four."""


def _our_tables(subject: Subject) -> bool:
    return subject.scores and subject.takes("table") and subject.ours


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


def _bounded(subject: Subject) -> list[tuple[Any, np.ndarray, float, float]]:
    """A support, rows in it, and its ends."""
    rng = np.random.default_rng(subject.seeded(41))
    z, u = rng.normal(size=(N_FIT, 1)), rng.random((N_FIT, 1))
    angle = np.mod(rng.vonmises(1.0, 2.0, (N_FIT, 1)), 2 * np.pi)
    return [
        (("at_least", 2.0), 2 + np.exp(0.5 * z), 2.0, np.inf),
        (("at_most", -3.0), -3 - np.exp(0.5 * z), -np.inf, -3.0),
        ("nonnegative", np.exp(0.6 * z), 0.0, np.inf),
        (("interval", -1.0, 4.0), -1 + 5 * u, -1.0, 4.0),
        (("circle", 0.0, 2 * np.pi), angle, 0.0, 2 * np.pi),
    ]


@check(
    cause="the Jacobian of the map onto the support is missing or that of another support, a bound is "
    "taken for another one, or draws leave the support, are put on its ends or leave a part of it out",
    when=_our_tables,
    chance=5 * (_FIVE + 4e-6),
)
def each_form_of_support_has_mass_one(subject: Subject) -> None:
    """With a support that is bounded below, above, on both sides or is a circle, the mass inside is one,
    rows outside score -inf, and draws stay inside and fall between the quantiles of the density.

    Chance of a false alarm: five times 1e-6 by the G test where scores are exact; of a bound five
    standard errors and 14 bins at five standard deviations, 4e-6.
    """
    for support, X, low, high in _bounded(subject):
        fitted = subject.fitted(Data(f"support {support}", "table", X, X), support=support)
        nodes, upper, volume = _boxes(X, low, high, subject.few(8192))
        where = f"support={support!r}"
        boxes = _Boxes(subject, fitted, nodes[:, None], nodes, upper, volume)
        boxes.expect_mass_one(where)
        outside = [v for v in (low - 0.7, high + 0.7) if np.isfinite(v)]
        away, _ = subject.log_density(fitted, np.array(outside)[:, None])
        expect((away == -np.inf).all(), f"-inf at {outside} with {where}", f"{away.tolist()}")
        draws = numeric(subject.draw(fitted, subject.few(_N)))[:, 0]
        kept = ((draws >= low) & (draws <= high)).all()
        expect(kept, f"draws inside {where}", f"from {draws.min()} to {draws.max()}")
        boxes.expect_draws(draws)


class _Boxes:
    """Boxes that divide a line, with their masses.

    Parameters
    ----------
    subject, fitted
    rows : ndarray or DataFrame of shape (n, 1)
        What the estimator scores at the middles.
    middles, upper, volume : ndarray of shape (n,)
        Middles and upper ends in ascending order, and volumes.
    """

    def __init__(
        self,
        subject: Subject,
        fitted: Any,
        rows: Any,
        middles: np.ndarray,
        upper: np.ndarray,
        volume: np.ndarray | float,
    ) -> None:
        logp, error = subject.log_density(fitted, rows)
        self.kind, self.middles, self.upper = subject.kind(fitted), middles, upper
        self.mass = np.exp(logp) * volume
        self.slack = _OF_FIVE * slack_of(self.mass, error)

    def expect_mass_one(self, where: str) -> None:
        """Fail unless the boxes have mass one (of a bound, at most one)."""
        expect_one(self.kind, float(self.mass.sum()), self.slack, where)

    def expect_draws(self, draws: np.ndarray) -> None:
        """Fail unless draws (m,) fall between the quantiles of the masses."""
        counts, mass = bin_line(self.middles, self.upper, self.mass, draws)
        expect_agreement(self.kind, counts, mass, self.slack)


def _boxes(
    X: np.ndarray, low: float, high: float, n: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Middles, upper ends and volumes (n,) of boxes from ``low`` to ``high``, one of which may be
    infinite, in ascending order. Boxes shrink toward finite ends, at which a density may be infinite."""
    u, sides = (np.arange(n) + 0.5) / n, (np.arange(n) + 1.0) / n
    if np.isfinite(low) and np.isfinite(high):
        x, upper = (v**3 / (v**3 + (1 - v) ** 3) for v in (u, sides))
        volume = (high - low) * np.diff(upper, prepend=0.0)
        return low + (high - low) * x, low + (high - low) * upper, volume
    side = X - low if np.isinf(high) else high - X
    axis = Axis(0.0, float(np.median(side)), 0.0)
    x, volume = axis.place(u), axis.slope(u) / n
    if np.isinf(high):
        return low + x, low + np.append(axis.place(sides[:-1]), np.inf), volume
    upper = high - np.append(0.0, axis.place(sides[:-1]))
    return (high - x)[::-1], upper[::-1], volume[::-1]


@check(
    cause="the density is per another unit of time than the measure says, instants are rounded in "
    "float32, or draws are shifted",
    when=_our_tables,
    chance=_FIVE + 4e-6,
)
def instants_have_mass_one_and_are_drawn_by_it(subject: Subject) -> None:
    """The density of a column of instants has mass one over the seconds, its measure says so, and draws
    fall between its quantiles.

    Chance of a false alarm: as of one support in :func:`each_form_of_support_has_mass_one`.
    """
    data = subject.load("instants")
    fitted = subject.fitted(data)
    stated = str(fitted.measure_.columns[0])
    expect(stated == "Lebesgue per second", "a measure_ of 'Lebesgue per second'", repr(stated))
    n = subject.few(8192)
    span = 40 * seconds(data.X).std()
    upper = np.linspace(-span, span, n + 1)
    nodes = (upper[1:] + upper[:-1]) / 2
    boxes = _Boxes(subject, fitted, instants_frame(nodes), nodes, upper[1:], 2 * span / n)
    boxes.expect_mass_one("a column of instants")
    boxes.expect_draws(seconds(subject.draw(fitted, subject.few(_N))))


def product_nodes(subject: Subject, X: Any) -> tuple[Any, np.ndarray, np.ndarray]:
    """Rows that stand for all of the table ``inflated``, what each stands for (a volume, or 1 for an
    atom), and the bin of each: its cell, and whether it is the atom or in which third of the rest."""
    n = subject.few(600)
    positive = np.asarray(X["spent"])[np.asarray(X["spent"]) > 0]
    axis = Axis(0.0, float(np.median(positive)), 0.0)
    u = (np.arange(n) + 0.5) / n
    spent = np.concatenate([[0.0], axis.place(u)])
    volume = np.concatenate([[1.0], axis.slope(u) / n])
    part = np.concatenate(
        [[0], 1 + np.digitize(axis.place(u), np.quantile(positive, [1 / 3, 2 / 3]))]
    )
    cells = np.repeat(np.arange(6), n + 1)
    frame = inflated_frame(cells // 3, cells % 3, np.tile(spent, 6))
    return frame, np.tile(volume, 6), 4 * cells + np.tile(part, 6)


@check(
    cause="the mass of an atom is scored as a density, or the rest is not scaled by what the atom "
    "leaves; a category or a level is drawn or scored by another share",
    when=_our_tables,
    chance=_FOUR + 3e-5,
)
def mixed_rows_have_mass_one_and_are_drawn_by_it(subject: Subject) -> None:
    """Over a category, an ordered category and a column with an atom at zero, masses and densities
    together add up to one; draws fill 24 bins of these by their mass.

    Chance of a false alarm: of a bound four standard errors, 3.2e-5, and 24 bins at five standard
    deviations; 1e-6 by the G test where scores are exact.
    """
    data = subject.load("inflated")
    fitted = subject.fitted(data, 100)
    frame, volume, place = product_nodes(subject, data.X)
    logp, error = subject.log_density(fitted, frame)
    expect(not np.isnan(logp).any(), "no NaN", f"{np.isnan(logp).sum()} NaN scores")
    mass = np.exp(logp) * volume
    slack = slack_of(mass, error)
    expect_one(subject.kind(fitted), float(mass.sum()), slack, "all mixed rows")
    drawn = subject.draw(fitted, subject.few(20_000), seed=1)
    cut = np.asarray(data.X["spent"])
    part = 1 + np.digitize(drawn["spent"], np.quantile(cut[cut > 0], [1 / 3, 2 / 3]))
    part = np.where(drawn["spent"] == 0, 0, part)
    cell = 3 * drawn["plan"].cat.codes.to_numpy() + drawn["size"].cat.codes.to_numpy()
    counts = np.bincount(4 * cell + part, minlength=24)
    expect_agreement(subject.kind(fitted), counts, np.bincount(place, mass, 24), slack)


@check(
    cause="the claimed measure is a constant, or that of another view of the data",
    when=_our_tables,
)
def measure_is_that_of_the_columns(subject: Subject) -> None:
    """``measure_`` and ``base_measure_`` count where there are masses, are Lebesgue where there are
    densities and name the atoms; a claimed density moves with the units, a claimed mass does not."""
    wanted = {
        "columns3": ("lebesgue", ["Lebesgue"] * 3),
        "ranks": ("counting", ["counting"] * 2),
        "days": ("counting", ["counting"]),
        "inflated": ("product", ["counting", "counting", "Lebesgue + counting on 0"]),
    }
    for name, (word, columns) in wanted.items():
        fitted = subject.fitted(subject.load(name), 100 if name == "inflated" else 10)
        found_columns = [str(c) for c in fitted.measure_.columns]
        expect(found_columns == columns, f"measure_ {columns} of {name}", f"{found_columns}")
        expect(
            fitted.base_measure_ == word, f"base_measure_ {word!r} of {name}", fitted.base_measure_
        )
    counts = subject.load("counts")
    one = subject.fitted(counts)
    moved = subject.fit(counts.X + 1000)
    a, _ = subject.log_density(one, counts.rows)
    b, _ = subject.log_density(moved, counts.rows + 1000)
    expect(np.abs(a - b).max() < 0.02, "masses of integers moved by 1,000 as before", "others")
