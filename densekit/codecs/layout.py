"""The entries that an event has of the columns of a table."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from densekit.codecs.columns import step_of
from densekit.codecs.learner import Learner
from densekit.codecs.schema import Column, Schema


def _edges(counts: Sequence[np.ndarray | None]) -> np.ndarray:
    """For each entry the cumulative shares of its codes, from 0 to 1, filled up with ones; from the
    rows that each code has, None where the entry is no code.

    Shares are those of the rows with one imagined row for each code, so that none is zero.
    """
    widest = max(len(n) for n in counts if n is not None)
    edges = np.ones((len(counts), widest + 1))
    for j, n in enumerate(counts):
        if n is not None:
            edges[j, : len(n) + 1] = np.concatenate([[0.0], np.cumsum(n + 1) / (n + 1).sum()])
    return edges


def schema_of(columns: tuple[Column, ...], learners: Sequence[Learner]) -> Schema:
    """The schema of events with these columns, and the shares of their codes and atoms."""
    counts: list[np.ndarray | None] = []
    for column, one in zip(columns, learners, strict=True):
        if column.in_event and column.atoms:
            counts.append(one.atom_rows())
        if column.in_event:
            counts.append(one.counts(column) if column.levels else None)
    schema = layout(columns)
    return replace(schema, edges=_edges(counts)) if schema.cardinality.any() else schema


def layout(columns: tuple[Column, ...]) -> Schema:
    """Make the schema of events with these columns, without probabilities of codes."""
    entries: list[tuple[str, int, bool, float]] = []
    pairs = []
    for column in (c for c in columns if c.in_event):
        if column.atoms:
            pairs.append((len(entries), len(entries) + 1))
            entries.append((f"{column.name} on an atom", 1 + len(column.atoms), False, 0.0))
        ordered = column.kind in ("ordinal", "boolean")
        step = step_of(column) / column.scale
        entries.append((column.name, len(column.levels), ordered, step))
    names, cardinality, ordered_, width = zip(*entries, strict=True) if entries else ((),) * 4
    d = len(entries)
    return Schema(
        modality="table",
        event_shape=(d,),
        cardinality=np.array(cardinality, dtype=int),
        ordered=np.array(ordered_, dtype=bool),
        width=np.array(width, dtype=float),
        shift=np.zeros(d),
        spread=np.ones(d),
        names=tuple(names),
        columns=columns,
        constants=any(not c.in_event for c in columns),
        pairs=tuple(pairs),
    )
