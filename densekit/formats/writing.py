"""Writing of rows to files, which are replaced atomically."""

import contextlib
import csv
import errno
import gzip
import io
import json
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from densekit.atomic import replacing
from densekit.containers import as_array, container_of, is_text, n_rows
from densekit.formats.images import write_images
from densekit.formats.limits import quoted
from densekit.formats.locations import Location


def write(
    rows: Any, path: str | Path, *, format: str | None = None, sep: str | None = None
) -> None:
    """Write rows to a file, a new folder of images, or standard output (``"-"``).

    The rows are written to a temporary file, which then replaces an existing file. An error leaves the
    existing file unchanged.

    Parameters
    ----------
    rows : array, DataFrame (pandas, polars, pyarrow) or list of str
        The rows to write.
    path, format
        As for :func:`read`. The suffix must be one of the format.
    sep : str, optional
        Separator of a CSV file: by default a comma, or a tab in a .tsv file.

    Raises
    ------
    ValueError
        The format cannot represent the rows, such as images in a table or line breaks in a text file.
    FileNotFoundError
        The folder of the file does not exist.
    FileExistsError
        The folder for images is not empty.

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
    """Write rows in pieces, with only one piece in memory at a time.

    Otherwise it works as :func:`write`. In a Parquet file each piece is a row group. Pieces are
    written to standard output immediately, so an error does not remove the earlier ones.

    Parameters
    ----------
    pieces : iterable of rows
        Pieces in the same container, with the same columns and dtypes.
    n : int
        Total number of rows.
    path, format, sep
        As for :func:`write`.

    Raises
    ------
    ValueError
        As for :func:`write`; also if the pieces do not have n rows in total.

    Examples
    --------
    >>> import tempfile
    >>> from densekit.formats import read
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_pieces((np.full((2, 1), k) for k in range(3)), 6, f"{folder}/k.npy")
    ...     read(f"{folder}/k.npy").ravel().tolist()
    [0, 0, 1, 1, 2, 2]
    """
    location = check_target(path, format=format, sep=sep)
    pieces = _check_count(pieces, n)
    if location.format == "images":
        write_images(location, pieces, n)
        return
    try:
        _write(location, pieces, n)
    except UnicodeEncodeError as error:
        excerpt = quoted(error.object[max(0, error.start - 10) : error.end])
        raise ValueError(
            f"{location.name}: {excerpt} has an unpaired surrogate, which is not a character; the text "
            "was probably decoded with a wrong encoding"
        ) from error


def _write(location: Location, pieces: Iterable[Any], n: int) -> None:
    if location.path is None:
        sys.stdout.flush()
        WRITERS[location.format](location, pieces, n, CountingStream(sys.stdout.buffer))
        sys.stdout.buffer.flush()
        return
    with _replacement_file(location.path) as file:
        if not location.compressed:
            WRITERS[location.format](location, pieces, n, file)
            return
        # Without time and name in the gzip header, equal rows give equal bytes.
        with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
            WRITERS[location.format](location, pieces, n, cast(IO[bytes], packed))


def _check_count(pieces: Iterable[Any], n: int) -> Iterator[Any]:
    """Yield the pieces; raise ValueError at the end unless they have n rows."""
    count = 0
    for rows in pieces:
        count += n_rows(rows)
        yield rows
    if count != n:
        raise ValueError(f"expected {n} rows to write, but the pieces have {count}")


class CountingStream(io.RawIOBase):
    """A write-only stream that counts its bytes; it discards them if ``stream`` is None."""

    def __init__(self, stream: IO[bytes] | None = None) -> None:
        self._stream, self._size = stream, 0

    def writable(self) -> bool:
        """True, as for every stream that can be written to."""
        return True

    def write(self, data: Any) -> int:
        """Write and count bytes; return their number."""
        size = memoryview(data).nbytes
        if self._stream is not None:
            self._stream.write(data)
            self._stream.flush()
        self._size += size
        return size

    def tell(self) -> int:
        """Number of bytes written."""
        return self._size


def check_target(
    path: str | Path, *, format: str | None = None, sep: str | None = None
) -> Location:
    """Validate a path for writing, before the rows are computed.

    Parameters
    ----------
    path, format, sep
        As for :func:`write`.

    Returns
    -------
    location : Location
        The path with its format.

    Raises
    ------
    ValueError
        The format is unknown, or it does not match the suffix.
    FileNotFoundError, FileExistsError, IsADirectoryError
        The folder does not exist, or the path exists and cannot be replaced.
    """
    location = Location.of(path, format, "standard output", sep=sep)
    if location.path is None:
        if location.format == "images":
            raise ValueError("images cannot be written to a stream: give the path of a folder")
        return location
    folder = location.path.absolute().parent
    if not folder.is_dir():
        raise FileNotFoundError(f"{location.name}: there is no folder {folder}; create it first")
    if location.format != "images" and location.path.is_dir():
        raise IsADirectoryError(f"{location.name} is a folder: give the name of a file in it")
    if location.format == "images" and location.path.exists():
        if not location.path.is_dir():
            raise FileExistsError(f"{location.name} is a file: choose another name for the folder")
        if any(location.path.iterdir()):
            raise FileExistsError(f"{location.name} is not empty: images need a new folder")
    if not location.path.exists() or location.path.is_file():  # Pipes and devices have no suffix.
        location.check_suffix()
    return location


@contextlib.contextmanager
def _replacement_file(path: Path) -> Iterator[IO[bytes]]:
    """A temporary file that replaces ``path`` when the block ends without an error."""
    path = path.resolve()  # Keep a symbolic link and replace its target.
    direct = path.exists() and not path.is_file()  # Pipes and devices must not be replaced.
    with contextlib.nullcontext(path) if direct else replacing(path) as temporary:
        try:
            with open(temporary, "wb") as file:
                yield file
        except OSError as error:
            if error.filename is None:  # For example, if the disk is full.
                message = f"not written: {error.strerror or error}"
                raise OSError(error.errno or errno.EIO, message, str(path)) from error
            raise


def _write_csv(location: Location, pieces: Iterable[Any], n: int, file: IO[bytes]) -> None:
    delimiter = location.sep or ("\t" if location.format == "tsv" else ",")
    header = True
    for rows in pieces:
        table = _table_of(location, rows)
        _check_zeros(location, table)
        frame = table.to_pandas(date_as_object=False)
        # Quotes keep the string "NA" distinct from a missing value. But pandas would quote missing
        # values too, so columns with missing values use minimal quoting.
        quoting = csv.QUOTE_MINIMAL if frame.isna().any(axis=None) else csv.QUOTE_NONNUMERIC
        text = frame.to_csv(
            index=False, header=header, sep=delimiter, quoting=quoting, lineterminator="\n"
        )
        file.write(text.encode())
        header = False


def _check_zeros(location: Location, table: Any) -> None:
    """Raise ValueError if a string has a zero byte, which a text file cannot contain."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for name, column in zip(table.column_names, table.columns, strict=True):
        text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        if text and pc.any(pc.match_substring(column, "\0")).as_py():
            raise ValueError(
                f"{location.name}: column {quoted(name)} has a string with a zero byte, which a text "
                "file cannot contain; write to .jsonl or .parquet"
            )


def _write_parquet(location: Location, pieces: Iterable[Any], n: int, file: IO[bytes]) -> None:
    from pyarrow import parquet

    with contextlib.ExitStack() as stack:
        writer = None
        for rows in pieces:
            table = _table_of(location, rows)
            if writer is None:
                writer = stack.enter_context(parquet.ParquetWriter(file, table.schema))
            writer.write_table(table.cast(writer.schema))


def _write_jsonl(location: Location, pieces: Iterable[Any], n: int, file: IO[bytes]) -> None:
    for rows in pieces:
        records = _table_of(location, rows).to_pylist()
        lines = (json.dumps(record, ensure_ascii=False, default=_iso) for record in records)
        file.write("".join(f"{line}\n" for line in lines).encode())


def _iso(value: Any) -> str:
    return value.isoformat()


def _write_npy(location: Location, pieces: Iterable[Any], n: int, file: IO[bytes]) -> None:
    has_header = False
    for rows in pieces:
        array = _array_of(location, rows)
        if not has_header:
            header = np.lib.format.header_data_from_array_1_0(array)
            header |= {"shape": (n, *array.shape[1:]), "fortran_order": False}
            np.lib.format.write_array_header_1_0(file, header)
            has_header = True
        file.write(array.tobytes())


def _write_npz(location: Location, pieces: Iterable[Any], n: int, file: IO[bytes]) -> None:
    # numpy.savez_compressed writes the same file but needs the whole array.
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        name = zipfile.ZipInfo(f"{location.key or 'X'}.npy")
        name.compress_type = zipfile.ZIP_DEFLATED
        with archive.open(name, "w", force_zip64=True) as member:
            _write_npy(location, pieces, n, member)


def _write_text(location: Location, pieces: Iterable[Any], n: int, file: IO[bytes]) -> None:
    first = 0
    for rows in pieces:
        if not is_text(rows):
            raise ValueError(
                f"{location.name}: a text file contains strings only; use .csv, .parquet or .npy"
            )
        for i, text in enumerate(rows, first):
            if "\n" in text or text.endswith("\r"):
                raise ValueError(
                    f"{location.name}: string {i} has a line break, but a text file has one string per "
                    "line; write to .jsonl or .csv"
                )
            if "\0" in text:
                raise ValueError(
                    f"{location.name}: string {i} has a zero byte, which a text file cannot contain; "
                    "write to .jsonl or .parquet"
                )
        file.write("".join(f"{text}\n" for text in rows).encode())
        first += n_rows(rows)


def _table_of(location: Location, rows: Any) -> Any:
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
            f"{location.name}: rows of shape {array.shape} are not a table; write them to .npy, .npz "
            "or, if they are images, to a folder"
        )
    return pa.table({f"x{j}": pa.array(array[:, j].tolist()) for j in range(array.shape[1])})


def _array_of(location: Location, rows: Any) -> np.ndarray:
    array = as_array(rows if container_of(rows) != "polars" else rows.to_numpy())
    if array.dtype.kind not in "biufM":
        raise ValueError(
            f"{location.name}: the rows are not an array of numbers ({array.dtype}); write tables to "
            ".parquet or .csv, and strings to .txt or .jsonl"
        )
    return array


WRITERS: dict[str, Callable[[Location, Iterable[Any], int, Any], None]] = {
    "csv": _write_csv,
    "tsv": _write_csv,
    "parquet": _write_parquet,
    "npy": _write_npy,
    "npz": _write_npz,
    "jsonl": _write_jsonl,
    "text": _write_text,
}
"""For each format, the function that writes pieces with a total of n rows to an open file."""
