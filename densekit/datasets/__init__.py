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

import functools
import importlib
from collections.abc import Callable
from typing import Any

from densekit.datasets import catalog
from densekit.datasets.base import Dataset, HeldOut, Published, Truth
from densekit.datasets.catalog import Info

_MODULES = ("builtin", "toys", "maf", "images", "texts", "tables", "uci", "binary")
"""Where the loaders are: imported when something is loaded, since they need pandas and scipy."""
_ELSEWHERE = {
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
    *_ELSEWHERE,
]


def __getattr__(name: str) -> Any:
    if name in _ELSEWHERE:
        value = getattr(importlib.import_module(f"densekit.datasets.{_ELSEWHERE[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'densekit.datasets' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ELSEWHERE})


@functools.cache
def _loaders() -> dict[str, Callable[[], Dataset]]:
    found: dict[str, Callable[[], Dataset]] = {}
    for name in _MODULES:
        module = importlib.import_module(f"densekit.datasets.{name}")
        found |= {f.__name__: f for f in module.TOYS} if name == "toys" else module.LOADERS
    return found


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
        return catalog.listed()
    if modality not in ("table", "image", "text"):
        raise ValueError(f"modality={modality!r}: must be 'table', 'image' or 'text'")
    return tuple(name for name in catalog.listed() if info(name).modality == modality)


def info(name: str) -> Info:
    """What there is to know of a data set without loading it: rows, license, published results.

    Raises
    ------
    ValueError
        No such data set; the nearest name is given.

    Examples
    --------
    >>> info("uci_yacht").rows, info("uci_yacht").license
    ((250, 28, 30), 'CC BY 4.0')
    """
    if name not in catalog.listed():
        raise ValueError(catalog.no_such_set(name, catalog.listed()))
    return catalog.entry(name)


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
    if name not in catalog.listed():
        raise ValueError(catalog.no_such_set(name, catalog.listed()))
    return _loaders()[name]()
