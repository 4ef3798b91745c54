"""Rows in a file that may be larger than memory: read a few at a time, and encoded when asked for."""

import contextlib
import copy
import errno
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from densekit.codecs.base import Codec
from densekit.codecs.frames import select
from densekit.codecs.learner import PIECE


class RowsInPieces(ABC):
    """Rows that are read a few at a time: what a codec learns from without having them all."""

    shape: tuple[int, int]
    ndim = 2
    by_place = False
    """Whether rows can be asked for by their places, as ``rows[index]``."""

    def __len__(self) -> int:
        return self.shape[0]

    @abstractmethod
    def pieces(self) -> Iterator[Any]:
        """All rows in their order, ``densekit.codecs.learner.PIECE`` at a time."""


class RowsOnDisk(RowsInPieces):
    """A matrix of numbers in a file. What is read is a copy, and read without a map, of which all
    pages once touched (and their neighbors) would count as memory of the process.

    Parameters
    ----------
    file : str
    dtype : numpy.dtype
    shape : (n, D)
        In rows, one after the other.
    offset : int
        Bytes before the first.
    """

    by_place = True

    def __init__(self, file: str, dtype: np.dtype, shape: tuple[int, int], offset: int):
        self.file, self.dtype, self.shape, self.offset = file, dtype, shape, offset

    @classmethod
    def of(cls, X: Any) -> Self | None:
        """The rows of a memory map, or of rows of one that follow each other; None for anything else,
        and for a map whose changes do not reach its file (mode ``"c"``).

        Examples
        --------
        >>> import tempfile
        >>> file = tempfile.NamedTemporaryFile(suffix=".npy")
        >>> np.save(file.name, np.arange(8.0).reshape(4, 2))
        >>> rows = RowsOnDisk.of(np.load(file.name, mmap_mode="r")[1:])
        >>> rows.shape, rows[np.array([2, 0])].tolist()
        ((3, 2), [[6.0, 7.0], [2.0, 3.0]])
        """
        if not isinstance(X, np.memmap) or X.filename is None or X.mode == "c":
            return None
        if X.ndim != 2 or X.dtype.kind not in "fiub" or not X.size or not X.flags.c_contiguous:
            return None
        whole: Any = X
        while isinstance(whole.base, np.ndarray):
            whole = whole.base
        # A slice keeps the offset of what it was cut from: the addresses tell how far it is.
        ahead = X.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
        shape = (int(X.shape[0]), int(X.shape[1]))
        return cls(str(X.filename), X.dtype, shape, int(whole.offset) + ahead)

    def __getitem__(self, index: slice | np.ndarray) -> np.ndarray:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                return self._run(start, stop)
            index = np.arange(start, stop, step)
        out = np.empty((len(index), self.shape[1]), self.dtype)
        width = out.itemsize * self.shape[1]
        with open(self.file, "rb", buffering=0) as file:
            for row, place in zip(out, index.tolist(), strict=True):
                file.seek(self.offset + place * width)
                if file.readinto(row) != width:
                    raise self._short(place)
        return out

    def _run(self, start: int, stop: int) -> np.ndarray:
        n, width = max(0, stop - start), self.dtype.itemsize * self.shape[1]
        flat = np.fromfile(
            self.file, self.dtype, n * self.shape[1], offset=self.offset + start * width
        )
        if flat.size != n * self.shape[1]:
            raise self._short(stop - 1)
        return flat.reshape(n, self.shape[1])

    def _short(self, place: int) -> ValueError:
        return ValueError(
            f"{self.file} ends before row {place} of {len(self)}: it was cut while it was read; "
            "leave a file alone until the fit is done"
        )

    def pieces(self) -> Iterator[np.ndarray]:
        for start in range(0, len(self), PIECE):
            yield self[start : start + PIECE]


class SelectedRows(RowsInPieces):
    """Some rows of others, in the same order.

    Parameters
    ----------
    rows : RowsInPieces
    places : (n,)
        Which of them, increasing.
    """

    def __init__(self, rows: RowsInPieces, places: np.ndarray):
        self.rows, self.places = rows, places
        self.shape = len(places), rows.shape[1]
        self.by_place = rows.by_place

    def __getitem__(self, index: np.ndarray) -> Any:
        rows: Any = self.rows
        return rows[self.places[index]]

    def pieces(self) -> Iterator[Any]:
        start = 0
        for piece in self.rows.pieces():
            stop = start + len(piece)
            first, last = np.searchsorted(self.places, (start, stop))
            if first < last:
                yield select(piece, self.places[first:last] - start)
            start = stop


class EncodedRows:
    """Events of rows in a file: indexed as the tensor of all events would be, with the same values.

    Parameters
    ----------
    rows : RowsOnDisk or SelectedRows
        Rows that are read by their places.
    codec : Codec, optional
        None where the rows are events already.
    """

    def __init__(self, rows: Any, codec: Codec | None = None):
        self.rows, self.codec = rows, codec
        self.device, self.dtype = torch.device("cpu"), torch.float64

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Tensor) -> Tensor:
        return self._encode(self.rows[index.cpu().numpy()])

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Self:
        """The same on another device, or in another dtype."""
        moved = copy.copy(self)
        moved.device, moved.dtype = torch.device(device), dtype or self.dtype
        return moved

    def pieces(self) -> Iterator[Tensor]:
        """All events in their order, some thousands at a time."""
        return (self._encode(piece) for piece in self.rows.pieces())

    def _encode(self, rows: np.ndarray) -> Tensor:
        events = torch.from_numpy(rows) if self.codec is None else self.codec.encode(rows)[0]
        return events.to(self.device, self.dtype)


@contextlib.contextmanager
def spooled(rows: RowsInPieces, codec: Codec, dtype: torch.dtype) -> Iterator[EncodedRows]:
    """Events of rows that can only be read in their order, in a temporary file for the time of a
    ``with`` block: n_dims numbers of ``dtype`` a row.

    Raises
    ------
    OSError
        The disk of the temporary folder is too small.
    ValueError
        Rows that do not go with what the codec learned of them.
    """
    n, d = len(rows), codec.schema.n_dims
    with tempfile.TemporaryDirectory(prefix="densekit-", ignore_cleanup_errors=True) as folder:
        path, need, done = Path(folder, "events"), n * d * dtype.itemsize, 0
        if (free := shutil.disk_usage(folder).free) < need:
            raise _no_room(need, f"there are {free:,} bytes left")
        with path.open("wb") as file:
            for piece in rows.pieces():
                events, ladj = codec.encode(piece)
                if not torch.isfinite(ladj).all():
                    row = done + int((~torch.isfinite(ladj)).nonzero()[0])
                    raise ValueError(
                        f"row {row} of X is not what it was when its columns were learned: leave its "
                        "file alone until the fit is done"
                    )
                try:
                    file.write(events.to(dtype).contiguous().numpy().data)
                except OSError as error:
                    raise _no_room(need, str(error)) from error
                done += len(events)
        numbers = torch.empty(0, dtype=dtype).numpy().dtype
        yield EncodedRows(RowsOnDisk(str(path), numbers, (n, d), 0))


def _no_room(need: int, why: str) -> OSError:
    return OSError(
        errno.ENOSPC,
        f"the encoded rows of X take {need:,} bytes of the temporary folder, and {why}: make room, or "
        "set TMPDIR to a folder on a larger disk",
        tempfile.gettempdir(),
    )
