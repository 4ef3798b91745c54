"""Named data with fixed splits: real sets, and toys whose density is known.

>>> from densekit import datasets
>>> data = datasets.load("breast_cancer")
>>> data.train.shape, len(data.valid), data.test
((409, 30), 46, <test part of 'breast_cancer': 114 rows, for scoring only>)
>>> datasets.info("power").needs_download in (True, False)  # asked without loading anything
True

What is not on the machine is downloaded once and kept in the cache folder (``DENSEKIT_CACHE``);
files in the folder that ``DENSEKIT_DATA`` names are taken first. Sums are checked either way.
"""

from collections.abc import Callable

from densekit.datasets import binary, builtin, catalogue, images, maf, tables, texts, toys, uci
from densekit.datasets.base import Dataset, HeldOut, Published, Truth
from densekit.datasets.catalogue import Info
from densekit.datasets.fetch import DownloadError
from densekit.datasets.images import binarise
from densekit.datasets.toys import *  # noqa: F403

__all__ = [
    "Dataset",
    "DownloadError",
    "HeldOut",
    "Info",
    "Published",
    "Truth",
    "binarise",
    "info",
    "load",
    "names",
]
__all__ += [name for name in toys.__all__ if name != "TOYS"]

_LOADERS: dict[str, Callable[[], Dataset]] = {
    **builtin.LOADERS,
    **{toy.__name__: toy for toy in toys.TOYS},
    **maf.LOADERS,
    **images.LOADERS,
    **texts.LOADERS,
    **tables.LOADERS,
    **uci.LOADERS,
    **binary.LOADERS,
}


def names(modality: str | None = None) -> tuple[str, ...]:
    """The names that :func:`load` knows, or those of one modality.

    Raises
    ------
    ValueError
        ``modality`` is not ``"table"``, ``"image"`` or ``"text"``.

    Examples
    --------
    >>> "digits" in names(), "digits" in names("text")
    (True, False)
    """
    if modality is None:
        return tuple(_LOADERS)
    if modality not in ("table", "image", "text"):
        raise ValueError(f"modality={modality!r}: must be 'table', 'image' or 'text'")
    return tuple(name for name in _LOADERS if info(name).modality == modality)


def info(name: str) -> Info:
    """What there is to know of a data set without loading it: rows, licence, published results.

    Raises
    ------
    ValueError
        No such data set; the nearest name is given.

    Examples
    --------
    >>> info("uci_yacht").rows, info("uci_yacht").licence
    ((250, 28, 30), 'CC BY 4.0')
    """
    if name not in _LOADERS:
        raise ValueError(catalogue.no_such_set(name, _LOADERS))
    return catalogue.entry(name)


def load(name: str) -> Dataset:
    """The data set called ``name``: the same rows in the same parts at every call.

    Every call makes rows of its own, so nobody can spoil them for another. Arrays are read-only.

    Raises
    ------
    ValueError
        No such data set (the nearest name is given), or a file that is not what it should be.
    DownloadError
        A file is neither on the machine nor to be downloaded; says what to put where.

    Examples
    --------
    >>> data = load("digits")
    >>> data.train.shape, len(data.test), data.modality
    ((1294, 8, 8), 359, 'image')
    """
    if name not in _LOADERS:
        raise ValueError(catalogue.no_such_set(name, _LOADERS))
    return _LOADERS[name]()
