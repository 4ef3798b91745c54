"""Lists, series and arrays of strings: read, and rebuilt in the same container."""

from typing import Any

import numpy as np

from densekit.containers.rows import container_of
from densekit.containers.unreadable import reject_unreadable


def read_strings(X: Any, what: str = "X") -> list[str]:
    """The items of a list, series or array, each checked to be a string of Unicode characters."""
    reject_unreadable(X, what)
    if hasattr(X, "columns"):
        first = next(iter(getattr(X, "column_names", X.columns)), "text")
        raise TypeError(
            f"{what} is a frame of shape {tuple(X.shape)}; pass its column of strings, such as "
            f"frame[{first!r}]."
        )
    if hasattr(X, "to_pylist"):
        X = X.to_pylist()
    items = list(X.tolist() if isinstance(X, np.ndarray) or hasattr(X, "tolist") else X)
    if not items:
        raise ValueError(f"{what} is empty: it has 0 strings; pass at least one.")
    for row, item in enumerate(items):
        if isinstance(item, bytes):
            try:
                items[row] = item.decode()
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{what}[{row}] is bytes that are not UTF-8 (byte {item[error.start]:#04x} at "
                    f"{error.start}): decode it first with its own encoding."
                ) from None
        elif not isinstance(item, str):
            raise TypeError(
                f"{what}[{row}] is {item!r} of type {type(item).__name__}, not a string: convert "
                "it, or drop the row where it is missing."
            )
    try:
        "".join(items).encode()
    except UnicodeEncodeError:
        row = next(i for i, t in enumerate(items) if any("\ud800" <= c <= "\udfff" for c in t))
        raise ValueError(
            f"{what}[{row}] is not valid Unicode: it has a lone surrogate, a trace of text that "
            "was not UTF-8; read the file with its own encoding."
        ) from None
    return items


def series_of(X: Any) -> tuple[str, str, str | int | None]:
    """Container, dtype and name, as plain values."""
    container = container_of(X)
    if container == "pandas":
        storage = getattr(X.dtype, "storage", "python")
        dtype = f"string[{storage}]" if str(X.dtype) == "string" else str(X.dtype)
        return "pandas", dtype, X.name if isinstance(X.name, (str, int)) else None
    if container == "polars":
        return "polars", "", X.name
    if container == "pyarrow":
        return "pyarrow", str(X.type), None
    return ("numpy", X.dtype.kind, None) if isinstance(X, np.ndarray) else ("list", "", None)


def build_strings(texts: list[str], container: str, dtype: str, name: str | int | None) -> Any:
    """Strings in the container that :func:`series_of` described."""
    if container == "pandas":
        import pandas as pd

        return pd.Series(texts, dtype=dtype if dtype != "category" else None, name=name)
    if container == "polars":
        import polars as pl

        return pl.Series(name, texts, dtype=pl.String)
    if container == "pyarrow":
        import pyarrow as pa

        return pa.array(texts, pa.large_string() if dtype == "large_string" else pa.string())
    if container == "numpy":
        kinds: dict[str, Any] = {"O": object, "T": np.dtypes.StringDType()}
        return np.array(texts, dtype=kinds.get(dtype, str))
    return texts
