"""A run in its own process: load the data, fit, score, sample, and compute metrics.

Only public methods of the estimator are used, so third-party estimators can run too.
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
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from densekit import codecs, datasets, formats, metrics
from densekit.atomic import replacing
from densekit.bench import foreign
from densekit.bench.address import distributions
from densekit.bench.records import Record, plain
from densekit.bench.suite import Run, resolve

Report = Callable[..., None]
"""Called with ``stage`` and, during a fit, the used ``share`` of the budget (0 to 1) and ``loss``."""

_LIBRARIES = (
    "densekit", "torch", "pyro-ppl", "numpy", "scipy", "scikit-learn", "pandas"
)  # fmt: skip
_EXTENSION = {"table": "npy", "image": "npy", "text": "jsonl"}
_ROWS_IN_REPORT = 400
DESCRIBED = ("support", "kinds", "atom_share", "step", "derived")
"""Options of ``densekit.describe``."""
_GRID = 200
_RATE_SECONDS = 0.5
_RATE_CALLS = 20


def main(
    record: Record, run: Run, folder: Path, threads: int, log: Path, connection: Connection
) -> None:
    """Entry point of the process: execute ``run``, and send its progress and finally its record."""
    # Ctrl-C reaches the whole process group, but the parent stops the runs.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The parent uses the terminal. Output of libraries goes to a log for the record of a crash.
    with open(log, "wb", buffering=0) as file:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    _limit_threads(threads)

    def report(stage: str, share: float = 0.0, loss: float | None = None) -> None:
        connection.send(("progress", stage, share, loss))

    try:
        execute(record, run, folder, report)
    except WriteError as error:
        connection.send(("full", error.errno, error.strerror))
        return
    record.environment["threads"] = threads
    connection.send(("record", record))
    connection.close()


class WriteError(OSError):
    """The output of a run cannot be written. This is not a failure of the run itself."""


def execute(record: Record, run: Run, folder: Path, report: Report) -> None:
    """Execute ``run`` in this process and complete its record; an exception becomes a failed record.

    Samples are written to ``folder``.

    Raises
    ------
    WriteError
        The folder cannot be written to.
    """
    record.started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    record.environment = environment(run.model)
    record.memory["start"] = _resident_megabytes()
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        try:
            _measure(run, record, folder, report)
            record.status = "ok"
        except WriteError:
            raise
        except Exception as error:  # Any exception of a model is a result of the benchmark.
            record.reason = f"{type(error).__name__}: {error}".split("\n")[0]
            record.traceback = traceback.format_exc()
    record.warnings = list(dict.fromkeys(f"{w.category.__name__}: {w.message}" for w in caught))
    record.times["total"] = time.perf_counter() - start
    record.memory["peak"] = _peak_megabytes()


def environment(model: str) -> dict[str, Any]:
    """The machine and the versions of libraries on which a result depends."""
    versions = {}
    for name in (*_LIBRARIES, *distributions(model)):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "n_cpus": os.cpu_count(),
        "versions": versions,
    }


def _measure(run: Run, record: Record, folder: Path, report: Report) -> None:
    report("load")
    data = run.load()
    test = codecs.take(data.test.for_scoring(), 0, run.n_test)
    record.data = {
        "name": data.name,
        "modality": data.modality,
        "source": data.source,
        "digest": data.digest,
        "n_train": len(data.train),
        "n_test": len(test),
        "n_dims": data.n_dims,
    }
    if run.file is not None:
        record.data |= {"file": run.file.path, "target": run.file.target}
    _write_data(data, folder / "data")
    if data.truth is not None:
        true = metrics.held_out_nats(data.truth.log_prob(test))
        record.truth = {**vars(true), "kind": "exact", "base_measure": data.truth.base_measure}
        record.truth["entropy"] = data.truth.entropy
    estimator = _estimator(run, data, record, report)
    report("fit")
    train = foreign.rows_for(estimator, data.train)
    seconds, _ = _timed(lambda: estimator.fit(train))
    record.times["fit"] = seconds
    history = getattr(estimator, "history_", None)
    record.history = plain(history) if isinstance(history, Mapping) else None
    record.environment["device"] = getattr(estimator, "device_", "cpu")
    if hasattr(estimator, "module_"):
        record.n_parameters = sum(p.numel() for p in estimator.module_.parameters())
    scores = None
    score = foreign.kind_and_measure(estimator)
    if score is not None and score["kind"] != "none":
        report("score")
        record.score = dict(score)
        scores = _score(estimator, data, test, record)
    report("sample")
    samples = _sample(estimator, test, run, record)
    record.samples = f"samples/{record.id}.{_extension(data.modality, samples)}"
    _write_rows(samples, folder / record.samples)
    if data.modality != "text":
        record.metrics |= _sample_metrics(estimator, test, samples, scores, run)


def _write_data(data: datasets.Dataset, folder: Path) -> None:
    """Write rows of the data set for the report, and the density of a two-dimensional toy, once."""
    rows = codecs.take(data.train, 0, _ROWS_IN_REPORT)
    path = folder / f"{data.name}.{_extension(data.modality, rows)}"
    if not path.exists():
        _write_rows(rows, path)
    path = folder / f"{data.name}.density.npz"
    if data.truth is None or data.n_dims != 2 or path.exists():
        return
    low, high = np.min(data.train, 0), np.max(data.train, 0)
    margin = 0.08 * (high - low)
    x, y = np.linspace(low - margin, high + margin, _GRID).T
    grid = np.stack(np.meshgrid(x, y), -1)
    density = data.truth.log_prob(grid.reshape(-1, 2)).reshape(_GRID, _GRID)
    with _write_errors(path), replacing(path) as part:
        np.savez_compressed(part, x=x, y=y, log_density=density.astype(np.float32))


def _extension(modality: str, rows: Any) -> str:
    return "parquet" if hasattr(rows, "columns") else _EXTENSION[modality]


def _write_rows(rows: Any, path: Path) -> None:
    with _write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        formats.write(rows, path)


@contextlib.contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    """Convert any OSError of the block to a WriteError that names the file."""
    try:
        yield
    except OSError as error:
        raise WriteError(error.errno, f"{path.name}: {error.strerror or error}") from error


def _estimator(run: Run, data: datasets.Dataset, record: Record, report: Report) -> Any:
    """The estimator of a run, with the parameters that the benchmark sets for all models."""
    estimator = resolve(run.model)(**run.settings)
    record.family = _family(type(estimator))
    known = estimator.get_params(deep=False) if hasattr(estimator, "get_params") else {}
    record.hyper_parameters = {**run.settings}
    if not known:
        return estimator
    common = {**data.domain, "random_state": run.seed, "max_time": run.budget, "verbose": False}
    description = _description(data) if "columns" in known else None
    describes_itself = {"columns", *DESCRIBED} & set(run.settings)
    if description is not None and not describes_itself:
        # With one description for all models of a data set, their scores have the same measure.
        common = {k: v for k, v in common.items() if k not in DESCRIBED} | {"columns": description}
    estimator.set_params(
        **{k: v for k, v in common.items() if k in known and k not in run.settings}
    )
    # Third-party parameters may not pickle, so only plain values are sent through the pipe.
    settings = estimator.get_params(deep=False)
    if settings.get("columns") is not None:
        settings["columns"] = "described once, from all training rows"
    record.hyper_parameters = plain(settings)
    if "callbacks" in known:
        limit = record.hyper_parameters.get("max_time") or run.time_limit

        def report_progress(state: Any) -> None:
            share = max(state.step / max(1, state.total_steps), state.seconds / limit)
            held_out = state.valid_loss
            report("fit", min(1.0, share), held_out if held_out == held_out else state.train_loss)

        estimator.set_params(callbacks=(*(known["callbacks"] or ()), report_progress))
    return estimator


def _description(data: datasets.Dataset) -> codecs.Description | None:
    """The description of a table's columns, from its training rows and its domain."""
    if data.modality != "table":
        return None
    options = {k: v for k, v in data.domain.items() if k in DESCRIBED}
    return codecs.describe(data.train, **options)


def _score(estimator: Any, data: datasets.Dataset, test: Any, record: Record) -> np.ndarray:
    seconds, (scores, errors) = _timed(lambda: foreign.scores(estimator, test))
    assert record.score is not None
    record.score |= {
        **vars(metrics.held_out_nats(scores, errors)),
        "monte_carlo_error": float(errors.mean()),
        "n_rows": len(scores),
        "n_outside": int(np.isneginf(scores).sum()),
    }
    units = metrics.likelihood_units(
        scores,
        errors,
        modality=data.modality,
        base_measure=record.score["base_measure"],
        n_dims=data.n_dims,
        texts=test if data.modality == "text" else None,
        units={published.unit for published in data.reference},
    )
    record.metrics |= {name: vars(estimate) for name, estimate in units.items()}
    record.times["score"] = seconds
    rows = foreign.rows_for(estimator, test)
    record.times["scored_rows_per_second"] = len(test) / _best_time(
        seconds, lambda: estimator.score_samples(rows)
    )
    return scores


def _sample(estimator: Any, test: Any, run: Run, record: Record) -> Any:
    n = run.n_samples
    seconds, samples = _timed(lambda: foreign.draw(estimator, n, run.seed, test))
    record.times["sample"] = seconds
    record.times["sampled_rows_per_second"] = n / _best_time(
        seconds, lambda: foreign.draw(estimator, n, run.seed, test)
    )
    if len(samples) != n:
        raise ValueError(f"sample({n}) returned {len(samples)} rows")
    return samples


def _sample_metrics(
    estimator: Any, test: Any, samples: Any, scores: np.ndarray | None, run: Run
) -> dict[str, Any]:
    """The metrics of the suite that compare samples with test rows."""
    values = {}
    for name in run.metrics:
        if name in metrics.SAMPLE_METRICS:
            values[name] = vars(metrics.SAMPLE_METRICS[name](test, samples, random_state=run.seed))
        elif scores is not None:
            sample_scores, _ = foreign.scores(estimator, samples)
            values[name] = vars(metrics.hpd_calibration(scores, sample_scores))
    return values


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def _best_time(first: float, call: Callable[[], Any]) -> float:
    """The shortest time of the first call and of repetitions within half a second.

    For a fast model, the first call would mostly measure imports and caches.
    """
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
    except ImportError:  # Not available on Windows.
        return math.nan
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # The unit is kilobytes on Linux and bytes on macOS.
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
