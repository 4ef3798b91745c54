"""What is known of a data set without loading it: the catalog, and entries of it."""

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
    """A file that data sets are read from: where it is published, and what its bytes must be."""

    path: str
    """Relative to the folder that DENSEKIT_DATA names."""
    hash: str
    """Of the file there: SHA-256, or another algorithm with its name and a colon before it."""
    url: str
    url_hash: str = ""
    """Of what the URL gives, where that is not ``hash``; empty where ``content`` is checked."""
    content: str = ""
    """SHA-256 over what is read from the file, where its bytes are not pinned."""
    parts: tuple[str, ...] = ()
    """Values of ``{part}`` in the URL, where the file was put together from several."""

    @property
    def downloads(self) -> dict[str, str]:
        """Path below the cache folder of each download, and its URL."""
        path = PurePosixPath(self.path)
        folder = path.with_suffix("") if self.parts else path.parent
        urls = [self.url.format(part=part) for part in self.parts] or [self.url]
        return {str(folder / url.rsplit("/", 1)[1]): url for url in urls}

    @property
    def locations(self) -> tuple[Path, ...]:
        """Where the file lies, or where its downloads would be kept."""
        folder = data_folder()
        if folder is not None and (folder / self.path).exists():
            return (folder / self.path,)
        return tuple(cache_folder() / name for name in self.downloads)


@dataclass(frozen=True)
class Info:
    """A data set as the catalog has it.

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
    """Of train, valid and test; None where they depend on the version of Python."""
    columns: int | None
    """Entries of a row; None for text."""
    license: str
    source: str
    published: tuple[Published, ...] = ()
    files: tuple[File, ...] = field(default=(), repr=False)

    @property
    def urls(self) -> tuple[str, ...]:
        """Where the files are published; none for what is drawn or comes with Python."""
        return tuple(url for file in self.files for url in file.downloads.values())

    @property
    def locations(self) -> tuple[Path, ...]:
        """Where the files lie, or would be kept after a download."""
        return tuple(path for file in self.files for path in file.locations)

    @property
    def needs_download(self) -> bool:
        """Whether a file lies neither in the folder DENSEKIT_DATA nor in the cache."""
        return not all(path.exists() for path in self.locations)


def data_folder() -> Path | None:
    """The folder that the environment variable DENSEKIT_DATA names, if it names one.

    Raises
    ------
    NotADirectoryError
        There is no such folder.
    """
    name = os.environ.get("DENSEKIT_DATA", "")
    if not name:
        return None
    if not Path(name).is_dir():
        raise NotADirectoryError(
            f"DENSEKIT_DATA={name!r} is not a folder: name the folder that holds the data, or "
            "unset it"
        )
    return Path(name)


def cache_folder() -> Path:
    """Where downloads are kept: DENSEKIT_CACHE, or the operating system's folder for caches."""
    import pooch

    return Path(os.environ.get("DENSEKIT_CACHE") or pooch.os_cache("densekit"))


@functools.cache
def _catalog() -> dict[str, Any]:
    text = importlib.resources.files("densekit.datasets").joinpath("catalog.toml").read_bytes()
    return tomllib.loads(text.decode())


def listed() -> tuple[str, ...]:
    """Names of the sets in the catalog."""
    return tuple(_catalog()["sets"])


def file(path: str) -> File:
    """The file at ``path`` under the folder DENSEKIT_DATA."""
    entry = _catalog()["files"][path]
    return File(path, **{**entry, "parts": tuple(entry.get("parts", ()))})


def entry(name: str) -> Info:
    """What the catalog says of a set."""
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
    """The set called ``name`` of train, valid and test, with what the catalog says of it."""
    train, valid, test = parts
    known = entry(name)
    return Dataset(
        train,
        valid,
        HeldOut(test, name),
        name,
        known.modality,  # type: ignore[arg-type]
        source=known.source,
        domain=domain,
        reference=known.published,
    )


def no_such_set(name: str, known: Iterable[str]) -> str:
    """The error that no data set is called ``name``, with the nearest right name."""
    return f"no data set is called {name!r}{nearest(name, known)}"
