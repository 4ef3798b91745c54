"""Conversion of moments of events to the units of the columns."""

import numpy as np

from densekit.codecs.columns import step_of
from densekit.codecs.schema import Schema
from densekit.codecs.support import SECONDS


def location_and_scale(schema: Schema) -> tuple[np.ndarray, np.ndarray]:
    """Location and scale that convert a relaxed event z to the units of its columns.

    ``location + scale * z`` is the value x of a column whose support is the real line, b(x) for a
    bounded support (:class:`densekit.codecs.TableCodec`), k + u with u uniform on [0, 1) for an
    integer k, and seconds since 1970 for a datetime. Codes, indicators and pixels have no units
    and are not converted.

    Parameters
    ----------
    schema : Schema

    Returns
    -------
    location, scale : ndarray of shape (D,)
        0 and 1 for entries without units.
    """
    location, scale = np.zeros(schema.n_dims), np.ones(schema.n_dims)
    if schema.modality != "table":
        return location, scale
    for column, places in zip(schema.varying, schema.places, strict=True):
        if column.levels:
            continue
        place, seconds_per_unit = places[-1], SECONDS.get(column.unit, 1.0)
        has_origin = column.support[0] == "real" or step_of(column)
        location[place] = column.loc + (column.origin * seconds_per_unit if has_origin else 0.0)
        scale[place] = column.scale
    return location, scale


def covariance_in_units(covariance: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Convert a covariance (..., D, D) of events by the scales (D,) of their entries."""
    return covariance * scale[:, None] * scale
