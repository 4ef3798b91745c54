"""Tables rebuilt from values of columns: same container, columns and dtypes as those that were read."""

import base64
import re
from collections.abc import Sequence
from decimal import Decimal, localcontext
from typing import Any, Protocol

import numpy as np


class ColumnLike(Protocol):
    """What must be known of a column to rebuild it; :class:`densekit.codecs.Column` has it."""

    @property
    def name(self) -> str:
        """Name of the column, as a string."""

    @property
    def dtype(self) -> str:
        """Dtype of the column in its container, as :func:`densekit.containers.read` returns it."""

    @property
    def levels(self) -> tuple[Any, ...]:
        """Categories of a categorical column in the order of their codes; empty for other columns."""


def build(
    container: str,
    dtype: str,
    labels: Sequence[str | int],
    columns: Sequence[ColumnLike],
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


def _pandas_series(column: ColumnLike, values: np.ndarray) -> Any:
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
        return values.astype("datetime64[us]").tolist()
    return values.tolist()


def _decimals(values: np.ndarray, precision: int, scale: int) -> list[Decimal]:
    """Floats rounded to decimals of a type, inside the range that its digits reach."""
    unit = Decimal(1).scaleb(-scale)
    with localcontext(prec=400):  # A float has 309 digits before the point at most.
        most = (Decimal(10) ** precision - 1).scaleb(-scale)
        return [max(-most, min(most, Decimal(repr(v)))).quantize(unit) for v in values.tolist()]


def _listed(dtype: str, values: np.ndarray) -> Any:
    """Values as polars and pyarrow take them: strings and decimals as objects."""
    decimal = re.search(r"[Dd]ecimal\d*\((.*)\)$", dtype)
    if decimal:
        *precision, scale = map(int, re.findall(r"\d+", decimal[1]))
        return _decimals(values.astype(float), precision[0] if precision else 38, scale)
    return values.tolist() if values.dtype.kind == "O" else values


def _arrow_type(name: str) -> Any:
    import pyarrow as pa

    if decimal := re.fullmatch(r"decimal(32|64|128|256)\((\d+), (-?\d+)\)", name):
        return getattr(pa, f"decimal{decimal[1]}")(int(decimal[2]), int(decimal[3]))
    return pa.type_for_alias(name)


def _polars_dtype(column: ColumnLike) -> Any:
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


def pack_arrow(schema: Any) -> str:
    """An Arrow schema in base 64."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode("ascii")


def _unpack_arrow(packed: str) -> Any:
    import pyarrow as pa

    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(packed)))


def _build_arrow(schema: Any, columns: Sequence[ColumnLike], values: Sequence[np.ndarray]) -> Any:
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
