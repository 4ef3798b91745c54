r"""Shape and trend errors: compare single columns and pairs of columns of samples with the data.

The definitions are those of SDMetrics' quality report (https://docs.sdv.dev/sdmetrics), as errors
instead of scores: 0 where samples and data agree and 1 where they differ as much as possible.

The error of two samples from one distribution is not zero; it falls as :math:`\sqrt{1/n + 1/m}`. Compare
a model's error with that of held-out rows against the training rows, with equal numbers of rows. The
best models of tables reach this baseline and must be ranked by other metrics.

Standard errors use the delta method: each error is a difference of two means, over the rows of the data
and of the samples, of a function that is taken as known. They are accurate where samples and data
differ, and up to twice too large where they do not. They are NaN for a table with a single row.
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
    """Errors of single columns or of pairs of columns, with their mean."""

    mean: Estimate
    """Mean of the errors that are not NaN."""
    table: "pd.DataFrame"
    """Columns ``metric``, ``error`` and ``standard_error``; one row per column or pair of columns."""


def shape_errors(X: Any, Y: Any) -> ColumnErrors:
    r"""Distance between the marginal distributions of data and samples, for each column.

    Columns of numbers and datetimes use the Kolmogorov-Smirnov distance. Columns of categories, strings
    and booleans use the total variation distance:

    .. math::  \sup_t |F(t) - G(t)|, \qquad \frac 1 2 \sum_k |p_k - q_k|,

    where F and G are the empirical distribution functions, and p and q the shares, of data and samples.
    Missing cells are ignored. SDMetrics reports 1 minus these distances as `KSComplement
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
        Errors from 0 to 1. The error of a column without values in X or in Y is NaN.

    Raises
    ------
    TypeError
        A container or a column has an unsupported type.
    ValueError
        A table has no rows, columns differ by name or by kind, or numbers are infinite.

    Examples
    --------
    >>> import pandas as pd
    >>> x = pd.DataFrame({"age": [20, 30, 40, 50], "sex": ["f", "f", "m", "m"]})
    >>> errors = shape_errors(x, x.assign(sex="m"))
    >>> errors.table["error"].to_dict(), errors.mean.value
    ({'age': 0.0, 'sex': 0.5}, 0.25)
    """
    import pandas as pd

    pairs = _read_finite(X, Y)
    ordered = [a.kind != "level" for a, _ in pairs]
    errors = (
        _distance(*_codes(a, b), ordered=is_ordered)
        for (a, b), is_ordered in zip(pairs, ordered, strict=True)
    )
    names = ["KSComplement" if is_ordered else "TVComplement" for is_ordered in ordered]
    return _summary(errors, names, pd.Index([a.label for a, _ in pairs], name="column"))


def trend_errors(X: Any, Y: Any, *, bin_edges: str = "data") -> ColumnErrors:
    r"""Difference between the pairwise dependence in data and in samples, for each pair of columns.

    Two columns of numbers or datetimes use half the difference of their Pearson correlations. Two
    columns of categories, strings or booleans use the total variation distance of their joint shares:

    .. math::  \frac 1 2 |r - s|, \qquad \frac 1 2 \sum_{k,l} |p_{kl} - q_{kl}|.

    In a mixed pair the numbers are first put into ten bins of equal width, of which the first and the
    last are unbounded. Correlations use the rows in which neither cell is missing; in all other pairs,
    missing cells are a separate level. SDMetrics reports 1 minus these errors as `CorrelationSimilarity
    <https://docs.sdv.dev/sdmetrics/data-metrics/quality/correlationsimilarity>`_ and
    `ContingencySimilarity
    <https://docs.sdv.dev/sdmetrics/data-metrics/quality/contingencysimilarity>`_, and their mean as
    Column Pair Trends. By default the report of version 0.32 ignores pairs with weak correlation or
    association in the data. This function uses all pairs, like published results and like a report with
    ``real_correlation_threshold`` and ``real_association_threshold`` set to 0.

    Parameters
    ----------
    X, Y : arrays or DataFrames
        As in :func:`shape_errors`, with at least two columns.
    bin_edges : {"data", "each"}
        With ``"data"``, the bins divide the range of the data; SDMetrics documents this and its metric
        computes it. With ``"each"``, the bins divide the range of each table, and its largest value
        falls into the bin of missing cells. SDMetrics' quality report computes this (versions 0.11 to
        0.32), and so do published results.

    Returns
    -------
    errors : ColumnErrors
        Errors from 0 to 1, with the index levels ``column_1`` and ``column_2``. The error is NaN for
        a constant column, which has no correlation.

    Raises
    ------
    TypeError, ValueError
        As in :func:`shape_errors`; also if there is only one column or ``bin_edges`` is unknown.

    Warns
    -----
    UserWarning
        A column of numbers is constant in Y but not in X. The mean excludes its pairs.

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
    pairs = _read_finite(X, Y)
    if len(pairs) < 2:
        raise ValueError("X has one column: trend errors need at least two columns")
    _warn_of_constants(pairs)
    numbers = [
        [_standardized_cells(c) for c in pair] if pair[0].kind != "level" else None
        for pair in pairs
    ]
    codes = [
        _with_missing(*pair) if number is None else _bins(*pair, bin_edges)
        for pair, number in zip(pairs, numbers, strict=True)
    ]

    def pair_error(i: int, j: int) -> ErrorWithInfluence:
        a, b = numbers[i], numbers[j]
        if a is None or b is None:
            return _joint_distance(codes[i], codes[j])
        return _correlation_difference([a[0], b[0]], [a[1], b[1]])

    combinations = list(itertools.combinations(range(len(pairs)), 2))
    names = [
        "ContingencySimilarity" if None in (numbers[i], numbers[j]) else "CorrelationSimilarity"
        for i, j in combinations
    ]
    labels = [(pairs[i][0].label, pairs[j][0].label) for i, j in combinations]
    index = pd.MultiIndex.from_tuples(labels, names=["column_1", "column_2"])
    return _summary((pair_error(i, j) for i, j in combinations), names, index)


# ------------------------------------------------------------------------------------- errors

Codes = tuple[np.ndarray, np.ndarray, int]
"""A column of X and of Y as integer codes, and the number of possible codes."""
ErrorWithInfluence = tuple[float, np.ndarray, np.ndarray]
"""An error and the influence of each row of X and of Y. Its variance is the sum of their squares."""


def _read_finite(X: Any, Y: Any) -> list[tuple[Cells, Cells]]:
    """Pairs of columns; raises ValueError if either table has infinite numbers."""
    pairs = read_pair(X, Y)
    for _, cells in pairs:
        check_finite("Y", cells)
    return pairs


def _summary(
    measured: Iterable[ErrorWithInfluence], names: list[str], index: "pd.Index"
) -> ColumnErrors:
    """The table of errors and their mean over columns or pairs."""
    import pandas as pd

    errors, standard_errors = [], []
    sums: list[Any] = [0.0, 0.0]
    for error, *influences in measured:
        errors.append(error)
        standard_errors.append(math.sqrt(sum(float(part @ part) for part in influences)))
        if not math.isnan(error):
            sums = [total + part for total, part in zip(sums, influences, strict=True)]
    table = pd.DataFrame(
        {"metric": names, "error": errors, "standard_error": standard_errors}, index=index
    )
    n = int(table["error"].count())
    if not n:
        return ColumnErrors(Estimate(math.nan, math.nan, "share"), table)
    # Rows are independent but the columns of a row are not, so influences are summed by row first.
    error = math.sqrt(sum(float(total @ total) for total in sums)) / n
    return ColumnErrors(Estimate(float(table["error"].mean()), error, "share"), table)


def _undefined(n: int, m: int) -> ErrorWithInfluence:
    """The result for a column or pair that has no error: NaN."""
    return math.nan, np.full(n, np.nan), np.full(m, np.nan)


def _influence_on_mean(values: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Influence of each row on the mean of ``values``, which belong to the rows that are ``present``."""
    n = len(values)
    influence = np.zeros(len(present)) if n > 1 else np.full(len(present), np.nan)
    if n > 1:
        influence[present] = (values - values.mean()) / math.sqrt(n * (n - 1))
    return influence


# ------------------------------------------------------------------------------------- shares


def _codes(x: Cells, y: Cells) -> Codes:
    """Codes of both columns: levels, or ranks among the values of both; -1 where a cell is missing."""
    if x.kind == "level":
        u, v, size = x.values, y.values, len(y.levels)
    else:
        values, codes = np.unique(np.concatenate([x.values, y.values]), return_inverse=True)
        u, v, size = codes[: len(x.values)], codes[len(x.values) :], len(values)
    return np.where(x.missing, -1, u), np.where(y.missing, -1, v), size


def _with_missing(x: Cells, y: Cells) -> Codes:
    """Codes of both columns, with one more code for missing cells."""
    u, v, size = _codes(x, y)
    return np.where(u < 0, size, u), np.where(v < 0, size, v), size + 1


def _bins(x: Cells, y: Cells, bin_edges: str) -> Codes:
    """Bins of the numbers of both columns, with one more code for missing cells."""
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


def _distance(u: np.ndarray, v: np.ndarray, size: int, *, ordered: bool) -> ErrorWithInfluence:
    """Kolmogorov-Smirnov distance of ordered codes, or total variation distance of unordered ones.

    Each is the largest difference between the means of one function of the codes (the witness) over the
    rows of X and of Y. The witness of the first is 1 up to some code and 0 beyond it. That of the second
    is 1/2 or -1/2, depending on which table has the larger share. The means give the standard error.
    """
    present = u >= 0, v >= 0
    if not (present[0].any() and present[1].any()):
        return _undefined(len(u), len(v))
    u, v = u[present[0]], v[present[1]]
    if size > 4 * (len(u) + len(v)):  # Drop codes that do not occur if they are the majority.
        occurring, codes = np.unique(np.concatenate([u, v]), return_inverse=True)
        u, v, size = codes[: len(u)], codes[len(u) :], len(occurring)
    p, q = (np.bincount(w, minlength=size) / len(w) for w in (u, v))
    gap = q - p
    if ordered:
        cumulative = np.cumsum(gap)
        most = int(np.abs(cumulative).argmax())
        witness = np.where(np.arange(size) <= most, np.sign(cumulative[most]) or 1.0, 0.0)
        error = abs(cumulative[most])
    else:
        witness = np.where(gap > 0, 0.5, -0.5)
        equal = np.flatnonzero((gap == 0) & (p > 0))
        # Codes with equal shares alternate in sign; with one sign the standard error would be 0.
        witness[equal[::2]] = 0.5
        error = np.abs(gap).sum() / 2
    influence_x = _influence_on_mean(witness[u], present[0])
    return float(error), influence_x, _influence_on_mean(witness[v], present[1])


def _joint_distance(first: Codes, second: Codes) -> ErrorWithInfluence:
    """Total variation distance of the joint shares of two columns."""
    u, v = (a * second[2] + b for a, b in zip(first[:2], second[:2], strict=True))
    return _distance(u, v, first[2] * second[2], ordered=False)


# ------------------------------------------------------------------------------------- numbers


def _scaled(values: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Values as float64; times as seconds from an origin, because float64 would round nanoseconds."""
    if values.dtype.kind != "M":
        return values.astype(np.float64)
    unit = np.datetime_data(values.dtype)[0]
    start = origin if len(origin) else np.zeros(1, values.dtype)
    return (values - start) / np.timedelta64(1, "s").astype(f"timedelta64[{unit}]")


def _standardized_cells(cells: Cells) -> np.ndarray:
    """Values with mean 0 and variance 1; NaN where a cell is missing, 0 if all values are equal."""
    result = np.full(len(cells.values), np.nan)
    result[~cells.missing] = _standardized(_scaled(cells.present, cells.present[:1]))
    return result


def _standardized(x: np.ndarray) -> np.ndarray:
    if not len(x) or _is_constant(x):
        return np.zeros(len(x))
    x = x - x[0]  # Exact for large numbers that are close to each other, unlike the mean's.
    x /= np.abs(x).max()  # Squares of large numbers would overflow.
    x -= x.mean()
    x /= math.sqrt(float(x @ x) / len(x))
    return x


def _warn_of_constants(pairs: list[tuple[Cells, Cells]]) -> None:
    """Warn of columns that only Y has constant; ignoring them silently would reward constant draws."""
    constant_labels = [
        a.label
        for a, b in pairs
        if a.kind != "level"
        and len(b.present) > 1
        and _is_constant(b.present)
        and not _is_constant(a.present)
    ]
    if constant_labels:
        warnings.warn(
            f"column(s) {constant_labels} are constant in Y but not in X: their correlations are "
            "undefined, and the mean excludes them",
            UserWarning,
            stacklevel=3,
        )


def _is_constant(values: np.ndarray) -> bool:
    """Whether there is at least one value and all values are equal."""
    return bool(len(values) and (values == values[0]).all())


def _correlation_difference(x: list[np.ndarray], y: list[np.ndarray]) -> ErrorWithInfluence:
    """Half the difference of the correlations of two columns of X and the same columns of Y."""
    (r, influence_x), (s, influence_y) = _correlation(*x), _correlation(*y)
    if math.isnan(r - s):
        return _undefined(len(influence_x), len(influence_y))
    half = math.copysign(0.5, s - r)
    return abs(s - r) / 2, -half * influence_x, half * influence_y


def _correlation(u: np.ndarray, v: np.ndarray) -> tuple[float, np.ndarray]:
    """Pearson correlation of two standardized columns over rows without NaN, and each row's influence.

    The influence function is :math:`u v - r (u^2 + v^2) / 2`.
    """
    present = ~(np.isnan(u) | np.isnan(v))
    n = len(present)
    if not present.all():
        u, v = _standardized(u[present]), _standardized(v[present])
    if len(u) < 2 or not u.any() or not v.any():
        return math.nan, np.full(n, np.nan)
    r = float(u @ v) / len(u)
    return r, _influence_on_mean(u * v - r / 2 * (u**2 + v**2), present)
