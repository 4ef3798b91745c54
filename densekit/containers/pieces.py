"""Rows that may be larger than memory: read a few at a time."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Self

import numpy as np

from densekit.containers.rows import select

PIECE = 2**14
"""Rows that are read at a time, and whose moments are taken at a time. It is the same in memory as on
disk, so that both come to the same bits."""


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
        """All rows in their order, ``densekit.containers.PIECE`` at a time."""


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
