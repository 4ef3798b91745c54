"""Contexts: what a conditional density is conditioned on, as numbers a network takes."""

import contextlib
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import narwhals as nw
import numpy as np
import torch
from torch import Tensor

from densekit.codecs.frames import check_unicode, is_frame, n_rows, take
from densekit.codecs.schema import Schema
from densekit.codecs.table import TableCodec


class ContextCodec:
    """Rows of context to features (n, n_features): numbers standardised, categories one-hot.

    Parameters
    ----------
    names : tuple of str
        Columns of the user's table that are the context; empty where it came by itself.

    Attributes
    ----------
    own_names : tuple of str
        Those of a context that came by itself, if it has any.
    """

    own_names: tuple[str, ...] = ()  # of codecs that were saved before they had them

    def __init__(self, names: tuple[str, ...] = ()):
        self.names, self.own_names = tuple(names), ()
        self.table = TableCodec()

    @property
    def _known(self) -> tuple[str, ...]:
        return self.names or self.own_names

    @property
    def schema(self) -> Schema:
        """The schema of the context columns; its ``n_features`` is the width a network sees."""
        return self.table.schema

    def fit(self, context: Any) -> "ContextCodec":
        """Learn the columns.

        Raises
        ------
        TypeError, ValueError
            No column of the context varies, or one cannot be read.

        Warns
        -----
        UserWarning
            A context that looks like class labels, being all integers from 0 or 1 to some k, and
            would be read as a quantity.
        """
        if not self.names:
            context = _by_itself(context)
            if is_frame(context):
                names = nw.from_native(context, eager_only=True).columns
                self.own_names = tuple(names) if all(isinstance(c, str) for c in names) else ()
        frame = self._frame(context)
        with _said_of_context():
            self.table.fit(frame)
        if len(self.schema.columns) == 1 and _are_labels(context):
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
            Columns other than ``fit`` saw; a category that it did not see, or a number too far from
            all it saw: there is nothing to condition on.
        """
        frame = self._frame(context)
        with _said_of_context():
            typed, ladj = self.table.given(self.table.labels).encode(frame)
        if not torch.isfinite(ladj).all():
            row = int((~torch.isfinite(ladj)).nonzero()[0])
            raise ValueError(
                f"context row {row} has a number too far from those that fit saw to be standardised: "
                "leave the row out"
            )
        return self.table.schema.features(typed)

    def join(self, rows: Any, context: Any, n: int, order: Sequence[str]) -> Any:
        """Sampled rows with their context columns put back, in the order ``fit`` saw."""
        frame = nw.from_native(rows, eager_only=True)
        given = nw.from_native(self._frame(context, like=rows), eager_only=True)
        if len(given) == 1 and n > 1:
            given = given[np.zeros(n, int).tolist()]
        columns = [
            *(frame[c] for c in frame.columns),
            *(
                nw.new_series(c, given[c].to_list(), given[c].dtype, backend=frame.implementation)
                for c in self.names
            ),
        ]
        joined = frame.with_columns(*[s for s in columns if s.name in self.names])
        return joined.select(list(order)).to_native()

    def _frame(self, context: Any, like: Any = None) -> Any:
        """The context as a table: one value, one row, a mapping, a column or a table."""
        if _is_named_row(context, self._known):
            context = context.to_dict()
        if isinstance(context, Mapping):
            columns = {k: v if _is_listed(v) else [v] for k, v in context.items()}
            self._check_names(columns)
            lengths = {c: len(columns[c]) for c in self._known}
            if len(set(lengths.values())) > 1:
                raise ValueError(f"the columns of context differ in length: {lengths}")
            for c in self._known:
                check_unicode(
                    f"Context column {c!r}", (v for v in columns[c] if isinstance(v, str))
                )
            import pandas as pd

            frame = nw.from_native(pd.DataFrame({c: columns[c] for c in self._known}))
            if like is not None:
                backend = nw.from_native(like, eager_only=True).implementation
                return nw.from_dict(frame.to_dict(as_series=False), backend=backend).to_native()
            return self._retype(frame).to_native()
        native = nw.from_native(context, eager_only=True, pass_through=True)
        if isinstance(native, nw.DataFrame):
            if not self.names:
                return context
            missing = [c for c in self.names if c not in native.columns]
            if missing:
                raise ValueError(
                    f"context lacks the columns {missing}; it needs {list(self.names)}"
                )
            return native.select(list(self.names)).to_native()
        if self._known:
            return self._frame(self._named(context), like)
        array = np.asarray(context)
        return array.reshape(-1, 1) if array.ndim < 2 else array

    def _check_names(self, names: Iterable[Any]) -> None:
        if not self._known:
            raise ValueError(
                "context is a mapping, and fit saw a context without names of columns: pass it as fit "
                "had it, or fit with a frame or with context=[names of columns of X]"
            )
        missing = [c for c in self._known if c not in names]
        surplus = [c for c in names if c not in self._known]
        if missing or surplus:
            parts = [f"lacks the columns {missing}"] * bool(missing)
            parts += [f"has {surplus}, which it cannot condition on"] * bool(surplus)
            raise ValueError(
                f"context {' and '.join(parts)}; this model was fitted with {list(self._known)}"
            )

    def _named(self, context: Any) -> dict[str, list[Any]]:
        """Values without names as columns: one value, one row or column, or a table of them."""
        array = np.asarray(context, dtype=object)
        if array.ndim < 2:
            array = array.reshape(-1, 1) if len(self._known) == 1 else array.reshape(1, -1)
        if array.ndim != 2 or array.shape[1] != len(self._known):
            raise ValueError(
                f"context has shape {np.shape(context)}; it needs the {len(self._known)} column(s) "
                f"{list(self._known)}"
            )
        return {name: array[:, j].tolist() for j, name in enumerate(self._known)}

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
    """Strings, where one of them may stand for all rows."""
    if not isinstance(context, str) and not hasattr(context, "__iter__"):
        raise TypeError(
            f"context={context!r}: prompts and sources are a string or a list of strings, got "
            f"{type(context).__name__}"
        )
    return [context] if isinstance(context, str) else context


def _by_itself(context: Any) -> Any:
    """What fit is given beside X: a mapping of columns, or a column with its dtype, as a frame."""
    if isinstance(context, Mapping):
        import pandas as pd

        return pd.DataFrame(dict(context))
    series = nw.from_native(context, allow_series=True, pass_through=True)
    if isinstance(series, nw.Series):
        name = series.name if isinstance(series.name, str) and series.name else "context"
        return series.alias(name).to_frame().to_native()
    return context


def _is_named_row(context: Any, names: tuple[str, ...]) -> bool:
    """Whether it is one row of a pandas frame, a Series over the names of its columns."""
    index = getattr(context, "index", None)
    if len(names) < 2 or index is None or not hasattr(index, "tolist"):
        return False
    return set(index.tolist()) == set(names)


def _are_labels(context: Any) -> bool:
    """Whether one column has all integers from 0 or 1 to a k of 2 to 99, ten rows for each."""
    frame = nw.from_native(context, eager_only=True, pass_through=True)
    if isinstance(frame, nw.DataFrame):
        column = frame[frame.columns[0]]
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
def _said_of_context() -> Iterator[None]:
    """Errors of the codec, which knows its table as X, say context."""
    try:
        yield
    except (TypeError, ValueError) as error:
        said = re.sub(r"(?<![\w'\"])X(?![\w'\"])", "context", str(error))
        raise type(error)(said if "context" in said else f"context: {said}") from None


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
            f"context names the columns {missing}, which X does not have; it has {frame.columns}"
        )
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
    if isinstance(context, Mapping):
        return {k: part_of(v, n, start, stop) if _is_listed(v) else v for k, v in context.items()}
    if not _is_listed(context):
        return context
    have = n_rows(context)
    if have == n:
        return take(context, start, stop)
    one_row = isinstance(context, list | tuple) and all(np.ndim(v) == 0 for v in context)
    if have != 1 and not one_row:
        raise ValueError(
            f"context has {have} rows and X has {n}: give one for all rows, or one a row"
        )
    return context
