"""Pictures of samples: scatter plots, pair plots, grids of images, and texts."""

import base64
import io
import math
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from densekit import formats
from densekit.bench.records import Record
from densekit.bench.report.pictures import STYLE
from densekit.bench.report.rows import Part

# Colors that are visible on white and on black, because a bitmap cannot use the colors of the page.
_TONES = {
    "data": "#808890",
    "classical": "#17a2b8",
    "flows": "#3b7de8",
    "vaes": "#e0702a",
    "autoregressive": "#6fa82a",
    "gans": "#d050ab",
    "score": "#8a6cf0",
    "other": "#b87878",
}
_GRAY = "#808890"
_PIXELS: dict[Any, Any] = {
    **STYLE,
    "font.size": 8.0,
    "axes.edgecolor": _GRAY,
    "axes.labelcolor": _GRAY,
    "text.color": _GRAY,
    "xtick.color": _GRAY,
    "ytick.color": _GRAY,
    "xtick.labelcolor": _GRAY,
    "ytick.labelcolor": _GRAY,
}
_MAX_POINTS = 400
_MAX_COLUMNS = 5
_FEW_LEVELS, _MAX_BARS = 12, 6
_CELL = 0.93
"""Share of a pair plot's cell that its axes fill."""
# Few colors suffice for dots on a transparent background and make files three times smaller.
_COLORS, _DPI = 40, 140
_GRID, _GRID_WIDTH = (6, 8), 560
_N_TEXTS, _TEXT_LENGTH = 6, 400


@dataclass
class Look:
    """Samples of one model, or rows of the data, ready for the page."""

    label: str
    family: str = "data"
    picture: Markup | None = None
    texts: tuple[str, ...] = ()
    note: str = ""
    kind: str = ""
    pairs: str = ""
    """The columns of a pair plot, in words."""


class Gallery:
    """Pictures of the samples of all models of a data set, on the same scale.

    Parameters
    ----------
    folder : Path
        Output folder of the benchmark.
    name : str
        Name of the data set.
    modality : {"table", "image", "text"}
        Modality of the data set.
    """

    def __init__(self, folder: Path, name: str, modality: str):
        self.folder, self.name, self.modality = folder, name, modality
        self.rows: Any = None
        self.density: dict[str, np.ndarray] | None = None
        self.note = ""
        # Records may be untrusted: the name must not lead out of the folder.
        safe = name and Path(name).name == name
        paths = sorted((folder / "data").glob(f"{name}.*")) if safe else []
        for path in paths:
            try:
                if path.name == f"{name}.density.npz":
                    with open(path, "rb") as handle, np.load(handle) as file:
                        self.density = {key: file[key] for key in ("x", "y", "log_density")}
                elif path.suffix in (".npy", ".parquet", ".jsonl") and path.stem == name:
                    self.rows = formats.read(path)
            except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
                # The report can show samples without the data.
                self.note = f"data/{path.name} cannot be read: {_without_path(path, error)}"

    def data(self) -> Look | None:
        """A picture of rows of the data set, or a note if they cannot be read."""
        look = Look("rows of the data", note=self.note)
        if self.rows is None:
            return look if self.note else None
        return self._look(self.rows, look)

    def samples(self, record: Record) -> Look:
        """A picture of the samples of ``record``, or a note if they cannot be read."""
        look = Look(record.run["label"], record.family, kind=Part.of(record).kind)
        path = self.folder / record.samples
        if not record.samples:
            look.note = "no samples were kept"
        elif not path.resolve().is_relative_to(self.folder.resolve()):
            look.note = f"{record.samples} is outside the results folder"
        else:
            try:
                rows = formats.read(path)
            except FileNotFoundError:
                look.note = f"{record.samples} is missing"
            except (ValueError, OSError) as error:
                look.note = f"{record.samples} cannot be read: {_without_path(path, error)}"
            else:
                return self._look(rows, look)
        return look

    def _look(self, rows: Any, look: Look) -> Look:
        try:
            if self.modality == "text":
                look.texts = tuple(_shortened(text) for text in list(rows)[:_N_TEXTS])
            elif self.modality == "image":
                like = rows if self.rows is None else self.rows
                look.picture = _grid(np.asarray(rows), np.asarray(like))
            else:
                self._table(rows, look)
        except (ValueError, TypeError, IndexError) as error:
            look.note = f"these rows cannot be drawn: {error}"
        return look

    def _table(self, samples: Any, look: Look) -> None:
        data = None if self.rows is None else _frame(self.rows)
        rows = _frame(samples, None if data is None else list(data.columns))
        if data is not None and list(data.columns) != list(rows.columns):
            raise ValueError(f"columns {list(rows.columns)}, but the data have {list(data)}")
        rows = rows[:_MAX_POINTS]
        if rows.shape[1] == 2 and self.density is not None:
            look.picture, outside = _over_density(rows, self.density, _tone(look))
        else:
            like = rows if data is None else data
            background = None if look.family == "data" else data
            look.picture, outside = _pairs(rows, background, like, _tone(look))
            columns = (str(name) for names in _selected_columns(like) for name in names)
            look.pairs = "Columns " + ", ".join(columns)
        if outside:
            look.note = f"{outside} of {len(rows)} rows are outside the frame"


def _tone(look: Look) -> str:
    return _TONES.get(look.family, _TONES["other"])


def _without_path(path: Path, error: Exception) -> str:
    """An error message without the path of the folder, because the page may be published."""
    return str(error).replace(str(path), path.name)


def _shortened(text: Any) -> str:
    text = str(text)
    return text if len(text) <= _TEXT_LENGTH else text[: _TEXT_LENGTH - 1] + "…"


def _frame(rows: Any, names: list[str] | None = None) -> pd.DataFrame:
    """Rows as a DataFrame; an array gets ``names`` if their number is that of its columns."""
    if isinstance(rows, pd.DataFrame):
        return rows
    values = np.asarray(rows)
    if values.ndim != 2:
        raise ValueError(f"the shape is {values.shape}, but a table has two dimensions")
    if names is None or len(names) != values.shape[1]:
        names = [f"x{i}" for i in range(values.shape[1])]
    return pd.DataFrame(values, columns=names)


@matplotlib.rc_context(_PIXELS)
def _over_density(
    rows: pd.DataFrame, density: dict[str, np.ndarray], tone: str
) -> tuple[Markup, int]:
    """Scatter plot over the true density, and the number of rows outside the frame."""
    figure = _blank(300, 300)
    axes = figure.add_axes((0.12, 0.08, 0.86, 0.9))
    x, y, logp = density["x"], density["y"], density["log_density"]
    shade = np.exp(logp - logp[np.isfinite(logp)].max())
    extent = (x[0], x[-1], y[0], y[-1])
    layer = np.zeros((*shade.shape, 4))
    layer[..., :3] = 0.5
    layer[..., 3] = 0.42 * np.sqrt(shade)
    axes.imshow(layer, origin="lower", extent=extent, aspect="auto", interpolation="bilinear")
    points = rows.to_numpy(float)
    axes.scatter(points[:, 0], points[:, 1], s=5, color=tone, linewidths=0)
    axes.set_xlim(extent[:2])
    axes.set_ylim(extent[2:])
    inside = ((points >= [x[0], y[0]]) & (points <= [x[-1], y[-1]])).all(1)
    return _png(figure), int((~inside).sum())


@matplotlib.rc_context(_PIXELS)
def _pairs(
    rows: pd.DataFrame, data: pd.DataFrame | None, like: pd.DataFrame, tone: str
) -> tuple[Markup, int]:
    """Pair plot of numbers and bars of levels, with the data in gray in the background.

    Also returns the number of rows outside the frame.
    """
    numbers, levels = _selected_columns(like)
    layers = [(frame, c) for frame, c in ((data, _GRAY), (rows, tone)) if frame is not None]
    high, low = (400 if numbers else 0), (175 if levels else 0)
    figure = _blank(400, high + low)
    outside = 0
    if numbers:
        axes = figure.add_axes((0.04, (low + 20) / (high + low), 0.95, (high - 20) / (high + low)))
        outside = _pair_grid(axes, numbers, layers, like)
    for j, name in enumerate(levels):
        left, width = 0.08 + 0.92 * j / len(levels), 0.92 / len(levels) - 0.03
        axes = figure.add_axes((left, 66 / (high + low), width, (low - 96) / (high + low)))
        _bars(axes, name, layers, like)
    return _png(figure), outside


def _pair_grid(
    axes: Axes, names: list[str], layers: list[tuple[pd.DataFrame, str]], like: pd.DataFrame
) -> int:
    """Draw all pairs of columns in one axes, which is ten times as fast as one axes per pair.

    The cell of row i and column j is the unit square at (j, k - 1 - i). Returns the number of rows
    of the last layer that are outside the frame.
    """
    k = len(names)
    frames = [_limits(like[name]) for name in names]
    outside = 0
    for layer, (rows, tone) in enumerate(layers):
        scaled = np.stack(
            [
                (rows[n].to_numpy(float) - a) / (b - a)
                for n, (a, b) in zip(names, frames, strict=True)
            ]
        )
        inside = (scaled >= 0) & (scaled <= 1)  # False for NaN
        outside = int((~inside.all(0)).sum())
        is_background = layer + 1 < len(layers)
        for i in range(k):
            bottom = k - 1 - i
            heights, edges = np.histogram(scaled[i, inside[i]], bins=20, range=(0, 1))
            top = bottom + _CELL * 0.95 * heights / max(1, heights.max())
            fill: dict[str, Any] = (
                {"fill": True, "alpha": 0.35} if is_background else {"linewidth": 1.2}
            )
            axes.stairs(top, i + _CELL * edges, baseline=bottom, color=tone, **fill)
            for j in range(i):
                both = inside[i] & inside[j]
                x, y = j + _CELL * scaled[j, both], bottom + _CELL * scaled[i, both]
                axes.scatter(
                    x, y, s=3, color=tone, alpha=0.45 if is_background else 0.7, linewidths=0
                )
    for i, name in enumerate(names):
        axes.hlines(
            [k - 1 - i] * (i + 1), range(i + 1), np.arange(i + 1) + _CELL, _GRAY, linewidth=0.6
        )
        axes.vlines(range(i + 1), k - 1 - i, k - 1 - i + _CELL, _GRAY, linewidth=0.6)
        middle = _CELL / 2
        text = _short(name, 52 // k)
        axes.text(-0.04, k - 1 - i + middle, text, rotation=90, ha="right", va="center")
        axes.text(i + middle, -0.04, text, ha="center", va="top")
    axes.set_xlim(0, k)
    axes.set_ylim(0, k)
    axes.set_axis_off()
    return outside


def _selected_columns(like: pd.DataFrame) -> tuple[list[str], list[str]]:
    """The first columns of numbers and of levels: five in total, at least two of each kind."""
    levels = [
        name
        for name in like.columns
        if not pd.api.types.is_numeric_dtype(like[name]) or like[name].nunique() <= _FEW_LEVELS
    ]
    numbers = [name for name in like.columns if name not in set(levels)]
    k = min(len(numbers), max(_MAX_COLUMNS - len(levels), _MAX_COLUMNS - 2))
    return numbers[:k], levels[: _MAX_COLUMNS - k]


def _limits(values: pd.Series) -> tuple[float, float]:
    known = values.to_numpy(float)
    known = known[np.isfinite(known)]
    if not len(known):
        return -1.0, 1.0
    low, high = known.min(), known.max()
    margin = 0.08 * (high - low) or 0.5
    return float(low - margin), float(high + margin)


def _bars(
    axes: Axes, name: str, layers: list[tuple[pd.DataFrame, str]], like: pd.DataFrame
) -> None:
    """Draw the shares of the most frequent levels of the data."""
    order = like[name].value_counts().index[:_MAX_BARS]
    width = 0.8 / len(layers)
    for i, (rows, tone) in enumerate(layers):
        shares = rows[name].value_counts(normalize=True)
        heights = [float(shares.get(level, 0.0)) for level in order]
        axes.bar(np.arange(len(order)) + (i + 0.5) * width - 0.4, heights, width, color=tone)
    axes.set_xticks(
        range(len(order)), [_short(level, 9) for level in order], rotation=45, ha="right"
    )
    axes.tick_params(length=0, labelleft=False)
    axes.set_title(_short(name, 16), fontsize=8)


def _short(text: Any, length: int) -> str:
    text = str(text)
    return text if len(text) <= length else text[: length - 1] + "…"


def _grid(images: np.ndarray, like: np.ndarray) -> Markup:
    """A grid of up to 48 images, (n, height, width) or (n, height, width, channels).

    Levels are scaled such that the smallest entry of the data is black and its largest is white.
    """
    if images.ndim not in (3, 4) or images.shape[1:] != like.shape[1:]:
        raise ValueError(
            f"images have shape {images.shape[1:]}, but those of the data have {like.shape[1:]}"
        )
    low, high = float(like.min()), float(like.max())
    scaled = (images[: math.prod(_GRID)].astype(float) - low) / ((high - low) or 1.0)
    pixels = (255 * np.clip(np.nan_to_num(scaled), 0, 1)).round().astype(np.uint8)
    if pixels.ndim == 3 or pixels.shape[-1] == 1:
        pixels = np.repeat(pixels.reshape(*pixels.shape[:3], 1), 3, axis=-1)
    n, height, width = pixels.shape[:3]
    n_rows, n_columns = math.ceil(n / _GRID[1]), min(n, _GRID[1])
    canvas = np.zeros((n_rows * (height + 1) - 1, n_columns * (width + 1) - 1, 4), np.uint8)
    for i, image in enumerate(pixels):
        top, left = (i // n_columns) * (height + 1), (i % n_columns) * (width + 1)
        canvas[top : top + height, left : left + width, :3] = image[..., :3]
        canvas[top : top + height, left : left + width, 3] = 255
    picture = Image.fromarray(canvas)
    times = max(1, round(_GRID_WIDTH / picture.width))
    return _uri(
        picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
    )


def _blank(width: float, height: float) -> Figure:
    """A figure with a transparent background and a size in CSS pixels."""
    figure = Figure(figsize=(width / 100, height / 100), dpi=_DPI)
    figure.patch.set_visible(False)
    return figure


def _png(figure: Figure) -> Markup:
    for axes in figure.axes:
        axes.patch.set_visible(False)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Characters that the font lacks are drawn as boxes, which needs no warning.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="png", metadata={"Software": None})
    picture = Image.open(buffer).quantize(_COLORS, method=Image.Quantize.FASTOCTREE)
    return _uri(picture)


def _uri(picture: Image.Image) -> Markup:
    buffer = io.BytesIO()
    picture.save(buffer, format="png", optimize=True)
    return Markup("data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode())
