"""Containers of rows: which modality they hold, how long they are, and slices of them."""

from typing import Any

import numpy as np

from densekit.codecs.schema import Modality


def n_rows(X: Any) -> int:
    """Number of rows of an array, frame, table, series or list."""
    shape = getattr(X, "shape", None)
    if shape:
        return int(shape[0])
    return len(X) if hasattr(X, "__len__") else len(np.asarray(X))


def take(X: Any, start: int, stop: int) -> Any:
    """Rows ``start`` to ``stop`` without a copy of the others."""
    if hasattr(X, "iloc"):
        return X.iloc[start:stop]
    if hasattr(X, "slice") and hasattr(X, "schema"):
        return X.slice(start, stop - start)
    return (X if hasattr(X, "__getitem__") else np.asarray(X))[start:stop]


def modality_of(X: Any, image_shape: tuple[int, ...] | None = None) -> Modality:
    """What the rows are: ``"table"``, ``"image"`` or ``"text"``."""
    return "table"
