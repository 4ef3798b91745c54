"""Weights of rows: read and checked, and the rows left out that weigh nothing."""

from typing import Any

import numpy as np

from densekit import containers
from densekit.codecs.context import selected_of
from densekit.containers import RowsInPieces, SelectedRows


def read_weights(sample_weight: Any, n: int) -> np.ndarray:
    """Weights of n rows as float64, (n,); one number stands for all rows.

    >>> read_weights([1, 0, 2.5], 3).tolist(), read_weights(2, 2).tolist()
    ([1.0, 0.0, 2.5], [2.0, 2.0])

    Raises
    ------
    TypeError
        The weights are not numbers.
    ValueError
        Another shape than (n,); a weight is NaN, infinite or negative; all of them are zero.
    """
    if isinstance(sample_weight, str):
        raise TypeError(
            f"sample_weight={sample_weight!r} must be numbers, one per row; pass the values of that "
            f"column, and X without it"
        )
    given = np.asarray(sample_weight)
    try:
        if given.dtype.kind not in "biufO":
            raise TypeError(f"of dtype {given.dtype}")
        weights = given.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"sample_weight must be numbers, one per row, got {type(sample_weight).__name__} "
            f"({error}); pass an array of shape ({n},)"
        ) from error
    if weights.ndim == 0:
        weights = np.full(n, float(weights))
    if weights.shape != (n,):
        raise ValueError(
            f"sample_weight has shape {weights.shape} and X has {n} rows; pass one weight per row, "
            f"shape ({n},)"
        )
    _check_values(weights)
    return weights


def _check_values(weights: np.ndarray) -> None:
    for bad, what, remedy in (
        (~np.isfinite(weights), "not finite", "drop these rows or give them a weight of 0"),
        (weights < 0, "negative", "weights must be 0 or more; 0 leaves a row out"),
    ):
        if bad.any():
            row = int(bad.argmax())
            raise ValueError(
                f"sample_weight is {weights[row]:g} in row {row}, which is {what} ({bad.sum()} of "
                f"{len(weights)} weights are); {remedy}"
            )
    if not weights.any():
        raise ValueError(
            f"all {len(weights)} weights of sample_weight are zero, which leaves no row; give at "
            "least two rows a positive weight"
        )


def with_weight(rows: Any, context: Any, weights: np.ndarray) -> tuple[Any, Any, np.ndarray]:
    """Rows, contexts and weights without those of weight zero.

    >>> with_weight([["a"], ["b"]], None, np.array([0.0, 3.0]))
    ([['b']], None, array([3.]))
    """
    if weights.all():
        return rows, context, weights
    n, kept = len(weights), weights.nonzero()[0]
    if isinstance(rows, RowsInPieces):
        rows = SelectedRows(rows, kept)
    else:
        rows = containers.select(rows, kept)
    context = None if context is None else selected_of(context, n, kept)
    return rows, context, weights[kept]
