"""Moments of events in the units of the columns that they stand for."""

import numpy as np

from densekit.codecs.columns import step_of
from densekit.codecs.schema import Schema
from densekit.codecs.support import SECONDS


def location_and_scale(schema: Schema) -> tuple[np.ndarray, np.ndarray]:
    """Per entry of a relaxed event z what makes ``location + scale * z`` its value in the column's own
    units, each (D,): 0 and 1 for codes, indicators and pixels, which have none.

    A column x whose support is the real line comes back as x itself, one with a bounded support as
    b(x) (:class:`densekit.codecs.TableCodec`), an integer k as k + u with u uniform on [0, 1), and a
    datetime in seconds since 1970.
    """
    location, scale = np.zeros(schema.n_dims), np.ones(schema.n_dims)
    if schema.modality != "table":
        return location, scale
    for column, places in zip(schema.varying, schema.places, strict=True):
        if column.levels:
            continue
        place, tick = places[-1], SECONDS.get(column.unit, 1.0)
        straight = column.support[0] == "real" or step_of(column)
        location[place] = column.loc + (column.origin * tick if straight else 0.0)
        scale[place] = column.scale
    return location, scale


def covariance_in_units(covariance: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """A covariance (..., D, D) of entries, with each entry on its own scale (D,)."""
    return covariance * scale[:, None] * scale
