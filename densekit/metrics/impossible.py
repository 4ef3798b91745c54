"""Values of samples that the data rule out, found from the data alone and not by the codecs.

Three things are evidence that a value cannot be, where merely having seen no such value is none:

- a column whose smallest or largest value many rows share ends there;
- all rows lie on a grid, such as two decimals or whole minutes;
- a level that neither occurs nor is declared.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from densekit.metrics.cells import Cells, read_pair
from densekit.metrics.likelihood import Estimate

if TYPE_CHECKING:
    import pandas as pd

_FEWEST_ROWS = 10
"""Rows that an atom has at least, whatever its share."""
_GRID_ROWS = 20
"""Rows from which a grid is believed: fewer may lie on one by chance."""
_MOST_LEVELS = 20
"""Distinct floats that may be all there are."""
_MOST_DECIMALS = 9
_REASONS = ("beyond_end", "off_grid", "unknown_level", "no_value")


@dataclass(frozen=True)
class ImpossibleValues:
    """How many values of samples cannot be."""

    values: Estimate
    """Share of all cells."""
    rows: Estimate
    """Share of the rows with such a cell."""
    table: "pd.DataFrame"
    """By column: ``share`` and its ``standard_error``; the shares for each reason, ``beyond_end``,
    ``off_grid``, ``unknown_level`` and ``no_value``; and the evidence: the ends ``low`` and ``high`` and
    the ``step`` of the grid, None where there is none."""


@dataclass(frozen=True)
class _Evidence:
    """What the values of a column of numbers or times rule out."""

    low: Any = None
    high: Any = None
    step: Any = None
    only: np.ndarray | None = None
    """The values, where there are no others."""


def impossible_values(X: Any, Y: Any, *, atom_share: float = 0.05) -> ImpossibleValues:
    r"""Share of the values of each column of the samples that the data rule out.

    A value is impossible

    - beyond an end: the smallest value of X is an atom, which at least a share ``atom_share`` of the
      rows and ten rows have, and it is smaller; or the largest is one, and it is larger. A constant
      column ends on both sides, and so does one of two neighboring integers (flags);
    - off the grid: at least 20 rows of X have values, all multiples of one number with at most nine
      decimals, or all whole seconds, minutes, days and so on since 1970, and it is none. Integers have a
      grid in any case;
    - an unknown level: a category or string that neither occurs in X nor is declared by its dtype; or,
      in a column of floats with at most 20 distinct values, which ten rows have each, another number;
    - no value: it is missing, and X has no missing cell in this column, or it is infinite.

    Nothing else is: a column that happens to be positive may have negative values.

    Parameters
    ----------
    X, Y : arrays or DataFrames (pandas, polars, pyarrow)
        The training rows (n, D) and samples (m, D), with the same columns in any order.
    atom_share : float
        The share of the rows from which a value is an atom, greater than 0 and at most 1.

    Returns
    -------
    found : ImpossibleValues
        Shares from 0 to 1. Their standard errors are those under a uniform prior,
        :math:`\sqrt{p (1 - p) / (m + 3)}` with :math:`p = (k + 1) / (m + 2)` for k of m: about 1/m, and
        not 0, where none is impossible.

    Raises
    ------
    TypeError, ValueError
        As :func:`densekit.metrics.shape_errors`, but that Y may have infinite numbers; another
        ``atom_share``.

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
    """Of the mean of numbers from 0 to 1, with one row more of 0 and of 1: for flags this is the
    standard deviation of the posterior under a uniform prior."""
    more = np.append(shares, [0.0, 1.0])
    return float(more.std() / np.sqrt(len(shares) + 3))


def _reasons(x: Cells, y: Cells, evidence: _Evidence) -> dict[str, np.ndarray]:
    """Which cells of ``y`` are impossible, for each reason."""
    here = ~y.missing
    no_value = y.missing & (not x.missing.any())
    beyond, off, unknown = np.zeros((3, len(here)), bool)
    if x.kind == "level":
        unknown = here & (y.values >= len(x.levels))
    else:
        if y.values.dtype.kind == "f":
            infinite = here & np.isinf(y.values)
            no_value, here = no_value | infinite, here & ~infinite
        values = y.values[here]
        if evidence.only is not None:
            kind = values.dtype if values.dtype.kind == "f" else np.dtype(float)
            unknown[here] = ~np.isin(values.astype(kind), evidence.only.astype(kind))
        else:
            beyond[here] = _beyond(values, evidence)
            off[here] = ~_on_grid(values, evidence.step, x.values.dtype)
    return dict(zip(_REASONS, (beyond, off, unknown, no_value), strict=True))


# ------------------------------------------------------------------------------------- evidence


def _evidence(cells: Cells, atom_share: float) -> _Evidence:
    values, counts = np.unique(cells.present, return_counts=True)
    if not len(values):
        return _Evidence()
    rows, kind = int(counts.sum()), values.dtype.kind
    if kind == "f" and 1 < len(values) <= _MOST_LEVELS and counts.min() >= _FEWEST_ROWS:
        return _Evidence(only=values)
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
    """Numbers as Python's, which are compared in the precision of the samples; datetimes as they are."""
    return value.item() if isinstance(value, np.number) else value


def _float_step(values: np.ndarray) -> float | None:
    """The largest number of which all values are multiples; None if it has more than nine decimals."""
    x = values.astype(np.float64)
    error = 2 * np.finfo(values.dtype).eps * np.abs(x)
    for decimals in range(_MOST_DECIMALS + 1):
        unit = 10.0**decimals
        if error.max() * unit > 0.1 or np.abs(x).max() * unit > 2**53:
            return None  # floats of this size always lie near such a grid
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
