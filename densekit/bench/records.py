"""What runs leave behind: a folder with a line of JSON for each, and what they drew.

.. code-block:: text

    DIR/suite.json        the runs of the suite as it is now, by address
    DIR/records.jsonl     one record a line, in the order in which runs ended
    DIR/records.parquet   the same as a table, one row a run
    DIR/samples/ID.*      rows drawn from the model of run ID
    DIR/data/NAME.*       rows of the data set to look at beside them; a toy's density on a grid
    DIR/report.html       the page
"""

import contextlib
import dataclasses
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import filelock
import numpy as np

from densekit import formats
from densekit.atomic import replacing
from densekit.bench.address import address
from densekit.bench.suite import Run, Suite

FORMAT = 2
"""Version of the record's layout."""
FILE = "records.jsonl"
PLAN = "suite.json"


@dataclass
class Record:
    """The result of one run. Plain values only; what does not apply is None or empty."""

    id: str
    """The run's ``densekit.bench.address``."""
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
    samples: str = ""
    """File of the rows drawn, as a path inside the folder."""
    format: int = FORMAT

    @classmethod
    def of(cls, suite: str, run: Run, **values: Any) -> "Record":
        """A record of ``run``; failed until its worker says otherwise."""
        described = {**dataclasses.asdict(run), "key": run.key}
        return cls(suite=suite, run=described, id=address(run), **values)

    @property
    def key(self) -> str:
        """The run's name among its suite's."""
        return self.run["key"]


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """The folder is ours until the block ends: a second benchmark in it is refused.

    The system gives the lock back when a process dies, however it dies.

    Raises
    ------
    ValueError
        Another process writes there.
    OSError
        The folder cannot be made or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise ValueError(
            f"another benchmark is writing to {folder}: wait for it, or give this one a folder "
            "of its own"
        ) from error
    try:
        yield
    finally:
        lock.release()


def append(record: Record, folder: Path) -> None:
    """Add ``record`` to the folder's file: its whole line, or nothing.

    Raises
    ------
    OSError
        It cannot be written, the disk being full for one; what was there stays as it was.
    """
    path = folder / FILE
    line = json.dumps(plain(dataclasses.asdict(record)), allow_nan=False) + "\n"
    # Unbuffered: nothing may be left over that closing the file would write after all.
    with open(path, "ab", buffering=0) as file:
        end = _whole(path)
        file.truncate(end)
        try:
            rest = memoryview(line.encode())
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except BaseException:
            file.truncate(end)
            raise


def write_plan(suite: Suite, folder: Path) -> None:
    """Say which runs the folder is about: of what earlier suites or earlier code left there,
    :func:`read` returns what still stands, under the names that it has now.

    Raises
    ------
    ValueError
        Two runs differ in nothing that a result depends on.
    """
    runs: dict[str, dict[str, Any]] = {}
    for run in suite.runs:
        twin = runs.get(address(run))
        if twin is not None:
            raise ValueError(
                f"suite {suite.name}: {twin['key']} and {run.key} are the same run under two "
                "labels; leave one out"
            )
        runs[address(run)] = Record.of(suite.name, run).run
    plan = {"format": FORMAT, "suite": suite.name, "description": suite.description, "runs": runs}
    with replacing(folder / PLAN) as part:
        part.write_text(json.dumps(plain(plan), indent=1, allow_nan=False) + "\n", "utf-8")


def read(folder: Path) -> list[Record]:
    """The records of the folder's suite, in its order; the latest of each run.

    Raises
    ------
    ValueError
        The folder has no records, or some of another format; the file and the line are named.

    Examples
    --------
    >>> read(Path("nowhere"))
    Traceback (most recent call last):
    ValueError: nowhere has no records.jsonl: it is not a folder that a benchmark wrote
    """
    records = everything(folder)
    path = folder / PLAN
    if not path.is_file():
        return list(records.values())
    try:
        plan = json.loads(path.read_bytes(), object_hook=_numbers)
        runs = {str(id): dict(run) for id, run in plan["runs"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a benchmark's: {error}; run the suite again") from error
    return [
        dataclasses.replace(records[id], run=run, suite=plan["suite"])
        for id, run in runs.items()
        if id in records
    ]


def everything(folder: Path) -> dict[str, Record]:
    """The latest record of every address, whichever suite it was of.

    A last line that a crash cut off is not a record and is left out.

    Raises
    ------
    ValueError
        As :func:`read`.
    """
    path = folder / FILE
    if not path.is_file():
        if any(folder.glob("*--*.json")):
            raise ValueError(
                f"{folder} holds records of format 1, a file for each run, which this version "
                "does not read: run the suite again in another folder"
            )
        raise ValueError(f"{folder} has no {FILE}: it is not a folder that a benchmark wrote")
    records: dict[str, Record] = {}
    text = path.read_bytes()[: _whole(path)].decode()
    for number, line in enumerate(text.splitlines(), 1):
        try:
            values = json.loads(line, object_hook=_numbers)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}, is not JSON: {error}") from error
        try:
            right = values["format"] == FORMAT
            record = Record(**values) if right else None
        except (KeyError, TypeError):
            record = None
        if record is None:
            raise ValueError(
                f"{path}, line {number}, is not a record of format {FORMAT}: read the folder with "
                "the version of densekit that wrote it, or run the suite again in another folder"
            )
        records[record.id] = record
    return records


def write_table(records: Iterable[Record], folder: Path) -> Path:
    """``records.parquet``: a row a run; nested values have a column each, settings are JSON.

    Raises
    ------
    OSError
        It cannot be written; what was there stays as it was.
    """
    import pandas as pd

    path = folder / "records.parquet"
    formats.write(pd.DataFrame([dict(_flat(record)) for record in records]), path)
    return path


def _flat(record: Record) -> Iterator[tuple[str, Any]]:
    run = plain(record.run)
    yield from {"id": record.id, "suite": record.suite}.items()
    plain_values = (
        (k, v) for k, v in run.items() if not isinstance(v, dict | list) and k != "file"
    )
    yield from plain_values
    yield "settings", json.dumps(run["settings"])
    for name in ("family", "status", "reason", "n_parameters", "started", "samples"):
        yield name, getattr(record, name)
    for group in ("data", "score", "truth", "times", "memory"):
        values = getattr(record, group) or {}
        yield from ((f"{group}_{name}", value) for name, value in values.items())
    for name, metric in record.metrics.items():
        yield name, metric["value"]
        yield f"{name}_standard_error", metric["standard_error"]
    yield "hyper_parameters", json.dumps(plain(record.hyper_parameters))
    yield "environment", json.dumps(plain(record.environment))


def _whole(path: Path) -> int:
    """Bytes of the file up to the end of its last whole line."""
    with open(path, "rb") as file:
        return file.read().rfind(b"\n") + 1


def plain(value: Any) -> Any:
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
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(v) for v in value]
    return repr(value)


def _numbers(values: dict[str, Any]) -> dict[str, Any]:
    words = {"inf": math.inf, "-inf": -math.inf}
    return {k: words.get(v, v) if isinstance(v, str) else v for k, v in values.items()}
