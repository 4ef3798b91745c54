"""Data files of users in a suite: the file, its split, and options for its columns."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from densekit import codecs, formats
from densekit.datasets.base import Dataset, HeldOut
from densekit.datasets.tables import categories, take
from densekit.params import frozen, nearest

_CODECS: dict[str, Any] = {
    "table": codecs.TableCodec, "image": codecs.ImageCodec, "text": codecs.TextCodec
}  # fmt: skip
OPTIONS = tuple(
    dict.fromkeys(
        option
        for modality in ("table", "image")
        for option in _CODECS[modality].options
        if option not in ("columns", "missing")
    )
)
"""Options of the codecs that a suite may set."""
KEYS = ("target", "split", "sep", "decimal", "drop_missing", *OPTIONS)
"""Keys of a suite or a run that apply to data files."""
_PARTS = ("train", "valid", "test")
_SHARES: dict[str, Any] = {"test": 0.2, "valid": 0.08, "seed": 0, "shuffle": True}
_MOST_CLASSES = 20
"""Most distinct values of a target that are classes; other numbers are stratified by deciles."""


@dataclass(frozen=True)
class DataFile:
    """A data file, or a folder of images, as data of a suite."""

    path: str
    sha256: str
    """SHA-256 of its content and of the content of a separate test file."""
    modality: str
    target: str | None = None
    """Column by which the split is stratified."""
    split: Mapping[str, Any] = field(default_factory=dict)
    """The shares ``test`` and ``valid``, with ``seed`` and ``shuffle``; or a ``column`` with the values
    train, valid and test; or a ``file`` with the test part."""
    sep: str | None = None
    decimal: str = "."
    drop_missing: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the codec."""

    @property
    def name(self) -> str:
        """Name of the data in tables and in names of files."""
        return Path(self.path).name

    @classmethod
    def of(cls, where: str, name: str, folder: Path, given: Mapping[str, Any]) -> "DataFile":
        """The file ``name`` in ``folder`` with the keys of a suite.

        The file is loaded once, so that errors appear before the first run.

        Parameters
        ----------
        where : str
            Suite and run, for error messages.
        name : str
            Path of the file, relative to ``folder``.
        folder : Path
            Folder of the suite.
        given : mapping
            Keys of the suite and the run, see ``KEYS``.

        Raises
        ------
        ValueError
            The file or a key is invalid. The message names ``where``, the file or key, and the remedy.
        """
        given = _validated(where, name, given)
        split = _validated_split(where, given.pop("split", {}))
        path = (folder / name).resolve()
        if "file" in split:
            split["file"] = str((folder / split["file"]).resolve())
        try:
            sha = _digest([path, *([Path(split["file"])] if "file" in split else [])])
            file = cls(
                str(path),
                sha,
                "",
                split=split,
                options={k: _option(k, given.pop(k)) for k in OPTIONS if k in given},
                **given,
            )
            data = file.load()
            file._check_options(data)
            return dataclasses.replace(file, modality=data.modality)
        except (ValueError, TypeError, OSError) as error:
            raise ValueError(f"{where}: {error}") from error

    def address_fields(self) -> dict[str, Any]:
        """The fields on which a result depends: the content and the keys, but not the path."""
        values = dataclasses.asdict(self)
        values["split"] = {**self.split, **({"file": ""} if "file" in self.split else {})}
        return {k: v for k, v in values.items() if k != "path"}

    def load(self) -> Dataset:
        """Load the rows and split them. String columns have the categories of all parts.

        Raises
        ------
        ValueError, OSError
            The file cannot be read, has changed since the suite was loaded, or does not have the columns
            that the keys name.
        """
        rows = self._load_rows(self.path)
        held_out = self._load_rows(self.split["file"]) if "file" in self.split else None
        files = [Path(self.path), *([Path(self.split["file"])] if held_out is not None else [])]
        if _digest(files) != self.sha256:
            raise ValueError(
                f"{self.path} has changed since the suite was loaded: run the suite again"
            )
        modality = codecs.modality_of(rows, self.options.get("image_shape"))
        unknown = [k for k in self.options if k not in _CODECS[modality].options]
        if unknown:
            raise ValueError(
                f"{self.name} is {modality} data, to which {unknown[0]} does not apply"
            )
        parts = self._split_rows(rows, held_out)
        for part, part_rows in zip(_PARTS, parts, strict=True):
            if len(part_rows) < 2 and part != "valid":
                raise ValueError(
                    f"{self.name}: the part {part} has {len(part_rows)} rows but needs at least 2; "
                    "change the split"
                )
        train, valid, test = parts
        return Dataset(
            train, valid, HeldOut(test, self.name), self.name, modality,
            source=f"{self.path} (SHA-256 {self.sha256[:12]})", domain=dict(self.options),
        )  # fmt: skip

    def _load_rows(self, path: str) -> Any:
        rows = formats.read(path, sep=self.sep, decimal=self.decimal)
        if not self.drop_missing:
            return rows
        if not hasattr(rows, "dropna"):
            raise ValueError(f"{self.name}: drop_missing is for tables with named columns")
        complete = rows.dropna().reset_index(drop=True)
        if not len(complete):
            raise ValueError(f"{self.name}: every row has a missing cell; omit drop_missing")
        return complete

    def _split_rows(self, rows: Any, held_out: Any) -> list[Any]:
        """Training, validation and test rows; ``held_out`` are the rows of a separate test file."""
        if held_out is not None and list(getattr(held_out, "columns", ())) != list(
            getattr(rows, "columns", ())
        ):
            raise ValueError(
                f"{self.split['file']} has other columns than {self.path}: "
                f"{', '.join(map(str, getattr(held_out, 'columns', ())))}"
            )
        if "column" in self.split:
            label = self._column(rows, "split.column", self.split["column"])
            part_names = rows[label].astype(str).to_numpy()
            if unknown := sorted(set(part_names) - set(_PARTS)):
                raise ValueError(
                    f"{self.name}: column {label!r} names the part of each row, but {unknown[0]!r} is "
                    "not one; its values must be train, valid and test"
                )
            rows = rows.drop(columns=label)
            indices = [np.flatnonzero(part_names == part) for part in _PARTS]
        else:
            indices = self._split_indices(rows, held_out)
        combined = rows if held_out is None else _joined(rows, held_out)
        if hasattr(combined, "columns"):
            combined = categories(combined)
        if isinstance(combined, list):
            return [[combined[i] for i in part] for part in indices]
        return take(combined, indices)

    def _split_indices(self, rows: Any, held_out: Any) -> list[np.ndarray]:
        """Row indices of each part; those of a separate test file follow those of ``rows``."""
        split, n = {**_SHARES, **self.split}, len(rows)
        strata = np.zeros(n, int)
        if self.target is not None:
            strata = _strata(rows[self._column(rows, "target", self.target)])
        random = np.random.RandomState(split["seed"])
        shares = {"valid": split["valid"], "test": 0.0 if held_out is not None else split["test"]}
        parts: dict[str, list[np.ndarray]] = {part: [] for part in _PARTS}
        for stratum in np.unique(strata):
            i = np.flatnonzero(strata == stratum)
            i = random.permutation(i) if split["shuffle"] else i
            n_test, n_valid = (round(shares[part] * len(i)) for part in ("test", "valid"))
            cut = len(i) - n_test
            for part, piece in zip(_PARTS, np.split(i, [cut - n_valid, cut]), strict=True):
                parts[part].append(piece)
        indices = [np.sort(np.concatenate(parts[part])) for part in _PARTS]
        if split["shuffle"]:
            indices = [random.permutation(part) for part in indices]
        if held_out is not None:
            indices[2] = np.arange(n, n + len(held_out))
        return indices

    def _column(self, rows: Any, key: str, name: str) -> Any:
        if not hasattr(rows, "columns"):
            raise ValueError(f"{self.name}: {key} is a column, but the file has no named columns")
        if name not in rows.columns:
            hint = nearest(name, map(str, rows.columns))
            raise ValueError(f"{self.name}: {key}={name!r} is not a column of the file{hint}")
        return name

    def _check_options(self, data: Dataset) -> None:
        """Raise the codec's errors about the options before the first run."""
        try:
            if data.modality == "table":
                codecs.describe(data.train, **self.options)
            elif data.modality == "image":
                codecs.ImageCodec(**self.options).fit(data.train)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self.name}: {error}") from error


def _option(name: str, value: Any) -> Any:
    """A TOML value as an option of the codec: arrays become tuples, and the step "none" becomes None."""
    value = frozen(value)
    if name == "step" and isinstance(value, Mapping):
        return {k: None if v == "none" else v for k, v in value.items()}
    return value


def _validated(where: str, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    kinds = {"target": str, "sep": str, "decimal": str, "drop_missing": bool}
    for key, value in given.items():
        if key in kinds and not isinstance(value, kinds[key]):
            word = "true or false" if kinds[key] is bool else "a string"
            raise ValueError(f"{where}: {key}={value!r} must be {word}, for {name}")
    return dict(given)


def _validated_split(where: str, split: Any) -> dict[str, Any]:
    """The value of the key ``split``, which may also be the name of a column."""
    if isinstance(split, str):
        split = {"column": split}
    if not isinstance(split, Mapping):
        raise ValueError(
            f"{where}: split={split!r} must be a table such as {{ test = 0.2, valid = 0.1, seed = 0 }}, "
            "or the name of a column with the values train, valid and test"
        )
    split = dict(split)
    if isinstance(split.get("test"), str):
        split["file"] = split.pop("test")
    known = (*_SHARES, "column", "file")
    for key, value in split.items():
        if key not in known:
            raise ValueError(f"{where}: split has an unknown key {key!r}{nearest(key, known)}")
        valid = {
            "seed": isinstance(value, int) and not isinstance(value, bool) and value >= 0,
            "shuffle": isinstance(value, bool),
            "column": isinstance(value, str),
            "file": isinstance(value, str),
        }
        is_share = (
            isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1
        )
        if not valid.get(key, is_share):
            kinds = {"seed": "an integer of at least 0", "shuffle": "true or false"}
            kind = kinds.get(key, "a string" if key in valid else "a share from 0 to 1")
            raise ValueError(f"{where}: split.{key}={value!r} must be {kind}")
    if "column" in split and len(split) > 1:
        raise ValueError(f"{where}: split has a column, so the other keys do not apply; omit them")
    if split.get("test", 0) + split.get("valid", 0) >= 1:
        raise ValueError(f"{where}: split leaves nothing to fit; test and valid must be below 1")
    return split


def _strata(values: Any) -> np.ndarray:
    """The stratum of each row: its class, or the decile of a column with many numbers."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(values) and values.nunique() > _MOST_CLASSES:
        return pd.qcut(values, 10, labels=False, duplicates="drop").fillna(-1).to_numpy(int)
    return pd.factorize(values)[0]


def _joined(rows: Any, held_out: Any) -> Any:
    if isinstance(rows, list):
        return rows + held_out
    if hasattr(rows, "columns"):
        import pandas as pd

        return pd.concat([rows, held_out], ignore_index=True)
    return np.concatenate([rows, held_out])


def _digest(paths: Sequence[Path]) -> str:
    """SHA-256 over the bytes of files, and over the names and bytes of the files of a folder.

    Raises
    ------
    FileNotFoundError
        A file does not exist.
    """
    sha = hashlib.sha256()
    for path in paths:
        path = path if path.exists() else Path(str(path).rpartition(":")[0] or path)
        if not path.exists():
            raise FileNotFoundError(
                f"{path}: no such file; paths in a suite are relative to the folder of the suite"
            )
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            with open(file, "rb") as opened:
                sha.update(file.name.encode() + b"\0" if path.is_dir() else b"")
                sha.update(hashlib.file_digest(opened, "sha256").digest())
    return sha.hexdigest()


def is_file(name: str) -> bool:
    """Whether the name of data in a suite is a path, not the name of a data set."""
    return bool(Path(name).suffix) or "/" in name or "\\" in name
