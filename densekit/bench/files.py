"""Data of the user's in a suite: a file, how it is divided, and what is known of its columns."""

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
"""What may be said of the entries: options of the codecs."""
KEYS = ("target", "split", "sep", "decimal", "drop_missing", *OPTIONS)
"""Of a suite or a run, for data from files."""
_PARTS = ("train", "valid", "test")
_SHARES: dict[str, Any] = {"test": 0.2, "valid": 0.08, "seed": 0, "shuffle": True}
_FEW = 20
"""Values of a target that are classes; of more, a number's are divided at its deciles."""


@dataclass(frozen=True)
class DataFile:
    """A file, or a folder of images, as data of a suite."""

    path: str
    sha256: str
    """Of what is in it, and in the file of the test part."""
    modality: str
    target: str | None = None
    """A column whose values are equally frequent in all parts."""
    split: Mapping[str, Any] = field(default_factory=dict)
    """Shares ``test`` and ``valid``, ``seed`` and ``shuffle``; or a ``column`` that has the words train,
    valid and test; or a ``file`` with the test part."""
    sep: str | None = None
    decimal: str = "."
    drop_missing: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the codec."""

    @property
    def name(self) -> str:
        """What the data are called in tables and files."""
        return Path(self.path).name

    @classmethod
    def of(cls, where: str, name: str, folder: Path, given: Mapping[str, Any]) -> "DataFile":
        """The file called ``name`` in ``folder``, read once, so that what is wrong is known before
        anything runs.

        Raises
        ------
        ValueError
            Naming ``where``, the file or key and the remedy.
        """
        given = _checked(where, name, given)
        split = _checked_split(where, given.pop("split", {}))
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

    def counted(self) -> dict[str, Any]:
        """What a result depends on: the content and the keys, and not where the file lies."""
        values = dataclasses.asdict(self)
        values["split"] = {**self.split, **({"file": ""} if "file" in self.split else {})}
        return {k: v for k, v in values.items() if k != "path"}

    def load(self) -> Dataset:
        """The rows in their parts, every column of strings with the categories of all parts.

        Raises
        ------
        ValueError, OSError
            The file cannot be read, has changed since the suite was read, or lacks what the keys name.
        """
        rows = self._read(self.path)
        held = self._read(self.split["file"]) if "file" in self.split else None
        files = [Path(self.path), *([Path(self.split["file"])] if held is not None else [])]
        if _digest(files) != self.sha256:
            raise ValueError(
                f"{self.path} has changed since the suite was read: run the suite again"
            )
        modality = codecs.modality_of(rows, self.options.get("image_shape"))
        unknown = [k for k in self.options if k not in _CODECS[modality].options]
        if unknown:
            raise ValueError(
                f"{self.name} is {modality} data, which {unknown[0]} does not go with"
            )
        parts = self._divided(rows, held)
        for part, found in zip(_PARTS, parts, strict=True):
            if len(found) < 2 and part != "valid":
                raise ValueError(
                    f"{self.name}: {len(found)} rows in the part {part}, which needs 2 at least; "
                    "divide it otherwise by split"
                )
        train, valid, test = parts
        return Dataset(
            train, valid, HeldOut(test, self.name), self.name, modality,
            source=f"{self.path} (SHA-256 {self.sha256[:12]})", domain=dict(self.options),
        )  # fmt: skip

    def _read(self, path: str) -> Any:
        rows = formats.read(path, sep=self.sep, decimal=self.decimal)
        if not self.drop_missing:
            return rows
        if not hasattr(rows, "dropna"):
            raise ValueError(f"{self.name}: drop_missing is for tables with named columns")
        left = rows.dropna().reset_index(drop=True)
        if not len(left):
            raise ValueError(f"{self.name}: every row has a missing cell; leave drop_missing out")
        return left

    def _divided(self, rows: Any, held: Any) -> list[Any]:
        if held is not None and list(getattr(held, "columns", ())) != list(
            getattr(rows, "columns", ())
        ):
            raise ValueError(
                f"{self.split['file']} has other columns than {self.path}: "
                f"{', '.join(map(str, getattr(held, 'columns', ())))}"
            )
        if "column" in self.split:
            label = self._column(rows, "split.column", self.split["column"])
            words = rows[label].astype(str).to_numpy()
            if odd := sorted(set(words) - set(_PARTS)):
                raise ValueError(
                    f"{self.name}: column {label!r} says the part of each row, and {odd[0]!r} is none; "
                    "its words are train, valid and test"
                )
            rows = rows.drop(columns=label)
            order = [np.flatnonzero(words == part) for part in _PARTS]
        else:
            order = self._shares(rows, held)
        both = rows if held is None else _joined(rows, held)
        if hasattr(both, "columns"):
            both = categories(both)
        if isinstance(both, list):
            return [[both[i] for i in part] for part in order]
        return take(both, order)

    def _shares(self, rows: Any, held: Any) -> list[np.ndarray]:
        """Row numbers of each part; those of the held-out file come behind."""
        split, n = {**_SHARES, **self.split}, len(rows)
        strata = np.zeros(n, int)
        if self.target is not None:
            strata = _strata(rows[self._column(rows, "target", self.target)])
        random = np.random.RandomState(split["seed"])
        shares = {"valid": split["valid"], "test": 0.0 if held is not None else split["test"]}
        parts: dict[str, list[np.ndarray]] = {part: [] for part in _PARTS}
        for stratum in np.unique(strata):
            i = np.flatnonzero(strata == stratum)
            i = random.permutation(i) if split["shuffle"] else i
            n_test, n_valid = (round(shares[part] * len(i)) for part in ("test", "valid"))
            cut = len(i) - n_test
            for part, some in zip(_PARTS, np.split(i, [cut - n_valid, cut]), strict=True):
                parts[part].append(some)
        found = [np.sort(np.concatenate(parts[part])) for part in _PARTS]
        if split["shuffle"]:
            found = [random.permutation(part) for part in found]
        if held is not None:
            found[2] = np.arange(n, n + len(held))
        return found

    def _column(self, rows: Any, key: str, name: str) -> Any:
        if not hasattr(rows, "columns"):
            raise ValueError(f"{self.name}: {key} is a column, and the file has no named columns")
        if name not in rows.columns:
            hint = nearest(name, map(str, rows.columns))
            raise ValueError(f"{self.name}: {key}={name!r} is no column of the file{hint}")
        return name

    def _check_options(self, data: Dataset) -> None:
        """Let the codec say what it cannot take, before anything runs."""
        try:
            if data.modality == "table":
                codecs.describe(data.train, **self.options)
            elif data.modality == "image":
                codecs.ImageCodec(**self.options).fit(data.train)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self.name}: {error}") from error


def _option(name: str, value: Any) -> Any:
    """An option as the codec takes it: arrays are tuples, and a step may be the word none."""
    value = frozen(value)
    if name == "step" and isinstance(value, Mapping):
        return {k: None if v == "none" else v for k, v in value.items()}
    return value


def _checked(where: str, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    kinds = {"target": str, "sep": str, "decimal": str, "drop_missing": bool}
    for key, value in given.items():
        if key in kinds and not isinstance(value, kinds[key]):
            word = "true or false" if kinds[key] is bool else "a string"
            raise ValueError(f"{where}: {key}={value!r} must be {word}, for {name}")
    return dict(given)


def _checked_split(where: str, split: Any) -> dict[str, Any]:
    """The key ``split``: a name of a column or a file too."""
    if isinstance(split, str):
        split = {"column": split}
    if not isinstance(split, Mapping):
        raise ValueError(
            f"{where}: split={split!r} must be a table, {{ test = 0.2, valid = 0.1, seed = 0 }} say, or "
            "the name of a column that has the words train, valid and test"
        )
    split = dict(split)
    if isinstance(split.get("test"), str):
        split["file"] = split.pop("test")
    known = (*_SHARES, "column", "file")
    for key, value in split.items():
        if key not in known:
            raise ValueError(f"{where}: split has an unknown key {key!r}{nearest(key, known)}")
        right = {
            "seed": isinstance(value, int) and not isinstance(value, bool) and value >= 0,
            "shuffle": isinstance(value, bool),
            "column": isinstance(value, str),
            "file": isinstance(value, str),
        }
        share = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1
        if not right.get(key, share):
            what = {"seed": "an integer from 0", "shuffle": "true or false"}
            must = what.get(key, "a string" if key in right else "a share from 0 to 1")
            raise ValueError(f"{where}: split.{key}={value!r} must be {must}")
    if "column" in split and len(split) > 1:
        raise ValueError(f"{where}: split has a column, which says all; leave the other keys out")
    if split.get("test", 0) + split.get("valid", 0) >= 1:
        raise ValueError(f"{where}: split leaves nothing to fit; test and valid must be below 1")
    return split


def _strata(values: Any) -> np.ndarray:
    """A number for each row: of its class, or of its tenth of a column of many numbers."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(values) and values.nunique() > _FEW:
        return pd.qcut(values, 10, labels=False, duplicates="drop").fillna(-1).to_numpy(int)
    return pd.factorize(values)[0]


def _joined(rows: Any, held: Any) -> Any:
    if isinstance(rows, list):
        return rows + held
    if hasattr(rows, "columns"):
        import pandas as pd

        return pd.concat([rows, held], ignore_index=True)
    return np.concatenate([rows, held])


def _digest(paths: Sequence[Path]) -> str:
    """SHA-256 over the bytes of files, and over names and bytes of those in a folder.

    Raises
    ------
    FileNotFoundError
        No such file.
    """
    sha = hashlib.sha256()
    for path in paths:
        path = path if path.exists() else Path(str(path).rpartition(":")[0] or path)
        if not path.exists():
            raise FileNotFoundError(
                f"{path}: no such file; a path in a suite is seen from the folder of the suite"
            )
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            with open(file, "rb") as opened:
                sha.update(file.name.encode() + b"\0" if path.is_dir() else b"")
                sha.update(hashlib.file_digest(opened, "sha256").digest())
    return sha.hexdigest()


def is_file(name: str) -> bool:
    """Whether the name of some data is a path, and not the name of a data set."""
    return bool(Path(name).suffix) or "/" in name or "\\" in name
