"""Columns of tables: read from a container as plain NumPy values, one :class:`RawColumn` for each."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from densekit.containers.building import pack_arrow
from densekit.containers.rows import as_array, check_labels, check_unicode, container_of, labels_of
from densekit.containers.unreadable import reject_unreadable

Level = str | int | float | bool


@dataclass
class RawColumn:
    """One column as it came: numbers, booleans, datetime64 or an object array of strings."""

    label: str | int
    dtype: str
    values: np.ndarray
    levels: tuple[Level, ...] | None = None
    """Declared categories; where given with ``coded``, ``values`` are indices into them."""
    coded: bool = False
    ordered: bool = False
    missing: np.ndarray | None = None
    """Where cells are missing, (n,); ``values`` are then those of the other rows only."""

    def __len__(self) -> int:
        """Rows, those included whose cell is missing."""
        return len(self.values) if self.missing is None else len(self.missing)

    def cell(self, row: int) -> Any:
        """What stands in a row that is not missing."""
        value = self.values[row if self.missing is None else (~self.missing[:row]).sum()]
        value = value.item() if isinstance(value, np.generic) else value
        return self.levels[value] if self.coded and self.levels else value


@dataclass
class Frame:
    """The columns of a table and what is needed to rebuild its container (plain values only)."""

    container: str
    """``"numpy"``, ``"pandas"``, ``"polars"`` or ``"pyarrow"``."""
    columns: list[RawColumn]
    dtype: str = ""
    """numpy: the dtype of the array. pyarrow: the table's schema, base64."""


def read(X: Any, missing: bool = False) -> Frame:
    """The columns of a table; with ``missing``, cells may be (NaN, None or NaT).

    Raises
    ------
    TypeError
        Sparse input, or cells that are neither numbers nor strings.
    ValueError
        Wrong number of dimensions, no rows or columns, complex numbers, duplicate column names, a
        column type that no codec reads, infinite values, missing ones unless they may be.
    """
    reject_unreadable(X)
    container = container_of(X)
    if container == "numpy" or not hasattr(X, "columns"):
        return _read_array(X, missing)
    labels = labels_of(X)
    check_labels(labels)
    if not labels or not len(X):
        raise ValueError(
            f"X is empty: {len(X)} sample(s) and {len(labels)} feature(s) (shape={X.shape}); at "
            "least one of each is needed."
        )
    if container == "pandas":
        return Frame("pandas", [_read_pandas(label, X[label], missing) for label in labels])
    schema = "" if container == "polars" else pack_arrow(X.schema)
    return Frame(container, _read_narwhals(X, labels, missing), schema)


def _read_array(X: Any, missing: bool) -> Frame:
    x = as_array(X)
    if x.ndim != 2:
        raise ValueError(
            f"Expected 2D array, got {x.ndim}D array instead (shape {x.shape}). A table has two "
            "dimensions, (rows, columns). Reshape your data using X.reshape(-1, 1) if it has one "
            "column or X.reshape(1, -1) if it is one row."
        )
    if not x.size:
        raise ValueError(
            f"X is empty: {x.shape[0]} sample(s) and {x.shape[1]} feature(s) (shape={x.shape}); "
            "at least one of each is needed."
        )
    dtype = str(x.dtype)
    if x.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: X is {dtype} of shape {x.shape}.")
    if x.dtype.kind not in "fiubUOM":
        raise ValueError(
            f"X has dtype {dtype}; a table takes numbers, booleans, strings and datetimes: "
            "convert it."
        )
    columns = []
    for j in range(x.shape[1]):
        values, absent = _present(f"x{j}", x[:, j], missing)
        name = dtype
        if x.dtype.kind == "O":
            values, name = _read_objects(f"x{j}", values)
        elif x.dtype.kind == "U":
            values = values.astype(object)
            check_unicode(f"Column 'x{j}'", values)
        elif x.dtype == np.longdouble:
            with np.errstate(over="ignore"):  # What a float64 cannot hold is infinite to us.
                values = values.astype(np.float64)
        check_finite(f"x{j}", values)
        columns.append(RawColumn(j, name, values, missing=absent))
    return Frame("numpy", columns, dtype)


def _present(
    label: str | int, values: np.ndarray, missing: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """The values that are there, and where others are missing: None where none is, or none may be."""
    import pandas as pd

    if not missing or values.dtype.kind not in "fMO":
        return values, None
    absent = np.asarray(pd.isna(values))
    return (values[~absent], absent) if absent.any() else (values, None)


def check_finite(label: str | int, values: np.ndarray) -> None:
    """Raise ValueError where a column of numbers or datetimes has missing or infinite values."""
    if values.dtype.kind == "M":
        check_missing(label, int(np.isnat(values).sum()))
    elif values.dtype.kind == "f" and not np.isfinite(values).all():
        check_missing(label, int(np.isnan(values).sum()))
        raise ValueError(
            f"Column {label!r} contains infinity: {int(np.isinf(values).sum())} of {len(values)} "
            "values are infinite (inf); drop these rows or clip the column."
        )


def check_missing(label: str | int, missing: int) -> None:
    """Raise ValueError where a column has missing values."""
    if missing:
        raise ValueError(
            f"Column {label!r} contains NaN: {missing} missing value(s) (NaN, None or NaT). "
            "This model does not take missing values (TabularAutoregressive does): drop these rows or "
            "impute."
        )


def _read_objects(label: str | int, values: np.ndarray) -> tuple[np.ndarray, str]:
    """A column of Python objects as strings, numbers or datetimes, and the name of its dtype."""
    import pandas as pd

    check_missing(label, int(pd.isna(values).sum()))
    if not len(values):  # all are missing, where they may be
        return values, "object"
    inferred = pd.api.types.infer_dtype(values, skipna=False)
    if inferred == "string":
        check_unicode(f"Column {label!r}", values)
        return np.asarray(values, dtype=object), "object"
    if inferred in ("boolean", "integer", "floating", "mixed-integer-float"):
        numbers = np.array(values.tolist())
        if numbers.dtype.kind in "biuf" and numbers.ndim == 1:
            return numbers, "object"
    if inferred == "date":
        return values.astype("datetime64[D]"), "object[date]"
    if inferred in ("datetime", "datetime64"):
        return _read_instants(label, values), "object[datetime]"
    if inferred == "decimal":
        numbers = values.astype(np.float64)
        check_finite(label, numbers)
        return numbers, "object[decimal]"
    if inferred == "period":
        raise TypeError(
            f"Column {label!r} holds periods: make them the instants at which they begin, "
            "X[column].dt.to_timestamp()."
        )
    types = sorted({type(v).__name__ for v in values})
    raise TypeError(
        f"Column {label!r} holds {', '.join(types[:4])}: each argument must be a string or a "
        "number, and a column only one of the two; convert it (labels: X[column].astype(str); numbers: "
        "pandas.to_numeric; durations: to seconds)."
    )


def _read_instants(label: str | int, values: np.ndarray) -> np.ndarray:
    """Objects of datetimes, none of which has a zone, as microseconds."""
    zones = {str(getattr(v, "tzinfo", None)) for v in values}
    if zones != {"None"}:
        raise TypeError(
            f"Column {label!r} holds instants of the zones {', '.join(sorted(zones)[:4])} as objects: a "
            "column has one zone, pandas.to_datetime(X[column], utc=True)."
        )
    return values.astype("datetime64[us]")


def _read_pandas(label: str | int, series: Any, missing: bool) -> RawColumn:
    """A column of a DataFrame; what is not there is left out, and marked."""
    absent = np.asarray(series.isna()) if missing and getattr(series, "ndim", 1) == 1 else None
    if absent is None or not absent.any():
        return _read_whole(label, series)
    column = _read_whole(label, series[~absent])
    column.missing = absent
    return column


def _read_whole(label: str | int, series: Any) -> RawColumn:
    import pandas as pd

    if getattr(series, "ndim", 1) != 1:
        raise ValueError(f"Duplicate column name {label!r}: rename or drop one of them.")
    if isinstance(label, np.integer):
        label = int(label)
    dtype, name = series.dtype, str(series.dtype)
    check_missing(label, int(series.isna().sum()))
    if isinstance(dtype, pd.CategoricalDtype):
        levels = _plain_levels(label, dtype.categories.tolist())
        name = f"category[{dtype.categories.dtype}{', ordered' if dtype.ordered else ''}]"
        codes = series.cat.codes.to_numpy()
        return RawColumn(label, name, codes, levels, coded=True, ordered=bool(dtype.ordered))
    if isinstance(dtype, pd.SparseDtype):
        raise TypeError(f"Column {label!r} is sparse ({name}): use X.sparse.to_dense().")
    if isinstance(dtype, pd.PeriodDtype):
        raise TypeError(
            f"Column {label!r} holds periods ({name}): make them the instants at which they begin, "
            "X[column].dt.to_timestamp()."
        )
    if isinstance(dtype, (pd.StringDtype, np.dtypes.ObjectDType)) or dtype.kind in "UO":
        values, read_as = _read_objects(label, series.to_numpy(dtype=object))
        if isinstance(dtype, pd.ArrowDtype):
            name = f"arrow:{dtype.pyarrow_dtype}"
        elif isinstance(dtype, pd.StringDtype) and name == "string":
            name = f"string[{dtype.storage}]"
        elif name == "object":
            name = read_as
        return RawColumn(label, name, values)
    if isinstance(dtype, pd.ArrowDtype) and str(dtype.pyarrow_dtype).startswith("date"):
        days = series.to_numpy(dtype=object).astype("datetime64[D]")
        return RawColumn(label, f"arrow:{dtype.pyarrow_dtype}", days)
    if dtype.kind == "M":
        if getattr(series.dt, "tz", None) is not None:
            series = series.dt.tz_convert("UTC").dt.tz_localize(None)
        values = series.to_numpy()
        return RawColumn(label, name, values)
    if dtype.kind in "biuf":
        target = getattr(dtype, "numpy_dtype", dtype)
        values = np.asarray(series.to_numpy(dtype=target))
        check_finite(label, values)
        return RawColumn(label, name, values)
    raise _unreadable(label, name, complex_=dtype.kind == "c")


def _unreadable(label: str | int, dtype: str, *, complex_: bool = False) -> ValueError:
    if complex_:
        return ValueError(f"Complex data not supported: column {label!r} is {dtype}.")
    return ValueError(
        f"Column {label!r} has dtype {dtype}, which a table does not take: convert it to numbers, "
        "strings, categories or datetimes (durations: to seconds)."
    )


def _plain_levels(label: str | int, categories: list[Any]) -> tuple[Level, ...]:
    levels = tuple(categories)
    strings = {isinstance(v, str) for v in levels}
    if len(strings) > 1 or not all(isinstance(v, (str, int, float, bool)) for v in levels):
        types = sorted({type(v).__name__ for v in levels})
        raise ValueError(
            f"Column {label!r} has categories of type {', '.join(types)}; they must be all "
            "strings or all numbers: rename them (pandas: X[column].cat.rename_categories(str))."
        )
    if True in strings:
        check_unicode(f"Column {label!r}", levels)
    return levels


def _read_narwhals(X: Any, labels: list[str], missing: bool) -> list[RawColumn]:
    """Columns of polars and pyarrow frames, which narwhals reads alike."""
    import narwhals as nw

    frame = nw.from_native(X, eager_only=True)
    types = {f.name: f.type for f in X.schema} if hasattr(X, "column_names") else X.schema
    columns = []
    for label in labels:
        series = frame[label]
        dtype, native, absent = series.dtype, str(types[label]), None
        if missing:
            gone = series.is_null()
            if dtype.is_float():
                gone = gone | series.is_nan().fill_null(True)
            if gone.any():
                absent, series = gone.to_numpy().astype(bool), series.filter(~gone)
        check_missing(label, int(series.null_count()))
        levels: tuple[Level, ...] | None = None
        ordered = False
        if isinstance(dtype, (nw.Categorical, nw.Enum)):
            if isinstance(dtype, nw.Enum):
                levels = tuple(dtype.categories)
            elif native.startswith("dictionary"):
                column = X.column(label).unify_dictionaries()
                levels = _plain_levels(label, column.chunk(0).dictionary.to_pylist())
                ordered = native.endswith("ordered=1>")
            values = np.asarray(series.to_list(), dtype=object)
        elif isinstance(dtype, nw.String):
            values = np.asarray(series.to_list(), dtype=object)
        elif isinstance(dtype, nw.Decimal):
            values = np.asarray(series.to_list(), dtype=np.float64)
        elif isinstance(dtype, (nw.Datetime, nw.Date, nw.Boolean)) or (
            dtype.is_numeric() and not isinstance(dtype, (nw.Int128, nw.UInt128))
        ):
            values = series.to_numpy()
            check_finite(label, values)
        else:
            raise _unreadable(label, native)
        columns.append(RawColumn(label, native, values, levels, ordered=ordered, missing=absent))
    return columns
