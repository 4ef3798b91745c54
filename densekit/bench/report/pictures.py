"""Curves as SVG for light and dark pages.

Figures are drawn without pyplot, in placeholder colors that are replaced by CSS variables of the page.
"""

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

FAMILIES = ("classical", "flows", "vaes", "autoregressive", "gans", "score", "other")
_ROLES = ("ink", "faint", *FAMILIES)
_PLACEHOLDER = {role: f"#0101{i:02x}" for i, role in enumerate(_ROLES, 1)}
_MARKERS = dict(zip(FAMILIES, "osD^vPX", strict=True))

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "densekit",
    "text.parse_math": False,
    "font.size": 10.0,
    "axes.titlesize": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _PLACEHOLDER["faint"],
    "axes.labelcolor": _PLACEHOLDER["ink"],
    "axes.formatter.useoffset": False,
    "text.color": _PLACEHOLDER["ink"],
    "xtick.color": _PLACEHOLDER["faint"],
    "ytick.color": _PLACEHOLDER["faint"],
    "xtick.labelcolor": _PLACEHOLDER["ink"],
    "ytick.labelcolor": _PLACEHOLDER["ink"],
    "lines.linewidth": 1.6,
}


@dataclass(frozen=True)
class Point:
    """A point of the plot of time against score: one model."""

    label: str
    family: str
    seconds: float
    score: float
    error: float = 0.0
    baseline: bool = False


@matplotlib.rc_context(STYLE)
def learning_curve(history: dict[str, Any], family: str, name: str) -> Markup | None:
    """Plot of loss against seconds: training batches dashed, held-out rows solid.

    The result is None if the history has fewer than two finite losses.
    """
    seconds = _floats(history.get("seconds"))
    losses = {key: _floats(history.get(key)) for key in ("train_loss", "valid_loss")}
    curves = {
        key: np.stack([seconds, loss])[:, np.isfinite(loss)]
        for key, loss in losses.items()
        if len(loss) == len(seconds) and np.isfinite(loss).sum() > 1
    }
    if not curves:
        return None
    figure, axes = _figure(260, 165)
    for key, (x, y) in curves.items():
        dashes: dict[str, Any] = (
            {"linestyle": (0, (2, 1.5)), "alpha": 0.75} if key == "train_loss" else {}
        )
        axes.plot(x, y, color=color(family), **dashes)
    axes.set_ylim(*_limits_without_start([y for _, y in curves.values()]))
    axes.set_xlim(left=0)
    axes.set_xlabel("seconds")
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    return _svg(figure, "learning curve", name)


@matplotlib.rc_context(STYLE)
def time_against_score(points: Sequence[Point], truth: float | None, name: str) -> Markup | None:
    """Plot of nats per row, with standard errors, against seconds to fit on a logarithmic scale.

    Names are in a column on the right and do not overlap. The result is None if no point can be drawn.
    """
    points = [p for p in points if math.isfinite(p.score) and p.seconds > 0]
    if not points:
        return None
    figure, axes = _figure(400, max(190, 60 + 17 * len(points)))
    for p in points:
        face = "none" if p.baseline else color(p.family)
        axes.errorbar(
            p.seconds,
            p.score,
            p.error if math.isfinite(p.error) else None,
            fmt=_MARKERS.get(p.family, "X"),
            color=color(p.family),
            markerfacecolor=face,
            markersize=6,
            elinewidth=1,
        )
    if truth is not None and math.isfinite(truth):
        axes.axhline(truth, color=_PLACEHOLDER["ink"], linewidth=1, linestyle=(0, (4, 3)))
    _log_seconds(axes, [p.seconds for p in points])
    axes.margins(y=0.1)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.set_xlabel("seconds to fit")
    axes.set_ylabel("nats per row")
    _names(axes, points, truth)
    return _svg(figure, "time against score", name)


def color(family: str) -> str:
    """The placeholder color of a family, which is replaced by a CSS variable."""
    return _PLACEHOLDER[family if family in FAMILIES else "other"]


def _figure(width: int, height: int) -> tuple[Figure, Axes]:
    """An empty figure of a size in CSS pixels."""
    figure = Figure(figsize=(width / 72, height / 72), dpi=72, layout="constrained")
    figure.patch.set_visible(False)
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    axes.grid(color=_PLACEHOLDER["faint"], alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _log_seconds(axes: Axes, seconds: list[float]) -> None:
    low, high = min(seconds), max(seconds)
    # Show at least a decade, so that the axis has enough labels.
    margin = max(1.3, (high / low) ** 0.06, math.sqrt(10 * low / high))
    axes.set_xscale("log")
    axes.set_xlim(low / margin, high * margin)
    narrow = high / low < 30
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,), numticks=8))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(_plain_or_power)


def _plain_or_power(value: float, _position: float | None = None) -> str:
    if 0.999e-3 < value < 1e5:
        return f"{value:.3g}"
    mantissa, exponent = f"{value:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def _names(axes: Axes, points: Sequence[Point], truth: float | None) -> None:
    """Write the name of each point on the right of the axes, as close to its height as possible."""
    low, high = axes.get_ylim()
    labels = [(p.score, p.label, color(p.family), p.seconds) for p in points]
    if truth is not None and math.isfinite(truth):
        labels.append((truth, "the truth", _PLACEHOLDER["ink"], axes.get_xlim()[1]))
    labels.sort(key=lambda label: label[0])
    wanted = [(score - low) / (high - low) for score, *_ in labels]
    gap = 13 / (axes.get_figure().get_figheight() * 72 - 50)  # type: ignore[union-attr]
    for y, (score, text, tone, seconds) in zip(spread(wanted, gap), labels, strict=True):
        axes.annotate(
            text if len(text) <= 26 else text[:25] + "…",
            (seconds, score),
            (1.06, y),
            textcoords="axes fraction",
            color=tone,
            verticalalignment="center",
            fontsize=9,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": tone,
                "alpha": 0.4,
                "linewidth": 0.7,
                "shrinkB": 4,
            },
        )


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Move sorted heights apart to distances of at least ``gap``, with the least squared changes.

    This is isotonic regression of the heights minus their index times the gap.

    Examples
    --------
    >>> spread([0.0, 0.1, 1.0], 0.5)
    [-0.2, 0.3, 1.0]
    """
    from sklearn.isotonic import isotonic_regression

    steps = gap * np.arange(len(wanted))
    return (isotonic_regression(np.asarray(wanted, float) - steps) + steps).tolist()


def _limits_without_start(curves: list[np.ndarray]) -> tuple[float, float]:
    """Limits of the y axis that ignore the first steps of training, which may be far higher."""
    low = min(y.min() for y in curves)
    late = max(y[len(y) // 5 :].max() for y in curves)
    high = max(min(max(y.max() for y in curves), late + 0.5 * (late - low)), late)
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin


def _floats(values: Any) -> np.ndarray:
    return np.array([math.nan if v is None else v for v in values or ()], dtype=float)


def _svg(figure: Figure, what: str, name: str) -> Markup:
    """The figure as inline SVG, with CSS variables as colors and with unique ids."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    for role, placeholder in _PLACEHOLDER.items():
        text = text.replace(placeholder, f"var(--{role})")
    # Keep only font sizes; the page sets the font.
    text = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", text)
    # Every figure has ids such as "figure_1", which must be unique in a page.
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    width = figure.get_figwidth() * 72
    head = f'<svg role="img" aria-label="{escape(what)}" style="max-width: {width:.0f}px"'
    text = re.sub(r'<svg([^>]*?) width="[^"]*"', r"<svg\1", text, count=1)
    text = re.sub(r'<svg([^>]*?) height="[^"]*"', r"<svg\1", text, count=1)
    return Markup(text.replace("<svg", head, 1).strip())
