"""What a run leaves behind: one JSON file, written whole or not at all."""

import contextlib
import dataclasses
import json
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from densekit.bench.suite import Run

FORMAT = 1
"""Version of the record's layout."""


@dataclass
class Record:
    """The result of one run. Plain values only; what does not apply is None or empty."""

    suite: str
    run: dict[str, Any]
    """Data, model, label, settings, seed, budget and limits, as the suite has them."""
    status: Literal["ok", "failed"] = "failed"
    reason: str = ""
    """Of a failure, in a line."""
    traceback: str = ""
    family: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    """Name, modality, digest, rows and dimensions."""
    score: dict[str, Any] | None = None
    """Held-out score: value, standard error, unit, kind, base measure; None without a density."""
    truth: dict[str, Any] | None = None
    """Of toys: what the true density scores on the same rows, and its entropy."""
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Further numbers by name: value, standard error, unit."""
    times: dict[str, float] = field(default_factory=dict)
    """Seconds to fit, score and sample, and rows per second."""
    memory: dict[str, float] = field(default_factory=dict)
    """Megabytes resident in the process, libraries included: at its start and at most."""
    n_parameters: int | None = None
    hyper_parameters: dict[str, Any] = field(default_factory=dict)
    history: dict[str, Any] | None = None
    warnings: list[str] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)
    started: str = ""
    format: int = FORMAT

    @classmethod
    def of(cls, suite: str, run: Run, **values: Any) -> "Record":
        """A record of ``run``; failed until its worker says otherwise."""
        described = {**dataclasses.asdict(run), "key": run.key}
        return cls(suite=suite, run=described, **values)

    @property
    def key(self) -> str:
        """The run's, which is also the file's name."""
        return self.run["key"]


def write(record: Record, folder: Path) -> Path:
    """Write ``record`` to ``folder`` under its key: a reader sees all of it, or what was there.

    Raises
    ------
    OSError
        The folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{record.key}.json"
    text = json.dumps(_plain(dataclasses.asdict(record)), indent=2, allow_nan=False) + "\n"
    handle, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=folder)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp's 0600 would keep colleagues from reading a shared folder.
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    return path


def read(folder: Path) -> list[Record]:
    """All records of ``folder``, by key.

    Raises
    ------
    ValueError
        A file that is not a record of this format; it is named.
    """
    records = []
    for path in sorted(folder.glob("*.json")):
        try:
            values = json.loads(path.read_text(encoding="utf-8"), object_hook=_numbers)
        except ValueError as error:
            raise ValueError(f"{path} is not a benchmark record: {error}") from error
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise ValueError(
                f"{path} is not a benchmark record of format {FORMAT}: run the suite again, or "
                "read the folder with the version that wrote it"
            )
        records.append(Record(**values))
    return records


def _plain(value: Any) -> Any:
    """JSON's own types: NaN becomes null, infinities become strings, the unknown its ``repr``."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float | np.floating):
        number = float(value)
        if math.isnan(number):
            return None
        return number if math.isfinite(number) else str(number)
    if isinstance(value, np.bool_ | np.integer):
        return value.item()
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(v) for v in value]
    return repr(value)


def _numbers(values: dict[str, Any]) -> dict[str, Any]:
    words = {"inf": math.inf, "-inf": -math.inf}
    return {k: words.get(v, v) if isinstance(v, str) else v for k, v in values.items()}
