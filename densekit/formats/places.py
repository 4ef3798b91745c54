"""What a path or ``-`` says: where rows are, and in which format."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

_SUFFIXES = {
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
class Place:
    """Where rows are, and in which format."""

    name: str
    """What the user called it, for messages."""
    format: str
    path: Path | None
    """None: a standard stream."""
    zipped: bool = False
    key: str | None = None
    sep: str | None = None
    """What separates the values of a CSV file; None: it is found out, or the usual one is written."""
    decimal: str = "."

    @classmethod
    def of(
        cls,
        path: str | Path,
        format: str | None,
        stream: str = "standard input",
        *,
        sep: str | None = None,
        decimal: str = ".",
    ) -> "Place":
        name = os.fspath(path)
        if format is not None and format not in FORMATS:
            raise ValueError(f"format={format!r} must be one of {', '.join(FORMATS)}")
        marks = _checked_marks(sep, decimal)
        place = cls._named(name, format, stream)
        if marks != (None, ".") and place.format not in ("csv", "tsv"):
            what = f"sep={sep!r}" if sep is not None else f"decimal={decimal!r}"
            raise ValueError(f"{name}: {what} is for CSV files, and this is {place.format}")
        return dataclasses.replace(place, sep=marks[0], decimal=marks[1])

    @classmethod
    def _named(cls, name: str, format: str | None, stream: str) -> "Place":
        if name == "-":
            return cls(stream, format or "csv", None)
        file, colon, key = name.rpartition(":")
        if not (colon and file.lower().endswith(".npz")):
            file, key = name, ""
        bare = file[:-3] if file.lower().endswith(".gz") else file
        suffix = Path(bare).suffix.lower()
        folder = not suffix or file.endswith("/") or Path(file).is_dir()
        found = format or _SUFFIXES.get(suffix) or ("images" if folder else None)
        if found is None and suffix in _ARROW:
            raise ValueError(
                f"{name}: files of Arrow are not read or written, since nothing tells what they unpack "
                "to before they are unpacked; use .parquet, which keeps every dtype too"
            )
        if found is None:
            raise ValueError(
                f"{name}: {suffix!r} names no format; known are {', '.join(_SUFFIXES)}, the text "
                "formats with .gz behind, and a folder of images"
            )
        if bare != file and found not in TEXTUAL:
            raise ValueError(f"{name}: only text formats are read and written as .gz")
        return cls(name, found, Path(file), zipped=bare != file, key=key or None)

    def check_suffix(self) -> None:
        """Raise where the name ends otherwise than those of files of the format do."""
        own = [suffix for suffix, format in _SUFFIXES.items() if format == self.format]
        bare = Path(self.path.stem if self.zipped else self.path) if self.path else Path()
        if not own or not bare.suffix or bare.suffix.lower() in own:
            return
        if self.format in TEXTUAL:
            own += [f"{suffix}.gz" for suffix in own]
        raise ValueError(
            f"{self.name} would hold {self.format}: end the name in {' or '.join(own)}, and not in "
            f"{bare.suffix}"
        )


def _checked_marks(sep: str | None, decimal: str) -> tuple[str | None, str]:
    """The two marks of a CSV file, of which a tab may be called so."""
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
        raise ValueError(f"sep and decimal are both {sep!r}: one of them must be another")
    return sep, decimal
