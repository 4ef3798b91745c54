"""Reads the files of data sets from a local folder, from the cache, or from their URL.

The folder of the environment variable ``DENSEKIT_DATA`` has priority. A file that is not there is
downloaded once into the cache folder: ``DENSEKIT_CACHE``, or that of the operating system. Checksums
are verified each time a file is read.

If the catalog has no checksum of the download itself, the content is verified instead. Its digest is the
SHA-256 of

- the decompressed bytes of a text;
- for named arrays, sorted by name: the line ``name dtype shape``, then the bytes;
- for members of an archive, sorted by name: the name, a zero byte, then the bytes.
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

T = TypeVar("T")

_RETRIES = 2
_TIMEOUT = 30
"""Seconds without a byte after which a download fails."""


class DownloadError(ConnectionError):
    """A file is neither in the local folder nor in the cache, and cannot be downloaded."""


# ---------------------------------------------------------------------------------------- reading


def text(path: str, without: bytes = b"") -> bytes:
    """The decompressed bytes of a file, without the lines that begin with ``without``."""
    return _fetch_verified(
        catalog.file(path), lambda paths: _decompressed(paths[0], without), lambda data: [data]
    )


def arrays(
    path: str, parse_downloads: Callable[[list[Path]], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Named arrays of an ``npz`` file, or those that ``parse_downloads`` returns for its downloads."""

    def parse(paths: list[Path]) -> dict[str, np.ndarray]:
        if paths[0].suffix != ".npz":
            return parse_downloads(paths)
        with np.load(paths[0]) as archive:
            return dict(archive)

    return _fetch_verified(catalog.file(path), parse, _array_bytes)


def members(path: str, pattern: str) -> dict[str, bytes]:
    """Members of a zip or tar archive whose names match ``pattern``, by the matched part."""
    return _fetch_verified(
        catalog.file(path), lambda paths: _members(paths[0], pattern), _member_bytes
    )


def _fetch_verified(
    file: File,
    parse: Callable[[list[Path]], T],
    content_bytes: Callable[[T], Iterator[bytes] | list[bytes]],
) -> T:
    """Fetch and parse a file; verify the content if the bytes of the file were not verified."""
    paths, verified = _fetch(file)
    content = parse(paths)
    if not verified:
        digest = hashlib.sha256(b"".join(content_bytes(content))).hexdigest()
        if digest != file.content:
            for path in paths:
                path.unlink()
            raise ValueError(
                f"the download of {file.path} from {file.url} has unexpected content: its SHA-256 is "
                f"{digest}, expected {file.content}; the download was deleted: try again, or put the "
                "file into the folder of DENSEKIT_DATA"
            )
    return content


def _decompressed(path: Path, without: bytes) -> bytes:
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
    with tarfile.open(
        path
    ) as tar:  # One pass in file order, because a compressed tar cannot seek.
        for member in tar:
            if member.isfile() and (match := re.search(pattern, member.name)):
                found[match[0]] = tar.extractfile(member).read()  # type: ignore[union-attr]
    return found


# ---------------------------------------------------------------------------------------- fetching


def _fetch(file: File) -> tuple[list[Path], bool]:
    """Local paths of a file, after a download if needed, and whether their checksums were verified."""
    import pooch
    from filelock import FileLock

    folder = catalog.data_folder()
    if folder is not None and (folder / file.path).exists():
        _verify_checksum(folder / file.path, file.hash)
        return [folder / file.path], True
    cache = catalog.cache_folder()
    checksum = file.url_hash or (None if file.content else file.hash)
    paths = [cache / name for name in file.downloads]
    if not all(path.exists() and pooch.hashes.hash_matches(path, checksum) for path in paths):
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / ".lock"):  # Two processes must not download one file.
            for name, url in file.downloads.items():
                _download(cache, name, url, checksum, file.path)
    return paths, checksum is not None


def _verify_checksum(path: Path, checksum: str) -> None:
    import pooch

    algorithm, _, expected = checksum.rpartition(":")
    actual = pooch.file_hash(str(path), alg=algorithm or "sha256")
    if actual != expected:
        raise ValueError(
            f"{path} is damaged or another file: its {algorithm or 'sha256'} is {actual}, expected "
            f"{expected}; replace it with an undamaged copy, or remove it to download it again"
        )


def _download(cache: Path, name: str, url: str, checksum: str | None, path: str) -> None:
    """Download ``name`` into the cache. A failed download leaves no file behind."""
    import pooch
    from requests.exceptions import RequestException

    store = pooch.create(
        cache, base_url="", registry={name: checksum}, urls={name: url}, retry_if_failed=_RETRIES
    )
    fetcher = pooch.HTTPDownloader(progressbar=False, timeout=_TIMEOUT)
    try:
        with _quiet(pooch.get_logger()):
            store.fetch(name, downloader=fetcher)
    except (RequestException, ValueError) as error:
        with contextlib.suppress(OSError):  # Remove folders that this download left empty.
            for folder in list((cache / name).relative_to(cache).parents)[:-1]:
                (cache / folder).rmdir()
        reason = " ".join(str(_cause(error)).split())
        remedy = (
            f"save the file of the URL as {cache / name}, or put {path} into the folder of "
            f"DENSEKIT_DATA ({os.environ.get('DENSEKIT_DATA') or 'unset'})"
        )
        if isinstance(error, ValueError) and not isinstance(error, RequestException):
            raise ValueError(
                f"the download of {path} from {url} is a different file: {reason}; {remedy}"
            ) from None
        raise DownloadError(f"cannot download {path} from {url} ({reason}): {remedy}") from error


def _cause(error: Exception) -> Any:
    """The innermost reason of a connection error."""
    inner = error.args[0] if error.args else error
    return getattr(inner, "reason", None) or error


@contextlib.contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """Suppress the progress messages of pooch on standard error."""
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


# ---------------------------------------------------------------------------------------- formats


def npy(data: bytes) -> np.ndarray:
    """The array of an ``npy`` file, which may be an object array of strings; runs no pickled code.

    Raises
    ------
    ValueError
        The pickle contains anything but an array of strings.
    """
    stream = io.BytesIO(data)
    npy_format = np.lib.format
    parse_header = {
        (1, 0): npy_format.read_array_header_1_0,
        (2, 0): npy_format.read_array_header_2_0,
    }[npy_format.read_magic(stream)]
    shape, _, dtype = parse_header(stream)
    if dtype.kind != "O":
        return np.load(io.BytesIO(data), allow_pickle=False)
    return np.asarray(_StringArrayUnpickler(stream).load(), dtype=str).reshape(shape)


def frame(data: bytes) -> pd.DataFrame:
    """A DataFrame that was pickled by pandas 0.14.1 to 1.2; runs no pickled code.

    The function does not create pandas objects from the pickle. It records their arguments and state and
    builds the DataFrame from these.

    Raises
    ------
    ValueError
        The pickle contains anything but parts of a DataFrame, or is not a DataFrame.
    """
    table = _FrameUnpickler(io.BytesIO(data), encoding="latin1").load()
    try:
        (columns, _), _, _, block_manager = table.state["_data"].state
        names = columns.args[1]["data"]
        values_by_name = {
            name: values
            for block in block_manager["0.14.1"]["blocks"]
            for name, values in zip(names[block["mgr_locs"]], block["values"], strict=True)
        }
        return pd.DataFrame(values_by_name)[list(names)]
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"not a pickled DataFrame of pandas 0.14.1 to 1.2: {error}") from error


class _StringArrayUnpickler(pickle.Unpickler):
    """Unpickles arrays of strings; allows only NumPy's own constructors of arrays."""

    result = "an array of strings"

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray", "numpy"):
            if name in ("ndarray", "dtype"):
                return getattr(np, name)
            if name == "_reconstruct":
                return np._core.multiarray._reconstruct  # type: ignore[attr-defined]
        raise ValueError(
            f"the pickle contains {module}.{name}, which {self.result} does not need; the file was "
            "not loaded"
        )


class _PickledObject:
    """Stands in for a pickled pandas object and records its arguments and state."""

    state: Any = None

    def __new__(cls, *args: Any) -> "_PickledObject":
        instance = super().__new__(cls)
        instance.args = args  # type: ignore[attr-defined]
        return instance

    def __init__(self, *_args: Any):
        """Does nothing: a pickle may create an object with or without calling ``__init__``."""

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _FrameUnpickler(_StringArrayUnpickler):
    """Unpickles DataFrames; also allows slices, and replaces pandas objects by stand-ins."""

    result = "a table of numbers"

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "pandas":
            return _PickledObject
        if module in ("builtins", "__builtin__") and name == "slice":
            return slice
        return super().find_class(module, name)
