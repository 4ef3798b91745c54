"""What tables show of other models, shown on images: for models that take no tables.

Two float pixels in (0, 1) are a unit square, over which a density can be integrated.
"""

from functools import partial
from typing import Any

import numpy as np
import torch
from scipy import special

from densekit.checks.draws import bin_plane, expect_agreement
from densekit.checks.inputs import expect_refusal
from densekit.checks.mass import Grid, expect_one
from densekit.checks.states import close
from densekit.checks.subject import MANY, Subject, cause_under_context, check, expect, numeric

_FOUR = 3.2e-5
"""How often a normal variable is more than four standard deviations too high."""
_SIDE = 96
"""Boxes along each side of the unit square."""


def _scores(subject: Subject) -> bool:
    return subject.only_images and subject.scores


def unit_square(subject: Subject, fitted: Any, context: np.ndarray | None = None) -> Grid:
    """The density of images of 1 x 2 float pixels over all there are."""
    n = subject.few(_SIDE)
    edges = np.linspace(0, 1, n + 1)
    middles = np.meshgrid(
        (edges[1:] + edges[:-1]) / 2, (edges[1:] + edges[:-1]) / 2, indexing="ij"
    )
    nodes = np.stack([m.ravel() for m in middles], 1)
    given = {} if context is None else {"context": np.tile(context, (len(nodes), 1))}
    logp, error = subject.log_density(fitted, nodes.reshape(-1, 1, 2), **given)
    expect(not np.isnan(logp).any(), "no NaN", f"{np.isnan(logp).sum()} NaN scores")
    return Grid(nodes, [edges, edges], n**-2.0, logp, error)


@check(
    cause="the Jacobian of the map from pixels to events is not in the score",
    when=_scores,
    chance=_FOUR,
)
def integrates_to_one_over_shades(subject: Subject) -> None:
    """The density of two float pixels has mass one over the unit square.

    Chance of a false alarm: none where scores are exact; for a bound or an estimate four standard
    errors, 3.2e-5 by the normal law.
    """
    fitted = subject.fitted(subject.load("shades"), MANY)
    grid = unit_square(subject, fitted)
    expect_one(subject.kind(fitted), grid.mass, grid.slack, "the unit square")


@check(
    cause="sample and score_samples disagree: a map run the wrong way round",
    when=_scores,
    chance=2e-5,
)
def draws_follow_scores_over_shades(subject: Subject) -> None:
    """Draws of two float pixels fill blocks of the unit square by the mass that the scores give them.

    Chance of a false alarm: 1e-6 by the G test; of a bound, 36 bins at five standard deviations,
    1.1e-5.
    """
    fitted = subject.fitted(subject.load("shades"), MANY)
    grid = unit_square(subject, fitted)
    counts, mass = bin_plane(grid, numeric(subject.draw(fitted, subject.few(4000), seed=1)))
    expect_agreement(subject.kind(fitted), counts, mass, grid.slack)


@check(
    cause="the quantile of a pixel that is quite black or quite white is infinite", when=_scores
)
def black_and_white_have_finite_scores(subject: Subject) -> None:
    """Images that are all black, all white or both have scores that are numbers."""
    for name, top in (("images", 255), ("shades", 1.0)):
        data = subject.load(name)
        rows = np.zeros_like(data.X[:3])
        rows[1], rows[2, :, 0] = top, top
        logp, _ = subject.log_density(subject.fitted(data), rows)
        expect(np.isfinite(logp).all(), f"finite scores of black and white {name}", f"{logp}")


@check(cause="the range of the pixels is not consulted when scoring", when=_scores)
def minus_infinity_outside_the_range(subject: Subject) -> None:
    """Pixels outside the range score -inf, and are not drawn."""
    data = subject.load("images")
    X, support = data.X // 16, ("interval", 0, 15)
    dark = subject.fit(X, support=support)
    rows = X[:2].copy()
    rows[0, 0, 0] = 16
    logp, _ = subject.log_density(dark, rows)
    expect(logp[0] == -np.inf, f"-inf for level 16 with support={support}", f"{logp[0]}")
    expect(np.isfinite(logp[1]), "a finite score inside the range", f"{logp[1]}")
    most = int(np.max(subject.draw(dark, 200)))
    expect(most <= 15, "draws of the levels 0 to 15", f"level {most}")
    fitted = subject.fitted(subject.load("shades"))
    rows = np.array([[[-0.1, 0.5]], [[0.5, 1.5]], [[0.5, 0.5]]])
    logp, _ = subject.log_density(fitted, rows)
    expect((logp[:2] == -np.inf).all(), "-inf for pixels of -0.1 and 1.5", f"{logp[:2]}")
    expect(np.isfinite(logp[2]), "a finite score inside the range", f"{logp[2]}")
    draws = numeric(subject.draw(fitted, 200))
    kept = ((draws >= 0) & (draws <= 1)).all()
    expect(kept, "draws in [0, 1]", f"from {draws.min()} to {draws.max()}")


@check(cause="images are not compared with those of fit", when=lambda s: s.only_images)
def other_images_are_refused(subject: Subject) -> None:
    """Tables, NaN and values beyond the range are refused by fit; images of another size or kind than
    those of fit are refused when scored."""
    data = subject.load("shades")
    plane = subject.load("plane").X
    expect_refusal(partial(subject.fresh().fit, plane), "a table", "image")
    for value, words in ((np.nan, ("NaN", "missing")), (np.inf, ("inf", "[0, 1]"))):
        X = data.X.copy()
        X[3, 0, 1] = value
        expect_refusal(partial(subject.fresh().fit, X), f"{value} in fit", *words)
    if subject.scores:
        fitted = subject.fitted(data)
        missing = data.rows.copy()
        missing[0, 0, 0] = np.nan
        for what, rows in (
            ("images of another size", np.concatenate([data.rows, data.rows], 1)),
            ("a single image", data.rows[0]),
            ("integers", (255 * data.rows).astype(np.uint8)),
            ("NaN", missing),
        ):
            expect_refusal(partial(fitted.score_samples, rows), what)


@check(
    cause="the Jacobian of the codec is not in the distribution, or its event has another shape",
    when=_scores,
)
def distribution_over_events_agrees(subject: Subject) -> None:
    """``distribution_`` is a Pyro distribution over events; its log_prob, with the Jacobian of the
    codec, is ``score_samples``."""
    from pyro.distributions.torch_distribution import TorchDistributionMixin

    for data in (subject.load("images"), subject.load("shades")):
        fitted = subject.fitted(data)
        dist = fitted.distribution_
        mixed = isinstance(dist, TorchDistributionMixin)
        expect(mixed, "a distribution of Pyro's", type(dist).__name__)
        shape = tuple(fitted.schema_.event_shape)
        drawn = tuple(dist.sample((3,)).shape)
        expect(drawn == (3, *shape), f"draws of shape {(3, *shape)}", f"{drawn}")
        with torch.no_grad():
            events, ladj = fitted.codec_.encode(data.rows)
            events = events.reshape(-1, *shape).to(dist.sample().dtype)
            logp = dist.log_prob(events).double() + ladj
        scores = fitted.score_samples(data.rows)
        gap = float(np.abs(scores - logp.numpy()).max())
        expect(close(scores, logp.numpy(), 5), "log_prob as score_samples", f"{gap:.3g} apart")


@check(
    cause="the context does not reach the density, or density and sampler use it in different ways",
    when=lambda s: _scores(s) and s.context == "features",
    chance=2 * _FOUR,
)
def images_follow_their_context(subject: Subject) -> None:
    """p(x given c) has mass one over x for each c; its mean moves with c, and so do draws.

    Chance of a false alarm: twice that of :func:`integrates_to_one_over_shades`; the limits on the
    means are ten standard errors of the draws and more.
    """
    fitted = subject.fitted(subject.load("lit"), MANY // 2)
    by_score, by_draw = [], []
    for value in (-0.7, 0.6):
        given = np.array([[value]])
        grid = unit_square(subject, fitted, given)
        expect_one(subject.kind(fitted), grid.mass, grid.slack, f"x given c = {value}")
        quantile = special.ndtri(grid.nodes).mean(1)
        by_score.append(float((quantile * grid.masses).sum() / grid.mass))
        drawn = numeric(subject.draw(fitted, 500, context=given)).clip(1e-6, 1 - 1e-6)
        by_draw.append(float(special.ndtri(drawn).mean()))
    for what, (low, high) in (("scores", by_score), ("draws", by_draw)):
        gap = high - low
        near = 0.65 < gap < 1.95
        wanted = f"means given c = -0.7 and 0.6 about 1.3 apart in {what}"
        expect(
            near, wanted, f"{gap:.2f}", cause_under_context(gap / 1.3) if what == "draws" else None
        )
