"""Parquet files: their pages are measured before they are unpacked, and their rows counted as they come.

A footer can say what it likes of its pages, and a few bytes can stand for any number of equal values.
So the pages' own headers are read first, which say what each unpacks to, as the reader of pages will
believe them; values are then decoded in pieces, and repeated strings are counted before they are
written out.
"""

import io
from collections.abc import Iterator
from typing import IO, Any

from densekit.formats.limits import FileError, check_names, check_size, refusing, shown
from densekit.formats.places import Place
from densekit.formats.tables import rows_of
from densekit.formats.thrift import read_struct

_BLOCK = 2**26
"""Bytes decoded between one count and the next."""
_ROWS = 2**16
_DELTA_BYTE_ARRAY = 7
"""The encoding of strings that a dictionary cannot take in."""
_HEADER = 2**24
"""Bytes that the header of a page may have."""
_REMEDY = (
    "give fit and score_samples pyarrow.parquet.ParquetFile(path), which is read in pieces, or write "
    "it with compression=None and use_dictionary=False"
)
# Numbers of fields in https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
_ROW_GROUPS = 4
_COLUMNS, _NUM_ROWS = 1, 3
_META_DATA = 3
_PATH, _NUM_VALUES, _COMPRESSED_SIZE, _DATA_OFFSET, _DICTIONARY_OFFSET = 3, 5, 7, 9, 11
_PAGE_UNPACKED, _PAGE_PACKED, _DATA_PAGE, _DATA_PAGE_2 = 2, 3, 5, 8
_PAGE_VALUES, _ENCODING, _ENCODING_2 = 1, 2, 4


def read_parquet(place: Place, file: IO[bytes]) -> Any:
    """The rows of a Parquet file of plain columns."""
    import pyarrow as pa
    from pyarrow import parquet

    name, packed = place.name, file.seek(0, io.SEEK_END)
    file.seek(-4, io.SEEK_END)
    if file.read() != b"PAR1":
        raise FileError(f"{name} is truncated: a Parquet file ends in PAR1")
    with refusing(name):
        opened = parquet.ParquetFile(file, pre_buffer=False)
        schema, metadata = opened.schema_arrow, opened.metadata
    check_names(name, schema.names)
    for field in schema:
        if pa.types.is_nested(field.type):
            raise FileError(
                f"{name}: column {shown(field.name)} is {shown(str(field.type))}, and values are "
                "numbers, strings, booleans, dates or times: give each of its parts a column of its own"
            )
    strings = [f.name for f in schema if _is_string(f.type)]
    width = sum(map(_width, schema.types))
    with refusing(name):
        groups = _row_groups(file, packed)
        check_size(name, sum(group[_NUM_ROWS] for group in groups) * width, packed, _REMEDY)
        longest, plain = _measured(name, file, groups, packed)
        file.seek(0)
        again = parquet.ParquetFile(
            file,
            metadata=metadata,
            pre_buffer=False,
            read_dictionary=[s for s in strings if s not in plain],
        )
        rows = max(1, min(_ROWS, _BLOCK // width))
        if plain:  # each of its values may be as long as a page
            rows = max(1, min(rows, _BLOCK // max(1, longest)))
        batches, unpacked = [], 0
        for batch in again.iter_batches(rows):
            unpacked += sum(map(_bytes_of, batch.columns))
            check_size(name, unpacked, packed, _REMEDY)
            columns = [c.cast(f.type) for c, f in zip(batch.columns, schema, strict=True)]
            batches.append(pa.RecordBatch.from_arrays(columns, schema=schema))
        table = pa.Table.from_batches(batches, schema)
        if len(table) != metadata.num_rows:
            raise FileError(
                f"{name} is truncated or damaged: it tells of {metadata.num_rows:,} rows and has "
                f"{len(table):,}; write it again"
            )
        return rows_of(table)


def _is_string(kind: Any) -> bool:
    import pyarrow as pa

    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary)
    return any(test(kind) for test in (*tests, pa.types.is_large_binary))


def _width(kind: Any) -> int:
    """The least number of bytes that a value of a column takes in memory."""
    try:
        return max(1, kind.bit_width // 8)
    except ValueError:  # strings, whose length is no property of their type
        return 4


def _bytes_of(column: Any) -> int:
    """Bytes of a column once its values are written out, at least one for each."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_dictionary(column.type):
        return max(len(column), int(column.nbytes))
    indices = max(len(column), int(column.indices.nbytes))
    if not _is_string(column.type.value_type):
        return indices
    lengths = pc.binary_length(column.dictionary).take(column.indices)
    return indices + int(pc.sum(lengths).as_py() or 0)


def _row_groups(file: IO[bytes], size: int) -> list[dict[int, Any]]:
    """The row groups that the footer tells of.

    pyarrow has read it before; but where a footer contradicts itself, to ask pyarrow for what it says
    of a column ends the process.
    """
    file.seek(size - 8)
    length = int.from_bytes(file.read(4), "little")
    file.seek(size - 8 - length)
    groups: list[dict[int, Any]] = read_struct(file.read(length))[0][_ROW_GROUPS]
    return groups


def _measured(
    name: str, file: IO[bytes], groups: list[dict[int, Any]], packed: int
) -> tuple[int, set[str]]:
    """Bytes of the longest page, and the columns whose strings no dictionary can take in."""
    unpacked, longest, plain = 0, 0, set()
    for i, group in enumerate(groups):
        for column in group[_COLUMNS]:
            about = column[_META_DATA]
            label = b".".join(about[_PATH]).decode()
            for size, encoding in _pages(
                name, file, about, f"row group {i}, column {shown(label)}"
            ):
                unpacked += size
                longest = max(longest, size)
                check_size(name, unpacked, packed, _REMEDY)
                if encoding == _DELTA_BYTE_ARRAY:
                    plain.add(label)
    return longest, plain


def _pages(
    name: str, file: IO[bytes], about: dict[int, Any], where: str
) -> Iterator[tuple[int, int]]:
    """What each page of a column unpacks to, and its encoding, as its header says."""
    start = about[_DATA_OFFSET]
    if 0 < about.get(_DICTIONARY_OFFSET, 0) < start:
        start = about[_DICTIONARY_OFFSET]
    end, seen = start + about[_COMPRESSED_SIZE], 0
    while start < end and seen < about[_NUM_VALUES]:
        fields, length = _header(file, start, end)
        unpacked, packed = fields.get(_PAGE_UNPACKED, -1), fields.get(_PAGE_PACKED, -1)
        if min(unpacked, packed) < 0:
            raise FileError(
                f"{name} is truncated or damaged: {where}, has no page at byte {start:,}; write it again"
            )
        data = fields.get(_DATA_PAGE) or fields.get(_DATA_PAGE_2) or {}
        yield unpacked, data.get(_ENCODING if _DATA_PAGE in fields else _ENCODING_2, 0)
        start += length + packed
        seen += data.get(_PAGE_VALUES, 0)


def _header(file: IO[bytes], start: int, end: int) -> tuple[dict[int, Any], int]:
    """The fields of a page's header by their number, and its length; none where there is none."""
    size = 256
    while True:
        file.seek(start)
        data = file.read(min(size, end - start))
        try:
            return read_struct(data)
        except IndexError:
            if len(data) < size or size > _HEADER:
                return {}, 0
            size *= 16
        except (ValueError, RecursionError):
            return {}, 0
