"""Rows written to files, each whole or not at all."""

import contextlib
import csv
import errno
import gzip
import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from densekit.atomic import replacing
from densekit.codecs.frames import as_array, container_of, is_text
from densekit.formats.limits import shown
from densekit.formats.places import Place


def write(rows: Any, path: str | Path, *, format: str | None = None) -> None:
    """Write rows to a file, a new folder of images, or standard output (``"-"``).

    A file is written aside and renamed: it is replaced whole or not at all.

    Parameters
    ----------
    rows : array, DataFrame (pandas, polars, pyarrow) or list of str
    path, format
        As for :func:`read`.

    Raises
    ------
    ValueError
        The format cannot hold these rows: images in a table, a line break in a line of text.
    FileNotFoundError, FileExistsError
        No folder to write to; a folder of images that holds something.

    Examples
    --------
    >>> import tempfile
    >>> from densekit.formats import read
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(["one", "two"], f"{folder}/words.txt")
    ...     read(f"{folder}/words.txt")
    ['one', 'two']
    """
    place = check_target(path, format=format)
    if place.format == "images":
        _write_images(place, rows)
        return
    try:
        _write(place, rows)
    except UnicodeEncodeError as error:
        around = shown(error.object[max(0, error.start - 10) : error.end])
        raise ValueError(
            f"{place.name}: {around} has half of a surrogate pair, which is no character: a trace of "
            "text that was not UTF-8; read it with its own encoding"
        ) from error


def _write(place: Place, rows: Any) -> None:
    if place.path is None:
        held = io.BytesIO()
        _WRITERS[place.format](place, rows, held)
        sys.stdout.flush()
        sys.stdout.buffer.write(held.getbuffer())
        sys.stdout.buffer.flush()
        return
    with _aside(place.path) as file:
        if not place.zipped:
            _WRITERS[place.format](place, rows, file)
            return
        # Without the time and the name, so that equal rows give equal bytes.
        with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
            _WRITERS[place.format](place, rows, cast(IO[bytes], packed))


def check_target(path: str | Path, *, format: str | None = None) -> Place:
    """Raise, before any work is done for it, if nothing can be written at ``path``."""
    place = Place.of(path, format, "standard output")
    if place.path is None:
        if place.format == "images":
            raise ValueError("a folder of images is no stream: give its path")
        return place
    folder = place.path.absolute().parent
    if not folder.is_dir():
        raise FileNotFoundError(f"{place.name}: there is no folder {folder}; make it first")
    if place.format != "images" and place.path.is_dir():
        raise IsADirectoryError(f"{place.name} is a folder: give the name of a file in it")
    if place.format == "images" and place.path.exists():
        if not place.path.is_dir():
            raise FileExistsError(f"{place.name} is a file: give another name to the folder")
        if any(place.path.iterdir()):
            raise FileExistsError(f"{place.name} is not empty: images go to a new folder")
    return place


@contextlib.contextmanager
def _aside(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of ``path`` when the block ends without an error."""
    path = path.resolve()  # a link stays, and what it points to is replaced
    direct = path.exists() and not path.is_file()  # a pipe or a device must not be replaced
    with contextlib.nullcontext(path) if direct else replacing(path) as part:
        try:
            with open(part, "wb") as file:
                yield file
        except OSError as error:
            if error.filename is None:  # as it is where the disk is full
                # NumPy says how many bytes it wrote and no more.
                said = f"not written: {error.strerror or error}"
                raise OSError(error.errno or errno.EIO, said, str(path)) from error
            raise


def _write_csv(place: Place, rows: Any, file: IO[bytes]) -> None:
    table = _table_of(place, rows)
    _check_zeros(place, table)
    frame = table.to_pandas(date_as_object=False)
    # Strings are quoted, so that "NA" stays a word; only then a missing value must not be.
    quoting = csv.QUOTE_MINIMAL if frame.isna().any(axis=None) else csv.QUOTE_NONNUMERIC
    delimiter = "\t" if place.format == "tsv" else ","
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    frame.to_csv(text, index=False, sep=delimiter, quoting=quoting, lineterminator="\n")
    text.flush()
    text.detach()


def _check_zeros(place: Place, table: Any) -> None:
    """Raise ValueError where a string has a zero byte, by which a file is told not to be text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for name, column in zip(table.column_names, table.columns, strict=True):
        text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        if text and pc.any(pc.match_substring(column, "\0")).as_py():
            raise ValueError(
                f"{place.name}: column {shown(name)} has a string with a zero byte, which no text "
                "file holds; write to .jsonl or .parquet"
            )


def _write_parquet(place: Place, rows: Any, file: IO[bytes]) -> None:
    from pyarrow import parquet

    parquet.write_table(_table_of(place, rows), file)


def _write_jsonl(place: Place, rows: Any, file: IO[bytes]) -> None:
    for record in _table_of(place, rows).to_pylist():
        file.write(json.dumps(record, ensure_ascii=False, default=_iso).encode() + b"\n")


def _iso(value: Any) -> str:
    return value.isoformat()


def _write_npy(place: Place, rows: Any, file: IO[bytes]) -> None:
    np.save(file, _array_of(place, rows), allow_pickle=False)


def _write_npz(place: Place, rows: Any, file: IO[bytes]) -> None:
    arrays: dict[str, Any] = {place.key or "X": _array_of(place, rows)}
    # Without allow_pickle, which NumPy 2.0 would store as an array; _array_of refuses objects.
    np.savez_compressed(file, **arrays)


def _write_text(place: Place, rows: Any, file: IO[bytes]) -> None:
    if not is_text(rows):
        raise ValueError(
            f"{place.name}: only strings go to a text file; use .csv, .parquet or .npy"
        )
    for i, text in enumerate(rows):
        if "\n" in text or text.endswith("\r"):
            raise ValueError(
                f"{place.name}: string {i} has a line break, and a text file holds one string per "
                "line; write to .jsonl or .csv"
            )
        if "\0" in text:
            raise ValueError(
                f"{place.name}: string {i} has a zero byte, which no text file holds; write to "
                ".jsonl or .parquet"
            )
        file.write(text.encode() + b"\n")


def _table_of(place: Place, rows: Any) -> Any:
    """Rows as an Arrow table."""
    import pyarrow as pa

    if is_text(rows):
        return pa.table({"text": pa.array([str(text) for text in rows], pa.string())})
    container = container_of(rows)
    if container == "pandas":
        return pa.Table.from_pandas(rows, preserve_index=False)
    if container != "numpy":
        return rows.to_arrow() if container == "polars" else rows
    array = as_array(rows)
    if array.ndim != 2:
        raise ValueError(
            f"{place.name}: rows of shape {array.shape} are no table; write them to .npy, .npz or, "
            "if they are images, to a folder"
        )
    return pa.table({f"x{j}": pa.array(array[:, j].tolist()) for j in range(array.shape[1])})


def _array_of(place: Place, rows: Any) -> np.ndarray:
    array = as_array(rows if container_of(rows) != "polars" else rows.to_numpy())
    if array.dtype.kind not in "biufM":
        raise ValueError(
            f"{place.name}: these rows are no array of numbers ({array.dtype}); tables go to .parquet "
            "or .csv, strings to .txt or .jsonl"
        )
    return array


def _write_images(place: Place, rows: Any) -> None:
    from PIL import Image

    assert place.path is not None  # check_target refused streams
    levels = _levels_of(place, rows)
    folder = place.path.absolute()
    part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    digits = len(str(len(levels) - 1))
    try:
        part.mkdir()
        for i, image in enumerate(levels):
            Image.fromarray(image).save(part / f"{i:0{digits}d}.png")
        os.replace(part, folder)  # an empty folder is replaced too
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _levels_of(place: Place, rows: Any) -> np.ndarray:
    """Images as uint8 or bool, (n, height, width) or (n, height, width, 3)."""
    images = None if is_text(rows) or hasattr(rows, "columns") else as_array(rows)
    if images is None or images.ndim not in (3, 4) or images.shape[3:] not in ((), (1,), (3,)):
        what = type(rows).__name__ if images is None else f"an array of shape {images.shape}"
        raise ValueError(
            f"{place.name}: only images (n, height, width) or (n, height, width, 3) go to a folder, "
            f"and this is {what}; end the name in .csv, .parquet, .npy, .jsonl or .txt"
        )
    if images.shape[3:] == (1,):
        images = images[..., 0]
    if images.dtype.kind == "f":
        images = np.round(images.astype(float) * 255)
    if images.dtype.kind != "b" and images.size and not (0 <= images.min() <= images.max() <= 255):
        raise ValueError(
            f"{place.name}: pixels go from {images.min():g} to {images.max():g}; they must be integers "
            "in 0..255 or floats in [0, 1]"
        )
    return images if images.dtype.kind == "b" and images.ndim == 3 else images.astype(np.uint8)


_WRITERS: dict[str, Callable[[Place, Any, IO[bytes]], None]] = {
    "csv": _write_csv,
    "tsv": _write_csv,
    "parquet": _write_parquet,
    "npy": _write_npy,
    "npz": _write_npz,
    "jsonl": _write_jsonl,
    "text": _write_text,
}
