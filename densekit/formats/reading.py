"""Rows read from files: every error names the file, the line and the remedy."""

import contextlib
import csv
import gzip
import io
import json
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from densekit.codecs.frames import n_rows
from densekit.formats.places import FORMATS, Place
from densekit.formats.separators import separator_of, warn_of_decimals

# None of these is how a text may begin: each has a byte that is no UTF-8, or a control character.
_MAGIC = {b"PAR1\x15": "Parquet", b"\x93NUMPY": "NPY", b"\x1f\x8b": "gzip", b"\x89PNG": "PNG"}
_MAGIC |= {b"PK\x03\x04": "ZIP", b"PK\x05\x06": "ZIP", b"SQLite format 3\0": "SQLite"}
_MAGIC |= {b"\xff\xfe": "UTF-16 text", b"\xfe\xff": "UTF-16 text", b"\x89HDF": "HDF5"}
_MAGIC |= {b"\xff\xd8\xff": "JPEG"}
_OWN = {"parquet": (b"PAR1",), "npy": (b"\x93NUMPY",), "npz": (b"PK\x03\x04", b"PK\x05\x06")}
_PICTURES = (".png", ".jpg", ".jpeg")
_BLOCK = 2**24
"""Bytes of CSV parsed at a time; a row must fit into it."""
_RATIO, _ROOM = 100, 10**8
"""What is packed may come to as many times its bytes, and as many bytes more."""


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
        It is empty, truncated, not what its name says, not UTF-8, its rows differ in length, or it
        unpacks to more than 100 times its size and 100 MB: named are the file, the line and the
        remedy.

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
        return _read_images(place)
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
        yield io.BytesIO(sys.stdin.buffer.read())
        return
    if place.path.is_dir():
        raise IsADirectoryError(
            f"{place.name} is a folder, not a file; a folder is read as images, without format"
        )
    if not place.path.exists():
        raise FileNotFoundError(f"{place.name}: no such file")
    with open(place.path, "rb") as file:
        if not place.zipped:
            yield file
            return
        if file.read(2) != b"\x1f\x8b":
            raise ValueError(f"{place.name} is not gzip data: its name should not end in .gz")
        file.seek(0)
        content = _unpacked(place, file)
    yield content


def _unpacked(place: Place, file: IO[bytes]) -> IO[bytes]:
    """What gzip packed, taken out block by block: a small file may hold more than the memory."""
    content = io.BytesIO()
    packed = file.seek(0, io.SEEK_END)
    file.seek(0)
    try:
        with gzip.GzipFile(fileobj=file) as unpacking:
            while block := unpacking.read(2**20):
                content.write(block)
                _check_size(place.name, content.tell(), packed)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{place.name} is truncated or damaged ({error})") from error
    content.seek(0)
    return content


class _SizeError(ValueError):
    """A packed file that holds far more than data do."""


def _check_size(name: str, unpacked: int, packed: int) -> None:
    if unpacked > (limit := _RATIO * packed + _ROOM):
        raise _SizeError(
            f"{name} unpacks to more than {limit:,} bytes, {_RATIO} times its size and "
            f"{_ROOM:,} bytes; if it is to be so large, unpack it yourself (gunzip, unzip) and "
            "read what comes out"
        )


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
    rows = _rows_of(table)
    if hasattr(rows, "columns"):
        warn_of_decimals(place, rows)
    return rows


def _check_lines(place: Place, data: bytes, delimiter: str) -> None:
    """Raise naming the first line that has too few or too many values, or a quote left open."""
    lines = csv.reader(io.StringIO(data.decode(), newline=""), delimiter=delimiter, strict=True)
    width, wrong = 0, ""
    try:
        for row in lines:
            if wrong:
                raise ValueError(
                    f"{wrong}: quote values that hold a {delimiter!r}, or mend the line; if it is not "
                    "what separates the values, say what does (--sep, in Python sep=)"
                )
            width = width or len(row)
            if row and len(row) != width:
                wrong = (
                    f"{place.name}, line {lines.line_num}: {len(row)} values for {width} columns"
                )
    except csv.Error as error:
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


def _is_number(name: str) -> bool:
    with contextlib.suppress(ValueError):
        return float(name) is not None
    return False


def _rows_of(table: Any) -> Any:
    """An Arrow table as a DataFrame, or as a list of strings where its only column is ``text``."""
    frame = table.to_pandas(date_as_object=False)
    if list(frame.columns) == ["text"]:
        texts = frame["text"].tolist()
        if all(isinstance(text, str) for text in texts):
            return texts
    return frame


def _read_parquet(place: Place, file: IO[bytes]) -> Any:
    import pyarrow as pa
    from pyarrow import parquet

    file.seek(-4, io.SEEK_END)
    if file.read() != b"PAR1":
        raise ValueError(f"{place.name} is truncated: a Parquet file ends in PAR1")
    file.seek(0)
    try:
        return _rows_of(parquet.read_table(file))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{place.name} is damaged: {error}") from error


def _read_npy(place: Place, file: IO[bytes]) -> np.ndarray:
    try:
        return np.load(file, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise _unreadable_array(place.name, error) from error


def _read_npz(place: Place, file: IO[bytes]) -> np.ndarray:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            keys = list(arrays)
            key = place.key or (keys[0] if len(keys) == 1 else None)
            if key not in keys:
                have = f"it holds {', '.join(keys)}" if keys else "it holds no array"
                what = f"no array called {key!r}" if key else "which array?"
                raise KeyError(f"{place.path}: {what} {have}: write {place.path}:KEY")
            for member in arrays.zip.infolist():  # zipfile reads no more than is stated here
                if member.filename in (key, f"{key}.npy"):
                    _check_size(place.name, member.file_size, member.compress_size)
            return arrays[key]
    except KeyError as error:
        raise ValueError(str(error.args[0])) from None
    except _SizeError:
        raise
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise _unreadable_array(place.name, error) from error


def _unreadable_array(name: str, error: Exception) -> ValueError:
    if "allow_pickle" in str(error):
        return ValueError(
            f"{name} holds Python objects, which are never loaded; save an array of numbers or of "
            "fixed-length strings, or use .parquet"
        )
    return ValueError(f"{name} is truncated or damaged ({error})")


def _read_jsonl(place: Place, file: IO[bytes]) -> Any:
    import pandas as pd

    values: list[Any] = []
    keys: Any = None
    for number, line in enumerate(_utf8(place, file).split(b"\n"), 1):
        if not line.strip():
            continue
        where = f"{place.name}, line {number}"
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where} is not JSON ({error.msg}, column {error.colno})") from error
        except RecursionError:
            raise ValueError(f"{where} is nested too deeply: records hold plain values") from None
        except ValueError as error:  # an integer of thousands of digits
            raise ValueError(f"{where} cannot be read: {error}") from error
        found = value.keys() if isinstance(value, dict) else type(value).__name__
        keys = found if keys is None else keys
        if not isinstance(value, dict | str):
            raise ValueError(
                f"{where} is a {found}: each line must be a record {{...}} or a string"
            )
        if found != keys:
            if isinstance(found, str) or isinstance(keys, str):
                raise ValueError(f"{where}: records and strings in one file")
            differ = ", ".join(map(repr, sorted(found ^ keys)))
            raise ValueError(
                f"{where}: its keys differ from the first record's in {differ}; all records need "
                "the same keys"
            )
        values.append(value)
    if values and isinstance(values[0], str):
        return values
    if (
        keys is not None
        and list(keys) == ["text"]
        and all(isinstance(v["text"], str) for v in values)
    ):
        return [value["text"] for value in values]
    return _with_dates(pd.DataFrame(values))


def _with_dates(frame: Any) -> Any:
    """The frame with columns of ISO 8601 strings read as what they say, as they are in CSV."""
    import pandas as pd
    import pyarrow as pa

    for name in filter(lambda name: pd.api.types.is_string_dtype(frame[name]), frame.columns):
        with contextlib.suppress(pa.ArrowInvalid):
            times = pa.array(frame[name]).cast(pa.string()).cast(pa.timestamp("us"))
            frame[name] = times.to_numpy(zero_copy_only=False)
    return frame


def _read_text(place: Place, file: IO[bytes]) -> list[str]:
    text = _utf8(place, file).decode().removesuffix("\n")
    # Not splitlines, which breaks at form feeds and at Unicode's separators too.
    return [line.removesuffix("\r") for line in text.split("\n")]


def _read_images(place: Place) -> np.ndarray:
    from PIL import Image

    if place.path is None:
        raise ValueError("a folder of images is no stream: give its path")
    if not place.path.exists():
        raise FileNotFoundError(f"{place.name}: no such file or folder")
    if not place.path.is_dir():
        raise ValueError(
            f"{place.name} is a file whose name has no suffix: rename it or name its format "
            f"({', '.join(FORMATS[:-1])})"
        )
    paths = sorted(p for p in place.path.iterdir() if p.suffix.lower() in _PICTURES)
    if not paths:
        raise ValueError(f"{place.name} is a folder without images ({', '.join(_PICTURES)})")
    images: list[np.ndarray] = []
    for path in paths:
        try:
            with Image.open(path, formats=["PNG", "JPEG"]) as image:
                pixels = _pixels(path, image)
        except Image.UnidentifiedImageError as error:
            raise ValueError(f"{path} is not what its name says: no PNG and no JPEG") from error
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"{path} is truncated or damaged ({error})") from error
        if images and (pixels.shape, pixels.dtype) != (images[0].shape, images[0].dtype):
            raise ValueError(
                f"{path} has shape {pixels.shape} ({pixels.dtype}) and {paths[0].name} "
                f"{images[0].shape} ({images[0].dtype}): bring all images to one size and mode"
            )
        images.append(pixels)
    return np.stack(images)


def _pixels(path: Path, image: Any) -> np.ndarray:
    """(height, width) or (height, width, 3); a palette is looked up."""
    if image.mode == "P" and "transparency" not in image.info:
        image = image.convert("RGB")
    if image.mode not in ("1", "L", "RGB"):
        raise ValueError(
            f"{path} has mode {image.mode}; images must be grey or RGB with 8 bits and no alpha: "
            "convert them (mogrify -alpha off -depth 8 *.png)"
        )
    return np.array(image)


_READERS: dict[str, Callable[[Place, IO[bytes]], Any]] = {
    "csv": _read_csv,
    "tsv": _read_csv,
    "parquet": _read_parquet,
    "npy": _read_npy,
    "npz": _read_npz,
    "jsonl": _read_jsonl,
    "text": _read_text,
}
