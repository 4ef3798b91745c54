"""Runs side by side, each in its own process, and whatever happens to one ends as a record."""

import contextlib
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
from typing import Any, Protocol

import joblib  # type: ignore[import-untyped]

from densekit.bench import worker
from densekit.bench.records import Record, write
from densekit.bench.suite import Run, Suite

_MAX_JOBS = 8
_LOG_TAIL = 4000


class Watcher(Protocol):
    """Told what happens, in the parent's process."""

    def started(self, run: Run) -> None:
        """``run`` has a process."""

    def progressed(self, run: Run, stage: str, share: float, loss: float | None) -> None:
        """``run`` is at ``stage``; of a fit, which share of its budget is used, and the loss."""

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
    suite: Suite, folder: Path, watcher: Watcher, *, jobs: int | None = None
) -> list[Record]:
    """Run all of ``suite``, ``jobs`` at a time, and write a record of each to ``folder``.

    Returns
    -------
    records : list of Record
        In the order of the suite.

    Raises
    ------
    OSError
        The folder cannot be written to; found out before anything runs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".logs-", dir=folder) as logs:
        pool = _Pool(suite.name, folder, Path(logs), watcher)
        return pool.run(suite.runs, jobs or default_jobs())


@dataclass
class _Live:
    """A run that has a process."""

    run: Run
    process: Any
    connection: multiprocessing.connection.Connection
    log: Path
    begun: float = field(default_factory=time.perf_counter)

    @property
    def time_left(self) -> float:
        return self.begun + self.run.time_limit - time.perf_counter()


class _Pool:
    def __init__(self, suite: str, folder: Path, logs: Path, watcher: Watcher):
        self.suite, self.folder, self.logs, self.watcher = suite, folder, logs, watcher
        self.context: Any = start_server()
        self.live: list[_Live] = []
        self.records: dict[str, Record] = {}

    def run(self, runs: tuple[Run, ...], jobs: int) -> list[Record]:
        # The longest first, so that the end of the suite is not one long run on one processor.
        waiting = deque(sorted(runs, key=lambda run: -run.budget))
        try:
            while waiting or self.live:
                while waiting and len(self.live) < jobs:
                    self.live.append(self._start(waiting.popleft()))
                left = min(one.time_left for one in self.live)
                ready = multiprocessing.connection.wait(
                    [one.connection for one in self.live], max(0.0, left)
                )
                for one in list(self.live):
                    record = self._listen(one) if one.connection in ready else None
                    if record is None and one.time_left <= 0:
                        record = self._lost(
                            one, f"over its time limit of {one.run.time_limit:g} s"
                        )
                    if record is not None:
                        self._end(one, record)
        finally:
            for one in self.live:
                self._stop(one)
        return [self.records[run.key] for run in runs]

    def _start(self, run: Run) -> _Live:
        receiver, sender = self.context.Pipe(duplex=False)
        log = self.logs / f"{run.key}.log"
        process = self.context.Process(
            target=worker.main, args=(self.suite, run, 1, str(log), sender), daemon=True
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
                self.watcher.progressed(one.run, *rest)
        except (EOFError, OSError):
            one.process.join(5)
            return self._lost(one, _cause_of_death(one.process.exitcode))
        return None

    def _end(self, one: _Live, record: Record) -> None:
        self._stop(one)
        self.live.remove(one)
        write(record, self.folder)
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
            environment=worker.environment(),
            times={"total": time.perf_counter() - one.begun},
        )

    def _stop(self, one: _Live) -> None:
        if one.process.is_alive():
            one.process.kill()
        one.process.join(5)
        one.connection.close()


def _cause_of_death(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        hint = ", perhaps for memory" if name == "SIGKILL" and sys.platform != "win32" else ""
        return f"its process was killed by {name}{hint}"
    return f"its process ended with status {exitcode} and left no result"
