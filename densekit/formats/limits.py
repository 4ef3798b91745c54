"""What a file of rows may claim, and how its errors name it.

A file from a stranger can say anything: that it holds 8 TiB, that it unpacks to a thousand times its
size, that it has a million columns. What it says is compared with its own size before memory is taken,
and whatever a library raises of its contents becomes a `FileError` that names the file.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

RATIO, ROOM = 100, 10**8
"""What is packed may come to as many times its bytes, and as many bytes more."""
COLUMNS = 20_000
"""Columns of a table: each costs every library a fixed time, which a wide file multiplies."""
_SHOWN = 60


class FileError(ValueError):
    """A file that is refused; the message begins with its name."""


@contextlib.contextmanager
def refusing(name: str) -> Iterator[None]:
    """Turn whatever a library raises of the contents of a file into a ValueError that names it.

    A library that is missing and a file that cannot be opened are not the contents' fault, and keep
    their error.
    """
    try:
        yield
    except (FileError, ImportError, FileNotFoundError, PermissionError):
        raise
    except MemoryError as error:
        raise FileError(
            f"{name} needs more memory than there is ({error}): read it in parts, or on a larger "
            "machine"
        ) from error
    except Exception as error:
        # The class says what the words do not: KeyError: 'columns'.
        kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
        raise FileError(f"{name} is truncated or damaged ({kind}{str(error)[:300]})") from error


def check_size(
    name: str, unpacked: int, packed: int, remedy: str = "unpack it yourself (gunzip, unzip)"
) -> None:
    """Raise ValueError where a packed file holds far more than data do."""
    if unpacked > (limit := RATIO * packed + ROOM):
        raise FileError(
            f"{name} unpacks to more than {limit:,} bytes, {RATIO} times its size and {ROOM:,} bytes; "
            f"if it is to be so large, {remedy}"
        )


def check_names(where: str, names: Sequence[Any]) -> None:
    """Raise ValueError where a table has no columns, too many, or two of one name."""
    if not names:
        raise FileError(f"{where}: no columns")
    check_width(where, len(names))
    if len(set(names)) < len(names):
        seen: set[Any] = set()
        twice = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        places = [j + 1 for j, name in enumerate(names) if name == twice]
        raise FileError(
            f"{where}: columns {places[0]} and {places[1]} are both called {shown(twice)}: rename or "
            "drop one of them"
        )


def check_width(where: str, n_columns: int) -> None:
    """Raise ValueError where a table has more columns than are read."""
    if n_columns > COLUMNS:
        raise FileError(
            f"{where}: {n_columns:,} columns, and a table is read with {COLUMNS:,} at most; write "
            "numbers of one dtype as an array (.npy), which may be of any width"
        )


def shown(value: Any) -> str:
    """A value from a file, short enough for an error message.

    >>> shown("a")
    "'a'"
    """
    text = repr(value[: 2 * _SHOWN] if isinstance(value, str) else value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
