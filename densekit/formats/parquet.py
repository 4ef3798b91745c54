"""Reader of Parquet files with a bound on the memory that a malicious file can make it use.

The footer may claim any sizes, and a few bytes can encode any number of equal values. The reader
therefore checks the decompressed sizes in the headers of all pages first, which Arrow's decoder
also uses. It then decodes values in pieces, with strings as dictionaries, and checks the size of
the expanded strings.
"""

import io
from collections.abc import Iterator
from typing import IO, Any

from densekit.formats.limits import FileError, check_names, check_size, file_errors, quoted
from densekit.formats.locations import Location
from densekit.formats.tables import rows_of
from densekit.formats.thrift import read_struct

_BLOCK = 2**26
"""Bytes that are decoded between two size checks."""
_ROWS = 2**16
_DELTA_BYTE_ARRAY = 7
"""An encoding of strings that Arrow cannot read as a dictionary."""
_LONGEST_HEADER = 2**24
"""Most bytes of a page header."""
_REMEDY = (
    "pass pyarrow.parquet.ParquetFile(path) to fit and score_samples, which read it in pieces, or write "
    "it with compression=None and use_dictionary=False"
)
# Field numbers of https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
_ROW_GROUPS = 4
_COLUMNS, _NUM_ROWS = 1, 3
_META_DATA = 3
_PATH, _NUM_VALUES, _COMPRESSED_SIZE, _DATA_OFFSET, _DICTIONARY_OFFSET = 3, 5, 7, 9, 11
_PAGE_UNPACKED, _PAGE_PACKED, _DATA_PAGE, _DATA_PAGE_2 = 2, 3, 5, 8
_PAGE_VALUES, _ENCODING, _ENCODING_2 = 1, 2, 4


def read_parquet(location: Location, file: IO[bytes]) -> Any:
    """The rows of a Parquet file without nested columns."""
    import pyarrow as pa
    from pyarrow import parquet

    name, packed = location.name, file.seek(0, io.SEEK_END)
    file.seek(-4, io.SEEK_END)
    if file.read() != b"PAR1":
        raise FileError(f"{name} is truncated: a Parquet file must end in PAR1")
    with file_errors(name):
        opened = parquet.ParquetFile(file, pre_buffer=False)
        schema, metadata = opened.schema_arrow, opened.metadata
    check_names(name, schema.names)
    for field in schema:
        if pa.types.is_nested(field.type):
            raise FileError(
                f"{name}: column {quoted(field.name)} is {quoted(str(field.type))}, but values must be "
                "numbers, strings, booleans, dates or times: give each of its parts its own column"
            )
    strings = [f.name for f in schema if _is_string(f.type)]
    width = sum(map(_width, schema.types))
    with file_errors(name):
        groups = _row_groups(file, packed)
        check_size(name, sum(group[_NUM_ROWS] for group in groups) * width, packed, _REMEDY)
        longest_page, plain = _check_pages(name, file, groups, packed)
        file.seek(0)
        reader = parquet.ParquetFile(
            file,
            metadata=metadata,
            pre_buffer=False,
            read_dictionary=[s for s in strings if s not in plain],
        )
        rows = max(1, min(_ROWS, _BLOCK // width))
        if plain:  # A value of these columns may be as long as a page.
            rows = max(1, min(rows, _BLOCK // max(1, longest_page)))
        batches, decoded = [], 0
        for batch in reader.iter_batches(rows):
            decoded += sum(map(_expanded_bytes, batch.columns))
            check_size(name, decoded, packed, _REMEDY)
            columns = [c.cast(f.type) for c, f in zip(batch.columns, schema, strict=True)]
            batches.append(pa.RecordBatch.from_arrays(columns, schema=schema))
        table = pa.Table.from_batches(batches, schema)
        if len(table) != metadata.num_rows:
            raise FileError(
                f"{name} is truncated or damaged: it claims {metadata.num_rows:,} rows but has "
                f"{len(table):,}; write it again"
            )
        return rows_of(table)


def _is_string(kind: Any) -> bool:
    import pyarrow as pa

    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary)
    return any(test(kind) for test in (*tests, pa.types.is_large_binary))


def _width(kind: Any) -> int:
    """Lower bound on the bytes that a value of a type takes in memory."""
    try:
        return max(1, kind.bit_width // 8)
    except ValueError:  # The width of strings varies; 4 bytes are their offset.
        return 4


def _expanded_bytes(column: Any) -> int:
    """Bytes of a column after the expansion of dictionaries, at least one per value."""
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
    """The row groups in the footer, as Thrift structs.

    Arrow parses the footer too, but an inconsistent footer can crash the process when its metadata of
    columns are accessed.
    """
    file.seek(size - 8)
    length = int.from_bytes(file.read(4), "little")
    file.seek(size - 8 - length)
    groups: list[dict[int, Any]] = read_struct(file.read(length))[0][_ROW_GROUPS]
    return groups


def _check_pages(
    name: str, file: IO[bytes], groups: list[dict[int, Any]], packed: int
) -> tuple[int, set[str]]:
    """Check the decompressed size of all pages.

    Returns the bytes of the longest page, and the columns of strings that cannot be read as
    dictionaries.
    """
    decompressed, longest, plain = 0, 0, set()
    for i, group in enumerate(groups):
        for column in group[_COLUMNS]:
            metadata = column[_META_DATA]
            label = b".".join(metadata[_PATH]).decode()
            for size, encoding in _pages(
                name, file, metadata, f"row group {i}, column {quoted(label)}"
            ):
                decompressed += size
                longest = max(longest, size)
                check_size(name, decompressed, packed, _REMEDY)
                if encoding == _DELTA_BYTE_ARRAY:
                    plain.add(label)
    return longest, plain


def _pages(
    name: str, file: IO[bytes], metadata: dict[int, Any], where: str
) -> Iterator[tuple[int, int]]:
    """Decompressed size and encoding of each page of a column, from the headers of the pages."""
    start = metadata[_DATA_OFFSET]
    if 0 < metadata.get(_DICTIONARY_OFFSET, 0) < start:
        start = metadata[_DICTIONARY_OFFSET]
    end, n_values = start + metadata[_COMPRESSED_SIZE], 0
    while start < end and n_values < metadata[_NUM_VALUES]:
        fields, length = _page_header(file, start, end)
        unpacked, packed = fields.get(_PAGE_UNPACKED, -1), fields.get(_PAGE_PACKED, -1)
        if min(unpacked, packed) < 0:
            raise FileError(
                f"{name} is truncated or damaged: {where}, has no page at byte {start:,}; write it again"
            )
        data = fields.get(_DATA_PAGE) or fields.get(_DATA_PAGE_2) or {}
        yield unpacked, data.get(_ENCODING if _DATA_PAGE in fields else _ENCODING_2, 0)
        start += length + packed
        n_values += data.get(_PAGE_VALUES, 0)


def _page_header(file: IO[bytes], start: int, end: int) -> tuple[dict[int, Any], int]:
    """The fields of a page header by number, and its length; empty if it is not a header."""
    size = 256
    while True:
        file.seek(start)
        data = file.read(min(size, end - start))
        try:
            return read_struct(data)
        except IndexError:
            if len(data) < size or size > _LONGEST_HEADER:
                return {}, 0
            size *= 16
        except (ValueError, RecursionError):
            return {}, 0
