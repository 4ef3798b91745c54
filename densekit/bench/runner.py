"""Runs the models of a suite concurrently, each in its own process; every run ends with a record."""

import contextlib
import dataclasses
import multiprocessing
import multiprocessing.connection
import multiprocessing.context
import multiprocessing.forkserver
import signal
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import joblib  # type: ignore[import-untyped]
import psutil  # type: ignore[import-untyped]

from densekit import datasets
from densekit.bench import worker
from densekit.bench.address import address
from densekit.bench.records import (
    FILE,
    Record,
    append,
    everything,
    write_plan,
    write_table,
    writing,
)
from densekit.bench.suite import Run, Suite

_MAX_JOBS = 8
_THREADS = 1
_LOG_TAIL = 4000
_POLL_SECONDS = 0.25
"""Seconds between two checks of the memory of runs."""


class Watcher(Protocol):
    """Receives the events of a suite in the parent process."""

    def started(self, run: Run) -> None:
        """The process of ``run`` has started."""

    def progressed(self, run: Run, stage: str, share: float, loss: float | None) -> None:
        """``run`` is at ``stage``. For a fit, ``share`` of its budget is used, at this loss."""

    def kept(self, records: list[Record], folder: Path) -> None:
        """These records in ``folder`` are up to date, so their runs are not repeated."""

    def finished(self, run: Run, record: Record) -> None:
        """``run`` has ended, and its record is written."""


def default_jobs() -> int:
    """Default number of concurrent runs: one per available processor, at most 8.

    The quota of a container limits the processors. Each run has one thread: the models of a suite are
    small, and two concurrent runs end sooner than two successive runs with two threads.
    """
    return max(1, min(_MAX_JOBS, joblib.cpu_count()))


def start_server() -> multiprocessing.context.BaseContext:
    """The multiprocessing context of runs.

    A fork server, where the platform has one, imports all libraries once in the background, and a run
    starts in milliseconds. On other platforms each run imports the libraries itself.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["densekit.bench.warm"])
    multiprocessing.forkserver.ensure_running()
    return context


def run_suite(
    suite: Suite,
    folder: Path,
    watcher: Watcher,
    *,
    jobs: int | None = None,
    repeat: Literal["none", "failed", "all"] = "none",
) -> list[Record]:
    """Run the models of a suite that have no up-to-date record in ``folder``.

    The record of a run is appended to the folder when the run ends, so an interruption loses only the
    active runs. Records are matched to runs by ``densekit.bench.address``. The record of a failed run is
    up to date too, unless the limits of the run have changed.

    Parameters
    ----------
    suite : Suite
        The runs.
    folder : Path
        Output folder, created if needed.
    watcher : Watcher
        Receives the events of the suite.
    jobs : int, optional
        Number of concurrent runs, by default as many as `default_jobs` finds.
    repeat : {"none", "failed", "all"}
        Runs to repeat even if they have an up-to-date record.

    Returns
    -------
    records : list of Record
        The records in the order of the suite.

    Raises
    ------
    ValueError
        Another process writes to the folder, it has records of another format, or two runs of the suite
        are the same.
    KeyboardInterrupt
        After Ctrl-C. The message has the number of finished runs.
    OSError
        The folder cannot be written to. Unless the disk fills up later, this is raised before any run.
    """
    _download(suite)
    with writing(folder):
        existing = _existing_records(folder)
        write_plan(suite, folder)
        kept = {}
        for run in suite.runs:
            record = existing.get(address(run))
            if record is not None and _is_current(record, run, repeat):
                kept[run.key] = dataclasses.replace(record, run=Record.of("", run).run)
        if kept:
            watcher.kept(list(kept.values()), folder)
        remaining = tuple(run for run in suite.runs if run.key not in kept)
        with tempfile.TemporaryDirectory(prefix="densekit-bench-") as logs:
            pool = _Pool(suite.name, folder, Path(logs), watcher)
            try:
                done = pool.run(remaining, jobs or default_jobs())
            except KeyboardInterrupt:
                n = len(kept) + len(pool.records)
                raise KeyboardInterrupt(
                    f"{n} of {len(suite.runs)} runs are kept in {folder}; the same command continues "
                    "with the rest"
                ) from None
        records = [{**kept, **done}[run.key] for run in suite.runs]
        write_table(records, folder)
    return records


def _download(suite: Suite) -> None:
    """Download missing data sets before any time limit starts; failures are reported by the runs."""
    for name in dict.fromkeys(run.data for run in suite.runs if run.file is None):
        if datasets.info(name).needs_download:
            with contextlib.suppress(OSError):
                datasets.load(name)


def _existing_records(folder: Path) -> dict[str, Record]:
    if (folder / FILE).is_file() or any(folder.glob("*--*.json")):
        return everything(folder)
    return {}


def _is_current(record: Record, run: Run, repeat: str) -> bool:
    """Whether a record with the address of the run makes it unnecessary to repeat the run."""
    if record.status == "ok":
        return repeat != "all"
    limits = {name: getattr(run, name) for name in ("time_limit", "memory_limit")}
    return repeat == "none" and limits.items() <= record.run.items()


@dataclass
class _ActiveRun:
    """A run whose process is alive."""

    run: Run
    process: Any
    connection: multiprocessing.connection.Connection
    log: Path
    start: float = field(default_factory=lambda: time.perf_counter())

    @property
    def time_left(self) -> float:
        """Seconds until the time limit."""
        return self.start + self.run.time_limit - time.perf_counter()

    def exceeded_limit(self) -> str:
        """A description of the limit that the run exceeds; empty if there is none."""
        if self.time_left <= 0:
            return f"over its time limit of {self.run.time_limit:g} s"
        resident = _resident_megabytes(self.process.pid)
        if resident > self.run.memory_limit:
            return f"over its memory limit of {self.run.memory_limit:g} MB ({resident:.0f} MB)"
        return ""


class _Pool:
    """Starts runs, enforces their limits, and collects their records."""

    def __init__(self, suite: str, folder: Path, logs: Path, watcher: Watcher):
        self.suite, self.folder, self.logs, self.watcher = suite, folder, logs, watcher
        self.context: Any = start_server()
        self.active: list[_ActiveRun] = []
        self.records: dict[str, Record] = {}

    def run(self, runs: tuple[Run, ...], jobs: int) -> dict[str, Record]:
        """Run everything with up to ``jobs`` processes, and return the records by key."""
        # Runs with the largest budget start first, so that none of them is the last one alone.
        waiting = deque(sorted(runs, key=lambda run: -run.budget))
        try:
            while waiting or self.active:
                while waiting and len(self.active) < jobs:
                    self.active.append(self._start(waiting.popleft()))
                time_left = min(one.time_left for one in self.active)
                ready = multiprocessing.connection.wait(
                    [one.connection for one in self.active],
                    max(0.0, min(time_left, _POLL_SECONDS)),
                )
                for one in list(self.active):
                    record = self._receive(one) if one.connection in ready else None
                    if record is None and (reason := one.exceeded_limit()):
                        record = self._failed_record(one, reason)
                    if record is not None:
                        self._finish(one, record)
        finally:
            for one in self.active:
                self._stop(one)
        return self.records

    def _start(self, run: Run) -> _ActiveRun:
        receiver, sender = self.context.Pipe(duplex=False)
        log = self.logs / f"{run.key}.log"
        process = self.context.Process(
            # The address is computed here, because the source may change during a long suite.
            target=worker.main,
            args=(Record.of(self.suite, run), run, self.folder, _THREADS, log, sender),
            daemon=True,
        )
        process.start()
        # Otherwise the pipe of a dead worker would stay open.
        sender.close()
        self.watcher.started(run)
        return _ActiveRun(run, process, receiver, log)

    def _receive(self, one: _ActiveRun) -> Record | None:
        """Receive all messages of a run; return its record if it has ended."""
        try:
            # The time limit must hold for a run that sends messages without end.
            while one.connection.poll() and one.time_left > 0:
                kind, *rest = one.connection.recv()
                if kind == "record":
                    return rest[0]
                if kind == "full":
                    raise _write_error(one.run.key, self.folder, *rest)
                self.watcher.progressed(one.run, *rest)
        except (EOFError, ConnectionError):
            one.process.join(5)
            return self._failed_record(one, _exit_reason(one.process.exitcode))
        return None

    def _finish(self, one: _ActiveRun, record: Record) -> None:
        self._stop(one)
        self.active.remove(one)
        wall = time.perf_counter() - one.start
        record.times["overhead"] = wall - record.times["total"]
        try:
            append(record, self.folder)
        except OSError as error:
            raise _write_error(record.key, self.folder, error.errno, error.strerror) from error
        self.records[one.run.key] = record
        self.watcher.finished(one.run, record)

    def _failed_record(self, one: _ActiveRun, reason: str) -> Record:
        """The record of a run that did not return one."""
        # Stop the process first, so that its log is complete.
        self._stop(one)
        log = ""
        with contextlib.suppress(OSError):
            log = one.log.read_bytes()[-_LOG_TAIL:].decode(errors="replace")
        return Record.of(
            self.suite,
            one.run,
            reason=reason,
            traceback=log,
            environment={**worker.environment(one.run.model), "threads": _THREADS},
            times={"total": time.perf_counter() - one.start},
        )

    def _stop(self, one: _ActiveRun) -> None:
        if one.process.is_alive():
            for child in _children(one.process.pid):
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            one.process.kill()
        one.process.join(5)
        one.connection.close()


def _children(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def _resident_megabytes(pid: int) -> float:
    """Resident memory of a process and its children; 0 if it has exited."""
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in (psutil.Process(pid), *_children(pid)):
            total += process.memory_info().rss
    return total / 2**20


def _write_error(key: str, folder: Path, number: int | None, reason: str | None) -> OSError:
    return OSError(
        number,
        f"the result of {key} cannot be written to {folder} ({reason}); the runs before it are kept: "
        "free some space, and the same command continues with the rest",
    )


def _exit_reason(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        hint = (
            ", perhaps for lack of memory" if name == "SIGKILL" and sys.platform != "win32" else ""
        )
        return f"its process was killed by {name}{hint}"
    return f"its process ended with status {exitcode} and without a result"
