"""Containers of rows: arrays, frames of pandas, polars and pyarrow, lists, files. Knows no codec."""

from densekit.containers.building import build
from densekit.containers.columns import Frame, RawColumn, check_finite, check_missing, read
from densekit.containers.parquet import ParquetRows, in_memory
from densekit.containers.pieces import PIECE, RowsInPieces, RowsOnDisk, SelectedRows
from densekit.containers.rows import (
    Modality,
    as_array,
    check_labels,
    check_unicode,
    container_of,
    for_scoring,
    is_frame,
    is_text,
    labels_of,
    modality_of,
    n_rows,
    select,
    shape_in_words,
    take,
    too_few_rows,
)
from densekit.containers.unreadable import reject_unreadable

__all__ = [
    "PIECE",
    "Frame",
    "Modality",
    "ParquetRows",
    "RawColumn",
    "RowsInPieces",
    "RowsOnDisk",
    "SelectedRows",
    "as_array",
    "build",
    "check_finite",
    "check_labels",
    "check_missing",
    "check_unicode",
    "container_of",
    "for_scoring",
    "in_memory",
    "is_frame",
    "is_text",
    "labels_of",
    "modality_of",
    "n_rows",
    "read",
    "reject_unreadable",
    "select",
    "shape_in_words",
    "take",
    "too_few_rows",
]
