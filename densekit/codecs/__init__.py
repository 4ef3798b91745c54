"""Codecs: the user's data and the tensors that models see, both ways, with the Jacobian."""

from densekit.codecs.base import Codec
from densekit.codecs.describing import describe
from densekit.codecs.description import Description
from densekit.codecs.findings import ColumnWarning
from densekit.codecs.image import ImageCodec
from densekit.codecs.measure import ColumnMeasure, Measure
from densekit.codecs.schema import Column, Schema
from densekit.codecs.table import TableCodec
from densekit.codecs.text import TextCodec
from densekit.containers import for_scoring, is_frame, modality_of, n_rows, shape_in_words, take

__all__ = [
    "Codec",
    "Column",
    "ColumnMeasure",
    "ColumnWarning",
    "Description",
    "ImageCodec",
    "Measure",
    "Schema",
    "TableCodec",
    "TextCodec",
    "describe",
    "for_scoring",
    "is_frame",
    "modality_of",
    "n_rows",
    "shape_in_words",
    "take",
]
