"""Reading of rows from files; every error names the file, the line and the remedy."""

import contextlib
import csv
import gzip
import io
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import psutil  # type: ignore[import-untyped]

from densekit.containers import n_rows
from densekit.formats.arrays import read_images, read_npy, read_npz
from densekit.formats.jsonl import read_jsonl
from densekit.formats.limits import FileError, check_names, check_size, check_width, quoted
from densekit.formats.locations import Location
from densekit.formats.parquet import read_parquet
from densekit.formats.separators import separator_of, warn_of_decimals
from densekit.formats.tables import rows_of

# A valid text file cannot begin like this: each has a byte that is not UTF-8, or a control character.
_MAGIC = {b"PAR1\x15": "Parquet", b"\x93NUMPY": "NPY", b"\x1f\x8b": "gzip", b"\x89PNG": "PNG"}
_MAGIC |= {b"PK\x03\x04": "ZIP", b"PK\x05\x06": "ZIP", b"SQLite format 3\0": "SQLite"}
_MAGIC |= {b"\xff\xfe": "UTF-16 text", b"\xfe\xff": "UTF-16 text", b"\x89HDF": "HDF5"}
_MAGIC |= {b"\xff\xd8\xff": "JPEG", b"ARROW1\0\0": "Arrow"}
_EXPECTED_MAGIC = {
    "parquet": (b"PAR1",),
    "npy": (b"\x93NUMPY",),
    "npz": (b"PK\x03\x04", b"PK\x05\x06"),
}
_BLOCK = 2**24
"""Bytes of CSV that are parsed at a time; a row must fit into a block."""
_INTEGER = re.compile(r"[+-]?\d{1,40}")
_STREAM_SHARE = 4
"""A stream may take this fraction (one quarter) of the free memory; parsing it needs the rest."""


def read(
    path: str | Path, *, format: str | None = None, sep: str | None = None, decimal: str = "."
) -> Any:
    """Read the rows of a file, of a folder of images, or of standard input (``"-"``).

    Parameters
    ----------
    path : str or Path
        The suffix determines the format, see :mod:`densekit.formats`.
    format : {"csv", "tsv", "parquet", "npy", "npz", "jsonl", "text", "images"}, optional
        The format, if the suffix does not determine it.
    sep : str, optional
        Separator of a CSV file. By default it is detected among ``, ; |`` and the tab.
    decimal : {".", ","}
        Decimal mark of a CSV file.

    Returns
    -------
    rows : DataFrame, array or list of str
        Depending on the format, see :mod:`densekit.formats`.

    Raises
    ------
    FileNotFoundError
        The file does not exist.
    ValueError
        The file is empty, truncated, of another format than its name, not UTF-8, or beyond the limits of
        its format, or its rows differ in length. The message names the file, the line or column, and the
        remedy.

    Warns
    -----
    UserWarning
        A column of strings in a CSV file looks like numbers with another decimal mark.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "people.csv").write_text("age,sex\\n31,f\\n45,m\\n")
    ...     read(f"{folder}/people.csv")
       age sex
    0   31   f
    1   45   m
    """
    location = Location.of(path, format, sep=sep, decimal=decimal)
    if location.format == "images":
        return read_images(location)
    with _opened(location) as file:
        head = file.read(16)
        file.seek(0)
        if not head:
            raise ValueError(f"{location.name} is empty")
        _check_magic(location, head)
        rows = _READERS[location.format](location, file)
    if not n_rows(rows):
        raise ValueError(f"{location.name} has no rows")
    return rows


@contextlib.contextmanager
def _opened(location: Location) -> Iterator[IO[bytes]]:
    """Open a file or standard input as a seekable and decompressed stream."""
    if location.path is None:
        yield _buffered(location.name, sys.stdin.buffer)
        return
    if location.path.is_dir():
        raise IsADirectoryError(
            f"{location.name} is a folder, not a file; omit format to read a folder of images"
        )
    if not location.path.exists():
        raise FileNotFoundError(f"{location.name}: no such file")
    with open(location.path, "rb") as opened:
        file = opened if opened.seekable() else _buffered(location.name, opened)
        if not location.compressed:
            yield file
            return
        if file.read(2) != b"\x1f\x8b":
            raise ValueError(f"{location.name} is not gzip data: its name should not end in .gz")
        file.seek(0)
        content = _decompressed(location, file)
    yield content


def _buffered(name: str, stream: IO[bytes]) -> IO[bytes]:
    """All bytes of a stream, up to the memory limit; a stream has no known length."""
    content, most = io.BytesIO(), psutil.virtual_memory().available // _STREAM_SHARE
    while block := stream.read(2**20):
        content.write(block)
        if content.tell() > most:
            raise FileError(
                f"{name} is longer than {most:,} bytes, a quarter of the free memory: reduce the number "
                "of rows, or write them to a Parquet file, which models that are trained by batches "
                "read in pieces"
            )
    content.seek(0)
    return content


def _decompressed(location: Location, file: IO[bytes]) -> IO[bytes]:
    """The decompressed content of a gzip file. The size is checked for each block."""
    content = io.BytesIO()
    packed = file.seek(0, io.SEEK_END)
    file.seek(0)
    try:
        with gzip.GzipFile(fileobj=file) as stream:
            while block := stream.read(2**20):
                content.write(block)
                check_size(location.name, content.tell(), packed)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{location.name} is truncated or damaged ({error})") from error
    content.seek(0)
    return content


def _check_magic(location: Location, head: bytes) -> None:
    """Raise ValueError if the first bytes of a file belong to another format."""
    expected = _EXPECTED_MAGIC.get(location.format)
    if expected is not None and head.startswith(expected):
        return
    detected = next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)
    if expected is None and detected is None:
        if location.format == "text" or not head.lstrip().lower().startswith(
            (b"<!doctype", b"<html")
        ):
            return
        detected = "HTML"
    begins = f"it begins like {detected} data" if detected else f"it begins with {head[:8]!r}"
    raise ValueError(
        f"{location.name} is not a {location.format} file, despite its name: {begins}; rename the file, "
        "or give its format"
    )


def _utf8(location: Location, file: IO[bytes]) -> bytes:
    """The bytes of a text file without its byte order mark; raises ValueError unless valid UTF-8."""
    data = file.read().removeprefix(b"\xef\xbb\xbf")
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{location.name}, line {line}: byte {data[error.start]:#x} is not valid UTF-8; convert the "
            "file (iconv -f latin1 -t utf-8 if it is Latin-1)"
        ) from error
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise ValueError(f"{location.name}, line {line}: a zero byte, so it is not a text file")
    return data


def _read_csv(location: Location, file: IO[bytes]) -> Any:
    import pyarrow as pa
    from pyarrow import csv as arrow

    data = _utf8(location, file)
    delimiter = separator_of(location, data)
    head = re.match(rb"[^\r\n]*", data)
    check_width(f"{location.name}, line 1", 1 + (head[0].count(delimiter.encode()) if head else 0))
    if data.count(b'"') % 2:
        _check_lines(location, data, delimiter)
    try:
        table = arrow.read_csv(
            pa.BufferReader(data),
            read_options=arrow.ReadOptions(block_size=_BLOCK),
            parse_options=arrow.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            # A quoted "NA" is a string; an unquoted one is a missing value.
            convert_options=arrow.ConvertOptions(
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                decimal_point=location.decimal,
            ),
        )
    except pa.ArrowInvalid as error:
        _check_lines(location, data, delimiter)
        raise ValueError(
            f"{location.name} cannot be read as {location.format}: {error}"
        ) from error
    _check_header(location, table.column_names)
    rows = rows_of(_with_exact_integers(location, table, data, delimiter))
    if hasattr(rows, "columns"):
        warn_of_decimals(location, rows)
    return rows


def _with_exact_integers(location: Location, table: Any, data: bytes, delimiter: str) -> Any:
    """Convert columns of integers beyond 63 bits, which Arrow reads as floats, to exact integers."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv as arrow

    columns = zip(table.column_names, table.columns, strict=True)
    floats = [(name, column) for name, column in columns if pa.types.is_floating(column.type)]
    large = [n for n, c in floats if pc.any(pc.greater_equal(pc.abs(c), 2.0**63)).as_py()]
    if not large:
        return table
    texts = arrow.read_csv(
        pa.BufferReader(data),
        read_options=arrow.ReadOptions(block_size=_BLOCK),
        parse_options=arrow.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=arrow.ConvertOptions(
            include_columns=large, column_types=dict.fromkeys(large, pa.string())
        ),
    )
    for name in large:
        cells = [text.strip() or None for text in texts[name].to_pylist()]
        if not all(cell is None or _INTEGER.fullmatch(cell) for cell in cells):
            continue  # Numbers with a decimal point or an exponent are floats.
        integers = [None if cell is None else int(cell) for cell in cells]
        known = [i for i in integers if i is not None]
        if min(known) < 0 or max(known) >= 2**64:
            row = next(i for i, v in enumerate(integers) if v is not None and abs(v) >= 2**63)
            raise FileError(
                f"{location.name}, row {row}: column {quoted(name)} has {quoted(integers[row])}, "
                "an integer beyond 64 bits: put a letter before it if it is a code, or write it with "
                "a decimal point if it is a quantity"
            )
        table = table.set_column(
            table.column_names.index(name), name, pa.array(integers, pa.uint64())
        )
    return table


def _check_lines(location: Location, data: bytes, delimiter: str) -> None:
    """Raise ValueError for the first line with a wrong number of values or an unclosed quote."""
    lines = csv.reader(io.StringIO(data.decode(), newline=""), delimiter=delimiter, strict=True)
    width, problem, last_line = 0, "", 0
    try:
        for row in lines:
            if problem:
                raise ValueError(
                    f"{problem}: quote values that contain {delimiter!r}, or correct the line; if "
                    "another character separates values, give it (--sep, in Python sep=)"
                )
            width, last_line = width or len(row), lines.line_num
            if row and len(row) != width:
                line = f"{location.name}, line {lines.line_num}"
                problem = f"{line}: {len(row)} values for {width} columns"
    except csv.Error as error:
        if "field limit" in str(error):
            raise ValueError(
                f"{location.name}, line {last_line + 1}: a value of more than "
                f"{csv.field_size_limit():,} characters in a file with an odd number of quotes: close "
                "the quote, or double a quote that is part of a value"
            ) from error
        raise ValueError(f"{location.name}, line {lines.line_num}: {error}; truncated?") from error
    if problem:
        raise ValueError(f"{problem}: it is the last line; the file may be truncated")


def _check_header(location: Location, names: list[str]) -> None:
    """Raise ValueError if the first line does not have valid names of columns."""
    if names[0].lstrip().startswith("{"):
        raise ValueError(
            f"{location.name}, line 1, looks like JSON lines but is read as {location.format}: "
            "rename it to *.jsonl, or use --format jsonl (in Python format='jsonl')"
        )
    if "" in names:
        raise ValueError(
            f"{location.name}, line 1: column {names.index('') + 1} has no name; name it, or do not "
            "write an index (pandas: to_csv(..., index=False))"
        )
    if all(_is_number(name) for name in names) and names != [str(j) for j in range(len(names))]:
        raise ValueError(
            f"{location.name}, line 1: {', '.join(names[:3])}... are numbers, not names of columns; "
            "add a first line with names"
        )
    check_names(f"{location.name}, line 1", names)


def _is_number(name: str) -> bool:
    with contextlib.suppress(ValueError):
        return float(name) is not None
    return False


def _read_jsonl(location: Location, file: IO[bytes]) -> Any:
    return read_jsonl(location, _utf8(location, file))


def _read_text(location: Location, file: IO[bytes]) -> list[str]:
    text = _utf8(location, file).decode().removesuffix("\n")
    # str.splitlines would also split at form feeds and at Unicode separators.
    return [line.removesuffix("\r") for line in text.split("\n")]


_READERS: dict[str, Callable[[Location, IO[bytes]], Any]] = {
    "csv": _read_csv,
    "tsv": _read_csv,
    "parquet": read_parquet,
    "npy": read_npy,
    "npz": read_npz,
    "jsonl": _read_jsonl,
    "text": _read_text,
}
