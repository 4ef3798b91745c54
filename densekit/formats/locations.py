"""Locations of rows: the path, the format, and options that depend on the format."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".npy": "npy",
    ".npz": "npz",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".txt": "text",
}
_ARROW = (".arrow", ".feather", ".ipc")
FORMATS = ("csv", "tsv", "parquet", "npy", "npz", "jsonl", "text", "images")
TEXTUAL = ("csv", "tsv", "jsonl", "text")


@dataclass(frozen=True)
class Location:
    """A file, folder or standard stream with rows, and its format."""

    name: str
    """The path as the user wrote it, for messages."""
    format: str
    path: Path | None
    """The path of the file or folder; None for a standard stream."""
    compressed: bool = False
    """Whether the file is compressed with gzip."""
    key: str | None = None
    """Name of an array in an NPZ file."""
    sep: str | None = None
    """Separator of a CSV file. With None it is detected on reading, and the usual one is written."""
    decimal: str = "."
    """Decimal mark of a CSV file."""

    @classmethod
    def of(
        cls,
        path: str | Path,
        format: str | None,
        stream: str = "standard input",
        *,
        sep: str | None = None,
        decimal: str = ".",
    ) -> "Location":
        """The location that a path and options describe; ``-`` is the standard stream ``stream``."""
        name = os.fspath(path)
        if format is not None and format not in FORMATS:
            raise ValueError(f"format={format!r} must be one of {', '.join(FORMATS)}")
        marks = _validated_marks(sep, decimal)
        location = cls._from_name(name, format, stream)
        if marks != (None, ".") and location.format not in ("csv", "tsv"):
            option = f"sep={sep!r}" if sep is not None else f"decimal={decimal!r}"
            raise ValueError(f"{name}: {option} is for CSV files, and this is {location.format}")
        return dataclasses.replace(location, sep=marks[0], decimal=marks[1])

    @classmethod
    def _from_name(cls, name: str, format: str | None, stream: str) -> "Location":
        """The location of a path whose suffix determines the format unless ``format`` is given."""
        if name == "-":
            return cls(stream, format or "csv", None)
        file, colon, key = name.rpartition(":")
        if not (colon and file.lower().endswith(".npz")):
            file, key = name, ""
        uncompressed = file[:-3] if file.lower().endswith(".gz") else file
        suffix = Path(uncompressed).suffix.lower()
        folder = not suffix or file.endswith("/") or Path(file).is_dir()
        format = format or SUFFIXES.get(suffix) or ("images" if folder else None)
        if format is None and suffix in _ARROW:
            raise ValueError(
                f"{name}: Arrow files cannot be read or written, because their uncompressed size is not "
                "known in advance; use .parquet, which preserves every dtype too"
            )
        if format is None:
            raise ValueError(
                f"{name}: {suffix!r} is no known format; known are {', '.join(SUFFIXES)}, text formats "
                "followed by .gz, and folders of images"
            )
        if uncompressed != file and format not in TEXTUAL:
            raise ValueError(f"{name}: only text formats can be read and written as .gz")
        compressed = uncompressed != file
        return cls(name, format, Path(file), compressed=compressed, key=key or None)

    def check_suffix(self) -> None:
        """Raise ValueError if the suffix is not one of the format."""
        suffixes = [suffix for suffix, format in SUFFIXES.items() if format == self.format]
        bare = Path(self.path.stem if self.compressed else self.path) if self.path else Path()
        if not suffixes or not bare.suffix or bare.suffix.lower() in suffixes:
            return
        if self.format in TEXTUAL:
            suffixes += [f"{suffix}.gz" for suffix in suffixes]
        raise ValueError(
            f"{self.name} would be a {self.format} file: its name must end in {' or '.join(suffixes)}, "
            f"not in {bare.suffix}"
        )


def _validated_marks(sep: str | None, decimal: str) -> tuple[str | None, str]:
    """Separator and decimal mark of a CSV file; a tab may be written ``tab`` or ``\\\\t``."""
    sep = "\t" if sep in ("tab", "\\t") else sep
    if sep is not None and (
        len(sep) != 1 or not sep.isascii() or sep.isalnum() or sep in '"\r\n.+-'
    ):
        raise ValueError(
            f"sep={sep!r} must be one character that separates values: ',', ';', '|', ' ' or tab"
        )
    if decimal not in (".", ","):
        raise ValueError(f"decimal={decimal!r} must be '.' or ','")
    if sep == decimal:
        raise ValueError(f"sep and decimal are both {sep!r}: they must differ")
    return sep, decimal
