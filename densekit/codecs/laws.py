"""What a schema says to the laws of columns (`densekit.distributions.spiked`)."""

from typing import Any

import numpy as np

from densekit.codecs.columns import places_of, step_of
from densekit.codecs.schema import Schema


def laws_of(schema: Schema, common: bool = False) -> dict[str, Any]:
    """Keyword arguments of :class:`~densekit.distributions.spiked.SpikedLaws`: one value for each column
    of a table, or for each entry of an image.

    Parameters
    ----------
    schema : Schema
    common : bool
        Whether common integers, and those that come again and again, have a mass of their own on top
        of that of their neighbors.
    """
    shares = np.diff(schema.edges) if schema.edges.size else None
    if not schema.columns:
        return {
            "cardinality": schema.cardinality,
            "ordered": schema.ordered,
            "width": schema.width,
            "shares": shares,
        }
    places, columns = schema.places, schema.varying
    at = [p[-1] for p in places]
    ends = [[-np.inf, np.inf] for _ in columns]
    for j, c in enumerate(columns):
        if c.levels or not step_of(c):
            continue
        for side, end in enumerate(c.ends):
            if end is not None:
                ends[j][side] = float((int(end) - c.origin) * step_of(c) / c.scale)
    laws: dict[str, Any] = {
        "cardinality": schema.cardinality[at],
        "ordered": schema.ordered[at],
        "width": schema.width[at],
        "shares": None if shares is None else shares[at],
        "ends": np.array(ends),
        "atoms": {j: _atom_places(c) for j, c in enumerate(columns) if c.atoms},
    }
    if common:
        laws["spikes"] = {j: places_of(c, c.spikes) for j, c in enumerate(columns) if c.spikes}
        laws["seen"] = {
            j: (places_of(c, c.seen), c.seen_rows) for j, c in enumerate(columns) if c.seen
        }
    return laws


def _atom_places(column: Any) -> np.ndarray:
    """Where atoms of a lattice lie in an event; atoms of numbers lie nowhere."""
    if not step_of(column):
        return np.zeros(len(column.atoms))
    return places_of(column, column.atoms)
