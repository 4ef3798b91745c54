"""Whether rows that are not drawn yet will fit where they are to be written."""

import contextlib
import math
import os
import shutil
import stat
import sys
from pathlib import Path
from typing import Any

from densekit.containers import n_rows, take
from densekit.formats.places import Place
from densekit.formats.writing import WRITERS, Counting, check_target, encoded_images

_PACKED = 2.0
"""Compressed formats may come to less by as much than a few rows of them say."""
_LEAST_BLOCK = 4096


def check_room(
    rows: Any,
    n: int,
    path: str | Path,
    *,
    format: str | None = None,
    sep: str | None = None,
) -> None:
    """Raise where n rows like ``rows`` will not fit on the disk that ``path`` is on.

    A pipe or a device has room for all.

    Parameters
    ----------
    rows : array, DataFrame or list of str
        Two or more, which say how many bytes a row takes.
    n : int
    path, format, sep
        As for :func:`write`.

    Raises
    ------
    ValueError
        With the estimate, and what is free.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     check_room(np.zeros((8, 2)), 10**15, f"{folder}/zeros.npy")
    Traceback (most recent call last):
    ValueError: ...zeros.npy: 1,000,000,000,000,000 rows would take about 16 PB in the format npy...
    """
    place = check_target(path, format=format, sep=sep)
    found = _disk(place)
    if found is None:
        return
    where, free, files = found
    if place.format == "images" and 0 < files < n:
        raise ValueError(
            f"{place.name}: {n:,} images are as many files, and {where} has room for {files:,}; draw "
            "fewer, or write to .npy or .npz"
        )
    size = _estimate(place, rows, n)
    packed = place.zipped or place.format in ("parquet", "npz")
    if size > free * (_PACKED if packed else 1.0):
        raise ValueError(
            f"{place.name}: {n:,} rows would take about {_amount(size)} in the format {place.format}, "
            f"and {where} has {_amount(free)} free; draw fewer, or write where there is room"
        )


def _disk(place: Place) -> tuple[str, float, float] | None:
    """The folder, its free bytes and how many more files it takes (0: not known); None where nothing
    fills up."""
    if place.path is None:
        with contextlib.suppress(OSError, AttributeError):  # no descriptor; Windows
            out = sys.stdout.fileno()
            if stat.S_ISREG(os.fstat(out).st_mode):
                disk = os.fstatvfs(out)
                return "its disk", disk.f_bavail * disk.f_frsize, disk.f_favail
        return None
    if place.path.exists() and not place.path.is_file() and place.format != "images":
        return None
    folder = place.path.absolute().parent
    files = os.statvfs(folder).f_favail if hasattr(os, "statvfs") else 0
    return str(folder), shutil.disk_usage(folder).free, files


def _estimate(place: Place, rows: Any, n: int) -> float:
    """Bytes of n rows: those of these rows and, for each further one, what the second half takes."""
    k = n_rows(rows)
    if place.format == "images":
        blocks = [-(-len(image) // _LEAST_BLOCK) for image in encoded_images(place, rows)]
        return n * _LEAST_BLOCK * sum(blocks) / k
    whole, half = (_size(place, take(rows, 0, m)) for m in (k, k // 2))
    return whole + (n - k) * (whole - half) / (k - k // 2)


def _size(place: Place, rows: Any) -> int:
    import gzip

    file = Counting()
    if place.zipped:
        with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:  # type: ignore[call-overload]
            WRITERS[place.format](place, [rows], n_rows(rows), packed)
    else:
        WRITERS[place.format](place, [rows], n_rows(rows), file)
    return file.tell()


def _amount(size: float) -> str:
    """Bytes in words.

    >>> _amount(1.6e10), _amount(950.0)
    ('16 GB', '950 bytes')
    """
    units = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB")
    step = min(max(math.floor(math.log10(max(size, 1)) / 3), 0), len(units) - 1)
    value = size / 1000**step
    return f"{value:,.0f} {units[step]}" if value >= 100 else f"{value:.2g} {units[step]}"
