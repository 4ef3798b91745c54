"""Containers of rows (arrays, frames, lists): how many rows, which rows, and of what modality.

No container library is imported before one of its objects is seen.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np

from densekit.containers.unreadable import reject_unreadable

Modality = Literal["table", "image", "text"]


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


def too_few_rows(X: Any) -> str:
    """Error message for an X of at most one row, which is too little to learn from.

    Raises
    ------
    TypeError
        X is not a container of rows.
    """
    reject_unreadable(X)
    n = n_rows(X)
    if not n:
        return "X is empty: it has 0 rows"
    message = f"X has n_samples={n}: a density needs at least 2 rows, found 1 sample"
    if not is_text(X):
        return message
    (text,) = list(X)
    return (
        f"{message}, a string of {len(text):,} characters; divide it into strings, by its lines "
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
        check_labels(labels_of(X))
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


def labels_of(X: Any) -> list[Any]:
    """Names of the columns of a frame."""
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


def check_unicode(what: str, texts: Iterable[str]) -> None:
    """Raise ValueError where one of the strings has a lone surrogate, which no file can hold."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"{what} is not valid Unicode: it has a lone surrogate, a trace of text that was not "
            "UTF-8; read the file with its own encoding."
        ) from None
