"""Records: the stored results of runs.

.. code-block:: text

    DIR/suite.json        the runs of the current suite, by address
    DIR/records.jsonl     one record per line, in the order in which runs ended
    DIR/records.parquet   the records as a table, one row per run
    DIR/samples/ID.*      rows drawn from the model of run ID
    DIR/data/NAME.*       rows of the data set for comparison; the density of a toy on a grid
    DIR/report.html       the report
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
"""Version of the format of records."""
FILE = "records.jsonl"
PLAN = "suite.json"


@dataclass
class Record:
    """The result of one run, in plain values; values that do not apply are None or empty."""

    id: str
    """Address of the run, see ``densekit.bench.address``."""
    suite: str
    run: dict[str, Any]
    """Data, model, label, settings, seed, budget and limits of the run in the suite."""
    status: Literal["ok", "failed"] = "failed"
    reason: str = ""
    """Reason of a failure, in one line."""
    traceback: str = ""
    family: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    """Name, modality, digest, rows and dimensions."""
    score: dict[str, Any] | None = None
    """Held-out score: value, standard error, unit, kind, base measure; None without a density."""
    truth: dict[str, Any] | None = None
    """For toys, the score of the true density on the same rows, and its entropy."""
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Value, standard error and unit of other metrics, by name."""
    times: dict[str, float] = field(default_factory=dict)
    """Seconds to fit, score and sample, and rows per second."""
    memory: dict[str, float] = field(default_factory=dict)
    """Resident megabytes of the process, including libraries: ``start`` and ``peak``."""
    n_parameters: int | None = None
    hyper_parameters: dict[str, Any] = field(default_factory=dict)
    history: dict[str, Any] | None = None
    warnings: list[str] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)
    started: str = ""
    samples: str = ""
    """Path of the file of samples, relative to the folder."""
    format: int = FORMAT

    @classmethod
    def of(cls, suite: str, run: Run, **values: Any) -> "Record":
        """A record of ``run``, with the status "failed" until the worker completes it."""
        described = {**dataclasses.asdict(run), "key": run.key}
        return cls(suite=suite, run=described, id=address(run), **values)

    @property
    def key(self) -> str:
        """Name of the run, unique in its suite."""
        return self.run["key"]


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Lock a folder for one benchmark until the block ends.

    The operating system releases the lock of a process that dies.

    Raises
    ------
    ValueError
        Another process has locked the folder.
    OSError
        The folder cannot be created or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise ValueError(
            f"another benchmark is writing to {folder}: wait until it ends, or use another folder"
        ) from error
    try:
        yield
    finally:
        lock.release()


def append(record: Record, folder: Path) -> None:
    """Append ``record`` to the file of records in ``folder``, as a whole line or not at all.

    Raises
    ------
    OSError
        The line cannot be written, for example because the disk is full. The file is unchanged.
    """
    path = folder / FILE
    line = json.dumps(plain(dataclasses.asdict(record)), allow_nan=False) + "\n"
    # With a buffer, closing the file after an error would write the rest of a partial line.
    with open(path, "ab", buffering=0) as file:
        end = _end_of_last_line(path)
        file.truncate(end)
        try:
            remaining = memoryview(line.encode())
            while remaining:
                remaining = remaining[file.write(remaining) :]
            os.fsync(file.fileno())
        except BaseException:
            file.truncate(end)
            raise


def write_plan(suite: Suite, folder: Path) -> None:
    """Write the runs of the current suite to ``suite.json``.

    The folder may also have records of earlier suites or of earlier code. :func:`read` returns
    only those of the current runs, with their current names.

    Raises
    ------
    ValueError
        Two runs have the same address.
    """
    runs: dict[str, dict[str, Any]] = {}
    for run in suite.runs:
        duplicate = runs.get(address(run))
        if duplicate is not None:
            raise ValueError(
                f"suite {suite.name}: {duplicate['key']} and {run.key} are the same run with two "
                "labels; remove one of them"
            )
        runs[address(run)] = Record.of(suite.name, run).run
    plan = {"format": FORMAT, "suite": suite.name, "description": suite.description, "runs": runs}
    with replacing(folder / PLAN) as part:
        part.write_text(json.dumps(plain(plan), indent=1, allow_nan=False) + "\n", "utf-8")


def read(folder: Path) -> list[Record]:
    """The latest record of each run of the current suite, in the order of the suite.

    Parameters
    ----------
    folder : Path
        Output folder of a benchmark.

    Returns
    -------
    records : list of Record

    Raises
    ------
    ValueError
        The folder has no records, or records of another format. The message names the file and line.

    Examples
    --------
    >>> read(Path("nowhere"))
    Traceback (most recent call last):
    ValueError: nowhere has no records.jsonl: it is not the output folder of a benchmark
    """
    records = everything(folder)
    path = folder / PLAN
    if not path.is_file():
        return list(records.values())
    try:
        plan = json.loads(path.read_bytes(), object_hook=_numbers)
        runs = {str(id): dict(run) for id, run in plan["runs"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not valid: {error}; run the suite again") from error
    return [
        dataclasses.replace(records[id], run=run, suite=plan["suite"])
        for id, run in runs.items()
        if id in records
    ]


def everything(folder: Path) -> dict[str, Record]:
    """The latest record of each address, of all suites that ran in the folder.

    An incomplete last line, as after a crash, is ignored.

    Raises
    ------
    ValueError
        As in :func:`read`.
    """
    path = folder / FILE
    if not path.is_file():
        if any(folder.glob("*--*.json")):
            raise ValueError(
                f"{folder} has records of format 1, one file per run, which this version cannot read: "
                "run the suite again in another folder"
            )
        raise ValueError(f"{folder} has no {FILE}: it is not the output folder of a benchmark")
    records: dict[str, Record] = {}
    text = path.read_bytes()[: _end_of_last_line(path)].decode()
    for number, line in enumerate(text.splitlines(), 1):
        try:
            values = json.loads(line, object_hook=_numbers)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}, is not JSON: {error}") from error
        try:
            record = Record(**values) if values["format"] == FORMAT else None
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
    """Write ``records.parquet``, one row per run.

    Nested values have one column each, and settings are JSON strings.

    Raises
    ------
    OSError
        The file cannot be written. An existing file is unchanged.
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


def _end_of_last_line(path: Path) -> int:
    """Position of the end of the last complete line of a file."""
    with open(path, "rb") as file:
        return file.read().rfind(b"\n") + 1


def plain(value: Any) -> Any:
    """A value in the types of JSON: NaN becomes null, infinities strings, other types their ``repr``."""
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
