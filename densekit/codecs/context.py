"""Contexts: what a conditional density is conditioned on, as numbers a network takes."""

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import narwhals as nw
import numpy as np
import torch
from torch import Tensor

from densekit.codecs.columns import has_density, shorten
from densekit.codecs.schema import Schema
from densekit.codecs.table import TableCodec
from densekit.codecs.unreadable import wrong_sort
from densekit.containers import check_unicode, n_rows, select, take


class ContextCodec:
    """Rows of context to features (n, n_features): numbers standardized, categories one-hot.

    Parameters
    ----------
    names : tuple of str
        Columns of the user's table that are the context; empty where it came by itself.
    """

    def __init__(self, names: tuple[str, ...] = ()):
        self.names = tuple(names)
        self.table = TableCodec()

    @property
    def schema(self) -> Schema:
        """The schema of the context columns; its ``n_features`` is the width a network sees."""
        return self.table.schema

    @property
    def _known(self) -> tuple[str, ...]:
        """Names of the columns: those in X, or those that the context itself had in ``fit``."""
        if self.names or getattr(self.table, "container", "numpy") == "numpy":
            return self.names
        labels = self.table.labels
        named = tuple(c for c in labels if isinstance(c, str))
        return named if len(named) == len(labels) else ()

    def fit(
        self, context: Any, n: int | None = None, weights: np.ndarray | None = None
    ) -> "ContextCodec":
        """Learn the columns, of ``n`` rows where that is given, with their ``weights``.

        Raises
        ------
        TypeError, ValueError
            No column of the context varies, or one cannot be read; another number of rows.

        Warns
        -----
        UserWarning
            A context that looks like class labels, being all integers from 0 or 1 to some k, and
            would be read as a quantity.
        """
        frame = self._frame(context)
        if n is not None and n_rows(frame) != n:
            names = isinstance(context, list) and all(isinstance(c, str) for c in context)
            hint = "; names of columns go with a frame" if names else ""
            raise ValueError(
                f"context has {n_rows(frame)} rows and X has {n}: give one a row{hint}"
            )
        with _naming_the_context():
            self.table.fit(frame, weights=weights)
        if len(self.schema.columns) == 1 and _are_labels(frame):
            warnings.warn(
                "context has all integers from 0 or 1 to some k, and is read as a quantity; if they are "
                'labels of classes, pass pd.Series(labels, dtype="category"), else pass floats',
                UserWarning,
                stacklevel=2,
            )
        return self

    def encode(self, context: Any) -> Tensor:
        """Features in float64.

        Raises
        ------
        TypeError, ValueError
            Columns other than ``fit`` saw; a category that it did not see, another value in a constant
            column, or a number too far from all it saw: there is nothing to condition on.
        """
        return self.table.schema.features(self._typed(self._frame(context)))

    def _typed(self, frame: Any) -> Tensor:
        with _naming_the_context():
            typed, ladj = self.table.given(self.table.labels).encode(frame)
        if not torch.isfinite(ladj).all():
            row = int((~torch.isfinite(ladj)).nonzero()[0])
            raise ValueError(
                f"context row {row} has a number too far from those that fit saw to be standardized: "
                "leave the row out"
            )
        return typed

    def join(self, rows: Any, context: Any, n: int, order: Sequence[str]) -> Any:
        """Sampled rows with their context columns put back, in the order and dtypes ``fit`` saw."""
        frame = nw.from_native(rows, eager_only=True)
        asked = self._frame(context)
        typed = self._typed(asked)
        if len(typed) == 1 and n > 1:
            typed = typed.expand(n, -1)
        given = nw.from_native(self.table.decode(typed), eager_only=True)
        # Numbers and instants as they were given: to standardize and back is to round.
        raw = nw.from_native(asked, eager_only=True, pass_through=True)
        exact = {
            label: raw[label].to_list() * (n // len(raw))
            for label, column in zip(self.table.labels, self.schema.columns, strict=True)
            if has_density(column)
        }
        columns = [
            nw.new_series(c, exact[c], given[c].dtype, backend=frame.implementation)
            if c in exact
            else given[c]
            for c in self.names
        ]
        return frame.with_columns(*columns).select(list(order)).to_native()

    def _frame(self, context: Any) -> Any:
        """The context as a table: one value, one row, a mapping, a column or a table."""
        known = self._known
        if isinstance(context, Mapping) or _is_named_row(context, known):
            return self._columns(context)
        native = nw.from_native(context, eager_only=True, allow_series=True, pass_through=True)
        if isinstance(native, nw.DataFrame):
            if not self.names:
                return context
            missing = [c for c in self.names if c not in native.columns]
            if missing:
                raise ValueError(
                    f"context lacks the columns {missing}; it needs {list(self.names)}"
                )
            return native.select(list(self.names)).to_native()
        column = self._column(native) if isinstance(native, nw.Series) else None
        if column is not None:
            return column
        if known:
            return self._columns(self._named(context))
        array = np.asarray(context)
        return array.reshape(-1, 1) if array.ndim < 2 else array

    def _column(self, series: Any) -> Any:
        """A column with its dtype, and so its categories, as a table; None where there are more
        columns, or none that has a dtype."""
        fitted = hasattr(self.table, "labels")
        labels = self._known or (self.table.labels if fitted else [series.name])
        if len(labels) != 1 or (fitted and not self._known and self.table.container == "numpy"):
            return None
        if series.implementation.is_pandas():
            label = {} if labels[0] is None else {"name": labels[0]}
            return series.to_native().to_frame(**label)
        return series.alias(labels[0] or "context").to_frame().to_native()

    def _columns(self, context: Any) -> Any:
        """A mapping, or one row with its names, as a table."""
        if not isinstance(context, Mapping):
            context = {c: context[c] for c in self._known}
        names = self._check_names(context)
        lengths = {c: len(v) for c, v in context.items() if _is_listed(v)}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the columns of context differ in length: {lengths}")
        n = next(iter(lengths.values()), 1)
        columns = {c: v if _is_listed(v) else [v] * n for c, v in context.items()}
        for c in names:
            if np.ndim(columns[c]) != 1:
                raise ValueError(
                    f"context has {np.ndim(columns[c])} dimensions in {c!r}: a column has one"
                )
            check_unicode(f"Context column {c!r}", (v for v in columns[c] if isinstance(v, str)))
        if hasattr(self.table, "schema"):
            for label, column in zip(self.table.labels, self.schema.columns, strict=True):
                if error := wrong_sort(f"context[{label!r}]", column, label, columns[label]):
                    raise ValueError(error)
        import pandas as pd

        frame = nw.from_native(pd.DataFrame({c: columns[c] for c in names}))
        return self._retype(frame).to_native()

    def _check_names(self, names: Iterable[Any]) -> list[str]:
        """The names of the columns; those given must be the same."""
        fitted, known, given = hasattr(self.table, "labels"), self._known, list(names)
        if not known and fitted:
            raise ValueError(
                "context is a mapping, and fit saw a context without names of columns: pass it as fit "
                "had it, or fit with a frame or with context=[names of columns of X]"
            )
        if not known and not all(isinstance(c, str) for c in given):
            raise ValueError(f"context is a mapping with the keys {given}: names are strings")
        known = known or tuple(given)
        missing, surplus = (
            [c for c in a if c not in b] for a, b in ((known, given), (given, known))
        )
        if missing or surplus:
            parts = [f"lacks the columns {missing}"] * bool(missing)
            parts += [f"has {surplus}, which it cannot condition on"] * bool(surplus)
            raise ValueError(
                f"context {' and '.join(parts)}; this model was fitted with {list(known)}"
            )
        return list(known)

    def _named(self, context: Any) -> dict[str, list[Any]]:
        """Values without names as columns: one value, one row or column, or a table of them."""
        known, array = self._known, np.asarray(context, dtype=object)
        if array.ndim < 2:
            array = array.reshape(-1, 1) if len(known) == 1 else array.reshape(1, -1)
        if array.ndim != 2 or array.shape[1] != len(known):
            raise ValueError(
                f"context has shape {np.shape(context)}; it needs the {len(known)} column(s) "
                f"{list(known)}"
            )
        return {name: array[:, j].tolist() for j, name in enumerate(known)}

    def _retype(self, frame: Any) -> Any:
        """Integers given for a column of floats are numbers all the same."""
        if not hasattr(self.table, "schema"):
            return frame
        floats = [
            c.name
            for c in self.table.schema.columns
            if c.kind == "real" and frame[c.name].dtype.is_numeric()
        ]
        return frame.with_columns(nw.col(c).cast(nw.Float64) for c in floats) if floats else frame


def texts_of(context: Any) -> Any:
    """Strings, where one of them may stand for all rows; of a generator a list."""
    if isinstance(context, Mapping) or not hasattr(context, "__iter__"):
        raise TypeError(
            f"context={context!r}: prompts and sources are a string or a list of strings, got "
            f"{type(context).__name__}"
        )
    if isinstance(context, str):
        return [context]
    return context if hasattr(context, "__len__") else list(context)


def _is_named_row(context: Any, names: tuple[str, ...]) -> bool:
    """Whether it is one row of a pandas frame, a Series over the names of its columns."""
    index = getattr(context, "index", None)
    if len(names) < 2 or index is None or not hasattr(index, "tolist"):
        return False
    return not hasattr(context, "columns") and set(names) <= set(index.tolist())


def _are_labels(context: Any) -> bool:
    """Whether one column has all integers from 0 or 1 to a k of 2 to 99, ten rows for each."""
    frame = nw.from_native(context, eager_only=True, pass_through=True)
    if isinstance(frame, nw.DataFrame):
        column = next(iter(frame.iter_columns()))
        if not column.dtype.is_integer():
            return False
        context = column.to_numpy()
    values = np.asarray(context)
    if values.dtype.kind not in "iu":
        return False
    seen = np.unique(values)
    low, high = int(seen[0]), int(seen[-1])
    whole = low in (0, 1) and 2 <= high < 100 and len(seen) == high - low + 1
    return whole and values.size >= 10 * len(seen)


@contextlib.contextmanager
def _naming_the_context() -> Iterator[None]:
    """Add to an error of the table codec, which calls its rows X, that the rows are the context."""
    try:
        yield
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"context, read as a table X: {error}") from error


def _is_listed(value: Any) -> bool:
    return not isinstance(value, str | bytes) and hasattr(value, "__len__")


def names_columns(X: Any, names: Any) -> bool:
    """Whether ``names`` are names of columns, and X is a frame that has columns."""
    listed = [names] if isinstance(names, str) else names
    return (
        isinstance(listed, list | tuple)
        and len(listed) > 0
        and all(isinstance(name, str) for name in listed)
        and isinstance(nw.from_native(X, eager_only=True, pass_through=True), nw.DataFrame)
    )


def split_columns(X: Any, names: Any) -> tuple[Any, Any]:
    """The table without the named columns, and these columns.

    Raises
    ------
    ValueError
        A name that X lacks, or no column left.
    """
    listed = [names] if isinstance(names, str) else list(names)
    frame = nw.from_native(X, eager_only=True)
    missing = [c for c in listed if c not in frame.columns]
    if missing:
        raise ValueError(
            f"context names the columns {shorten(missing)}, which X does not have; it has "
            f"{shorten(frame.columns, 20)}. Values go in as a Series or an array"
        )
    if len(set(listed)) < len(listed):
        raise ValueError(f"context={listed!r} names a column twice")
    rest = [c for c in frame.columns if c not in listed]
    if not rest:
        raise ValueError("context names every column of X; nothing is left to model")
    return frame.select(rest).to_native(), frame.select(listed).to_native()


def part_of(context: Any, n: int, start: int, stop: int) -> Any:
    """Rows ``start`` to ``stop`` of a context of n rows; what is one context for all stays as it is.

    >>> part_of({"sex": ["f", "m", "f"], "year": 2020}, 3, 1, 3)
    {'sex': ['m', 'f'], 'year': 2020}

    Raises
    ------
    ValueError
        It has neither one row nor n.
    """
    return _some_of(context, n, lambda rows: take(rows, start, stop))


def selected_of(context: Any, n: int, places: np.ndarray) -> Any:
    """The same of the rows at ``places``.

    >>> selected_of({"sex": ["f", "m", "f"], "year": 2020}, 3, np.array([0, 2]))
    {'sex': ['f', 'f'], 'year': 2020}
    """
    return _some_of(context, n, lambda rows: select(rows, places))


def _some_of(context: Any, n: int, some: Callable[[Any], Any]) -> Any:
    if isinstance(context, Mapping):
        return {k: _some_of(v, n, some) if _is_listed(v) else v for k, v in context.items()}
    if not _is_listed(context):
        return context
    have = n_rows(context)
    if have == n:
        return some(context)
    one_row = isinstance(context, list | tuple) and all(np.ndim(v) == 0 for v in context)
    if have != 1 and not one_row:
        raise ValueError(
            f"context has {have} rows and X has {n}: give one for all rows, or one a row"
        )
    return context


def n_draws(n_contexts: int, n_samples: int) -> int:
    """Return the number of draws for so many rows of context: ``n_samples``, or, if that is 1, one for
    each row.

    Raises
    ------
    ValueError
        There are neither one row of context nor ``n_samples`` rows.

    Examples
    --------
    >>> n_draws(1, 5), n_draws(5, 1)
    (5, 5)
    """
    n_samples = n_contexts if n_samples == 1 else n_samples
    if n_contexts not in (1, n_samples):
        raise ValueError(
            f"context has {n_contexts} rows and n_samples is {n_samples}: give one context row for all "
            "draws, or one per draw"
        )
    return n_samples
