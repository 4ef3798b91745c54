"""What a path or ``-`` says: where rows are, and in which format."""

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

    @classmethod
    def of(cls, path: str | Path, format: str | None, stream: str = "standard input") -> "Place":
        name = os.fspath(path)
        if format is not None and format not in FORMATS:
            raise ValueError(f"format={format!r} must be one of {', '.join(FORMATS)}")
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
