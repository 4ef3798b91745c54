"""Share of sampled values that the data rule out, computed without the codecs.

A value that merely does not occur in the data is not impossible. Three facts are evidence that it is:

- Many rows share the smallest or the largest value of the column, so the column ends there.
- All values are on a grid, such as two decimals or whole minutes.
- A level neither occurs in the data nor is declared by the dtype.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from densekit.metrics.cells import Cells, read_pair
from densekit.metrics.likelihood import Estimate

if TYPE_CHECKING:
    import pandas as pd

_FEWEST_ROWS = 10
"""Fewest rows that share an atom, whatever their share."""
_GRID_ROWS = 20
"""Fewest rows that are evidence of a grid: the values of fewer rows may be on one by chance."""
_MOST_LEVELS = 20
"""Most distinct floats that are taken to be levels."""
_MOST_DECIMALS = 9
_REASONS = ("beyond_end", "off_grid", "unknown_level", "no_value")


@dataclass(frozen=True)
class ImpossibleValues:
    """Shares of impossible values, overall and by column."""

    values: Estimate
    """Share of all cells that are impossible."""
    rows: Estimate
    """Share of the rows with at least one impossible cell."""
    table: "pd.DataFrame"
    """One row per column. It has the ``share`` and its ``standard_error``; the share for each reason,
    ``beyond_end``, ``off_grid``, ``unknown_level`` and ``no_value``; and the evidence: the ends ``low``
    and ``high`` and the ``step`` of the grid, None where there is none."""


@dataclass(frozen=True)
class _Evidence:
    """Constraints that the data put on a column of numbers or times; None where there is none."""

    low: Any = None
    high: Any = None
    step: Any = None
    levels: np.ndarray | None = None
    """The only possible values."""


def impossible_values(X: Any, Y: Any, *, atom_share: float = 0.05) -> ImpossibleValues:
    r"""Share of the values in the samples that the data rule out.

    A value is impossible for one of these reasons:

    - ``beyond_end``: it is smaller than the smallest value of X, or larger than the largest, and that
      value is an atom. An atom is a value of at least ten rows and at least a share ``atom_share`` of
      the rows. A constant column ends on both sides, and so does a column of two adjacent integers.
    - ``off_grid``: at least 20 rows of X have values, these are all multiples of one number with at most
      nine decimals (or all whole seconds, minutes, days and so on since 1970), and the value is not. A
      column of integers always has a grid.
    - ``unknown_level``: it is a category or string that neither occurs in X nor is declared by its
      dtype. A column of floats with at most 20 distinct values, each in at least ten rows, is treated
      as categories.
    - ``no_value``: it is infinite, or it is missing and X has no missing cell in this column.

    All other values are possible: a column with only positive values in X may have negative ones.

    Parameters
    ----------
    X, Y : arrays or DataFrames (pandas, polars, pyarrow)
        The training rows (n, D) and samples (m, D), with the same columns in any order.
    atom_share : float
        Smallest share of the rows that makes a value an atom, greater than 0 and at most 1.

    Returns
    -------
    impossible : ImpossibleValues
        Shares from 0 to 1. For k impossible values of m, the standard error is that of the posterior
        under a uniform prior, :math:`\sqrt{p (1 - p) / (m + 3)}` with :math:`p = (k + 1) / (m + 2)`. It
        is about 1/m, and not 0, if no value is impossible.

    Raises
    ------
    TypeError, ValueError
        As in :func:`densekit.metrics.shape_errors`, except that Y may have infinite numbers; also if
        ``atom_share`` is out of range.

    Examples
    --------
    >>> x = np.where(np.arange(100) % 2, np.arange(100) / 4, 0.0)[:, None]
    >>> found = impossible_values(x, np.array([[0.0], [0.25], [0.3], [-0.25]]))
    >>> found.table[["share", "beyond_end", "off_grid", "low", "step"]].to_dict("records")
    [{'share': 0.5, 'beyond_end': 0.25, 'off_grid': 0.25, 'low': 0.0, 'step': 0.25}]
    """
    import pandas as pd

    if not 0 < atom_share <= 1:
        raise ValueError(f"atom_share={atom_share!r}: must be greater than 0 and at most 1")
    pairs = read_pair(X, Y)
    bad = np.zeros((len(pairs[0][1].values), len(pairs)), bool)
    lines = []
    for j, (x, y) in enumerate(pairs):
        evidence = _Evidence() if x.kind == "level" else _evidence(x, atom_share)
        reasons = _reasons(x, y, evidence)
        bad[:, j] = np.any(list(reasons.values()), axis=0)
        line = {"share": bad[:, j].mean(), "standard_error": _standard_error(bad[:, j])}
        line |= {reason: where.mean() for reason, where in reasons.items()}
        lines.append(line | {"low": evidence.low, "high": evidence.high, "step": evidence.step})
    columns = ["share", "standard_error", *_REASONS, "low", "high", "step"]
    index = pd.Index([x.label for x, _ in pairs], name="column")
    plain = {"low": object, "high": object, "step": object}
    table = pd.DataFrame(
        {c: pd.Series([line[c] for line in lines], index, plain.get(c, float)) for c in columns}
    )
    by_row = bad.mean(1), bad.any(1).astype(float)
    values, rows = (Estimate(float(s.mean()), _standard_error(s), "share") for s in by_row)
    return ImpossibleValues(values, rows, table)


def _standard_error(shares: np.ndarray) -> float:
    """Standard error of a mean of numbers from 0 to 1, computed with one additional 0 and 1.

    For flags this is the standard deviation of the posterior under a uniform prior.
    """
    augmented = np.append(shares, [0.0, 1.0])
    return float(augmented.std() / np.sqrt(len(shares) + 3))


def _reasons(x: Cells, y: Cells, evidence: _Evidence) -> dict[str, np.ndarray]:
    """Which cells of ``y`` are impossible, for each reason."""
    present = ~y.missing
    no_value = y.missing & (not x.missing.any())
    beyond, off, unknown = np.zeros((3, len(present)), bool)
    if x.kind == "level":
        unknown = present & (y.values >= len(x.levels))
    else:
        if y.values.dtype.kind == "f":
            infinite = present & np.isinf(y.values)
            no_value, present = no_value | infinite, present & ~infinite
        values = y.values[present]
        if evidence.levels is not None:
            kind = values.dtype if values.dtype.kind == "f" else np.dtype(float)
            unknown[present] = ~np.isin(values.astype(kind), evidence.levels.astype(kind))
        else:
            beyond[present] = _beyond(values, evidence)
            off[present] = ~_on_grid(values, evidence.step, x.values.dtype)
    return dict(zip(_REASONS, (beyond, off, unknown, no_value), strict=True))


# ------------------------------------------------------------------------------------- evidence


def _evidence(cells: Cells, atom_share: float) -> _Evidence:
    values, counts = np.unique(cells.present, return_counts=True)
    if not len(values):
        return _Evidence()
    rows, kind = int(counts.sum()), values.dtype.kind
    if kind == "f" and 1 < len(values) <= _MOST_LEVELS and counts.min() >= _FEWEST_ROWS:
        return _Evidence(levels=values)
    atom = counts >= max(atom_share * rows, _FEWEST_ROWS)
    flags = kind in "iu" and len(values) == 2 and int(values[1]) - int(values[0]) == 1
    if len(values) == 1 or flags:
        atom[:] = True
    low, high = (values[k] if atom[k] else None for k in (0, -1))
    step: Any = None
    if kind == "f":
        step = _float_step(values) if rows >= _GRID_ROWS else None
    else:
        ticks = values.astype(np.int64) if kind == "M" else values
        step = max(int(np.gcd.reduce(ticks)), 1) if rows >= _GRID_ROWS else 1
        if kind == "M":
            step = np.array(step, f"timedelta64[{np.datetime_data(values.dtype)[0]}]")[()]
    return _Evidence(_plain(low), _plain(high), step)


def _plain(value: Any) -> Any:
    """A NumPy number as a Python number, so that comparisons use the precision of the samples."""
    return value.item() if isinstance(value, np.number) else value


def _float_step(values: np.ndarray) -> float | None:
    """The largest number of which all values are multiples; None if it has more than nine decimals."""
    x = values.astype(np.float64)
    error = 2 * np.finfo(values.dtype).eps * np.abs(x)
    for decimals in range(_MOST_DECIMALS + 1):
        unit = 10.0**decimals
        if error.max() * unit > 0.1 or np.abs(x).max() * unit > 2**53:
            return None  # Floats of this size are always close to such a grid.
        whole = np.rint(x * unit)
        if (np.abs(whole / unit - x) <= error).all():
            step = int(np.gcd.reduce(whole.astype(np.int64)))
            return step / unit if step else None
    return None


def _beyond(values: np.ndarray, evidence: _Evidence) -> np.ndarray:
    found = np.zeros(len(values), bool)
    if evidence.low is not None:
        found |= values < evidence.low
    if evidence.high is not None:
        found |= values > evidence.high
    return found


def _on_grid(values: np.ndarray, step: Any, dtype: np.dtype) -> np.ndarray:
    if step is None:
        return np.ones(len(values), bool)
    if values.dtype.kind == "M":
        ticks = step.astype(f"timedelta64[{np.datetime_data(values.dtype)[0]}]").astype(np.int64)
        return values.astype(np.int64) % ticks == 0
    if values.dtype.kind != "f" and isinstance(step, int):
        return values % step == 0
    x = values.astype(np.float64)
    kinds = [d for d in (values.dtype, dtype) if d.kind == "f"]
    error = 2 * max((np.finfo(d).eps for d in kinds), default=0.0) * np.abs(x)
    return np.abs(np.rint(x / step) * step - x) <= error
