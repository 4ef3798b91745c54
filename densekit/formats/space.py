"""Checks before rows are drawn whether the disk has space for them."""

import contextlib
import math
import os
import shutil
import stat
import sys
from pathlib import Path
from typing import Any

from densekit.containers import n_rows, take
from densekit.formats.images import encoded_images
from densekit.formats.locations import Location
from densekit.formats.writing import WRITERS, CountingStream, check_target

_COMPRESSION_MARGIN = 2.0
"""Compressed files may be smaller by this factor than an estimate from a few rows."""
_DISK_BLOCK = 4096
"""Bytes by which the size of a file on disk is rounded up."""


def check_space(
    rows: Any,
    n: int,
    path: str | Path,
    *,
    format: str | None = None,
    sep: str | None = None,
) -> None:
    """Raise ValueError if the disk of ``path`` does not have enough space for n rows like ``rows``.

    A pipe or a device never runs out of space.

    Parameters
    ----------
    rows : array, DataFrame or list of str
        At least two rows, from which the number of bytes per row is estimated.
    n : int
        Number of rows to be written.
    path, format, sep
        As for :func:`write`.

    Raises
    ------
    ValueError
        The estimated size exceeds the free space, or there are more images than free files.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     check_space(np.zeros((8, 2)), 10**15, f"{folder}/zeros.npy")
    Traceback (most recent call last):
    ValueError: ...zeros.npy: 1,000,000,000,000,000 rows would take about 16 PB in the format npy...
    """
    location = check_target(path, format=format, sep=sep)
    disk = _disk(location)
    if disk is None:
        return
    folder, free, files = disk
    if location.format == "images" and 0 < files < n:
        raise ValueError(
            f"{location.name}: {n:,} images are as many files, but {folder} has space for {files:,}; "
            "draw fewer, or write to .npy or .npz"
        )
    size = _estimated_size(location, rows, n)
    compressed = location.compressed or location.format in ("parquet", "npz")
    if size > free * (_COMPRESSION_MARGIN if compressed else 1.0):
        raise ValueError(
            f"{location.name}: {n:,} rows would take about {_with_unit(size)} in the format "
            f"{location.format}, but {folder} has {_with_unit(free)} free; draw fewer rows, or write to "
            "another disk"
        )


def _disk(location: Location) -> tuple[str, float, float] | None:
    """Folder, free bytes and free files (0 if unknown) of a disk; None for a pipe or a device."""
    if location.path is None:
        with contextlib.suppress(OSError, AttributeError):  # No file descriptor, or Windows.
            out = sys.stdout.fileno()
            if stat.S_ISREG(os.fstat(out).st_mode):
                disk = os.fstatvfs(out)
                return "its disk", disk.f_bavail * disk.f_frsize, disk.f_favail
        return None
    if location.path.exists() and not location.path.is_file() and location.format != "images":
        return None
    folder = location.path.absolute().parent
    files = os.statvfs(folder).f_favail if hasattr(os, "statvfs") else 0
    return str(folder), shutil.disk_usage(folder).free, files


def _estimated_size(location: Location, rows: Any, n: int) -> float:
    """Estimated bytes of n rows.

    The first rows of a file take more, because of headers and dictionaries. The size of further rows is
    therefore extrapolated from the second half of ``rows``.
    """
    k = n_rows(rows)
    if location.format == "images":
        blocks = [-(-len(image) // _DISK_BLOCK) for image in encoded_images(location, rows)]
        return n * _DISK_BLOCK * sum(blocks) / k
    whole, half = (_written_size(location, take(rows, 0, m)) for m in (k, k // 2))
    return whole + (n - k) * (whole - half) / (k - k // 2)


def _written_size(location: Location, rows: Any) -> int:
    """Bytes of rows in the format of ``location``, found by writing them to a counter."""
    import gzip

    file = CountingStream()
    if location.compressed:
        with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
            WRITERS[location.format](location, [rows], n_rows(rows), packed)
    else:
        WRITERS[location.format](location, [rows], n_rows(rows), file)
    return file.tell()


def _with_unit(size: float) -> str:
    """A number of bytes with a decimal unit.

    >>> _with_unit(1.6e10), _with_unit(950.0)
    ('16 GB', '950 bytes')
    """
    units = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB")
    step = min(max(math.floor(math.log10(max(size, 1)) / 3), 0), len(units) - 1)
    value = size / 1000**step
    return f"{value:,.0f} {units[step]}" if value >= 100 else f"{value:.2g} {units[step]}"
