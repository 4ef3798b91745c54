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
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from densekit.atomic import replacing
from densekit.containers import as_array, container_of, is_text, n_rows
from densekit.formats.limits import shown
from densekit.formats.places import Place


def write(
    rows: Any, path: str | Path, *, format: str | None = None, sep: str | None = None
) -> None:
    """Write rows to a file, a new folder of images, or standard output (``"-"``).

    A file is written aside and renamed: it is replaced whole or not at all.

    Parameters
    ----------
    rows : array, DataFrame (pandas, polars, pyarrow) or list of str
    path, format
        As for :func:`read`; a name that ends like another format's is refused.
    sep : str, optional
        What is to separate the values of a CSV file; a comma, in a .tsv a tab, if not given.

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
    write_pieces([rows], n_rows(rows), path, format=format, sep=sep)


def write_pieces(
    pieces: Iterable[Any],
    n: int,
    path: str | Path,
    *,
    format: str | None = None,
    sep: str | None = None,
) -> None:
    """Write rows that come in pieces, as :func:`write` does, holding one piece at a time.

    In a Parquet file each piece is a row group. On standard output a piece stands as soon as it is
    there, so that an error leaves those before it.

    Parameters
    ----------
    pieces : iterable of rows
        All of one container, with the same columns and dtypes.
    n : int
        Rows in all.
    path, format, sep
        As for :func:`write`.

    Raises
    ------
    ValueError
        As for :func:`write`; or the pieces do not have n rows.

    Examples
    --------
    >>> import tempfile
    >>> from densekit.formats import read
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_pieces((np.full((2, 1), k) for k in range(3)), 6, f"{folder}/k.npy")
    ...     read(f"{folder}/k.npy").ravel().tolist()
    [0, 0, 1, 1, 2, 2]
    """
    place = check_target(path, format=format, sep=sep)
    pieces = _counted(pieces, n)
    if place.format == "images":
        _write_images(place, pieces, n)
        return
    try:
        _write(place, pieces, n)
    except UnicodeEncodeError as error:
        around = shown(error.object[max(0, error.start - 10) : error.end])
        raise ValueError(
            f"{place.name}: {around} has half of a surrogate pair, which is no character: a trace of "
            "text that was not UTF-8; read it with its own encoding"
        ) from error


def _write(place: Place, pieces: Iterable[Any], n: int) -> None:
    if place.path is None:
        sys.stdout.flush()
        WRITERS[place.format](place, pieces, n, Counting(sys.stdout.buffer))
        sys.stdout.buffer.flush()
        return
    with _aside(place.path) as file:
        if not place.zipped:
            WRITERS[place.format](place, pieces, n, file)
            return
        # Without the time and the name, so that equal rows give equal bytes.
        with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
            WRITERS[place.format](place, pieces, n, cast(IO[bytes], packed))


def _counted(pieces: Iterable[Any], n: int) -> Iterator[Any]:
    seen = 0
    for rows in pieces:
        seen += n_rows(rows)
        yield rows
    if seen != n:
        raise ValueError(f"{n} rows were to be written, and {seen} came")


class Counting(io.RawIOBase):
    """A stream that is only written to, and knows how far it is; or, of None, a mere count."""

    def __init__(self, stream: IO[bytes] | None = None) -> None:
        self._stream, self._size = stream, 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        if self._stream is not None:
            self._stream.write(data)
            self._stream.flush()
        self._size += size
        return size

    def tell(self) -> int:
        return self._size


def check_target(path: str | Path, *, format: str | None = None, sep: str | None = None) -> Place:
    """Raise, before any work is done for it, if nothing can be written at ``path``."""
    place = Place.of(path, format, "standard output", sep=sep)
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
    if not place.path.exists() or place.path.is_file():  # a pipe or a device has any name
        place.check_suffix()
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


def _write_csv(place: Place, pieces: Iterable[Any], n: int, file: IO[bytes]) -> None:
    delimiter = place.sep or ("\t" if place.format == "tsv" else ",")
    header = True
    for rows in pieces:
        table = _table_of(place, rows)
        _check_zeros(place, table)
        frame = table.to_pandas(date_as_object=False)
        # Strings are quoted, so that "NA" stays a word; only then a missing value must not be.
        quoting = csv.QUOTE_MINIMAL if frame.isna().any(axis=None) else csv.QUOTE_NONNUMERIC
        text = frame.to_csv(
            index=False, header=header, sep=delimiter, quoting=quoting, lineterminator="\n"
        )
        file.write(text.encode())
        header = False


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


def _write_parquet(place: Place, pieces: Iterable[Any], n: int, file: IO[bytes]) -> None:
    from pyarrow import parquet

    with contextlib.ExitStack() as stack:
        writer = None
        for rows in pieces:
            table = _table_of(place, rows)
            if writer is None:
                writer = stack.enter_context(parquet.ParquetWriter(file, table.schema))
            writer.write_table(table.cast(writer.schema))


def _write_jsonl(place: Place, pieces: Iterable[Any], n: int, file: IO[bytes]) -> None:
    for rows in pieces:
        records = _table_of(place, rows).to_pylist()
        lines = (json.dumps(record, ensure_ascii=False, default=_iso) for record in records)
        file.write("".join(f"{line}\n" for line in lines).encode())


def _iso(value: Any) -> str:
    return value.isoformat()


def _write_npy(place: Place, pieces: Iterable[Any], n: int, file: IO[bytes]) -> None:
    begun = False
    for rows in pieces:
        array = _array_of(place, rows)
        if not begun:
            header = np.lib.format.header_data_from_array_1_0(array)
            header |= {"shape": (n, *array.shape[1:]), "fortran_order": False}
            np.lib.format.write_array_header_1_0(file, header)
            begun = True
        file.write(array.tobytes())


def _write_npz(place: Place, pieces: Iterable[Any], n: int, file: IO[bytes]) -> None:
    # As numpy.savez_compressed, which wants the array whole.
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        name = zipfile.ZipInfo(f"{place.key or 'X'}.npy")
        name.compress_type = zipfile.ZIP_DEFLATED
        with archive.open(name, "w", force_zip64=True) as member:
            _write_npy(place, pieces, n, member)


def _write_text(place: Place, pieces: Iterable[Any], n: int, file: IO[bytes]) -> None:
    first = 0
    for rows in pieces:
        if not is_text(rows):
            raise ValueError(
                f"{place.name}: only strings go to a text file; use .csv, .parquet or .npy"
            )
        for i, text in enumerate(rows, first):
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
        file.write("".join(f"{text}\n" for text in rows).encode())
        first += n_rows(rows)


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


def _write_images(place: Place, pieces: Iterable[Any], n: int) -> None:
    assert place.path is not None  # check_target refused streams
    folder = place.path.absolute()
    part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    digits = len(str(n - 1))
    first = 0
    try:
        for rows in pieces:
            images = encoded_images(place, rows)
            part.mkdir(exist_ok=True)
            for i, image in enumerate(images, first):
                (part / f"{i:0{digits}d}.png").write_bytes(image)
            first += n_rows(rows)
        os.replace(part, folder)  # an empty folder is replaced too
    finally:
        shutil.rmtree(part, ignore_errors=True)


def encoded_images(place: Place, rows: Any) -> Iterator[bytes]:
    """Images as PNG files."""
    from PIL import Image

    levels = _levels_of(place, rows)

    def encoded() -> Iterator[bytes]:
        for image in levels:
            held = io.BytesIO()
            Image.fromarray(image).save(held, "PNG")
            yield held.getvalue()

    return encoded()


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


WRITERS: dict[str, Callable[[Place, Iterable[Any], int, Any], None]] = {
    "csv": _write_csv,
    "tsv": _write_csv,
    "parquet": _write_parquet,
    "npy": _write_npy,
    "npz": _write_npz,
    "jsonl": _write_jsonl,
    "text": _write_text,
}
"""Of each format, what writes pieces of rows, their number, to an open file."""
