"""Codecs of files that were saved before atoms had an entry of their own.

A typed event then had one entry for each column; of a column of numbers, ``spikes`` were values with a
mass, told from the others in 32 bits. They are atoms now, with an indicator before the value.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from densekit.codecs.columns import places_of
from densekit.codecs.layout import layout
from densekit.codecs.schema import Schema
from densekit.codecs.table import TableCodec


def with_atoms(schema: Schema) -> Schema:
    """The schema with the spikes of its numbers as atoms."""
    if not any(c.kind == "real" and c.spikes for c in schema.columns):
        return schema
    for name in ("width", "shift", "spread", "edges"):
        if not np.isfinite(getattr(schema, name)).all():
            raise ValueError(f"{name} of the schema is not finite")
    widest = int(schema.cardinality.max(initial=0))
    if schema.edges.size and schema.edges.shape[1] <= widest:
        raise ValueError(f"edges of the schema are of shape {schema.edges.shape}, too few")
    columns = tuple(
        replace(c, spikes=(), atoms=c.spikes) if c.kind == "real" else c for c in schema.columns
    )
    new = layout(columns)
    edges = np.ones(
        (new.n_dims, max(schema.edges.shape[1], 2 + max(len(c.atoms) for c in columns)))
    )
    for place, old, column in zip(new.places, range(schema.n_dims), new.varying, strict=True):
        if schema.edges.size:
            edges[place[-1], : schema.edges.shape[1]] = schema.edges[old]
        if column.atoms:
            k = len(column.atoms) + 1
            edges[place[0], : k + 1] = np.arange(k + 1) / k
    return replace(new, edges=edges, constants=schema.constants, exact=schema.exact)


def events_with_atoms(old: Schema, typed: np.ndarray) -> np.ndarray:
    """Typed events of an old schema as those of :func:`with_atoms`."""
    parts: list[Any] = []
    for j, column in enumerate(c for c in old.columns if c.in_event):
        z = typed[:, j]
        if column.kind == "real" and column.spikes:
            places = places_of(column, column.spikes).astype(np.float32)
            hits = places[:, None] == z.astype(np.float32)
            on_atom = hits.any(0)
            parts.append(np.where(on_atom, 1 + hits.argmax(0), 0))
            z = np.where(on_atom, 0.0, z)
        parts.append(z)
    return np.stack(parts, 1).astype(typed.dtype)


def update(content: dict[str, Any]) -> None:
    """Bring the content of a file up to date, in place."""
    parameters, fitted, probe = content["parameters"], content["fitted"], content["probe"]
    if isinstance(parameters, dict) and "spike_share" in parameters:
        parameters["atom_share"] = parameters.pop("spike_share")
    built = fitted.get("built_with_")
    if isinstance(built, dict):
        built.pop("spike_share", None)
    codec, old = fitted.get("codec_"), fitted.get("schema_")
    if not isinstance(codec, TableCodec) or not isinstance(old, Schema):
        return
    if "spike_share" in vars(codec):
        codec.atom_share = vars(codec).pop("spike_share")
    codec.schema, fitted["schema_"] = with_atoms(codec.schema), with_atoms(old)
    if fitted["schema_"] is not old and isinstance(probe, dict) and "rows" in probe:
        probe["rows"] = events_with_atoms(old, probe["rows"])
