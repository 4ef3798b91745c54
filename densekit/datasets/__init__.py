"""Named data sets with fixed splits: real data, and toys with a known density.

>>> from densekit import datasets
>>> data = datasets.load("breast_cancer")
>>> data.train.shape, len(data.valid), data.test
((409, 30), 46, <test part of 'breast_cancer': 114 rows, for scoring only>)
>>> datasets.info("power").needs_download in (True, False)  # does not load the data
True

Files in the folder of the environment variable ``DENSEKIT_DATA`` are used first. Other files are
downloaded once and kept in the cache folder (``DENSEKIT_CACHE``). Checksums are always verified.
"""

import functools
import importlib
from collections.abc import Callable
from typing import Any

from densekit.datasets import catalog
from densekit.datasets.base import Dataset, HeldOut, Published, Truth
from densekit.datasets.catalog import Info

_MODULES = ("builtin", "toys", "maf", "images", "texts", "tables", "uci", "binary")
"""Modules with loaders, imported when a data set is loaded because they need pandas and SciPy."""
_LAZY_EXPORTS = {
    "DownloadError": "fetch",
    "binarize": "images",
    **dict.fromkeys(
        ("Banana", "Checkerboard", "ClaytonCopula", "EightGaussians", "Funnel", "GaussianCopula",
         "GaussianGrid", "IsingImages", "MarkovText", "MixtureOfGaussians", "Pinwheel", "Spirals",
         "StudentCopula", "TwoMoons"),
        "toys",
    ),
}  # fmt: skip
__all__ = [
    "Dataset",
    "HeldOut",
    "Info",
    "Published",
    "Truth",
    "info",
    "load",
    "names",
    *_LAZY_EXPORTS,
]


def __getattr__(name: str) -> Any:
    if name in _LAZY_EXPORTS:
        value = getattr(importlib.import_module(f"densekit.datasets.{_LAZY_EXPORTS[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'densekit.datasets' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY_EXPORTS})


@functools.cache
def _loaders() -> dict[str, Callable[[], Dataset]]:
    found: dict[str, Callable[[], Dataset]] = {}
    for name in _MODULES:
        module = importlib.import_module(f"densekit.datasets.{name}")
        found |= {f.__name__: f for f in module.TOYS} if name == "toys" else module.LOADERS
    return found


def names(modality: str | None = None) -> tuple[str, ...]:
    """Names of the available data sets, all or those of one modality.

    Parameters
    ----------
    modality : {"table", "image", "text"}, optional
        Return only the names of this modality.

    Returns
    -------
    names : tuple of str
        Valid arguments of :func:`load` and :func:`info`.

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
        return catalog.listed()
    if modality not in ("table", "image", "text"):
        raise ValueError(f"modality={modality!r}: must be 'table', 'image' or 'text'")
    return tuple(name for name in catalog.listed() if info(name).modality == modality)


def info(name: str) -> Info:
    """Facts about a data set, without loading it: rows, license, published results.

    Parameters
    ----------
    name : str
        One of :func:`names`.

    Returns
    -------
    info : Info

    Raises
    ------
    ValueError
        There is no such data set. The message suggests the closest name.

    Examples
    --------
    >>> info("uci_yacht").rows, info("uci_yacht").license
    ((250, 28, 30), 'CC BY 4.0')
    """
    if name not in catalog.listed():
        raise ValueError(catalog.no_such_set(name, catalog.listed()))
    return catalog.entry(name)


def load(name: str) -> Dataset:
    """Load a data set by name. Every call returns the same rows in the same parts.

    The rows are not shared between calls, and arrays are read-only.

    Parameters
    ----------
    name : str
        One of :func:`names`.

    Returns
    -------
    data : Dataset

    Raises
    ------
    ValueError
        There is no such data set (the message suggests the closest name), or a file has the wrong
        checksum.
    DownloadError
        A file is missing and cannot be downloaded. The message says where to put it.

    Examples
    --------
    >>> data = load("digits")
    >>> data.train.shape, len(data.test), data.modality
    ((1294, 8, 8), 359, 'image')
    """
    if name not in catalog.listed():
        raise ValueError(catalog.no_such_set(name, catalog.listed()))
    return _loaders()[name]()
