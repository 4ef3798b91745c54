"""Files that are replaced whole or not at all: a crash or a full disk leaves what was there."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

# It can only be asked for by setting it, which is no thing to do while threads run.
_UMASK = os.umask(0o077)
os.umask(_UMASK)


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A file to write beside ``path``, of the same suffix; it takes that name when the block ends
    well, and is removed when it does not.

    Raises
    ------
    IsADirectoryError, FileNotFoundError
        ``path`` is a folder, or is to lie in one that does not exist.

    Examples
    --------
    >>> folder = Path(tempfile.mkdtemp())
    >>> with replacing(folder / "a.txt") as part:
    ...     size = part.write_text("all of it")
    >>> [found.name for found in folder.iterdir()]
    ['a.txt']
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give the name of a file in it")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {path.parent}; make it first")
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        # mkstemp's 0600 would keep colleagues from reading a shared folder.
        part.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_UMASK)
        part.replace(path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        # A write into an open file fails without saying which: a full disk, for one.
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = str(path)
        raise
