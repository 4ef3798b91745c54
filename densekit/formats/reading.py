"""Rows read from files: every error names the file, the line and the remedy."""

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
from densekit.formats.limits import FileError, check_names, check_size, check_width, shown
from densekit.formats.parquet import read_parquet
from densekit.formats.places import Place
from densekit.formats.separators import separator_of, warn_of_decimals
from densekit.formats.tables import rows_of

# None of these is how a text may begin: each has a byte that is no UTF-8, or a control character.
_MAGIC = {b"PAR1\x15": "Parquet", b"\x93NUMPY": "NPY", b"\x1f\x8b": "gzip", b"\x89PNG": "PNG"}
_MAGIC |= {b"PK\x03\x04": "ZIP", b"PK\x05\x06": "ZIP", b"SQLite format 3\0": "SQLite"}
_MAGIC |= {b"\xff\xfe": "UTF-16 text", b"\xfe\xff": "UTF-16 text", b"\x89HDF": "HDF5"}
_MAGIC |= {b"\xff\xd8\xff": "JPEG", b"ARROW1\0\0": "Arrow"}
_OWN = {"parquet": (b"PAR1",), "npy": (b"\x93NUMPY",), "npz": (b"PK\x03\x04", b"PK\x05\x06")}
_BLOCK = 2**24
"""Bytes of CSV parsed at a time; a row must fit into it."""
_INTEGER = re.compile(r"[+-]?\d{1,40}")
_STREAM_SHARE = 4
"""A stream may have one of so many parts of the memory that is free; its copies need the rest."""


def read(
    path: str | Path, *, format: str | None = None, sep: str | None = None, decimal: str = "."
) -> Any:
    """The rows of a file, of a folder of images, or of standard input (``"-"``).

    Parameters
    ----------
    path : str or Path
        Its suffix says the format (see :mod:`densekit.formats`).
    format : {"csv", "tsv", "parquet", "npy", "npz", "jsonl", "text", "images"}, optional
        Where the name does not say it.
    sep : str, optional
        What separates the values of a CSV file. None finds it out, of ``, ; |`` and the tab.
    decimal : {".", ","}
        What its decimals come behind.

    Returns
    -------
    rows : DataFrame, array or list of str

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        It is empty, truncated, not what its name says, not UTF-8, its rows differ in length, or it is
        beyond the limits of its format (see :mod:`densekit.formats`). The message names the file, the
        line or column, and the remedy.

    Warns
    -----
    UserWarning
        Columns of a CSV file that are numbers but for their decimal marks, and read as strings.

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
    place = Place.of(path, format, sep=sep, decimal=decimal)
    if place.format == "images":
        return read_images(place)
    with _opened(place) as file:
        head = file.read(16)
        file.seek(0)
        if not head:
            raise ValueError(f"{place.name} is empty")
        _check_magic(place, head)
        rows = _READERS[place.format](place, file)
    if not n_rows(rows):
        raise ValueError(f"{place.name} has no rows")
    return rows


@contextlib.contextmanager
def _opened(place: Place) -> Iterator[IO[bytes]]:
    """The bytes of a file or of standard input, seekable."""
    if place.path is None:
        yield _held(place.name, sys.stdin.buffer)
        return
    if place.path.is_dir():
        raise IsADirectoryError(
            f"{place.name} is a folder, not a file; a folder is read as images, without format"
        )
    if not place.path.exists():
        raise FileNotFoundError(f"{place.name}: no such file")
    with open(place.path, "rb") as opened:
        file = opened if opened.seekable() else _held(place.name, opened)
        if not place.zipped:
            yield file
            return
        if file.read(2) != b"\x1f\x8b":
            raise ValueError(f"{place.name} is not gzip data: its name should not end in .gz")
        file.seek(0)
        content = _unpacked(place, file)
    yield content


def _held(name: str, stream: IO[bytes]) -> IO[bytes]:
    """All bytes of a stream, which has no length before it is read."""
    content, most = io.BytesIO(), psutil.virtual_memory().available // _STREAM_SHARE
    while block := stream.read(2**20):
        content.write(block)
        if content.tell() > most:
            raise FileError(
                f"{name} is longer than {most:,} bytes, a quarter of the memory that is free: write it "
                "to a file of fewer rows, or to Parquet, which models that train by batches read in "
                "pieces"
            )
    content.seek(0)
    return content


def _unpacked(place: Place, file: IO[bytes]) -> IO[bytes]:
    """What gzip packed, taken out block by block: a small file may hold more than the memory."""
    content = io.BytesIO()
    packed = file.seek(0, io.SEEK_END)
    file.seek(0)
    try:
        with gzip.GzipFile(fileobj=file) as unpacking:
            while block := unpacking.read(2**20):
                content.write(block)
                check_size(place.name, content.tell(), packed)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{place.name} is truncated or damaged ({error})") from error
    content.seek(0)
    return content


def _check_magic(place: Place, head: bytes) -> None:
    """Raise where the first bytes are those of another format."""
    own = _OWN.get(place.format)
    if own is not None and head.startswith(own):
        return
    seen = next((what for magic, what in _MAGIC.items() if head.startswith(magic)), None)
    if own is None and seen is None:
        if place.format == "text" or not head.lstrip().lower().startswith(
            (b"<!doctype", b"<html")
        ):
            return
        seen = "HTML"
    begins = f"it begins like {seen} data" if seen else f"it begins with {head[:8]!r}"
    raise ValueError(
        f"{place.name} is not what its name says, {place.format}: {begins}; give the file its right "
        "name, or name its format"
    )


def _utf8(place: Place, file: IO[bytes]) -> bytes:
    """All bytes of a text file, known to be UTF-8, without a byte order mark."""
    data = file.read().removeprefix(b"\xef\xbb\xbf")
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{place.name}, line {line}: byte {data[error.start]:#x} is not UTF-8; convert the file "
            "(iconv -f latin1 -t utf-8, if it is Latin-1)"
        ) from error
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise ValueError(f"{place.name}, line {line}: a zero byte, so this is not a text file")
    return data


def _read_csv(place: Place, file: IO[bytes]) -> Any:
    import pyarrow as pa
    from pyarrow import csv as arrow

    data = _utf8(place, file)
    delimiter = separator_of(place, data)
    head = re.match(rb"[^\r\n]*", data)
    check_width(f"{place.name}, line 1", 1 + (head[0].count(delimiter.encode()) if head else 0))
    if data.count(b'"') % 2:
        _check_lines(place, data, delimiter)
    try:
        table = arrow.read_csv(
            pa.BufferReader(data),
            read_options=arrow.ReadOptions(block_size=_BLOCK),
            parse_options=arrow.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            # A quoted "NA" is a word; a bare one is a missing value.
            convert_options=arrow.ConvertOptions(
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                decimal_point=place.decimal,
            ),
        )
    except pa.ArrowInvalid as error:
        _check_lines(place, data, delimiter)
        raise ValueError(f"{place.name} cannot be read as {place.format}: {error}") from error
    _check_header(place, table.column_names)
    rows = rows_of(_with_exact_integers(place, table, data, delimiter))
    if hasattr(rows, "columns"):
        warn_of_decimals(place, rows)
    return rows


def _with_exact_integers(place: Place, table: Any, data: bytes, delimiter: str) -> Any:
    """The table with integers beyond 63 bits, which Arrow takes for floats, as the integers they are."""
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
            continue  # numbers with a point or an exponent are floats
        integers = [None if cell is None else int(cell) for cell in cells]
        known = [i for i in integers if i is not None]
        if min(known) < 0 or max(known) >= 2**64:
            row = next(i for i, v in enumerate(integers) if v is not None and abs(v) >= 2**63)
            raise FileError(
                f"{place.name}, row {row}: column {shown(name)} has {shown(integers[row])}, an integer "
                "beyond 64 bits: put a letter before it where it is a code, or write it with a decimal "
                "point where it is a quantity"
            )
        table = table.set_column(
            table.column_names.index(name), name, pa.array(integers, pa.uint64())
        )
    return table


def _check_lines(place: Place, data: bytes, delimiter: str) -> None:
    """Raise naming the first line that has too few or too many values, or a quote left open."""
    lines = csv.reader(io.StringIO(data.decode(), newline=""), delimiter=delimiter, strict=True)
    width, wrong, begun = 0, "", 0
    try:
        for row in lines:
            if wrong:
                raise ValueError(
                    f"{wrong}: quote values that hold a {delimiter!r}, or mend the line; if it is not "
                    "what separates the values, say what does (--sep, in Python sep=)"
                )
            width, begun = width or len(row), lines.line_num
            if row and len(row) != width:
                wrong = (
                    f"{place.name}, line {lines.line_num}: {len(row)} values for {width} columns"
                )
    except csv.Error as error:
        if "field limit" in str(error):
            raise ValueError(
                f"{place.name}, line {begun + 1}: a value of more than {csv.field_size_limit():,} "
                "characters in a file with an odd number of quotes: close the quote, or double a quote "
                "that belongs to a value"
            ) from error
        raise ValueError(f"{place.name}, line {lines.line_num}: {error}; truncated?") from error
    if wrong:
        raise ValueError(f"{wrong}: it is the last line; the file may be truncated")


def _check_header(place: Place, names: list[str]) -> None:
    """Raise where the first line names no columns, or others than the user thinks."""
    if names[0].lstrip().startswith("{"):
        raise ValueError(
            f"{place.name}, line 1, looks like JSON lines and is read as {place.format}: name it "
            "*.jsonl, or say --format jsonl (in Python format='jsonl')"
        )
    if "" in names:
        raise ValueError(
            f"{place.name}, line 1: column {names.index('') + 1} has no name; name it, or leave an "
            "index out (pandas: to_csv(..., index=False))"
        )
    if all(_is_number(name) for name in names) and names != [str(j) for j in range(len(names))]:
        raise ValueError(
            f"{place.name}, line 1: {', '.join(names[:3])}... are numbers and no names of columns; "
            "put a line of names first"
        )
    check_names(f"{place.name}, line 1", names)


def _is_number(name: str) -> bool:
    with contextlib.suppress(ValueError):
        return float(name) is not None
    return False


def _read_jsonl(place: Place, file: IO[bytes]) -> Any:
    return read_jsonl(place, _utf8(place, file))


def _read_text(place: Place, file: IO[bytes]) -> list[str]:
    text = _utf8(place, file).decode().removesuffix("\n")
    # Not splitlines, which breaks at form feeds and at Unicode's separators too.
    return [line.removesuffix("\r") for line in text.split("\n")]


_READERS: dict[str, Callable[[Place, IO[bytes]], Any]] = {
    "csv": _read_csv,
    "tsv": _read_csv,
    "parquet": read_parquet,
    "npy": read_npy,
    "npz": read_npz,
    "jsonl": _read_jsonl,
    "text": _read_text,
}
