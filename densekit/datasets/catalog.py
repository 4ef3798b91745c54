"""The catalog of data sets: facts that are available without loading the data."""

import functools
import importlib.resources
import os
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from densekit.datasets.base import Dataset, HeldOut, Published
from densekit.params import nearest


@dataclass(frozen=True)
class File:
    """A file of one or more data sets, with its URL and checksums."""

    path: str
    """Path relative to the folder of DENSEKIT_DATA."""
    hash: str
    """Checksum of the file at ``path``: SHA-256, or another algorithm as ``"name:checksum"``."""
    url: str
    url_hash: str = ""
    """Checksum of the download if it differs from ``hash``; empty if ``content`` is checked instead."""
    content: str = ""
    """SHA-256 of the data that are read from the file, if the bytes of the download may change."""
    parts: tuple[str, ...] = ()
    """Values of ``{part}`` in the URL, if the file was made from several downloads."""

    @property
    def downloads(self) -> dict[str, str]:
        """URL of each download by its path relative to the cache folder."""
        path = PurePosixPath(self.path)
        folder = path.with_suffix("") if self.parts else path.parent
        urls = [self.url.format(part=part) for part in self.parts] or [self.url]
        return {str(folder / url.rsplit("/", 1)[1]): url for url in urls}

    @property
    def locations(self) -> tuple[Path, ...]:
        """Path of the file in the local folder, or else the paths of its downloads in the cache."""
        folder = data_folder()
        if folder is not None and (folder / self.path).exists():
            return (folder / self.path,)
        return tuple(cache_folder() / name for name in self.downloads)


@dataclass(frozen=True)
class Info:
    """Facts about a data set from the catalog.

    Examples
    --------
    >>> from densekit.datasets import info
    >>> adult = info("adult")
    >>> adult.modality, adult.rows, adult.columns, adult.license
    ('table', (29305, 3256, 16281), 15, 'CC BY 4.0')
    >>> info("mnist").published[4]
    Published(model='FFJORD', value=0.99, unit='bits per dim', source='Grathwohl et al. 2019, ...')
    """

    name: str
    modality: str
    rows: tuple[int, int, int] | None
    """Numbers of training, validation and test rows; None if they depend on the version of Python."""
    columns: int | None
    """Number of entries of a row; None for text."""
    license: str
    source: str
    published: tuple[Published, ...] = ()
    files: tuple[File, ...] = field(default=(), repr=False)

    @property
    def urls(self) -> tuple[str, ...]:
        """URLs of the files; empty for toys and for data that come with Python packages."""
        return tuple(url for file in self.files for url in file.downloads.values())

    @property
    def locations(self) -> tuple[Path, ...]:
        """Paths of the files, or those that their downloads would have."""
        return tuple(path for file in self.files for path in file.locations)

    @property
    def needs_download(self) -> bool:
        """Whether a file is neither in the folder of DENSEKIT_DATA nor in the cache."""
        return not all(path.exists() for path in self.locations)


def data_folder() -> Path | None:
    """The folder of the environment variable DENSEKIT_DATA, or None if it is unset.

    Raises
    ------
    NotADirectoryError
        The folder does not exist.
    """
    name = os.environ.get("DENSEKIT_DATA", "")
    if not name:
        return None
    if not Path(name).is_dir():
        raise NotADirectoryError(
            f"DENSEKIT_DATA={name!r} is not a folder: set it to the folder with the data, or unset it"
        )
    return Path(name)


def cache_folder() -> Path:
    """The folder for downloads: DENSEKIT_CACHE, or the operating system's cache folder."""
    import pooch

    return Path(os.environ.get("DENSEKIT_CACHE") or pooch.os_cache("densekit"))


@functools.cache
def _catalog() -> dict[str, Any]:
    text = importlib.resources.files("densekit.datasets").joinpath("catalog.toml").read_bytes()
    return tomllib.loads(text.decode())


def listed() -> tuple[str, ...]:
    """Names of the data sets in the catalog."""
    return tuple(_catalog()["sets"])


def file(path: str) -> File:
    """The catalog's entry for the file at ``path``, relative to the folder of DENSEKIT_DATA."""
    entry = _catalog()["files"][path]
    return File(path, **{**entry, "parts": tuple(entry.get("parts", ()))})


def entry(name: str) -> Info:
    """The catalog's entry for a data set."""
    facts = _catalog()["sets"][name]
    return Info(
        name,
        facts["modality"],
        tuple(facts["rows"]) if "rows" in facts else None,
        facts.get("columns"),
        facts["license"],
        facts["source"],
        tuple(Published(m, v, facts["unit"], s) for m, v, s in facts.get("published", ())),
        tuple(file(path) for path in facts.get("files", ())),
    )


def dataset(name: str, parts: Iterable[Any], **domain: Any) -> Dataset:
    """A data set of training, validation and test rows, with its facts from the catalog."""
    train, valid, test = parts
    facts = entry(name)
    return Dataset(
        train,
        valid,
        HeldOut(test, name),
        name,
        facts.modality,  # type: ignore[arg-type]
        source=facts.source,
        domain=domain,
        reference=facts.published,
    )


def no_such_set(name: str, known: Iterable[str]) -> str:
    """Error message that no data set is called ``name``, with the closest known name."""
    return f"no data set is called {name!r}{nearest(name, known)}"
