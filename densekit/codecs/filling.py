"""Rows some of whose cells are missing: as events, and with their own cells among drawn ones."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densekit import containers
from densekit.codecs.columns import encode_cells, shorten
from densekit.codecs.context import n_draws
from densekit.codecs.derived import derived_values
from densekit.codecs.labels import by_label
from densekit.codecs.schema import Column
from densekit.codecs.table import TableCodec
from densekit.containers import RawColumn, container_of

Missing = dict[Any, np.ndarray]
"""Where cells of each column are missing, (n,), by the label of ``fit``."""


def read_rows(codec: TableCodec, X: Any, what: str) -> tuple[Tensor, Missing]:
    """Typed events (n, E) of rows with missing cells or columns, NaN where there is none; float64.

    Parameters
    ----------
    codec : TableCodec
    X : array or DataFrame
        Some of the columns that ``fit`` saw, in any order; an array has all.
    what : str
        What X is, for messages.

    Raises
    ------
    TypeError, ValueError
        Columns that are not there; a value that ``fit`` did not see, or beyond the support of its
        column: there is nothing to condition on.

    Examples
    --------
    >>> codec = TableCodec().fit(np.array([[0.0, 5.0], [2.0, 9.0]]))
    >>> events, missing = read_rows(codec, np.array([[1.0, np.nan]]), "X")
    >>> events.tolist(), missing[1].tolist()
    ([[0.0, nan]], [True])
    """
    frame = containers.read(X, missing=True)
    raws = by_label({c.label: c for c in frame.columns}, codec.labels, what)
    if frame.container == "numpy" and len(raws) != len(codec.labels):
        raise ValueError(
            f"{what} has {len(raws)} columns, but fit saw {len(codec.labels)}: an array has all of "
            "them, NaN where a cell is missing"
        )
    n = len(frame.columns[0])
    nothing = np.ones(n, dtype=bool)
    cells, missing = dict[Any, tuple[np.ndarray, np.ndarray | None]](), Missing()
    for column, label in zip(codec.schema.columns, codec.labels, strict=True):
        raw = raws.get(label) or RawColumn(label, column.dtype, np.zeros(0), missing=nothing)
        missing[label] = np.zeros(n, dtype=bool) if raw.missing is None else raw.missing
        if column.kind == "derived":
            continue
        y, term, indicator = encode_cells(column, raw)
        if np.isneginf(term).any():
            _refuse(what, column, raw, np.isneginf(term))
        cells[label] = y, indicator
    for column, label in zip(codec.schema.columns, codec.labels, strict=True):
        if column.kind == "derived" and not missing[label].all():
            _take_parents(what, column, raws[label], cells[column.parent][0])
    entries = []
    for column, label in zip(codec.schema.columns, codec.labels, strict=True):
        if column.in_event:
            y, indicator = cells[label]
            entries += [] if indicator is None else [indicator]
            entries.append((y - column.loc) / column.scale)
    return torch.from_numpy(np.stack(entries, 1)), missing


def _refuse(what: str, column: Column, raw: RawColumn, outside: np.ndarray) -> None:
    row = int(outside.argmax())
    known = shorten(column.levels) if column.levels else f"support {column.support}"
    raise ValueError(
        f"row {row} of {what} has {raw.cell(row)!r} in column {raw.label!r}, which has {known}: there "
        "is nothing to condition on; make the cell missing, or leave the row out"
    )


def _take_parents(what: str, column: Column, raw: RawColumn, codes: np.ndarray) -> None:
    """Rows that have a derived value, and lack what it is derived from, take the level that has it."""
    there = np.ones(len(codes), bool) if raw.missing is None else ~raw.missing
    for row in np.flatnonzero(np.isnan(codes) & there).tolist():
        fits = [k for k, level in enumerate(column.levels) if level == raw.cell(row)]
        if len(fits) != 1:
            raise ValueError(
                f"row {row} of {what} has {raw.cell(row)!r} in column {raw.label!r}, which {len(fits)} "
                f"levels of column {column.parent!r} have, where the cell is missing: give that cell, "
                "or make both missing"
            )
        codes[row] = fits[0]
    wrong = np.isneginf(derived_values(column, codes, raw))
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"row {row} of {what} has {raw.cell(row)!r} in column {raw.label!r}, which contradicts its "
            f"column {column.parent!r}"
        )


def combine(
    drawn: Any, own: Any, missing: Mapping[Any, np.ndarray], names: Mapping[Any, Any]
) -> Any:
    """The table ``drawn`` with the cells of ``own`` that are not missing, as they are.

    Parameters
    ----------
    drawn : array or DataFrame
        As ``fit`` saw it.
    own : array, DataFrame or mapping from column to values
        As many rows.
    missing : mapping from label to (n,)
        By the labels of ``drawn``.
    names : mapping from label to label
        What each column of ``drawn`` is called in ``own``; columns that are not in it are drawn.
    """
    container = container_of(drawn)
    if container == "numpy":
        out = drawn.copy()
        for label, name in names.items():
            here = ~missing[label]
            out[here, label] = np.asarray(own[name])[here]
        return out
    merge = {"pandas": _merge_pandas, "polars": _merge_polars}.get(container, _merge_arrow)
    return merge(drawn, own, missing, names)


def _merge_pandas(
    drawn: Any, own: Any, missing: Mapping[Any, np.ndarray], names: Mapping[Any, Any]
) -> Any:
    import pandas as pd

    out, pandas = drawn.copy(), container_of(own) == "pandas"
    if pandas:
        out.index = own.index
    for label, name in names.items():
        column, here = out[label].copy(), ~missing[label]
        mine = own[name] if pandas else pd.Series(list(own[name]), index=out.index)
        if here.any():
            column[here] = mine[here].astype(column.dtype)
        out[label] = column
    return out


def _merge_polars(
    drawn: Any, own: Any, missing: Mapping[Any, np.ndarray], names: Mapping[Any, Any]
) -> Any:
    import polars as pl

    columns = []
    for label, name in names.items():
        mine = own[name]
        mine = mine if isinstance(mine, pl.Series) else pl.Series(list(mine), strict=False)
        mine = mine.cast(drawn[label].dtype)
        columns.append(mine.zip_with(pl.Series(~missing[label]), drawn[label]).alias(label))
    return drawn.with_columns(columns)


def _merge_arrow(
    drawn: Any, own: Any, missing: Mapping[Any, np.ndarray], names: Mapping[Any, Any]
) -> Any:
    import pyarrow as pa

    for label, name in names.items():
        place, mine = drawn.schema.get_field_index(label), _listed(own[name])
        both = zip(missing[label], drawn[label].to_pylist(), mine, strict=True)
        cells = [d if gone else m for gone, d, m in both]
        field = drawn.schema.field(place)
        drawn = drawn.set_column(place, field, pa.array(cells, field.type))
    return drawn


def _listed(values: Any) -> list[Any]:
    found: list[Any] = values.to_pylist() if hasattr(values, "to_pylist") else list(values)
    return found


def fill(X: Any, drawn: Any, missing: Mapping[Any, np.ndarray]) -> Any:
    """X with the cells of ``drawn``, rows of the same container, where its own are missing; every other
    cell as it is."""
    if not hasattr(X, "columns"):
        out = np.array(containers.as_array(X))
        for label, gone in missing.items():
            out[gone, label] = drawn[gone, label]
        return out
    holes = {label: label for label, gone in missing.items() if gone.any()}
    if container_of(X) == "pandas":
        out = X.copy()
        both = _merge_pandas(drawn[list(holes)], X, missing, holes) if holes else drawn
        for label in holes:
            out[label] = both[label]
        return out
    both = combine(drawn, X, missing, holes)
    if container_of(X) == "polars":
        return X.with_columns(both[label] for label in holes)
    for label in holes:
        place = X.schema.get_field_index(label)
        X = X.set_column(place, both.schema.field(label), both[label])
    return X


def read_row_per_draw(
    codec: TableCodec, context: Any, n_samples: int
) -> tuple[Any, Tensor, Missing]:
    """A context with one row per draw, as rows, as typed events and with its missing cells.

    Parameters
    ----------
    codec : TableCodec
    context : DataFrame
        One row for each draw, or one row for all of them.
    n_samples : int
        Number of draws; with 1, the number of rows of the context.

    Raises
    ------
    ValueError
        The context has neither one row nor ``n_samples`` rows.
    """
    events, missing = read_rows(codec, context, "context")
    n_samples = n_draws(len(events), n_samples)
    if len(events) < n_samples:
        context = repeat_row(context, n_samples)
        events = events.expand(n_samples, -1)
        missing = {k: np.repeat(v, n_samples) for k, v in missing.items()}
    return context, events, missing


def repeat_row(X: Any, n: int) -> Any:
    """The only row of a DataFrame n times."""
    rows = np.zeros(n, dtype=np.int64)
    match container_of(X):
        case "pandas":
            return X.iloc[rows].reset_index(drop=True)
        case "polars":
            return X[rows]
    return X.take(rows)
