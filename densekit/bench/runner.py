"""Runs side by side, each in its own process, and whatever happens to one ends as a record."""

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
_LOOK_SECONDS = 0.25
"""How often the memory of runs is looked at."""


class Watcher(Protocol):
    """Told what happens, in the parent's process."""

    def started(self, run: Run) -> None:
        """``run`` has a process."""

    def progressed(self, run: Run, stage: str, share: float, loss: float | None) -> None:
        """``run`` is at ``stage``; of a fit, which share of its budget is used, and the loss."""

    def kept(self, records: list[Record], folder: Path) -> None:
        """These were found in ``folder``; their runs have not changed and are not repeated."""

    def finished(self, run: Run, record: Record) -> None:
        """``run`` is over and its record is written."""


def default_jobs() -> int:
    """Runs at once: one for each processor we may use (a container's quota counts), 8 at most.

    One thread each: the models of a suite are small, and two of them side by side end sooner than
    one after the other with two threads.
    """
    return max(1, min(_MAX_JOBS, joblib.cpu_count()))


def start_server() -> multiprocessing.context.BaseContext:
    """The context that processes come from.

    Where there is a fork server it imports everything once, in the background, and a run starts
    in milliseconds; elsewhere every run imports for itself.
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
    """Run what ``folder`` does not hold of ``suite`` yet, ``jobs`` at a time.

    A record is appended to the folder when its run ends, so that whatever stops the suite loses
    only the runs that were going on. A run is known by its
    ``densekit.bench.address``; one that failed is kept like any other, unless its
    limits have changed since.

    Parameters
    ----------
    repeat : {"none", "failed", "all"}
        Which runs to do again although their records are there.

    Returns
    -------
    records : list of Record
        In the order of the suite.

    Raises
    ------
    ValueError
        Another process writes to the folder, it holds records of another format, or two runs of
        the suite are one.
    KeyboardInterrupt
        Ctrl-C; it says how many runs are kept.
    OSError
        The folder cannot be written to; found out before anything runs, unless it fills up later.
    """
    _download(suite)
    with writing(folder):
        found = _found(folder)
        write_plan(suite, folder)
        kept = {}
        for run in suite.runs:
            record = found.get(address(run))
            if record is not None and _stands(record, run, repeat):
                kept[run.key] = dataclasses.replace(record, run=Record.of("", run).run)
        if kept:
            watcher.kept(list(kept.values()), folder)
        left = tuple(run for run in suite.runs if run.key not in kept)
        with tempfile.TemporaryDirectory(prefix="densekit-bench-") as logs:
            pool = _Pool(suite.name, folder, Path(logs), watcher)
            try:
                done = pool.run(left, jobs or default_jobs())
            except KeyboardInterrupt:
                n = len(kept) + len(pool.records)
                raise KeyboardInterrupt(
                    f"{n} of {len(suite.runs)} runs are kept in {folder}; the same command goes on "
                    "with the rest"
                ) from None
        records = [{**kept, **done}[run.key] for run in suite.runs]
        write_table(records, folder)
    return records


def _download(suite: Suite) -> None:
    """What is not on the machine, before any clock runs. What cannot be had is each run's to say."""
    for name in dict.fromkeys(run.data for run in suite.runs if run.file is None):
        if datasets.info(name).needs_download:
            with contextlib.suppress(OSError):
                datasets.load(name)


def _found(folder: Path) -> dict[str, Record]:
    if (folder / FILE).is_file() or any(folder.glob("*--*.json")):
        return everything(folder)
    return {}


def _stands(record: Record, run: Run, repeat: str) -> bool:
    """Whether a record of the same address spares the run."""
    if record.status == "ok":
        return repeat != "all"
    limits = {name: getattr(run, name) for name in ("time_limit", "memory_limit")}
    return repeat == "none" and limits.items() <= record.run.items()


@dataclass
class _Live:
    """A run that has a process."""

    run: Run
    process: Any
    connection: multiprocessing.connection.Connection
    log: Path
    begun: float = field(default_factory=lambda: time.perf_counter())

    @property
    def time_left(self) -> float:
        return self.begun + self.run.time_limit - time.perf_counter()

    def over(self) -> str:
        """Which limit the run has passed, in words; empty if none."""
        if self.time_left <= 0:
            return f"over its time limit of {self.run.time_limit:g} s"
        resident = _resident_megabytes(self.process.pid)
        if resident > self.run.memory_limit:
            return f"over its memory limit of {self.run.memory_limit:g} MB ({resident:.0f} MB)"
        return ""


class _Pool:
    def __init__(self, suite: str, folder: Path, logs: Path, watcher: Watcher):
        self.suite, self.folder, self.logs, self.watcher = suite, folder, logs, watcher
        self.context: Any = start_server()
        self.live: list[_Live] = []
        self.records: dict[str, Record] = {}

    def run(self, runs: tuple[Run, ...], jobs: int) -> dict[str, Record]:
        """Records by key."""
        # The longest first, so that the end of the suite is not one long run on one processor.
        waiting = deque(sorted(runs, key=lambda run: -run.budget))
        try:
            while waiting or self.live:
                while waiting and len(self.live) < jobs:
                    self.live.append(self._start(waiting.popleft()))
                left = min(one.time_left for one in self.live)
                ready = multiprocessing.connection.wait(
                    [one.connection for one in self.live], max(0.0, min(left, _LOOK_SECONDS))
                )
                for one in list(self.live):
                    record = self._listen(one) if one.connection in ready else None
                    if record is None and (reason := one.over()):
                        record = self._lost(one, reason)
                    if record is not None:
                        self._end(one, record)
        finally:
            for one in self.live:
                self._stop(one)
        return self.records

    def _start(self, run: Run) -> _Live:
        receiver, sender = self.context.Pipe(duplex=False)
        log = self.logs / f"{run.key}.log"
        process = self.context.Process(
            # The address is of the code as it is here: a checkout may change under a long suite.
            target=worker.main,
            args=(Record.of(self.suite, run), run, self.folder, _THREADS, log, sender),
            daemon=True,
        )
        process.start()
        # Ours must be closed, or a dead worker's pipe would never end.
        sender.close()
        self.watcher.started(run)
        return _Live(run, process, receiver, log)

    def _listen(self, one: _Live) -> Record | None:
        """Hear all that was sent; the record, if the run is over."""
        try:
            # A run that reports without end must not keep us from looking at its clock.
            while one.connection.poll() and one.time_left > 0:
                kind, *rest = one.connection.recv()
                if kind == "record":
                    return rest[0]
                if kind == "full":
                    raise _full(one.run.key, self.folder, *rest)
                self.watcher.progressed(one.run, *rest)
        except (EOFError, ConnectionError):
            one.process.join(5)
            return self._lost(one, _cause_of_death(one.process.exitcode))
        return None

    def _end(self, one: _Live, record: Record) -> None:
        self._stop(one)
        self.live.remove(one)
        wall = time.perf_counter() - one.begun
        record.times["overhead"] = wall - record.times["total"]
        try:
            append(record, self.folder)
        except OSError as error:
            raise _full(record.key, self.folder, error.errno, error.strerror) from error
        self.records[one.run.key] = record
        self.watcher.finished(one.run, record)

    def _lost(self, one: _Live, reason: str) -> Record:
        """The record of a run that cannot make its own."""
        # Dead before its log is read, so that the log is whole.
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
            times={"total": time.perf_counter() - one.begun},
        )

    def _stop(self, one: _Live) -> None:
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
    """Of a process and its children; 0 of one that is gone."""
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in (psutil.Process(pid), *_children(pid)):
            total += process.memory_info().rss
    return total / 2**20


def _full(key: str, folder: Path, number: int | None, reason: str | None) -> OSError:
    return OSError(
        number,
        f"what {key} left cannot be written to {folder} ({reason}); the runs before it are kept: "
        "make room, and the same command goes on with the rest",
    )


def _cause_of_death(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        hint = ", perhaps for memory" if name == "SIGKILL" and sys.platform != "win32" else ""
        return f"its process was killed by {name}{hint}"
    return f"its process ended with status {exitcode} and left no result"
