"""What is no container of rows, although it may be meant as one, and what to pass instead."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def reject_unreadable(X: Any, what: str = "X") -> None:
    """Raise TypeError where X is no container of rows: one string, a path, a mapping, records, an
    iterator, None, a sparse matrix, or rows that are not there yet."""
    if type(X).__name__ == "LazyFrame":
        raise TypeError(
            f"{what} is a LazyFrame, whose rows are not there yet; pass {what}.collect()."
        )
    if type(X).__module__.startswith(("pyarrow.parquet", "pyarrow._dataset")):
        raise TypeError(
            f"{what} is a {type(X).__name__}, whose rows are not there yet; pass a table. Estimators "
            "learn from, and score, a pyarrow.parquet.ParquetFile and a pyarrow.dataset.dataset of "
            "Parquet files without loading them (how-to, Large data)."
        )
    if hasattr(X, "toarray") and hasattr(X, "nnz"):
        raise TypeError(
            f"Sparse data was passed ({type(X).__name__} of shape {X.shape}), but dense data is "
            f"required: use {what}.toarray()."
        )
    if X is None:
        raise TypeError(
            f"{what} is None; rows are expected: an array, a frame or a list of strings."
        )
    if isinstance(X, str | bytes):
        raise TypeError(_one_string(X, what))
    if isinstance(X, os.PathLike):
        raise TypeError(
            f"{what} is a path, {os.fspath(X)!r}, and not the rows of the file: pass "
            f"densekit.formats.read({what})."
        )
    if isinstance(X, Mapping):
        raise TypeError(
            f"{what} is a {type(X).__name__} with the keys {_few(X)}; rows are expected: pass "
            f"pd.DataFrame({what}) where each key is a column, or pd.DataFrame([{what}]) where it is "
            "one row."
        )
    if isinstance(X, Iterator):
        raise TypeError(
            f"{what} is an iterator ({type(X).__name__}), which can be read only once: pass "
            f"list({what})."
        )
    if isinstance(X, set | frozenset):
        raise TypeError(f"{what} is a set, whose items have no order: pass sorted({what}).")
    if (record := _first_record(X)) is not None:
        raise TypeError(
            f"{what} holds dicts, one a row, with the keys {_few(record)}: pass "
            f"pd.DataFrame(list({what})), whose columns are the keys."
        )


def _one_string(X: str | bytes, what: str) -> str:
    """What to do with a string where rows are expected."""
    if isinstance(X, bytes):
        return (
            f"{what} is {len(X):,} bytes; rows of text are strings, in a list: pass "
            f"{what}.decode().splitlines()."
        )
    if len(X) < 256 and re.fullmatch(r"\S+\.[A-Za-z0-9]{2,8}", X):
        return (
            f"{what} is the string {X!r}; if that is the name of a file, pass "
            f"densekit.formats.read({what}), else a list of strings, one per row."
        )
    begins = X if len(X) <= 40 else X[:37] + "..."
    return (
        f"{what} is one string of {len(X):,} characters, {begins!r}; a row is a string, so pass a list "
        f"of strings: {what}.splitlines(), or pieces of one length, "
        f"[{what}[i : i + 500] for i in range(0, len({what}), 500)]."
    )


def _first_record(X: Any) -> Mapping[Any, Any] | None:
    """The first row, where it is a mapping from names of columns."""
    objects = getattr(getattr(X, "dtype", None), "kind", "") == "O" and X.ndim > 0
    first = next(iter(X), None) if isinstance(X, list | tuple) or objects else None
    return first if isinstance(first, Mapping) else None


def _few(names: Iterable[Any], limit: int = 3) -> str:
    names = list(names)
    return ", ".join(map(repr, names[:limit])) + (", ..." if len(names) > limit else "")
