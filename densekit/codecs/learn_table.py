"""The columns of a table, learned from its rows in one pass, or two where a column has atoms."""

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from densekit import containers
from densekit.codecs.derived import check_derived, derive
from densekit.codecs.labels import by_label
from densekit.codecs.learner import Learner
from densekit.codecs.learning import KnownLearner, learner
from densekit.codecs.schema import Column
from densekit.containers import RawColumn, RowsInPieces

if TYPE_CHECKING:
    from densekit.codecs.table import TableCodec


def learn_columns(
    codec: "TableCodec", X: Any, weights: np.ndarray | None
) -> tuple[containers.Frame, list[Learner], tuple[Column, ...]]:
    """Learn the columns of X with the options of a codec.

    Parameters
    ----------
    codec : TableCodec
    X : rows
    weights : (n,), optional

    Returns
    -------
    frame : Frame
        The rows of X, or the first piece of them.
    learners : list of Learner
        One for each column.
    columns : tuple of Column
    """
    pieces = _pieces(X, weights, codec.missing)
    frame, first_weights = next(pieces)
    labels = [c.label for c in frame.columns]
    learners = _learners(codec, frame, labels)
    for piece, w in chain([(frame, first_weights)], pieces):
        for raw, one in zip(piece.columns, learners, strict=True):
            if len(raw.values):
                one.add(raw, _present(w, raw))
    again = [one.read_again() for one in learners]
    if any(again):
        for piece, w in _pieces(X, weights, codec.missing):
            for raw, one, wanted in zip(piece.columns, learners, again, strict=True):
                if wanted and len(raw.values):
                    one.refine(raw, _present(w, raw))
    columns = tuple(one.column() for one in learners)
    if codec.columns is None and codec.derived:
        columns = _derive(codec, X, labels, columns)
    _check_learned(codec, X, columns)
    return frame, learners, columns


def _pieces(
    X: Any, weights: np.ndarray | None, missing: bool
) -> Iterator[tuple[containers.Frame, Any]]:
    parts = X.pieces() if isinstance(X, RowsInPieces) else [X]
    start = 0
    for part in parts:
        frame = containers.read(part, missing)
        stop = start + len(frame.columns[0])
        yield frame, None if weights is None else weights[start:stop]
        start = stop


def _learners(codec: "TableCodec", frame: containers.Frame, labels: list[Any]) -> list[Learner]:
    prefix = "x" if frame.container == "numpy" else ""
    if codec.columns is not None:
        others = ("support", "kinds", "step", "derived")
        twice = [name for name in others if getattr(codec, name) is not None]
        if twice:
            raise ValueError(
                f"columns= describes all columns, and {', '.join(f'{n}=' for n in twice)} would "
                "do so again: give these to densekit.describe instead"
            )
        known = codec.columns.of(labels)
        pairs = zip(frame.columns, known, strict=True)
        return [KnownLearner(raw, f"{prefix}{raw.label}", column) for raw, column in pairs]
    kinds = by_label(codec.kinds or {}, labels, "kinds")
    steps = by_label(codec.step or {}, labels, "step")
    support = codec.support
    supports = by_label(support, labels, "support") if isinstance(support, Mapping) else {}
    return [
        learner(
            raw,
            f"{prefix}{raw.label}",
            kinds.get(raw.label),
            supports.get(raw.label),
            None if isinstance(support, Mapping) else support,
            codec.atom_share,
            steps.get(raw.label, "auto"),
        )
        for raw in frame.columns
    ]


def _derive(
    codec: "TableCodec", X: Any, labels: list[Any], columns: tuple[Column, ...]
) -> tuple[Column, ...]:
    parents = by_label(codec.derived or {}, labels, "derived")
    parents = {k: next(iter(by_label({v: 0}, labels, "derived"))) for k, v in parents.items()}
    check_derived(parents, dict(zip(labels, columns, strict=True)))
    pieces = (frame for frame, _ in _pieces(X, None, codec.missing))
    return derive(parents, labels, columns, pieces)


def _check_learned(codec: "TableCodec", X: Any, columns: tuple[Column, ...]) -> None:
    if not any(c.in_event for c in columns):
        raise ValueError(
            f"Every column of X is constant ({len(columns)} column(s), {containers.n_rows(X)} "
            "row(s)): there is nothing to learn; pass at least two rows that differ."
        )
    support = codec.support
    everywhere = None if isinstance(support, Mapping) else support
    numbers = (
        c.kind == "real" or (c.kind == "ordinal" and c.dtype.startswith("float")) for c in columns
    )
    if everywhere is not None and not any(numbers):
        raise ValueError(
            f"support={support!r}, but X has no real column; make columns real with "
            'kinds={column: "real"}.'
        )


def _present(weights: np.ndarray | None, raw: RawColumn) -> np.ndarray | None:
    """Weights of the rows whose cell is not missing."""
    if weights is None or raw.missing is None:
        return weights
    found: np.ndarray = weights[~raw.missing]
    return found
