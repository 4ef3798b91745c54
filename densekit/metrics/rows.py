"""Data and samples as matrices in units in which Euclidean distances mean something.

Every metric that compares rows reads them here, so that all see the same geometry:

- A column of numbers (datetimes too) is divided by its standard deviation in the data.
- A nominal column with shares :math:`p_k` in the data becomes one indicator a level, each divided
  by :math:`\\sqrt{1 - \\sum_k p_k^2}`, the root of the summed variances of the indicators: any two
  different levels are equally far apart, and the column weighs as much as one of numbers. Of more
  than 256 levels the rarest share an indicator.
- The entries of an image share a unit, and so one scale: the root of their mean variance.
- A column that is constant in the data is divided by the root mean square of what the samples
  differ from it.

The units come from the data and never from the samples, but for the last.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from densekit.containers import RawColumn

_MOST_LEVELS = 256
_BLOCKS = 5
_PARTITIONS = 10
_WIDE = 64


@dataclass(frozen=True)
class Pair:
    """Rows of the data and of the samples in the same columns and units."""

    x: np.ndarray
    """(n, D)"""
    y: np.ndarray
    """(m, D)"""
    labels: list[str | int]
    """Names of the columns that the user gave; of an array their indices."""
    owner: np.ndarray
    """(D,) Index into ``labels`` of the column that each column of ``x`` and ``y`` encodes."""


def pair(X: Any, Y: Any, *, name: str, at_least: int, at_most: int, random_state: Any = 0) -> Pair:
    """Both as matrices, with at most ``at_most`` rows each, drawn without replacement.

    Raises
    ------
    TypeError
        Rows are texts.
    ValueError
        Missing or infinite entries, other columns in ``Y`` than in ``X``, fewer than ``at_least``
        rows.

    Examples
    --------
    >>> both = pair([["a"], ["b"]] * 2, [["c"]] * 2, name="it", at_least=2, at_most=9)
    >>> both.x.shape, round(float(np.linalg.norm(both.x[0] - both.x[1])), 9)
    ((4, 3), 2.0)
    """
    x, y = _read("X", X), _read("Y", Y)
    rng = np.random.default_rng(random_state)
    n, m = (len(a) if isinstance(a, np.ndarray) else len(a[0].values) for a in (x, y))
    if min(n, m) < at_least:
        raise ValueError(f"X has {n} rows and Y {m}: {name} needs {at_least} of each")
    keep = _chosen(n, at_most, rng), _chosen(m, at_most, rng)
    if isinstance(x, np.ndarray) and isinstance(y, np.ndarray):
        return _images(x[keep[0]], y[keep[1]])
    if isinstance(x, np.ndarray) or isinstance(y, np.ndarray):
        raise ValueError("X and Y must both be tables or both be images (n, height, width, ...)")
    return _tables(x, in_order(x, y), keep)


def distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Euclidean, (n, m). Those of wide rows are matrix products: five times as fast, and off by
    1e-7 of the largest, so that rows closer than ten times that count as equal."""
    if x.shape[1] > _WIDE:
        from sklearn.metrics.pairwise import euclidean_distances

        found = euclidean_distances(x, y)
        found[found < 1e-6 * found.max()] = 0
        return found
    from scipy.spatial.distance import cdist

    return cdist(x, y)


def batches(
    statistic: Callable[[np.ndarray, np.ndarray], float], n: int, m: int, *, at_least: int = 2
) -> np.ndarray:
    """A statistic of both samples, on blocks of their rows: (partitions, blocks).

    Both are split at random into the same number of blocks, five or what leaves each ``at_least``
    rows, and that several times. ``statistic`` takes the indices of the rows of either.
    """
    blocks = min(_BLOCKS, min(n, m) // at_least)
    rng = np.random.default_rng(0)
    found = np.empty((_PARTITIONS, blocks))
    for values in found:
        parts = (np.array_split(rng.permutation(size), blocks) for size in (n, m))
        values[:] = [statistic(a, b) for a, b in zip(*parts, strict=True)]
    return found


def standard_error(found: np.ndarray) -> float:
    """Of the statistic on all rows, by batch means: its variance is taken to fall as 1/n, so that
    it is that of the blocks' values over their number.

    That holds for distances both where the samples differ and where they do not, and for counts of
    neighbors; the jackknife and the bootstrap fail for two of these three.
    """
    return math.sqrt(found.var(1, ddof=1).mean() / found.shape[1])


def _read(name: str, rows: Any) -> "np.ndarray | list[RawColumn]":
    """The columns of a table, or images as a matrix of one row each."""
    # Imported late: the codecs bring torch, and a suite asks for the names of the metrics only.
    from densekit import containers

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


def _chosen(n: int, at_most: int, rng: np.random.Generator) -> np.ndarray:
    return np.arange(n) if n <= at_most else np.sort(rng.choice(n, at_most, replace=False))


def in_order(x: Sequence[Any], y: Sequence[Any]) -> list[Any]:
    """The columns of ``y`` in the order of ``x``; each has a ``label``.

    Raises
    ------
    ValueError
        They are not the same, by name or by number.
    """
    if {c.label for c in x} == {c.label for c in y}:
        of = {c.label: c for c in y}
        return [of[c.label] for c in x]
    named = any(isinstance(c.label, str) for c in (*x, *y))
    if not named:
        raise ValueError(f"rows of X have {len(x)} entries and rows of Y {len(y)}")
    only = [
        sorted(str(c.label) for c in side if c.label not in {d.label for d in other})
        for side, other in ((x, y), (y, x))
    ]
    raise ValueError(
        f"X has the columns {only[0]} and Y {only[1]} that the other lacks: both must have the same"
    )


def _images(x: np.ndarray, y: np.ndarray) -> Pair:
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"rows of X have {x.shape[1]} entries and rows of Y {y.shape[1]}")
    center = x.mean(0)
    spread = math.sqrt(x.var(0).mean()) or math.sqrt(((y - center) ** 2).mean()) or 1.0
    width = x.shape[1]
    return Pair((x - center) / spread, (y - center) / spread, [*range(width)], np.arange(width))


def _tables(
    x: "list[RawColumn]", y: "list[RawColumn]", keep: tuple[np.ndarray, np.ndarray]
) -> Pair:
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
    owner = np.repeat(np.arange(len(x)), [block.shape[1] for block in blocks])
    return Pair(joint[:n], joint[n:], [c.label for c in x], owner)


def _standardized(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    if u.dtype.kind == "M":
        origin = u.min()
        u, v = ((a - origin) / np.timedelta64(1, "us") for a in (u, v))
    u, v = u.astype(float), v.astype(float)
    constant = (u == u[0]).all()  # u.std() of a constant may be its rounding error
    center = u[0] if constant else u.mean()
    u, v = u - center, v - center
    spread = np.sqrt((v**2).mean()) if constant else u.std()
    return np.concatenate([u, v])[:, None] / (spread or 1.0)


def _levels(column: "RawColumn", values: np.ndarray) -> np.ndarray:
    if not column.coded:
        return values
    return np.asarray(column.levels, dtype=object)[values]


def _indicators(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    code = {level: k for k, level in enumerate(dict.fromkeys((*u.tolist(), *v.tolist())))}
    codes = np.array([code[level] for level in (*u.tolist(), *v.tolist())])
    count = np.bincount(codes[: len(u)], minlength=len(code))
    rank = np.empty_like(count)
    rank[np.argsort(-count, kind="stable")] = np.arange(len(count))
    found = np.eye(min(len(code), _MOST_LEVELS))[np.minimum(rank[codes], _MOST_LEVELS - 1)]
    spread = math.sqrt(max(0.0, found[: len(u)].var(0).sum()))
    # A constant column of the data: rows that differ are then as far as those of a fair coin.
    return found / (spread if len(set(codes[: len(u)])) > 1 else math.sqrt(0.5))
