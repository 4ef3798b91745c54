"""Reads the columns of a table as arrays without using the codecs.

Metrics that use this module share no code with the codecs and can therefore detect a codec's errors.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from densekit.metrics.rows import match_columns

_UNITS = ("s", "ms", "us", "ns")


@dataclass(frozen=True)
class Cells:
    """The cells of one column of a table with n rows."""

    label: Any
    dtype: str
    """Name of the dtype in the user's container, for messages."""
    kind: str
    """``"number"``, ``"time"``, ``"level"``, or ``"none"`` for a column of missing objects."""
    values: np.ndarray
    """(n,) Numbers, datetime64 in UTC, or indices into ``levels``; arbitrary where a cell is missing."""
    missing: np.ndarray
    """(n,) bool, whether a cell is missing."""
    levels: tuple[Any, ...] = ()
    """Levels that occur or that the dtype declares."""

    @property
    def present(self) -> np.ndarray:
        """The values of the cells that are not missing."""
        return self.values[~self.missing]


def read_pair(X: Any, Y: Any) -> list[tuple[Cells, Cells]]:
    """Read the columns of both tables, matched by name, with the same kind, levels and unit of time.

    Raises
    ------
    TypeError
        A container or a column has an unsupported type.
    ValueError
        A table has no rows, columns differ by name or by kind, or X has infinite numbers.
    """
    x, y = _read_table("X", X), _read_table("Y", Y)
    pairs = []
    for a, b in zip(x, match_columns(x, y), strict=True):
        if a.kind == "none":
            a = _with_kind_of(a, b)
        elif b.kind == "none":
            b = _with_kind_of(b, a)
        if a.kind != b.kind or (a.kind == "level" and not _comparable(a.levels, b.levels)):
            raise ValueError(
                f"column {a.label!r} is {a.dtype} in X and {b.dtype} in Y: convert one of them"
            )
        check_finite("X", a)
        pairs.append({"level": _share_levels, "time": _share_unit}.get(a.kind, _unchanged)(a, b))
    return pairs


def check_finite(name: str, cells: Cells) -> None:
    """Raise ValueError if a column of numbers contains infinity."""
    if cells.kind == "number" and cells.values.dtype.kind == "f":
        n = int(np.isinf(cells.present).sum())
        if n:
            raise ValueError(
                f"{name}: column {cells.label!r} contains infinity: {n} of {len(cells.values)} values "
                "are infinite (inf); drop these rows or clip the column"
            )


def _read_table(name: str, rows: Any) -> list[Cells]:
    import pandas as pd

    rows = rows.for_scoring() if hasattr(rows, "for_scoring") else rows
    library = type(rows).__module__.split(".")[0]
    if type(rows).__name__ == "LazyFrame":
        raise TypeError(
            f"{name} is a LazyFrame, whose rows are not loaded yet; pass {name}.collect()"
        )
    if hasattr(rows, "toarray") and hasattr(rows, "nnz"):
        raise TypeError(f"{name} is sparse ({type(rows).__name__}); pass {name}.toarray()")
    if library in ("pandas", "polars") and not hasattr(rows, "columns"):
        rows = rows.to_frame()
    if library == "polars":
        rows = rows.to_arrow()
    if hasattr(rows, "column_names"):  # a table of pyarrow
        columns = [
            (label, pd.Series(pd.array(rows.column(i), dtype=pd.ArrowDtype(rows.column(i).type))))
            for i, label in enumerate(rows.column_names)
        ]
    elif library == "pandas":
        columns = [(label, rows.iloc[:, j]) for j, label in enumerate(rows.columns)]
    else:
        columns = [(j, pd.Series(x)) for j, x in enumerate(_array(name, rows).T)]
    labels = [label for label, _ in columns]
    for label in labels:
        if labels.count(label) > 1:
            raise ValueError(
                f"{name}: duplicate column name {label!r}: rename or drop one of them"
            )
    if not columns or not len(columns[0][1]):
        raise ValueError(f"{name} is empty: a table needs at least one row and one column")
    return [_read_column(name, label, series) for label, series in columns]


def _array(name: str, rows: Any) -> np.ndarray:
    """A list or array as a two-dimensional array."""
    if np.ma.isMaskedArray(rows) and np.ma.is_masked(rows):
        raise ValueError(f"{name} is a masked array: pass {name}.filled(np.nan)")
    x = np.asarray(rows)
    if x.dtype.kind in "US" and not isinstance(rows, np.ndarray):
        x = np.asarray(rows, dtype=object)  # numbers among strings stay numbers
    x = x[:, None] if x.ndim == 1 else x
    if x.ndim != 2:
        raise ValueError(
            f"{name} has shape {x.shape}: a table has two dimensions, (rows, columns)"
        )
    if x.dtype.kind not in "biufUOM":
        raise TypeError(
            f"{name} is an array of {x.dtype}: convert it to numbers, strings or datetimes"
        )
    return x


def _read_column(name: str, label: Any, series: Any) -> Cells:
    """Read a pandas Series of any supported dtype."""
    import pandas as pd

    label = label.item() if isinstance(label, np.generic) else label
    dtype, dtype_name = series.dtype, str(series.dtype)
    if isinstance(dtype, pd.ArrowDtype):
        series = _from_arrow(series)
        dtype = series.dtype
    if isinstance(dtype, pd.SparseDtype):
        raise TypeError(
            f"{name}: column {label!r} is sparse ({dtype_name}): use {name}.sparse.to_dense()"
        )
    if isinstance(dtype, pd.PeriodDtype):
        series = series.dt.to_timestamp()
    elif isinstance(dtype, np.dtypes.ObjectDType):
        series = _from_objects(name, label, series)
    dtype, missing = series.dtype, np.asarray(series.isna(), bool)
    if isinstance(dtype, np.dtypes.ObjectDType) and missing.all():
        return Cells(label, dtype_name, "none", np.zeros(len(series)), missing)
    if isinstance(dtype, pd.CategoricalDtype):
        levels = tuple(dtype.categories.tolist())
        return Cells(
            label, dtype_name, "level", series.cat.codes.to_numpy(np.int64), missing, levels
        )
    if dtype.kind == "b":
        flags = series.fillna(False).to_numpy(bool) if missing.any() else series.to_numpy(bool)
        return Cells(label, dtype_name, "level", flags.astype(np.int64), missing, (False, True))
    if isinstance(dtype, (pd.StringDtype, np.dtypes.ObjectDType)):
        codes, found = pd.factorize(series)
        return Cells(label, dtype_name, "level", codes, missing, tuple(found.tolist()))
    if dtype.kind == "M":
        if getattr(dtype, "tz", None) is not None:
            series = series.dt.tz_convert("UTC").dt.tz_localize(None)
        return Cells(label, dtype_name, "time", series.to_numpy(), missing)
    if dtype.kind in "iuf":
        plain = getattr(dtype, "numpy_dtype", dtype)
        values = series.fillna(0).to_numpy(plain) if missing.any() else series.to_numpy(plain)
        if dtype.kind == "f":
            missing = missing | np.isnan(values)  # Arrow treats NaN as a value.
        return Cells(label, dtype_name, "number", values, missing)
    raise TypeError(
        f"{name}: column {label!r} has dtype {dtype_name}: convert it to numbers, strings, "
        "categories or datetimes (durations: to seconds)"
    )


def _from_arrow(series: Any) -> Any:
    """Convert an Arrow column of categories, dates, decimals or strings to pandas' own dtype."""
    import pandas as pd
    import pyarrow as pa

    kind = series.dtype.pyarrow_dtype
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return series
    column = pa.chunked_array(series.array.__arrow_array__())
    if pa.types.is_dictionary(kind):
        column = column.unify_dictionaries()
    elif pa.types.is_date(kind):
        column = column.cast(pa.timestamp("s" if pa.types.is_date32(kind) else "ms"))
    elif pa.types.is_decimal(kind):
        # A direct cast of decimals to float64 does not round to the nearest float.
        column = column.cast(pa.string()).cast(pa.float64())
    elif not (pa.types.is_timestamp(kind) or pa.types.is_null(kind) or "string" in str(kind)):
        return series  # _read_column raises for this dtype.
    return pd.Series(column.to_pandas().array)


def _from_objects(name: str, label: Any, series: Any) -> Any:
    """Convert a column of Python objects to strings, or to one type of numbers or times."""
    import pandas as pd

    found = pd.api.types.infer_dtype(series, skipna=True)
    if found in ("empty", "string"):
        return series
    if found == "boolean":
        return series.astype("boolean")
    if found in ("integer", "floating", "mixed-integer-float", "decimal"):
        try:
            return series.astype("Int64" if found == "integer" else "float64")
        except (OverflowError, TypeError):  # integers beyond 64 bits
            return series.astype("float64")
    if found in ("date", "datetime", "datetime64"):
        return pd.to_datetime(series, utc=found != "date").dt.tz_localize(None)
    types = sorted({type(v).__name__ for v in series[~series.isna()]})
    raise TypeError(
        f"{name}: column {label!r} holds {', '.join(types[:4])}: a column holds strings, numbers, "
        f"booleans or datetimes; convert it ({name}[column].astype(str), say)"
    )


# ---------------------------------------------------------------------------------- pairs of columns


def _with_kind_of(empty: Cells, other: Cells) -> Cells:
    """An empty column converted to the kind of the other table's column."""
    values = np.zeros(len(empty.values), other.values.dtype)
    return replace(empty, kind=other.kind, values=values)


def _comparable(x: Sequence[Any], y: Sequence[Any]) -> bool:
    """Whether two lists of levels have a type in common; an empty list is comparable to any."""
    types = [{bool if isinstance(v, bool) else str if isinstance(v, str) else float for v in side}
             for side in (x, y)]  # fmt: skip
    return not all(types) or not types[0].isdisjoint(types[1])


def _unchanged(x: Cells, y: Cells) -> tuple[Cells, Cells]:
    return x, y


def _share_levels(x: Cells, y: Cells) -> tuple[Cells, Cells]:
    """Express both columns as indices into one list: the levels of X, then those that only Y has."""
    code = {level: k for k, level in enumerate(x.levels)}
    for level in y.levels:
        code.setdefault(level, len(code))
    new_code = np.array([code[level] for level in y.levels] or [0])
    values = new_code[np.where(y.missing, 0, y.values)]
    return x, replace(y, values=values, levels=tuple(code))


def _share_unit(x: Cells, y: Cells) -> tuple[Cells, Cells]:
    """Convert both columns to the finer of their units, or to microseconds if nanoseconds overflow."""
    units = [np.datetime_data(c.values.dtype)[0] for c in (x, y)]
    unit = max(units, key=_UNITS.index)
    if unit == "ns" and units[0] != units[1]:
        coarse = (x if units[1] == "ns" else y).present.astype("datetime64[Y]").astype(int) + 1970
        unit = "ns" if ((coarse > 1677) & (coarse < 2262)).all() else "us"
    return tuple(replace(c, values=c.values.astype(f"datetime64[{unit}]")) for c in (x, y))  # type: ignore[return-value]
