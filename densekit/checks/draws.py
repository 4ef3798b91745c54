"""Do the draws follow the scores, the data and the seed.

A check fails a correct estimator at most ``check.chance`` of the time; the docstrings say where the
number comes from. The numbers of all checks add up to less than one in a thousand.
"""

from typing import Any

import numpy as np
from scipy import stats

from densekit.checks.mass import Grid, enumerated, proposal, quadrature, slack_of
from densekit.checks.subject import (
    MANY,
    OTHER_MAP,
    Subject,
    cause_under_context,
    check,
    expect,
    label,
    numeric,
    same,
)

_LEVEL = 1e-6
_QUANTILES = np.array([0.005, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98, 0.995])
_N = 4000

_APART = (
    "sample and score_samples disagree: a mode or a tail missed, a map run the wrong way round"
)


def expect_agreement(kind: str, counts: np.ndarray, mass: np.ndarray, slack: float) -> None:
    """Counts of draws in bins against the mass that the scores give the bins.

    Exact: a G test. A bound can only be too low, so no bin may hold significantly fewer draws than
    its bound. An estimate comes from another computation than the draws: a quarter may differ.
    """
    n = counts.sum()
    if kind == "lower_bound":
        floor = mass * (1 - slack) - 5 * np.sqrt(mass / n) - 5 / n
        short = counts / n - floor
        j = int(short.argmin())
        expect(
            short[j] >= 0,
            f"at least the bound, {mass[j]:.4f}, of {n} draws in bin {j}",
            f"{counts[j] / n:.4f}",
        )
        return
    mass = mass / mass.sum()
    if kind == "estimate":
        apart = 0.5 * float(np.abs(counts / n - mass).sum())
        expect(apart < 0.25, "total variation between draws and scores below 0.25", f"{apart:.3f}")
        return
    p, seen, want = g_test(counts, mass)
    j = int(np.abs(seen - want).argmax())
    expect(
        p > _LEVEL,
        f"draws in {len(want)} bins as the scores say (G test, p > {_LEVEL:g})",
        f"p = {p:.2g}; worst bin {seen[j]:.0f} draws for {want[j]:.0f} by score",
    )


def g_test(counts: np.ndarray, mass: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """p of the likelihood-ratio test of ``counts`` against ``mass``, which adds up to one, and the
    counts and expectations that it compared: the smallest bins pooled until ten are expected."""
    n = counts.sum()
    order = np.argsort(mass)
    pooled = np.searchsorted(np.cumsum(mass[order]) * n, 10.0)
    small, rest = order[: pooled + 1], order[pooled + 1 :]
    seen = np.append(counts[small].sum(), counts[rest]).astype(float)
    want = np.append(mass[small].sum(), mass[rest]) * n
    if len(want) < 2:
        return 1.0, seen, want
    ratio = np.where(seen > 0, seen / want, 1.0)
    g = 2 * float((seen * np.log(ratio)).sum())
    return float(stats.chi2.sf(g, len(want) - 1)), seen, want


def bin_line(
    nodes: np.ndarray, ends: np.ndarray, mass: np.ndarray, draws: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draws (m,) and mass in bins between quantiles of boxes with middles and upper ends (n,)."""
    cdf = np.cumsum(mass)
    cuts = ends[np.searchsorted(cdf / cdf[-1], _QUANTILES)]
    edges = np.unique(np.concatenate([[-np.inf], cuts, [np.inf]]))
    masses = np.histogram(nodes, edges, weights=mass)[0]
    return np.histogram(draws, edges)[0], masses


def bin_plane(grid: Grid, draws: np.ndarray, k: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Blocks of whole quadrature boxes, k to a side, of equal mass along each axis."""
    edges = []
    boxes = grid.masses.reshape(len(grid.edges[0]) - 1, -1)
    for axis in (0, 1):
        cdf = np.cumsum(boxes.sum(1 - axis))
        inner = grid.edges[axis][1:][np.searchsorted(cdf / cdf[-1], np.arange(1, k) / k)]
        edges.append(np.unique(np.concatenate([[-np.inf], inner, [np.inf]])))
    mass = np.histogramdd(grid.nodes, edges, weights=grid.masses)[0]
    return np.histogramdd(draws, edges)[0].ravel(), mass.ravel()


def _tables(subject: Subject) -> bool:
    return subject.scores and subject.takes("table")


@check(cause=_APART, when=_tables, chance=1e-5)
def draws_follow_scores_on_a_line(subject: Subject) -> None:
    """Draws of one column fall between quantiles of the density as they should, tails included.

    Chance of a false alarm: 1e-6 by the G test; of a bound, 14 bins at five standard deviations,
    4e-6.
    """
    data = subject.load("line")
    fitted = subject.fitted(data)
    grid = quadrature(subject, fitted, data)
    draws = numeric(subject.draw(fitted, subject.few(_N), seed=1))[:, 0]
    counts, mass = bin_line(grid.nodes[:, 0], grid.edges[0][1:], grid.masses, draws)
    expect_agreement(subject.kind(fitted), counts, mass, grid.slack)


@check(cause=_APART, when=_tables, chance=2e-5)
def draws_follow_scores_on_a_plane(subject: Subject) -> None:
    """Draws of two columns fill blocks of the plane by the mass that the scores give them.

    Chance of a false alarm: 1e-6 by the G test; of a bound, 36 bins at five standard deviations,
    1.1e-5.
    """
    data = subject.load("plane")
    fitted = subject.fitted(data, MANY)
    grid = quadrature(subject, fitted, data)
    counts, mass = bin_plane(grid, numeric(subject.draw(fitted, subject.few(_N), seed=1)))
    expect_agreement(subject.kind(fitted), counts, mass, grid.slack)


@check(cause=_APART, when=lambda s: _tables(s) and s.density == "exact", chance=8 * _LEVEL)
def draws_pass_a_two_sample_test(subject: Subject) -> None:
    """Draws and draws made from the scores alone look alike from every side
    (Kolmogorov-Smirnov on eight projections).

    Chance of a false alarm: 1e-6 for each of eight directions.
    """
    data = subject.load("plane")
    fitted = subject.fitted(data, MANY)
    grid = quadrature(subject, fitted, data)
    rng = np.random.default_rng(subject.seeded(6))
    box = rng.choice(len(grid.nodes), _N, p=grid.masses / grid.mass)
    theirs = grid.inside(box, rng)
    ours = np.asarray(subject.draw(fitted, _N, seed=2), dtype=float)
    scale = data.X.std(0)
    for angle in np.arange(8) * np.pi / 8:
        side = np.array([np.cos(angle), np.sin(angle)]) / scale
        p = stats.ks_2samp(ours @ side, theirs @ side, method="asymp").pvalue
        expect(p > _LEVEL, f"p > {_LEVEL:g} along direction {side.round(2)}", f"p = {p:.2g}")


@check(
    cause="draws overlook part of where the score puts mass, or the score is not normalized",
    when=lambda s: _tables(s) and s.density == "exact",
    chance=1e-6,
)
def importance_identity(subject: Subject) -> None:
    """The mean over draws of q(x) / p(x) is one, q a narrower normal: no grid is involved.

    Chance of a false alarm: six standard errors, 2e-9 by the normal law; 1e-6 leaves room for the
    skewness of the ratio. Where p is small in the middle of q, as in a ring, draws seldom see the
    largest ratios, so the second moment is estimated from draws of q too.
    """
    data = subject.load("plane")
    fitted = subject.fitted(data, MANY)
    draws = np.asarray(subject.draw(fitted, _N, seed=3), dtype=float)
    logp, _ = subject.log_density(fitted, draws)
    middle = data.X[np.abs(data.X - data.X.mean(0)).sum(1).argmin()]
    q = stats.multivariate_normal(middle, np.cov(data.X.T) / 9)
    ratio = np.exp(q.logpdf(draws) - logp)
    mean, error = float(ratio.mean()), float(ratio.std() / np.sqrt(len(ratio)))
    narrow = q.rvs(size=len(ratio), random_state=0)
    log_ratio = q.logpdf(narrow) - subject.log_density(fitted, narrow)[0]
    second = np.exp(log_ratio[np.isfinite(log_ratio)].clip(max=500)).mean()
    error = max(error, float(np.sqrt(second / len(ratio))))
    expect(abs(mean - 1) < 6 * error + 0.02, f"1 +- {6 * error + 0.02:.3f}", f"{mean:.3f}")


def _count(rows: Any, draws: Any) -> np.ndarray:
    """How often each row was drawn; one count more for all else."""
    index = {text: i for i, text in enumerate(label(rows))}
    found = [index.get(text, len(index)) for text in label(draws)]
    return np.bincount(found, minlength=len(index) + 1)


@check(cause=_APART, when=lambda s: _tables(s) and s.ours, chance=4e-5)
def draws_follow_scores_over_cells(subject: Subject) -> None:
    """Cells of discrete tables, integers and days are drawn as often as their mass says.

    Chance of a false alarm: 1e-6 by the G test, four times; of a bound, some 100 bins at five standard
    deviations, 3e-5.
    """
    for name in ("cells", "counts", "ranks", "days"):
        fitted, mass, slack = enumerated(subject, name)
        n = subject.few(_N)
        counts = _count(subject.load(name).every, subject.draw(fitted, n, seed=1))
        elsewhere = counts[-1]
        expect(elsewhere <= 0.01 * n, "draws among the possible rows", f"{elsewhere} others")
        expect_agreement(subject.kind(fitted), counts[:-1], mass, slack)


@check(cause=_APART, when=lambda s: s.scores and s.takes("text"), chance=1e-5)
def draws_follow_scores_over_strings(subject: Subject) -> None:
    """Strings are drawn as often as their mass says.

    Chance of a false alarm: as for :func:`draws_follow_scores_on_a_line`.
    """
    fitted, mass, slack = enumerated(subject, "strings")
    data = subject.load("strings")
    known = [i for i, word in enumerate(data.every) if "?" not in word]
    counts = _count([data.every[i] for i in known], subject.draw(fitted, _N, seed=1))
    # Strings with the unknown symbol come back in some spelling of the model's own.
    mass = np.append(mass[known], np.delete(mass, known).sum())
    expect_agreement(subject.kind(fitted), counts, mass, slack)


@check(cause=_APART, when=lambda s: s.scores and s.takes("image"), chance=1e-6)
def draws_follow_scores_over_images(subject: Subject) -> None:
    """Mean pixels and mean products of pixels of draws are those that the scores imply.

    A bound leaves some mass open, which may lie anywhere: each of these means is of numbers from 0
    to 1, so that it is at least what the bound's mass makes of it, and at most that and the mass left.

    Chance of a false alarm: six standard errors of twelve means, 2.4e-8 by the normal law, and four of
    a score that has one.
    """
    data = subject.load("images")
    fitted = subject.fitted(data)
    kind = subject.kind(fitted)
    draws = numeric(subject.draw(fitted, 2000, seed=1)) / 255
    # Draws that miss much of what scores well would make a poor proposal, and hide it in noise.
    near = np.concatenate([subject.draw(fitted, 200, seed=4), data.X[:200]])
    x, log_q = proposal(near, subject.few(4000), subject.seeded(5))
    logp, error = subject.log_density(fitted, x.astype(np.uint8).reshape(-1, 2, 2))
    weight = np.exp(logp - log_q) / len(logp)
    spare = {"exact": 0.005, "lower_bound": slack_of(weight, error)}.get(kind, 0.08)
    x = x / 255
    for what, f in (("mean", lambda v: v), ("mean square", lambda v: v**2),
                    ("mean product with the first pixel", lambda v: v * v[:, :1])):  # fmt: skip
        ours, (low, high, noise) = f(draws).mean(0), _implied(kind, weight, f(x))
        within = 6 * np.sqrt(f(draws).var(0) / len(draws) + noise) + spare
        j = int(np.maximum(low - within - ours, ours - high - within).argmax())
        expect(
            low[j] - within[j] < ours[j] < high[j] + within[j],
            f"{what} of pixel {j} from {low[j]:.3f} to {high[j]:.3f} (+- {within[j]:.3f}), as scored",
            f"{ours[j]:.3f} in draws",
        )


def _implied(
    kind: str, weight: np.ndarray, f: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Least and greatest mean of numbers f in [0, 1] under masses that are known by importance
    weights, and the variance of these two."""
    if kind == "lower_bound":
        low, high = weight[:, None] * f, weight[:, None] * (1 - f)
        noise = np.maximum(low.var(0), high.var(0)) * len(f)
        return low.sum(0), np.maximum(low.sum(0), 1 - high.sum(0)), noise
    weight = weight / weight.sum()
    mean = weight @ f
    return mean, mean, weight**2 @ (f - mean) ** 2


@check(
    cause="not enough is learned, decoding loses location or scale, or draws collapse", chance=1e-9
)
def draws_resemble_the_data(subject: Subject) -> None:
    """After a real fit draws have about the mean and the spread of the data.

    The limits are twenty standard errors of the draws and more: what fails has not learned.

    Chance of a false alarm: below 1e-9 once the data have been learned.
    """
    data = subject.data
    if data.modality == "text":
        fitted = subject.fitted(data, MANY)
        draws = subject.draw(fitted, 1000, seed=1)
        for what, f in (("length", len), ("share of a", lambda w: w.count("a") / max(len(w), 1))):
            theirs = float(np.mean([f(w) for w in data.X]))
            ours = float(np.mean([f(w) for w in draws]))
            expect(abs(ours / theirs - 1) < 0.25, f"mean {what} near {theirs:.2f}", f"{ours:.2f}")
        return
    draws = numeric(subject.draw(subject.fitted(data, MANY), 2000, seed=1))
    X = numeric(data.X)
    # A density without moments is one too: draws beyond the range of the data count as its ends.
    draws = np.clip(draws, X.min(0), X.max(0))
    mean, spread = X.mean(0), X.std(0)
    off = np.abs(draws.mean(0) - mean) / spread
    # A spread: the middle of a box around normal rows, a density too, is up to 0.8 from their mean.
    expect((off < 1).all(), f"column means near {mean.round(2)}", f"{draws.mean(0).round(2)}")
    ratio = draws.std(0) / spread
    # Such a box is up to 2.1 times as wide.
    good = ((ratio > 0.4) & (ratio < 2.5)).all()
    expect(good, f"standard deviations near {spread.round(2)}", f"{draws.std(0).round(2)}")


@check(
    cause="sample hands back rows of the training data",
    when=lambda s: s.takes("table"),
    chance=1e-9,
)
def draws_are_not_training_rows(subject: Subject) -> None:
    """Draws from continuous data are new rows, and differ from each other.

    Chance of a false alarm: none to speak of, as continuous draws do not repeat.
    """
    data = subject.load("plane")
    draws = np.asarray(subject.draw(subject.fitted(data), 500), dtype=float)
    old = {tuple(row) for row in data.X.tolist()}
    copies = sum(tuple(row) in old for row in draws.tolist())
    expect(copies <= 5, "draws that are no rows of X", f"{copies} of 500 that are")
    distinct = len(np.unique(draws, axis=0))
    expect(distinct > 450, "500 distinct draws", f"{distinct} distinct ones")


@check(cause="sample has another signature or returns more than rows")
def draws_have_the_shape_asked_for(subject: Subject) -> None:
    """``sample(n, random_state=...)`` gives n finite rows like those of fit; without n, one."""
    for data in subject.each_modality:
        fitted = subject.fitted(data)
        for n, drawn in ((1, fitted.sample()), (7, fitted.sample(7, random_state=0))):
            kind = type(data.X).__name__
            expect(isinstance(drawn, type(data.X)), f"{kind} from sample", type(drawn).__name__)
            expect(len(drawn) == n, f"{n} rows from sample({n})", f"{len(drawn)}")
            if data.modality == "text":
                expect(all(isinstance(w, str) for w in drawn), "strings", f"{drawn}")
                continue
            shape = (n, *data.X.shape[1:])
            expect(drawn.shape == shape, f"shape {shape}", f"{drawn.shape}")
            expect(drawn.dtype == data.X.dtype, f"dtype {data.X.dtype}", f"{drawn.dtype}")
            expect(np.isfinite(drawn).all(), "finite draws", f"{drawn}")


@check(cause="the seed is not passed on, or every call uses the same one", chance=1e-9)
def draws_follow_the_seed(subject: Subject) -> None:
    """Equal seeds give equal draws, other seeds others, and no seed new ones at each call.

    Chance of a false alarm: that of two sets of 40 draws which agree in all, below 1e-9 here.
    """
    for data in subject.each_modality:
        fitted = subject.fitted(data)
        once, again = subject.draw(fitted, 40, seed=3), subject.draw(fitted, 40, seed=3)
        expect(same(once, again), "equal draws for random_state=3 twice", "different ones")
        other = subject.draw(fitted, 40, seed=4)
        expect(not same(once, other), "other draws for random_state=4", "the same ones")
        free, freer = (subject.draw(fitted, 40, seed=None) for _ in range(2))
        expect(not same(free, freer), "new draws for random_state=None", "the same ones twice")


@check(
    cause=OTHER_MAP,
    when=lambda s: s.context == "features" and s.takes("table"),
    chance=1e-9,
)
def conditional_draws_follow_the_context(subject: Subject) -> None:
    """Draws given c have about the conditional mean, one row of context per draw.

    Chance of a false alarm: the limits are ten standard errors of the draws and more.
    """
    fitted = subject.fitted(subject.load("conditional"), MANY // 2)
    given = np.repeat([[-0.7], [0.6]], 500, 0)
    draws = numeric(subject.draw(fitted, 1000, context=given))[:, 0]
    gap = float(draws[500:].mean() - draws[:500].mean())
    wanted = "draws given c = -0.7 and 0.6 about 5.2 apart"
    expect(2.6 < gap < 7.8, wanted, f"{gap:.2f}", cause_under_context(gap / 5.2))
