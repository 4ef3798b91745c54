"""Events of rows that may be larger than memory: encoded when they are asked for."""

import contextlib
import copy
import errno
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from densekit.codecs.base import Codec
from densekit.containers import RowsInPieces, RowsOnDisk


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
        """Iterate over the events in order, in pieces of some thousands."""
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
        Rows changed after the codec was fitted.
    """
    n, d = len(rows), codec.schema.n_dims
    with tempfile.TemporaryDirectory(prefix="densekit-", ignore_cleanup_errors=True) as folder:
        path, need, done = Path(folder, "events"), n * d * dtype.itemsize, 0
        if (free := shutil.disk_usage(folder).free) < need:
            raise _disk_full(need, f"there are {free:,} bytes left")
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
                    raise _disk_full(need, str(error)) from error
                done += len(events)
        numbers = torch.empty(0, dtype=dtype).numpy().dtype
        yield EncodedRows(RowsOnDisk(str(path), numbers, (n, d), 0))


def _disk_full(need: int, why: str) -> OSError:
    return OSError(
        errno.ENOSPC,
        f"the encoded rows of X take {need:,} bytes of the temporary folder, and {why}: free some "
        "space, or set TMPDIR to a folder on a larger disk",
        tempfile.gettempdir(),
    )
