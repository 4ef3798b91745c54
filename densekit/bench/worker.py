"""One run, in a process of its own: load, fit, score, sample, measure.

The estimator is known by its public methods only, so anyone's that keeps the contract can run.
"""

import contextlib
import datetime
import importlib.metadata
import math
import os
import platform
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from densekit import datasets, metrics
from densekit.bench.records import Record
from densekit.bench.suite import Run, resolve

Report = Callable[..., None]
"""Called with ``stage`` and, while fitting, ``share`` (of the budget, 0 to 1) and ``loss``."""

_LIBRARIES = (
    "densekit", "torch", "pyro-ppl", "numpy", "scipy", "scikit-learn", "pandas", "pytorch-ignite"
)  # fmt: skip
_RATE_SECONDS = 0.5
_RATE_CALLS = 20


def main(suite: str, run: Run, threads: int, log: str, connection: Connection) -> None:
    """Entry of the process: execute ``run`` and send what happens, at last the record."""
    # Ctrl-C reaches the whole process group; the parent decides what dies.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The terminal belongs to the parent; what libraries write is kept for the record of a crash.
    with open(log, "wb", buffering=0) as file:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    _limit_threads(threads)

    def report(stage: str, share: float = 0.0, loss: float | None = None) -> None:
        connection.send(("progress", stage, share, loss))

    record = execute(suite, run, report)
    record.environment["threads"] = threads
    connection.send(("record", record))
    connection.close()


def execute(suite: str, run: Run, report: Report) -> Record:
    """The record of ``run``, made here and now; an exception becomes a failed record."""
    record = Record.of(
        suite,
        run,
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        environment=environment(),
        memory={"start": _resident_megabytes()},
    )
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        try:
            _measure(run, record, report)
            record.status = "ok"
        except Exception as error:  # whatever a model raises is a result of the benchmark
            record.reason = f"{type(error).__name__}: {error}".split("\n")[0]
            record.traceback = traceback.format_exc()
    record.warnings = list(dict.fromkeys(f"{w.category.__name__}: {w.message}" for w in caught))
    record.times["total"] = time.perf_counter() - start
    record.memory["peak"] = _peak_megabytes()
    return record


def environment() -> dict[str, Any]:
    """The machine and the versions that a result depends on."""
    versions = {}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "n_cpus": os.cpu_count(),
        "versions": versions,
    }


def _measure(run: Run, record: Record, report: Report) -> None:
    report("load")
    data = datasets.load(run.data)
    test = data.test.for_scoring()
    record.data = {
        "name": data.name,
        "modality": data.modality,
        "source": data.source,
        "digest": data.digest,
        "n_train": len(data.train),
        "n_test": len(data.test),
        "n_dims": data.n_dims,
    }
    if data.truth is not None:
        true = metrics.held_out_nats(data.truth.log_prob(test))
        record.truth = {**vars(true), "kind": "exact", "base_measure": "lebesgue"}
        record.truth["entropy"] = data.truth.entropy
    estimator = _estimator(run, record, report)
    report("fit")
    seconds, _ = _timed(lambda: estimator.fit(data.train))
    record.times["fit"] = seconds
    record.history = getattr(estimator, "history_", None)
    if hasattr(estimator, "module_"):
        record.n_parameters = sum(p.numel() for p in estimator.module_.parameters())
    if estimator.density_kind_ != "none":
        report("score")
        _score(estimator, data, record)
    report("sample")
    _sample(estimator, data, run, record)


def _estimator(run: Run, record: Record, report: Report) -> Any:
    kind = resolve(run.model)
    estimator = kind(**run.settings)
    record.family = _family(kind)
    known = estimator.get_params(deep=False)
    ours = {"random_state": run.seed, "max_time": run.budget, "verbose": False}
    estimator.set_params(**{k: v for k, v in ours.items() if k in known and k not in run.settings})
    record.hyper_parameters = estimator.get_params(deep=False)
    if "callbacks" in known:
        limit = record.hyper_parameters.get("max_time") or run.time_limit

        def tell(state: Any) -> None:
            share = max(state.step / max(1, state.total_steps), state.seconds / limit)
            held_out = state.valid_loss
            report("fit", min(1.0, share), held_out if held_out == held_out else state.train_loss)

        estimator.set_params(callbacks=(*(known["callbacks"] or ()), tell))
    return estimator


def _score(estimator: Any, data: datasets.Dataset, record: Record) -> None:
    seconds, found = _timed(lambda: estimator.score_samples(data.test, return_std=True))
    scores, errors = (np.asarray(a, float) for a in found)
    nats = metrics.held_out_nats(scores, errors)
    record.score = {
        **vars(nats),
        "kind": estimator.density_kind_,
        "base_measure": estimator.base_measure_,
        "monte_carlo_error": float(errors.mean()),
        "n_rows": len(scores),
        "n_outside": int(np.isneginf(scores).sum()),
    }
    if data.modality == "image" and estimator.base_measure_ == "counting":
        bits = metrics.bits_per_dim(scores, int(data.n_dims or 1), errors)
        record.metrics["bits_per_dim"] = vars(bits)
    if data.modality == "text":
        bits = metrics.bits_per_character(scores, data.test.for_scoring(), errors)
        record.metrics["bits_per_character"] = vars(bits)
    record.times["score"] = seconds
    record.times["scored_rows_per_second"] = len(data.test) / _best_of(
        seconds, lambda: estimator.score_samples(data.test)
    )


def _sample(estimator: Any, data: datasets.Dataset, run: Run, record: Record) -> None:
    n = run.n_samples
    seconds, drawn = _timed(lambda: estimator.sample(n, random_state=run.seed))
    record.times["sample"] = seconds
    record.times["sampled_rows_per_second"] = n / _best_of(
        seconds, lambda: estimator.sample(n, random_state=run.seed)
    )
    if len(drawn) != n:
        raise ValueError(f"sample({n}) returned {len(drawn)} rows")
    if data.modality != "text":
        auc = metrics.two_sample_auc(data.test.for_scoring(), drawn, random_state=run.seed)
        record.metrics["two_sample_auc"] = vars(auc)
        distance = metrics.energy_distance(data.test.for_scoring(), drawn)
        record.metrics["energy_distance"] = {"value": distance, "unit": "standard deviations"}


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def _best_of(first: float, call: Callable[[], Any]) -> float:
    """The shortest of the first call and as many more as fit into half a second: the first one
    of a fast model times imports and caches."""
    best, spent, calls = first, first, 1
    while spent < _RATE_SECONDS and calls < _RATE_CALLS:
        seconds, _ = _timed(call)
        best, spent, calls = min(best, seconds), spent + seconds, calls + 1
    return max(best, 1e-9)


def _family(kind: type) -> str:
    from densekit.discovery import family_of

    return family_of(kind)


def _limit_threads(threads: int) -> None:
    import threadpoolctl  # type: ignore[import-untyped]
    import torch

    torch.set_num_threads(threads)
    threadpoolctl.threadpool_limits(threads)


def _peak_megabytes() -> float:
    try:
        import resource
    except ImportError:  # Windows keeps no such count
        return math.nan
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Kilobytes on Linux, bytes on macOS.
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _resident_megabytes() -> float:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return _peak_megabytes()
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
