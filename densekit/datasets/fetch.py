"""Files of data sets: from a local folder, from the cache, or from where they are published.

The folder that the environment variable ``DENSEKIT_DATA`` names is looked at first. What is not
there is downloaded once into the cache folder: that of the operating system, or the one that
``DENSEKIT_CACHE`` names. Sums are checked wherever a file comes from, at every reading.

Where the catalog does not pin the bytes of a download, what is read from it is checked: its
digest is the SHA-256 of

- the unpacked bytes of a text,
- for named arrays, in the order of their names, ``name dtype shape`` in a line and the bytes,
- for the members of an archive, in the order of their names, the name, a zero byte and the bytes.
"""

import contextlib
import gzip
import hashlib
import io
import logging
import os
import pickle
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from densekit.datasets import catalog
from densekit.datasets.catalog import File
from densekit.extras import require

T = TypeVar("T")

_RETRIES = 2
_TIMEOUT = 30  # seconds without a byte


class DownloadError(ConnectionError):
    """A file is neither in the local folder nor in the cache and cannot be downloaded."""


# ---------------------------------------------------------------------------------------- reading


def text(path: str, without: bytes = b"") -> bytes:
    """The bytes of a file that may be compressed, less the lines that begin with ``without``."""
    return _read(
        catalog.file(path), lambda paths: _unpacked(paths[0], without), lambda data: [data]
    )


def arrays(
    path: str, read: Callable[[list[Path]], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Named arrays of an ``npz`` file, or those that ``read`` makes of its downloads."""

    def reader(paths: list[Path]) -> dict[str, np.ndarray]:
        if paths[0].suffix != ".npz":
            return read(paths)
        with np.load(paths[0]) as archive:
            return dict(archive)

    return _read(catalog.file(path), reader, _array_bytes)


def members(path: str, pattern: str) -> dict[str, bytes]:
    """Members of an archive, zip or tar, by what ``pattern`` finds in their names."""
    return _read(catalog.file(path), lambda paths: _members(paths[0], pattern), _member_bytes)


def _read(
    file: File,
    reader: Callable[[list[Path]], T],
    chunks: Callable[[T], Iterator[bytes] | list[bytes]],
) -> T:
    paths, pinned = _fetch(file)
    out = reader(paths)
    if not pinned:
        found = hashlib.sha256(b"".join(chunks(out))).hexdigest()
        if found != file.content:
            for path in paths:
                path.unlink()
            raise ValueError(
                f"what {file.url} gave for {file.path} is not the data expected: SHA-256 of its "
                f"content {found}, expected {file.content}; the download was deleted: try again, "
                "or give the file by DENSEKIT_DATA"
            )
    return out


def _unpacked(path: Path, without: bytes) -> bytes:
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    if not without:
        return data
    return b"".join(line for line in data.splitlines(True) if not line.startswith(without))


def _array_bytes(named: Mapping[str, np.ndarray]) -> Iterator[bytes]:
    for name in sorted(named):
        array = np.ascontiguousarray(named[name])
        yield f"{name} {array.dtype.str} {array.shape}\n".encode()
        yield array.tobytes()


def _member_bytes(named: Mapping[str, bytes]) -> Iterator[bytes]:
    for name in sorted(named):
        yield name.encode() + b"\0" + named[name]


def _members(path: Path, pattern: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if match := re.search(pattern, name):
                    found[match[0]] = archive.read(name)
        return found
    with tarfile.open(path) as tar:  # read once, front to back: a compressed tar cannot seek
        for member in tar:
            if member.isfile() and (match := re.search(pattern, member.name)):
                found[match[0]] = tar.extractfile(member).read()  # type: ignore[union-attr]
    return found


# ---------------------------------------------------------------------------------------- fetching


def _fetch(file: File) -> tuple[list[Path], bool]:
    """The paths of a file on this machine, and whether the sums of their bytes were checked."""
    require("data", "pooch", "filelock", "requests")
    import pooch
    from filelock import FileLock

    folder = catalog.data_folder()
    if folder is not None and (folder / file.path).exists():
        _check(folder / file.path, file.hash)
        return [folder / file.path], True
    cache = catalog.cache_folder()
    known = file.url_hash or (None if file.content else file.hash)
    paths = [cache / name for name in file.downloads]
    if not all(path.exists() and pooch.hashes.hash_matches(path, known) for path in paths):
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / ".lock"):  # two processes shall not fetch one file
            for name, url in file.downloads.items():
                _download(cache, name, url, known, file.path)
    return paths, known is not None


def _check(path: Path, known: str) -> None:
    import pooch

    algorithm, _, expected = known.rpartition(":")
    found = pooch.file_hash(str(path), alg=algorithm or "sha256")
    if found != expected:
        raise ValueError(
            f"{path} is not the file expected: {algorithm or 'sha256'} {found}, expected {expected}; "
            "put an undamaged copy there, or remove it so that it is downloaded"
        )


def _download(cache: Path, name: str, url: str, known: str | None, path: str) -> None:
    """Have ``name`` in the cache; a download that fails or has another sum leaves nothing."""
    import pooch
    from requests.exceptions import RequestException

    store = pooch.create(
        cache, base_url="", registry={name: known}, urls={name: url}, retry_if_failed=_RETRIES
    )
    fetcher = pooch.HTTPDownloader(progressbar=False, timeout=_TIMEOUT)
    try:
        with _quiet(pooch.get_logger()):
            store.fetch(name, downloader=fetcher)
    except (RequestException, ValueError) as error:
        with contextlib.suppress(OSError):  # the folders that this download made, being empty
            for folder in list((cache / name).relative_to(cache).parents)[:-1]:
                (cache / folder).rmdir()
        reason = " ".join(str(_cause(error)).split())
        remedy = (
            f"save what the URL gives as {cache / name}, or put {path} into the folder that "
            f"DENSEKIT_DATA names ({os.environ.get('DENSEKIT_DATA') or 'unset'})"
        )
        if isinstance(error, ValueError) and not isinstance(error, RequestException):
            raise ValueError(f"{url} did not give {path}: {reason}; {remedy}") from None
        raise DownloadError(f"cannot download {path} from {url} ({reason}): {remedy}") from error


def _cause(error: Exception) -> Any:
    """What was wrong with a connection, without the layers around it."""
    inner = error.args[0] if error.args else error
    return getattr(inner, "reason", None) or error


@contextlib.contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """No news of pooch on standard error, which belongs to the program."""
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


# ---------------------------------------------------------------------------------------- formats


def npy(data: bytes) -> np.ndarray:
    """An ``npy`` file, also one of Python strings, without running what its pickle may hold.

    Raises
    ------
    ValueError
        Its pickle wants anything but an array of strings.
    """
    stream = io.BytesIO(data)
    form = np.lib.format
    header = {
        (1, 0): form.read_array_header_1_0,
        (2, 0): form.read_array_header_2_0,
    }[form.read_magic(stream)]
    shape, _, dtype = header(stream)
    if dtype.kind != "O":
        return np.load(io.BytesIO(data), allow_pickle=False)
    return np.asarray(_Strings(stream).load(), dtype=str).reshape(shape)


def frame(data: bytes) -> pd.DataFrame:
    """A DataFrame that pandas 0.14.1 to 1.2 pickled, without running what the pickle may hold.

    No code of pandas runs either: its objects are read as what the pickle says of them.

    Raises
    ------
    ValueError
        It wants anything but pandas' and NumPy's own parts of a table, or is none.
    """
    table = _Frames(io.BytesIO(data), encoding="latin1").load()
    try:
        (columns, _), _, _, more = table.state["_data"].state
        names = columns.args[1]["data"]
        held = {
            name: values
            for block in more["0.14.1"]["blocks"]
            for name, values in zip(names[block["mgr_locs"]], block["values"], strict=True)
        }
        return pd.DataFrame(held)[list(names)]
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"not a DataFrame as pandas 0.14.1 to 1.2 pickled it: {error}") from error


class _Strings(pickle.Unpickler):
    """Knows nothing but NumPy's own constructors of arrays."""

    made = "an array of strings"

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray", "numpy"):
            if name in ("ndarray", "dtype"):
                return getattr(np, name)
            if name == "_reconstruct":
                return np._core.multiarray._reconstruct  # type: ignore[attr-defined]
        raise ValueError(f"{self.made} needs no {module}.{name}: the file is not read")


class _Said:
    """What a pickle says of an object: how it was made, and its state."""

    state: Any = None

    def __new__(cls, *args: Any) -> "_Said":
        said = super().__new__(cls)
        said.args = args  # type: ignore[attr-defined]
        return said

    def __init__(self, *_args: Any):
        """Nothing more: a pickle may make an object with or without calling it."""

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Frames(_Strings):
    """Knows slices as well, and stands for pandas' names by what is said of them."""

    made = "a table of numbers"

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "pandas":
            return _Said
        if module in ("builtins", "__builtin__") and name == "slice":
            return slice
        return super().find_class(module, name)
