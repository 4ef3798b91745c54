"""Parquet files that may be larger than memory: their rows in pieces, read by row groups."""

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

from densekit.containers.pieces import PIECE, RowsInPieces
from densekit.containers.rows import check_labels

_BUFFER = 2**18
"""Bytes of a column read at a time from a file that we open: without a buffer, all of a row group."""


@dataclass
class _File:
    """One file of several."""

    name: str
    n: int
    open: Callable[[], Any]
    """A ``pyarrow.parquet.ParquetFile``, closed by a ``with`` block if it is not the user's."""
    groups: Sequence[int]
    partition: Mapping[str, Any] = field(default_factory=dict)
    """Columns whose values are given by the names of folders."""


class ParquetRows(RowsInPieces):
    """The rows of a ``pyarrow.parquet.ParquetFile``, or of a ``pyarrow.dataset`` of such files, as
    DataFrames with the columns and dtypes that ``densekit.formats.read`` gives.

    Memory holds one piece, and one row group as it is stored in the file; of files that were opened with
    a ``buffer_size`` and ``pre_buffer=False``, and of datasets, only parts of its columns.
    """

    def __init__(self, files: Sequence[_File], schema: Any):
        self._files, self._schema = files, schema
        self._names: list[str] = list(schema.names)
        check_labels(self._names)
        self.shape = sum(file.n for file in files), len(self._names)

    @classmethod
    def of(cls, X: Any) -> Self | None:
        """The rows of an open file or of a dataset; None for anything else.

        Raises
        ------
        ValueError
            The file is closed, or the dataset is filtered or not of Parquet files.

        Examples
        --------
        >>> import io, pyarrow as pa, pyarrow.parquet as pq
        >>> file = io.BytesIO()
        >>> pq.write_table(pa.table({"a": [1, 2, 3], "b": ["u", "v", "u"]}), file)
        >>> rows = ParquetRows.of(pq.ParquetFile(file))
        >>> rows.shape, rows.without(["a"]).read()["b"].tolist()
        ((3, 2), ['u', 'v', 'u'])
        """
        module, kind = type(X).__module__, type(X).__name__
        if module.startswith("pyarrow.parquet") and kind == "ParquetFile":
            if X.closed:
                raise ValueError(
                    "X is a ParquetFile that is closed: open it again, and keep it open until the "
                    "call is done"
                )
            whole = _File(
                "the Parquet file",
                X.metadata.num_rows,
                lambda: contextlib.nullcontext(X),
                range(X.num_row_groups),
            )
            return cls([whole], X.schema_arrow)
        if module.startswith("pyarrow._dataset") and kind == "FileSystemDataset":
            return cls(_files_of(X), X.schema)
        return None

    def only(self, names: Sequence[str]) -> Self:
        """The same rows with these columns alone."""
        fewer = copy.copy(self)
        fewer._names = [name for name in self._names if name in names]
        fewer.shape = self.shape[0], len(fewer._names)
        return fewer

    def without(self, names: Sequence[str]) -> Self:
        """The same rows without these columns."""
        return self.only([name for name in self._names if name not in names])

    def head(self) -> Any:
        """The first two rows, fewer where there are no more."""
        table = next(self._tables(), self._empty())
        return _frame(table.slice(0, 2))

    def pieces(self) -> Iterator[Any]:
        return map(_frame, self._tables())

    def read(self) -> Any:
        """All rows at once."""
        import pyarrow as pa

        return _frame(pa.concat_tables([self._empty(), *self._tables()]))

    def _empty(self) -> Any:
        return self._schema.empty_table().select(self._names)

    def _tables(self) -> Iterator[Any]:
        """Tables of exactly ``PIECE`` rows, whatever the row groups; the last has what is left."""
        import pyarrow as pa

        waiting: list[Any] = []
        for file in self._files:
            for batch in self._batches(file):
                waiting.append(batch)
                while (have := sum(map(len, waiting))) >= PIECE:
                    rest = waiting.pop()
                    cut = len(rest) - (have - PIECE)
                    yield pa.Table.from_batches([*waiting, rest.slice(0, cut)])
                    waiting = [rest.slice(cut)] if cut < len(rest) else []
        if waiting:
            yield pa.Table.from_batches(waiting)

    def _batches(self, file: _File) -> Iterator[Any]:
        """The rows of a file, checked and as the schema says, row group by row group."""
        import pyarrow as pa

        done = 0
        try:
            with file.open() as opened:
                columns = None
                if len(self._names) < len(self._schema.names):
                    columns = [name for name in self._names if name in opened.schema_arrow.names]
                for group in file.groups:
                    # One at a time: pyarrow fetches all that it is asked for in advance.
                    for batch in opened.iter_batches(PIECE, row_groups=[group], columns=columns):
                        batch = self._conform(file, batch)
                        _check_present(file.name, batch, done)
                        done += len(batch)
                        yield batch
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise _cut(file, done, str(error)) from error
        if done != file.n:
            raise _cut(file, done, "no more rows")

    def _conform(self, file: _File, batch: Any) -> Any:
        """The batch with the columns and types of the schema: those of its first file, or given."""
        import pyarrow as pa

        wanted = pa.schema([self._schema.field(name) for name in self._names])
        wanted = wanted.with_metadata(self._schema.metadata)
        if batch.schema.equals(wanted, check_metadata=True):
            return batch
        columns = []
        for want in wanted:
            if want.name in batch.schema.names:
                column = batch.column(want.name)
            elif want.name in file.partition:
                column = pa.repeat(file.partition[want.name], len(batch))
            else:
                raise ValueError(
                    f"{file.name} has no column {want.name!r}, which other files of the dataset have: "
                    "add it, or leave the file out"
                )
            try:
                columns.append(column if column.type == want.type else column.cast(want.type))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise ValueError(
                    f"{file.name}: column {want.name!r} is {column.type}, and cannot be read as the "
                    f"{want.type} of the dataset ({error}): write all files with one type, or give "
                    "pyarrow.dataset.dataset a schema that holds them all"
                ) from error
        return pa.RecordBatch.from_arrays(columns, schema=wanted)


def in_memory(X: Any) -> Any:
    """X, read whole where it is a file of rows that are not there yet."""
    rows = ParquetRows.of(X)
    return X if rows is None else rows.read()


def _frame(table: Any) -> Any:
    return table.to_pandas(date_as_object=False)


def _files_of(dataset: Any) -> list[_File]:
    """The files of a dataset, in its order; each is opened when it is read."""
    from pyarrow import dataset as arrow

    if not isinstance(dataset.format, arrow.ParquetFileFormat):
        raise ValueError(
            f"X is a dataset of {dataset.format.default_extname} files; only Parquet is read in "
            "pieces: pass X.to_table(), or write it as Parquet (pyarrow.dataset.write_dataset)"
        )
    files = []
    try:
        for part in dataset.get_fragments():
            groups = part.row_groups
            files.append(
                _File(
                    part.path,
                    sum(group.num_rows for group in groups),
                    partial(_open, part),
                    [group.id for group in groups],
                    arrow.get_partition_keys(part.partition_expression),
                )
            )
    except ValueError as error:
        raise ValueError(f"X is a dataset that cannot be read in pieces: {error}") from error
    return files


def _open(part: Any) -> Any:
    from pyarrow import parquet

    return parquet.ParquetFile(part.open(), pre_buffer=False, buffer_size=_BUFFER)


def _check_present(name: str, batch: Any, before: int) -> None:
    """Raise ValueError where a value is missing or infinite: named are column and row."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for label, column in zip(batch.schema.names, batch.columns, strict=True):
        bad = column.is_null(nan_is_null=True)
        what = "contains NaN: a missing value (null or NaN)"
        remedy = "drop these rows or impute; missing values are taken in memory only"
        if not pc.any(bad).as_py() and pa.types.is_floating(column.type):
            bad, what, remedy = pc.is_inf(column), "contains infinity", "drop these rows or clip"
        row = pc.index(bad, True).as_py()
        if row >= 0:
            raise ValueError(f"{name}, row {before + row}: column {label!r} {what}; {remedy}.")


def _cut(file: _File, row: int, why: str) -> ValueError:
    return ValueError(
        f"{file.name} cannot be read after row {row} of {file.n} ({why}): it is damaged, or was "
        "changed while it was read; leave it alone until the call is done, or write it anew"
    )
