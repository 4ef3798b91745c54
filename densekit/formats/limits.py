"""Limits on what a data file may claim, and errors that name the file.

A damaged or malicious file can claim any size, any compression ratio and any number of columns.
Claims are compared with the size of the file before memory is allocated. Any error that a library
raises for the contents becomes a `FileError` with the name of the file.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

MAX_RATIO, EXTRA_BYTES = 100, 10**8
"""Decompressed data may take up to ``MAX_RATIO`` times the compressed bytes plus ``EXTRA_BYTES``."""
MAX_COLUMNS = 20_000
"""Most columns of a table. Libraries take a fixed time per column, so a wide file would be slow."""
_QUOTED_LENGTH = 60


class FileError(ValueError):
    """An error in the contents of a file; the message begins with the name of the file."""


@contextlib.contextmanager
def file_errors(name: str) -> Iterator[None]:
    """Convert any error that a library raises for the contents of a file to a `FileError`.

    Errors of a missing library or of a file that cannot be opened do not concern the contents and
    are not converted.
    """
    try:
        yield
    except (FileError, ImportError, FileNotFoundError, PermissionError):
        raise
    except MemoryError as error:
        raise FileError(
            f"{name} needs more memory than is available ({error}): read it in parts, or on a "
            "larger machine"
        ) from error
    except Exception as error:
        # The message alone may be cryptic, such as 'columns' for KeyError: 'columns'.
        kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
        raise FileError(f"{name} is truncated or damaged ({kind}{str(error)[:300]})") from error


def check_size(
    name: str, unpacked: int, packed: int, remedy: str = "decompress it first (gunzip, unzip)"
) -> None:
    """Raise ValueError if decompressed data exceed the limit for their compressed size."""
    if unpacked > (limit := MAX_RATIO * packed + EXTRA_BYTES):
        raise FileError(
            f"{name} decompresses to more than {limit:,} bytes, the limit of {MAX_RATIO} times its size "
            f"plus {EXTRA_BYTES:,} bytes; if it is valid, {remedy}"
        )


def check_names(where: str, names: Sequence[Any]) -> None:
    """Raise ValueError if a table has no columns, too many, or two with the same name."""
    if not names:
        raise FileError(f"{where}: no columns")
    check_width(where, len(names))
    if len(set(names)) < len(names):
        seen: set[Any] = set()
        duplicate = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        positions = [j + 1 for j, name in enumerate(names) if name == duplicate]
        raise FileError(
            f"{where}: columns {positions[0]} and {positions[1]} are both called {quoted(duplicate)}: "
            "rename or drop one of them"
        )


def check_width(where: str, n_columns: int) -> None:
    """Raise ValueError if a table has too many columns."""
    if n_columns > MAX_COLUMNS:
        raise FileError(
            f"{where}: {n_columns:,} columns, but a table may have at most {MAX_COLUMNS:,}; write "
            "numbers of one dtype as an array (.npy), which may have any width"
        )


def quoted(value: Any) -> str:
    """The repr of a value from a file, shortened for an error message.

    >>> quoted("a")
    "'a'"
    """
    text = repr(value[: 2 * _QUOTED_LENGTH] if isinstance(value, str) else value)
    return text if len(text) <= _QUOTED_LENGTH else f"{text[:_QUOTED_LENGTH]}..."
