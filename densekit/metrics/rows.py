"""Converts data and samples to matrices in which Euclidean distances are comparable across columns.

Every metric that compares rows uses this conversion, so all of them share one geometry:

- A column of numbers or datetimes is divided by its standard deviation in the data.
- A nominal column with shares :math:`p_k` in the data becomes one indicator per level, each divided
  by :math:`\\sqrt{1 - \\sum_k p_k^2}`, the root of the summed variances of the indicators. Any two
  different levels are then equally far apart, and the column has the same weight as a numeric one.
  Beyond 256 levels, the rarest levels share one indicator.
- All entries of an image have the same unit and are divided by one scale, the root of their mean
  variance.
- A column that is constant in the data is divided by the root mean square difference between the
  samples and that constant. This is the only scale that depends on the samples.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from densekit import containers
from densekit.containers import RawColumn

_MOST_LEVELS = 256
_BLOCKS = 5
_PARTITIONS = 10
_MOST_DIRECT_COLUMNS = 64


@dataclass(frozen=True)
class ComparableRows:
    """Rows of the data and of the samples as matrices with the same columns and units."""

    x: np.ndarray
    """(n, D) Rows of the data."""
    y: np.ndarray
    """(m, D) Rows of the samples."""
    labels: list[str | int]
    """Names of the columns that the user passed, or their indices in an array."""
    source_column: np.ndarray
    """(D,) Index into ``labels`` of the column that each column of ``x`` and ``y`` encodes."""


def comparable_rows(
    X: Any, Y: Any, *, name: str, min_rows: int, max_rows: int, random_state: Any = 0
) -> ComparableRows:
    """Convert data and samples to matrices with the same columns and units.

    Parameters
    ----------
    X, Y : arrays or DataFrames
        Data (n, ...) and samples (m, ...).
    name : str
        Name of the metric, for error messages.
    min_rows, max_rows : int
        Fewer rows are an error; of more rows, ``max_rows`` are drawn without replacement.
    random_state : int
        Seed of the draw.

    Raises
    ------
    TypeError
        The rows are texts.
    ValueError
        Entries are missing or infinite, the columns of ``Y`` are not those of ``X``, or there are
        fewer than ``min_rows`` rows.

    Examples
    --------
    >>> rows = comparable_rows([["a"], ["b"]] * 2, [["c"]] * 2, name="it", min_rows=2, max_rows=9)
    >>> rows.x.shape, round(float(np.linalg.norm(rows.x[0] - rows.x[1])), 9)
    ((4, 3), 2.0)
    """
    x, y = _columns_or_images("X", X), _columns_or_images("Y", Y)
    rng = np.random.default_rng(random_state)
    n, m = (len(a) if isinstance(a, np.ndarray) else len(a[0].values) for a in (x, y))
    if min(n, m) < min_rows:
        raise ValueError(f"X has {n} rows and Y {m}: {name} needs at least {min_rows} of each")
    keep = _drawn_rows(n, max_rows, rng), _drawn_rows(m, max_rows, rng)
    if isinstance(x, np.ndarray) and isinstance(y, np.ndarray):
        return _scale_images(x[keep[0]], y[keep[1]])
    if isinstance(x, np.ndarray) or isinstance(y, np.ndarray):
        raise ValueError("X and Y must both be tables or both be images (n, height, width, ...)")
    return _scale_tables(x, match_columns(x, y), keep)


def distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Euclidean distances (n, m) between the rows of ``x`` and of ``y``.

    Distances of rows with more than 64 entries are computed by matrix products. That is five times
    as fast and has an error of 1e-7 of the largest distance, so smaller distances than 1e-6 of the
    largest are set to zero.
    """
    if x.shape[1] > _MOST_DIRECT_COLUMNS:
        from sklearn.metrics.pairwise import euclidean_distances

        result = euclidean_distances(x, y)
        result[result < 1e-6 * result.max()] = 0
        return result
    from scipy.spatial.distance import cdist

    return cdist(x, y)


def block_statistics(
    statistic: Callable[[np.ndarray, np.ndarray], float], n: int, m: int, *, min_rows: int = 2
) -> np.ndarray:
    """Values of a two-sample statistic on random blocks of rows, (partitions, blocks).

    ``statistic`` takes the row indices of a block of the data and of a block of the samples. Each
    partition splits both into the same number of blocks: five, or fewer if a block would otherwise
    have less than ``min_rows`` rows.
    """
    blocks = min(_BLOCKS, min(n, m) // min_rows)
    rng = np.random.default_rng(0)
    result = np.empty((_PARTITIONS, blocks))
    for values in result:
        parts = (np.array_split(rng.permutation(size), blocks) for size in (n, m))
        values[:] = [statistic(a, b) for a, b in zip(*parts, strict=True)]
    return result


def standard_error(block_values: np.ndarray) -> float:
    """Standard error of a statistic on all rows, from its values on blocks (batch means).

    The variance of the statistic is assumed to fall as 1/n, so it is the variance of the block
    values divided by the number of blocks. The assumption holds for distances, whether or not the
    two distributions differ, and for counts of neighbors. The jackknife and the bootstrap each fail
    in two of these three cases.
    """
    return math.sqrt(block_values.var(1, ddof=1).mean() / block_values.shape[1])


def _columns_or_images(name: str, rows: Any) -> "np.ndarray | list[RawColumn]":
    """The columns of a table, or images as a matrix with one image per row."""
    rows = containers.for_scoring(rows)
    if containers.is_text(rows):
        raise TypeError(f"{name} holds texts: metrics of samples compare tables or images")
    try:
        if containers.container_of(rows) == "numpy":
            rows = containers.as_array(rows)
            if rows.ndim > 2:
                x = rows.reshape(len(rows), -1).astype(float)
                containers.check_finite("pixels", x)
                return x
            rows = rows[:, None] if rows.ndim == 1 else rows
        elif not hasattr(rows, "columns"):
            rows = rows.to_frame()
        return containers.read(rows).columns
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from None


def _drawn_rows(n: int, max_rows: int, rng: np.random.Generator) -> np.ndarray:
    """Sorted indices of all ``n`` rows, or of ``max_rows`` drawn without replacement."""
    return np.arange(n) if n <= max_rows else np.sort(rng.choice(n, max_rows, replace=False))


def match_columns(x: Sequence[Any], y: Sequence[Any]) -> list[Any]:
    """The columns of ``y`` in the order of the columns of ``x``, matched by their ``label``.

    Raises
    ------
    ValueError
        The two tables do not have the same columns.
    """
    if {c.label for c in x} == {c.label for c in y}:
        by_label = {c.label: c for c in y}
        return [by_label[c.label] for c in x]
    named = any(isinstance(c.label, str) for c in (*x, *y))
    if not named:
        raise ValueError(f"rows of X have {len(x)} entries and rows of Y {len(y)}")
    only = [
        sorted(str(c.label) for c in side if c.label not in {d.label for d in other})
        for side, other in ((x, y), (y, x))
    ]
    raise ValueError(
        f"only X has the columns {only[0]}, and only Y has {only[1]}: both must have the same columns"
    )


def _scale_images(x: np.ndarray, y: np.ndarray) -> ComparableRows:
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"rows of X have {x.shape[1]} entries and rows of Y {y.shape[1]}")
    center = x.mean(0)
    spread = math.sqrt(x.var(0).mean()) or math.sqrt(((y - center) ** 2).mean()) or 1.0
    width = x.shape[1]
    return ComparableRows(
        (x - center) / spread, (y - center) / spread, [*range(width)], np.arange(width)
    )


def _scale_tables(
    x: "list[RawColumn]", y: "list[RawColumn]", keep: tuple[np.ndarray, np.ndarray]
) -> ComparableRows:
    n, blocks = len(keep[0]), []
    for a, b in zip(x, y, strict=True):
        nominal = [c.levels is not None or c.values.dtype.kind == "O" for c in (a, b)]
        dates = [c.values.dtype.kind == "M" for c in (a, b)]
        if nominal[0] != nominal[1] or dates[0] != dates[1]:
            raise ValueError(
                f"column {a.label!r} is {a.dtype} in X and {b.dtype} in Y: convert one of them"
            )
        u, v = a.values[keep[0]], b.values[keep[1]]
        if nominal[0]:
            blocks.append(_indicators(_levels(a, u), _levels(b, v)))
        else:
            blocks.append(_standardized(u, v))
    joint = np.concatenate(blocks, 1)
    source_column = np.repeat(np.arange(len(x)), [block.shape[1] for block in blocks])
    return ComparableRows(joint[:n], joint[n:], [c.label for c in x], source_column)


def _standardized(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Numbers or datetimes of data and samples, centered and scaled by the data, (n + m, 1)."""
    if u.dtype.kind == "M":
        origin = u.min()
        u, v = ((a - origin) / np.timedelta64(1, "us") for a in (u, v))
    u, v = u.astype(float), v.astype(float)
    constant = (u == u[0]).all()  # u.std() of a constant may be a rounding error instead of zero
    center = u[0] if constant else u.mean()
    u, v = u - center, v - center
    spread = np.sqrt((v**2).mean()) if constant else u.std()
    return np.concatenate([u, v])[:, None] / (spread or 1.0)


def _levels(column: "RawColumn", values: np.ndarray) -> np.ndarray:
    """Values of a nominal column as levels, where the column stores codes."""
    if not column.coded:
        return values
    return np.asarray(column.levels, dtype=object)[values]


def _indicators(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Scaled indicators of the levels of data and samples, (n + m, levels)."""
    code = {level: k for k, level in enumerate(dict.fromkeys((*u.tolist(), *v.tolist())))}
    codes = np.array([code[level] for level in (*u.tolist(), *v.tolist())])
    count = np.bincount(codes[: len(u)], minlength=len(code))
    rank = np.empty_like(count)
    rank[np.argsort(-count, kind="stable")] = np.arange(len(count))
    indicators = np.eye(min(len(code), _MOST_LEVELS))[np.minimum(rank[codes], _MOST_LEVELS - 1)]
    spread = math.sqrt(max(0.0, indicators[: len(u)].var(0).sum()))
    # A column that is constant in the data has no spread and takes that of two equally likely levels.
    return indicators / (spread if len(set(codes[: len(u)])) > 1 else math.sqrt(0.5))
