"""Containers of rows (arrays, pandas, polars and pyarrow frames, lists): read, slice, rebuild.

Reading gives one :class:`RawColumn` per column with plain NumPy values; building takes them back.
No container library is imported before one of its objects is seen.
"""

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from densekit.codecs.schema import Column, Modality
from densekit.codecs.unreadable import reject_unreadable

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


# ---------------------------------------------------------------------------------------- rows


def container_of(X: Any) -> str:
    """The library that X's type belongs to; ``"numpy"`` for everything array-like."""
    root = type(X).__module__.split(".")[0]
    return root if root in ("pandas", "polars", "pyarrow") else "numpy"


def n_rows(X: Any) -> int:
    """Number of rows of an array, frame, table, series or list."""
    shape = getattr(X, "shape", None)
    if shape == ():
        raise ValueError("X has shape (): it is one number, and rows of an array are expected")
    if isinstance(shape, tuple):
        return int(shape[0])
    return len(X) if hasattr(X, "__len__") else len(np.atleast_1d(np.asarray(X)))


def for_scoring(X: Any) -> Any:
    """The rows of a held-out part, which hands them to scoring only; anything else as it is."""
    return X.for_scoring() if hasattr(X, "for_scoring") else X


def take(X: Any, start: int, stop: int) -> Any:
    """Rows ``start`` to ``stop``, a view where the container has views.

    >>> take([["a"], ["b"], ["c"]], 1, 3)
    [['b'], ['c']]
    """
    container = container_of(X)
    if container == "pandas":
        return X.iloc[start:stop]
    if container in ("polars", "pyarrow"):
        return X.slice(start, max(stop - start, 0))
    return (X if hasattr(X, "__getitem__") else np.asarray(X))[start:stop]


def select(X: Any, rows: np.ndarray) -> Any:
    """The rows at these places, as a copy in the container that X is.

    >>> select([["a"], ["b"], ["c"]], np.array([0, 2]))
    [['a'], ['c']]
    """
    container = container_of(X)
    if container == "pandas":
        return X.iloc[rows]
    if container == "polars":
        return X[rows]
    if container == "pyarrow":
        return X.take(rows)
    if isinstance(X, list | tuple):
        return [X[i] for i in rows.tolist()]
    return np.asarray(X)[rows]


# ---------------------------------------------------------------------------------------- modality


def too_few_rows(X: Any) -> str:
    """Why X, which has at most one row, is no data to learn from, and what to do.

    Raises
    ------
    TypeError
        X only looks like one row, being no container of rows.
    """
    reject_unreadable(X)
    n = n_rows(X)
    if not n:
        return "X is empty: it has 0 rows"
    said = f"X has n_samples={n}: a density needs at least 2 rows, found 1 sample"
    if not is_text(X):
        return said
    (text,) = list(X)
    return (
        f"{said}, a string of {len(text):,} characters; divide it into strings, by its lines "
        "(splitlines) or into pieces of one length"
    )


def as_array(X: Any) -> np.ndarray:
    """An array-like as an array; numbers and strings mixed in nested lists stay what they are."""
    reject_unreadable(X)
    if isinstance(X, np.ma.MaskedArray) and np.ma.is_masked(X):
        raise ValueError(
            f"X is a masked array with {int(np.ma.getmaskarray(X).sum())} masked values; a missing "
            "value is NaN where a model takes it: X.filled(np.nan), else drop the rows or impute."
        )
    try:
        x = np.asarray(X)
    except ValueError as error:
        raise ValueError(
            f"X is not an array: its rows differ in length or depth ({error})."
        ) from None
    if x.dtype.kind in "US" and isinstance(X, (list, tuple)):
        x = np.asarray(X, dtype=object)
        if all(isinstance(v, str) for v in x.flat):
            x = x.astype(str)
    return x


def is_frame(X: Any) -> bool:
    """Whether X is a table with named columns, of whichever library."""
    import narwhals as nw

    return isinstance(nw.from_native(X, pass_through=True, eager_only=True), nw.DataFrame)


def shape_in_words(X: Any) -> str:
    """For error messages.

    >>> shape_in_words(np.zeros((2, 3))), shape_in_words(["a"])
    (' of shape (2, 3)', ' of length 1')
    """
    shape = getattr(X, "shape", None)
    return f" of shape {tuple(shape)}" if shape is not None else f" of length {len(X)}"


def is_text(X: Any) -> bool:
    """Whether X is a list, tuple, series or one-dimensional array of strings."""
    if isinstance(X, (list, tuple)):
        return any(isinstance(item, (str, bytes)) for item in X[:100])
    if container_of(X) == "numpy":
        if not isinstance(X, np.ndarray) or X.ndim != 1 or not len(X):
            return False
        return X.dtype.kind in "US" or isinstance(X[0], (str, bytes))
    if hasattr(X, "columns") or not len(X):
        return False
    first = next(iter(take(X, 0, 1)))
    return isinstance(first.as_py() if hasattr(first, "as_py") else first, (str, bytes))


def modality_of(X: Any, image_shape: tuple[int, ...] | None = None) -> Modality:
    """What the rows of X are: ``"table"``, ``"image"`` or ``"text"``.

    Text is a one-dimensional list, series or array of strings. An image batch is an array of three
    or four dimensions, of integers in 0..255 or of floats in [0, 1], or two-dimensional with
    ``image_shape``. Frames and other two-dimensional arrays are tables.

    Raises
    ------
    TypeError
        X is sparse, one string, a path, a mapping, an iterator or a list of dicts.
    ValueError
        X is empty, or its shape or range fits no modality.

    Examples
    --------
    >>> modality_of([[0.5, 1.5]]), modality_of(["some", "text"])
    ('table', 'text')
    >>> modality_of(np.zeros((2, 8, 8), np.uint8))
    'image'
    """
    reject_unreadable(X)
    if is_text(X):
        return "text"
    if container_of(X) != "numpy" and hasattr(X, "columns"):
        check_labels(_labels(X))
        if image_shape is not None:
            raise ValueError(
                f"image_shape={image_shape} goes with arrays; X is a {container_of(X)} frame: "
                "pass X.to_numpy()."
            )
        return "table"
    x = as_array(X)
    if x.ndim >= 1 and not len(x):
        raise ValueError(f"X has no rows: found array with 0 sample(s) (shape={x.shape}).")
    if x.ndim < 2:
        raise ValueError(
            f"Expected 2D array, got {x.ndim}D array instead (shape {x.shape}). Reshape your data "
            "using X.reshape(-1, 1) if it has one column or X.reshape(1, -1) if it is one row."
        )
    if x.ndim == 2:
        return "table" if image_shape is None else "image"
    if x.ndim <= 4 and _pixels(x):
        return "image"
    span = f", values from {x.min()} to {x.max()}" if x.dtype.kind in "iuf" and x.size else ""
    raise ValueError(
        "A table has two dimensions; images must have three or four and be uint8 or floats in "
        f"[0, 1]; got {x.dtype} of shape {x.shape}{span}. Reshape a table to (rows, columns); "
        "rescale images."
    )


def _pixels(x: np.ndarray) -> bool:
    """Whether the values are 0..255 integers, booleans or floats in [0, 1], NaN left aside: the codec
    says better what to do about it."""
    if x.dtype in (np.uint8, np.bool_):
        return True
    if x.dtype.kind not in "biuf" or not x.size:
        return False
    low, high = np.fmin.reduce(x, axis=None), np.fmax.reduce(x, axis=None)
    return bool(low >= 0 and high <= (1 if x.dtype.kind == "f" else 255))


# ---------------------------------------------------------------------------------------- reading


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
    labels = _labels(X)
    check_labels(labels)
    if not labels or not len(X):
        raise ValueError(
            f"X is empty: {len(X)} sample(s) and {len(labels)} feature(s) (shape={X.shape}); at "
            "least one of each is needed."
        )
    if container == "pandas":
        return Frame("pandas", [_read_pandas(label, X[label], missing) for label in labels])
    schema = "" if container == "polars" else _pack_arrow(X.schema)
    return Frame(container, _read_narwhals(X, labels, missing), schema)


def _labels(X: Any) -> list[Any]:
    return list(X.column_names if hasattr(X, "column_names") else X.columns)


def check_labels(labels: Sequence[Any]) -> None:
    """Raise ValueError where names of columns are not names, or are not distinct."""
    seen: set[Any] = set()
    for label in labels:
        if not isinstance(label, (str, int, np.integer)):
            raise ValueError(
                f"Column name {label!r} is a {type(label).__name__}; names must be strings or "
                "integers: rename with X.columns = [...]."
            )
        if isinstance(label, str):
            check_unicode(f"Column name {label!r}", [label])
        if label in seen:
            raise ValueError(f"Duplicate column name {label!r}: rename or drop one of them.")
        seen.add(label)


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


def check_unicode(what: str, texts: Iterable[str]) -> None:
    """Raise ValueError where one of the strings has a lone surrogate, which no file can hold."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"{what} is not valid Unicode: it has a lone surrogate, a trace of text that was not "
            "UTF-8; read the file with its own encoding."
        ) from None


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


# ---------------------------------------------------------------------------------------- building


def build(
    container: str,
    dtype: str,
    labels: Sequence[str | int],
    columns: Sequence[Column],
    values: Sequence[np.ndarray],
) -> Any:
    """The container that :func:`read` saw, from values per column (categories: their values)."""
    if container == "numpy":
        out = np.empty((len(values[0]), len(values)), dtype=dtype)
        for j, v in enumerate(values):
            out[:, j] = _objects(columns[j].dtype, v) if dtype == "object" else v
        return out
    if container == "pandas":
        import pandas as pd

        pairs = zip(columns, values, strict=True)
        out = pd.DataFrame({j: _pandas_series(c, v) for j, (c, v) in enumerate(pairs)})
        out.columns = pd.Index(list(labels))
        return out
    if container == "polars":
        import polars as pl

        ticks = [v.astype(np.int64) if v.dtype.kind == "M" else v for v in values]
        return pl.DataFrame(
            [
                pl.Series(c.name, _listed(c.dtype, v)).cast(_polars_dtype(c))
                for c, v in zip(columns, ticks, strict=True)
            ]
        )
    return _build_arrow(_unpack_arrow(dtype), columns, values)


def _pandas_series(column: Column, values: np.ndarray) -> Any:
    import pandas as pd

    dtype = column.dtype
    if match := re.fullmatch(r"category\[(.*?)(, ordered)?\]", dtype):
        categories = pd.Index(list(column.levels), dtype=match[1])
        kind = pd.CategoricalDtype(categories, ordered=match[2] is not None)
        return pd.Series(pd.Categorical(values, dtype=kind))
    if dtype.startswith("arrow:"):
        kind = _arrow_type(dtype[6:])
        import pyarrow as pa

        array = pa.array(_listed(dtype, values), kind)
        return pd.Series(pd.arrays.ArrowExtensionArray(array))
    if dtype.startswith("object"):
        return pd.Series(_objects(dtype, values), dtype=object)
    target = pd.api.types.pandas_dtype(dtype)
    tz = getattr(target, "tz", None) or getattr(getattr(target, "pyarrow_dtype", None), "tz", None)
    if values.dtype.kind == "M" and tz is not None:
        return pd.Series(values).dt.tz_localize("UTC").astype(target)
    return pd.Series(values, dtype=target)


def _objects(dtype: str, values: np.ndarray) -> list[Any]:
    """Values as the Python objects that they were read from."""
    if dtype == "object[decimal]":
        return [Decimal(repr(v)) for v in values.tolist()]
    if dtype == "object[datetime]":
        return values.astype("datetime64[us]").tolist()  # type: ignore[no-any-return]
    return values.tolist()  # type: ignore[no-any-return]


def _listed(dtype: str, values: np.ndarray) -> Any:
    """Values as polars and pyarrow take them: strings and decimals as objects."""
    scale = re.search(r"[Dd]ecimal\d*\(.*?(\d+)\)$", dtype)
    if scale:
        unit = Decimal(1).scaleb(-int(scale[1]))
        return [Decimal(repr(v)).quantize(unit) for v in values.astype(float).tolist()]
    return values.tolist() if values.dtype.kind == "O" else values


def _arrow_type(name: str) -> Any:
    import pyarrow as pa

    if decimal := re.fullmatch(r"decimal(32|64|128|256)\((\d+), (-?\d+)\)", name):
        return getattr(pa, f"decimal{decimal[1]}")(int(decimal[2]), int(decimal[3]))
    return pa.type_for_alias(name)


def _polars_dtype(column: Column) -> Any:
    import polars as pl

    name, _, rest = column.dtype.partition("(")
    if name == "Enum":
        return pl.Enum(list(column.levels))
    if name == "Datetime":
        unit, zone = re.findall(r"time_unit='(\w+)', time_zone=(?:None|'([^']*)')", rest)[0]
        return pl.Datetime(unit, zone or None)
    if name == "Decimal":
        precision, scale = re.findall(r"(\d+|None)", rest)[:2]
        return pl.Decimal(None if precision == "None" else int(precision), int(scale))
    return getattr(pl, name)


def _pack_arrow(schema: Any) -> str:
    return base64.b64encode(schema.serialize().to_pybytes()).decode("ascii")


def _unpack_arrow(packed: str) -> Any:
    import pyarrow as pa

    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(packed)))


def _build_arrow(schema: Any, columns: Sequence[Column], values: Sequence[np.ndarray]) -> Any:
    import pyarrow as pa

    arrays = []
    for field, column, v in zip(schema, columns, values, strict=True):
        if pa.types.is_dictionary(field.type):
            code = {level: k for k, level in enumerate(column.levels)}
            arrays.append(
                pa.DictionaryArray.from_arrays(
                    pa.array([code[x] for x in v.tolist()], field.type.index_type),
                    pa.array(list(column.levels), field.type.value_type),
                    ordered=field.type.ordered,
                )
            )
        else:
            arrays.append(pa.array(_listed(column.dtype, v), field.type))
    return pa.Table.from_arrays(arrays, schema=schema)
