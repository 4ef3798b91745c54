r"""Single columns and pairs of columns of samples beside those of the data.

The definitions are those of SDMetrics' quality report (https://docs.sdv.dev/sdmetrics), as errors:
one minus the score, 0 where samples and data agree and 1 where they are as different as they can be.

Two samples of one distribution do not have an error of zero; it falls as :math:`\sqrt{1/n + 1/m}`. Say
how far a model is from the data beside how far held-out rows are from the training rows, with equal
numbers of rows. The best models of tables reach that distance, so rank these by other metrics.

Standard errors are the delta method's: each error is a difference of two means over the rows of both
tables, of a function that is taken as known. They are right where samples and data differ, and up to
twice too large where they do not. They are NaN where a table has one row only.
"""

import itertools
import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from densekit.metrics.cells import Cells, check_finite, read_pair
from densekit.metrics.likelihood import Estimate

if TYPE_CHECKING:
    import pandas as pd

_BINS = 10


@dataclass(frozen=True)
class ColumnErrors:
    """Errors of columns or of pairs, and their mean."""

    mean: Estimate
    """The mean of the errors that are not NaN."""
    table: "pd.DataFrame"
    """``metric``, ``error`` and ``standard_error``, by column or by pair of columns."""


def shape_errors(X: Any, Y: Any) -> ColumnErrors:
    r"""Distance of the distribution of each column in the samples from that in the data.

    Of numbers and datetimes it is Kolmogorov and Smirnov's, of categories, strings and booleans the
    total variation distance,

    .. math::  \sup_t |F(t) - G(t)|, \qquad \frac 1 2 \sum_k |p_k - q_k|,

    with the empirical distribution functions F and G, or shares p and q, of data and samples. Cells
    that are missing are left out. SDMetrics has 1 minus these as `KSComplement
    <https://docs.sdv.dev/sdmetrics/data-metrics/quality/kscomplement>`_ and `TVComplement
    <https://docs.sdv.dev/sdmetrics/data-metrics/quality/tvcomplement>`_, and their mean as Column
    Shapes.

    Parameters
    ----------
    X, Y : arrays or DataFrames (pandas, polars, pyarrow)
        Data (n, D) and samples (m, D), with the same columns in any order.

    Returns
    -------
    errors : ColumnErrors
        Shares, from 0 to 1. A column without a value in X or in Y has the error NaN.

    Raises
    ------
    TypeError
        A container or column of a type that is no table's.
    ValueError
        No rows, columns that differ by name or by kind, infinite numbers.

    Examples
    --------
    >>> import pandas as pd
    >>> x = pd.DataFrame({"age": [20, 30, 40, 50], "sex": ["f", "f", "m", "m"]})
    >>> errors = shape_errors(x, x.assign(sex="m"))
    >>> errors.table["error"].to_dict(), errors.mean.value
    ({'age': 0.0, 'sex': 0.5}, 0.25)
    """
    import pandas as pd

    pairs = _finite(X, Y)
    ordered = [a.kind != "level" for a, _ in pairs]
    measured = (
        _distance(*_codes(a, b), ordered=o) for (a, b), o in zip(pairs, ordered, strict=True)
    )
    names = ["KSComplement" if o else "TVComplement" for o in ordered]
    return _summary(measured, names, pd.Index([a.label for a, _ in pairs], name="column"))


def trend_errors(X: Any, Y: Any, *, bin_edges: str = "data") -> ColumnErrors:
    r"""Distance of what ties each pair of columns in the samples from what ties it in the data.

    Of two columns of numbers or datetimes it is half the difference of Pearson's correlations, of two
    columns of categories, strings or booleans the total variation distance of their joint shares,

    .. math::  \frac 1 2 |r - s|, \qquad \frac 1 2 \sum_{k,l} |p_{kl} - q_{kl}|.

    In a pair of both kinds the number is put into one of ten bins of equal width, of which the outermost
    two are open. Correlations are of the rows without a missing cell in either column; in the other
    pairs missing cells are a level of their own. SDMetrics has 1 minus these as `CorrelationSimilarity
    <https://docs.sdv.dev/sdmetrics/data-metrics/quality/correlationsimilarity>`_ and
    `ContingencySimilarity
    <https://docs.sdv.dev/sdmetrics/data-metrics/quality/contingencysimilarity>`_, and their mean as
    Column Pair Trends. By default the report of version 0.32 leaves out pairs of weak correlation or
    association in the data; here all pairs count, as in the figures of papers and in a report whose
    ``real_correlation_threshold`` and ``real_association_threshold`` are 0.

    Parameters
    ----------
    X, Y : arrays or DataFrames
        As in :func:`shape_errors`, with at least two columns.
    bin_edges : {"data", "each"}
        Whose range the bins divide: that of the data, as SDMetrics documents and its metric computes,
        or that of each table, with its largest value in the bin of missing cells. The latter is what its
        quality report computes (versions 0.11 to 0.32), and so the figures of papers.

    Returns
    -------
    errors : ColumnErrors
        Shares, from 0 to 1, by the labels ``column_1`` and ``column_2``. A constant column has no
        correlation: the error is NaN.

    Raises
    ------
    TypeError, ValueError
        As :func:`shape_errors`; one column only, or another ``bin_edges``.

    Warns
    -----
    UserWarning
        A column of numbers is constant in Y and not in X, so that its pairs are not in the mean.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(1000, 1)) + 0.1 * rng.normal(size=(1000, 2))
    >>> r = np.corrcoef(x.T)[0, 1]
    >>> bool(np.isclose(trend_errors(x, x * [1, -1]).mean.value, r))
    True
    """
    import pandas as pd

    if bin_edges not in ("data", "each"):
        raise ValueError(f"bin_edges={bin_edges!r}: must be 'data' or 'each'")
    pairs = _finite(X, Y)
    if len(pairs) < 2:
        raise ValueError("X has one column: a trend is one of two columns")
    _warn_of_constants(pairs)
    numbers = [[_number(c) for c in pair] if pair[0].kind != "level" else None for pair in pairs]
    codes = [
        _with_missing(*pair) if number is None else _bins(*pair, bin_edges)
        for pair, number in zip(pairs, numbers, strict=True)
    ]

    def measured(i: int, j: int) -> Measured:
        a, b = numbers[i], numbers[j]
        if a is None or b is None:
            return _joint(codes[i], codes[j])
        return _apart([a[0], b[0]], [a[1], b[1]])

    places = list(itertools.combinations(range(len(pairs)), 2))
    names = [
        "ContingencySimilarity" if None in (numbers[i], numbers[j]) else "CorrelationSimilarity"
        for i, j in places
    ]
    labels = [(pairs[i][0].label, pairs[j][0].label) for i, j in places]
    index = pd.MultiIndex.from_tuples(labels, names=["column_1", "column_2"])
    return _summary((measured(i, j) for i, j in places), names, index)


# ------------------------------------------------------------------------------------- measuring

Codes = tuple[np.ndarray, np.ndarray, int]
"""A column of X and of Y as integers, and how many there may be."""
Measured = tuple[float, np.ndarray, np.ndarray]
"""An error, and what each row of X and of Y adds to it: the sum of their squares is its variance."""


def _finite(X: Any, Y: Any) -> list[tuple[Cells, Cells]]:
    pairs = read_pair(X, Y)
    for _, cells in pairs:
        check_finite("Y", cells)
    return pairs


def _summary(measured: Iterable[Measured], names: list[str], index: "pd.Index") -> ColumnErrors:
    import pandas as pd

    errors, spread = [], []
    sums: list[Any] = [0.0, 0.0]
    for error, *parts in measured:
        errors.append(error)
        spread.append(math.sqrt(sum(float(part @ part) for part in parts)))
        if not math.isnan(error):
            sums = [total + part for total, part in zip(sums, parts, strict=True)]
    table = pd.DataFrame({"metric": names, "error": errors, "standard_error": spread}, index=index)
    n = int(table["error"].count())
    if not n:
        return ColumnErrors(Estimate(math.nan, math.nan, "share"), table)
    # Rows are independent, and columns of a row are not: hence what a row adds to all errors.
    error = math.sqrt(sum(float(total @ total) for total in sums)) / n
    return ColumnErrors(Estimate(float(table["error"].mean()), error, "share"), table)


def _no_error(n: int, m: int) -> Measured:
    return math.nan, np.full(n, np.nan), np.full(m, np.nan)


def _of_mean(values: np.ndarray, here: np.ndarray) -> np.ndarray:
    """What each row adds to the error of a mean of ``values``, which are those of the rows ``here``."""
    n = len(values)
    added = np.zeros(len(here)) if n > 1 else np.full(len(here), np.nan)
    if n > 1:
        added[here] = (values - values.mean()) / math.sqrt(n * (n - 1))
    return added


# ------------------------------------------------------------------------------------- shares


def _codes(x: Cells, y: Cells) -> Codes:
    """Ranks among the values of both, or levels; -1 where a cell is missing."""
    if x.kind == "level":
        u, v, size = x.values, y.values, len(y.levels)
    else:
        values, codes = np.unique(np.concatenate([x.values, y.values]), return_inverse=True)
        u, v, size = codes[: len(x.values)], codes[len(x.values) :], len(values)
    return np.where(x.missing, -1, u), np.where(y.missing, -1, v), size


def _with_missing(x: Cells, y: Cells) -> Codes:
    """Levels, and one more for missing cells."""
    u, v, size = _codes(x, y)
    return np.where(u < 0, size, u), np.where(v < 0, size, v), size + 1


def _bins(x: Cells, y: Cells, bin_edges: str) -> Codes:
    """Numbers by their bins, and one more for missing cells."""
    origin = x.present[:1]
    edges = np.histogram_bin_edges(_scaled(x.present, origin), _BINS)
    codes: list[np.ndarray] = []
    for cells in (x, y):
        values = _scaled(cells.values, origin)
        if bin_edges == "each":
            edges = np.histogram_bin_edges(values[~cells.missing], _BINS)
            bins = np.digitize(values, edges) - 1
        else:
            bins = np.digitize(values, edges[1:-1])
        codes.append(np.where(cells.missing, _BINS, bins))
    return codes[0], codes[1], _BINS + 1


def _distance(u: np.ndarray, v: np.ndarray, size: int, *, ordered: bool) -> Measured:
    """Both distances are the difference of two means, over the rows of X and of Y, of the function of
    codes that makes it largest: 1 up to some code and then 0, or 1/2 and -1/2 by the sign of the gap."""
    here = u >= 0, v >= 0
    if not (here[0].any() and here[1].any()):
        return _no_error(len(u), len(v))
    u, v = u[here[0]], v[here[1]]
    if size > 4 * (len(u) + len(v)):  # many codes do not occur
        found, both = np.unique(np.concatenate([u, v]), return_inverse=True)
        u, v, size = both[: len(u)], both[len(u) :], len(found)
    p, q = (np.bincount(w, minlength=size) / len(w) for w in (u, v))
    gap = q - p
    if ordered:
        apart = np.cumsum(gap)
        most = int(np.abs(apart).argmax())
        witness = np.where(np.arange(size) <= most, np.sign(apart[most]) or 1.0, 0.0)
        error = abs(apart[most])
    else:
        witness = np.where(gap > 0, 0.5, -0.5)
        equal = np.flatnonzero((gap == 0) & (p > 0))
        witness[equal[::2]] = 0.5  # on either side, or the error would claim to be known exactly
        error = np.abs(gap).sum() / 2
    return float(error), _of_mean(witness[u], here[0]), _of_mean(witness[v], here[1])


def _joint(first: Codes, second: Codes) -> Measured:
    u, v = (a * second[2] + b for a, b in zip(first[:2], second[:2], strict=True))
    return _distance(u, v, first[2] * second[2], ordered=False)


# ------------------------------------------------------------------------------------- numbers


def _scaled(values: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """As float64; times in seconds from an origin, which a float64 holds where it does not hold them."""
    if values.dtype.kind != "M":
        return values.astype(np.float64)
    unit = np.datetime_data(values.dtype)[0]
    start = origin if len(origin) else np.zeros(1, values.dtype)
    return (values - start) / np.timedelta64(1, "s").astype(f"timedelta64[{unit}]")


def _number(cells: Cells) -> np.ndarray:
    """Of mean 0 and variance 1, NaN where a cell is missing; a constant is 0."""
    found = np.full(len(cells.values), np.nan)
    found[~cells.missing] = _standardized(_scaled(cells.present, cells.present[:1]))
    return found


def _standardized(x: np.ndarray) -> np.ndarray:
    if not len(x) or _constant(x):
        return np.zeros(len(x))
    x = x - x[0]  # exact where numbers are large and near to each other
    x /= np.abs(x).max()  # squares of large numbers overflow
    x -= x.mean()
    x /= math.sqrt(float(x @ x) / len(x))
    return x


def _warn_of_constants(pairs: list[tuple[Cells, Cells]]) -> None:
    """SDMetrics leaves such columns out silently, which rewards a model whose draws are constant."""
    gone = [
        a.label
        for a, b in pairs
        if a.kind != "level"
        and len(b.present) > 1
        and _constant(b.present)
        and not _constant(a.present)
    ]
    if gone:
        warnings.warn(
            f"column(s) {gone} are constant in Y and not in X: their correlations do not exist, and "
            "are not in the mean",
            UserWarning,
            stacklevel=3,
        )


def _constant(values: np.ndarray) -> bool:
    """Whether there are values and all are the same."""
    return bool(len(values) and (values == values[0]).all())


def _apart(x: list[np.ndarray], y: list[np.ndarray]) -> Measured:
    """Half the difference of the correlations of two columns of X and the same of Y."""
    (r, of_x), (s, of_y) = _correlation(*x), _correlation(*y)
    if math.isnan(r - s):
        return _no_error(len(of_x), len(of_y))
    half = math.copysign(0.5, s - r)
    return abs(s - r) / 2, -half * of_x, half * of_y


def _correlation(u: np.ndarray, v: np.ndarray) -> tuple[float, np.ndarray]:
    """Pearson's of two standardized columns, on their rows without NaN, and what each row adds to its
    error: by its influence function, :math:`u v - r (u^2 + v^2) / 2`."""
    here = ~(np.isnan(u) | np.isnan(v))
    n = len(here)
    if not here.all():
        u, v = _standardized(u[here]), _standardized(v[here])
    if len(u) < 2 or not u.any() or not v.any():
        return math.nan, np.full(n, np.nan)
    r = float(u @ v) / len(u)
    return r, _of_mean(u * v - r / 2 * (u**2 + v**2), here)
