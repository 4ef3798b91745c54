"""Suites: models, data, settings, seeds and budgets of a benchmark, from TOML files.

.. code-block:: toml

    description = "the purpose of the suite"
    budget = 10          # seconds of training for models that have ``max_time``
    time_limit = 60      # seconds after which a run is killed
    memory_limit = 4096  # megabytes at which a run is killed
    n_samples = 500      # rows drawn from each model
    n_test = 2000        # most rows of the test part that are scored, from its start
    seeds = [0, 1]       # each run is repeated for each seed
    metrics = ["two_sample_auc", "mmd"]    # of samples; held-out scores are always computed

    [[runs]]
    data = ["digits", "mnist"]   # one name, or several
    model = "RealNVP"            # or "package.module:Class"
    label = "RealNVP, 4 steps"   # name in tables, needed if a model runs twice
    budget = 20                  # any of the keys above, for this entry only
    settings = { n_transforms = 4 }

A baseline of its modality is added for each data set, unless the suite has ``baselines = false``.

The data may also be a file, with a path relative to the folder of the suite:

.. code-block:: toml

    [[runs]]
    data = "shop.csv"
    model = "NeuralSplineFlow"
    target = "Revenue"                               # column by which the split is stratified
    split = { test = 0.2, valid = 0.1, seed = 0 }    # or "part", a column; or { test = "held-out.csv" }
    kinds = { Month = "categorical" }                # and other options of the codec: support, ...
    sep = ";"                                        # if it is not detected
    drop_missing = true                              # drop rows with a missing cell
"""

import dataclasses
import importlib
import importlib.resources
import inspect
import math
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from densekit import datasets
from densekit.bench import files
from densekit.metrics import SAMPLE_METRICS
from densekit.params import frozen, nearest

_DEFAULTS: dict[str, Any] = {
    "budget": 30.0,
    "time_limit": 300.0,
    "memory_limit": 8192.0,
    "n_samples": 500,
    "n_test": 2000,
    "seeds": [0],
    "metrics": ["two_sample_auc"],
}
_UNITS = {"budget": "seconds", "time_limit": "seconds", "memory_limit": "megabytes"}
_LEAST = {"n_samples": 10, "n_test": 2}
_BASELINES: dict[str, tuple[str, dict[str, Any]]] = {
    "table": ("Gaussian", {}),
    "image": ("Gaussian", {}),
    "text": ("NGram", {"order": 1}),
}
_METRICS = (*SAMPLE_METRICS, "hpd")
_SUITE_KEYS = ("description", "runs", "baselines", *_DEFAULTS, *files.KEYS)
_RUN_KEYS = ("data", "model", "label", "settings", *_DEFAULTS, *files.KEYS)


@dataclass(frozen=True)
class Run:
    """One model on one data set with one seed."""

    data: str
    model: str
    label: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    budget: float = 30.0
    """Seconds of training, passed to estimators that have ``max_time``."""
    time_limit: float = 300.0
    """Seconds after which the run is killed."""
    memory_limit: float = 8192.0
    """Resident megabytes of its process, including libraries, above which the run is killed."""
    n_samples: int = 500
    n_test: int = 2000
    """Most rows of the test part that are scored."""
    metrics: tuple[str, ...] = ("two_sample_auc",)
    """Metrics of samples: names of :data:`densekit.metrics.SAMPLE_METRICS`, and ``"hpd"``."""
    baseline: bool = False
    """Whether the run was added as the baseline of its data set."""
    file: files.DataFile | None = None
    """The data file, if the data are not one of densekit's data sets."""

    @property
    def modality(self) -> str:
        """ "table", "image" or "text"."""
        return datasets.info(self.data).modality if self.file is None else self.file.modality

    def load(self) -> datasets.Dataset:
        """Load the data with its split."""
        return datasets.load(self.data) if self.file is None else self.file.load()

    @property
    def key(self) -> str:
        """Name of the run, unique in its suite, and of its log file."""
        label = re.sub(r"[^\w.-]+", "-", self.label).strip("-")
        return f"{self.data}--{label}--{self.seed}"


@dataclass(frozen=True)
class Suite:
    """A named list of runs."""

    name: str
    description: str
    runs: tuple[Run, ...]


def suites() -> tuple[str, ...]:
    """Names of the suites in the package.

    Examples
    --------
    >>> "quick" in suites()
    True
    """
    folder = importlib.resources.files("densekit.bench") / "suites"
    return tuple(sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".toml")))


def load_suite(name: str) -> Suite:
    """Load a suite of the package by name, or a suite from a TOML file.

    Parameters
    ----------
    name : str
        One of :func:`suites`, or a path that ends in ``.toml``.

    Returns
    -------
    suite : Suite

    Raises
    ------
    ValueError
        The suite or file does not exist, is not TOML, or has an invalid key, value or data set. The
        message suggests the closest valid name.

    Examples
    --------
    >>> load_suite("quick").runs[0].data
    'breast_cancer'
    """
    if name.endswith(".toml"):
        path: Any = Path(name)
    elif name in suites():
        path = importlib.resources.files("densekit.bench") / "suites" / f"{name}.toml"
    else:
        hint = nearest(name, suites())
        raise ValueError(
            f"no suite is called {name!r}{hint}; the path of a file must end in .toml"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"cannot read the suite {name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"the suite {name} is not UTF-8 text: {error.reason}") from error
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"the suite {name} is not TOML: {error}") from error
    return _suite(Path(name).stem, table, Path(name).parent)


def resolve(model: str) -> Callable[..., Any]:
    """The estimator class of a name, or the class or factory of ``"package.module:name"``.

    Raises
    ------
    ValueError
        It does not exist. The message suggests the closest valid name.
    """
    if ":" in model:
        module, _, name = model.partition(":")
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"model {model!r} cannot be imported: {error}") from error
    import densekit

    known = densekit.all_estimators()
    if model not in known:
        raise ValueError(f"no model is called {model!r}{nearest(model, known)}")
    return known[model]


def check(suite: Suite) -> None:
    """Raise ValueError if a model or one of its settings does not exist.

    This is separate from :func:`load_suite` because it imports the models.

    Raises
    ------
    ValueError
        A model or a setting does not exist. The message names the run and the closest valid name.
    """
    for run in suite.runs:
        try:
            kind = resolve(run.model)
            known = inspect.signature(kind).parameters
        except ValueError as error:
            raise ValueError(f"suite {suite.name}, run {run.key}: {error}") from error
        missing = [name for name in ("fit", "sample") if not hasattr(kind, name)]
        if isinstance(kind, type) and missing:
            raise ValueError(
                f"suite {suite.name}, run {run.key}: {run.model} has no {' and no '.join(missing)}; a "
                "model must have fit and sample, and score_samples if it has a density"
            )
        accepts_any = any(p.kind is p.VAR_KEYWORD for p in known.values())
        for key in run.settings:
            if key not in known and not accepts_any:
                raise ValueError(
                    f"suite {suite.name}, run {run.key}: {run.model} has no setting "
                    f"{key!r}{nearest(key, known)}"
                )


def _suite(name: str, table: dict[str, Any], folder: Path) -> Suite:
    where = f"suite {name}"
    _check_keys(where, table, _SUITE_KEYS)
    entries = table.get("runs", [])
    if (
        not isinstance(entries, list)
        or not entries
        or not all(isinstance(e, dict) for e in entries)
    ):
        raise ValueError(f"{where}: a suite needs at least one [[runs]] entry")
    defaults = _values(where, {key: table.get(key, value) for key, value in _DEFAULTS.items()})
    file_defaults = {key: table[key] for key in files.KEYS if key in table}
    known: dict[str, files.DataFile] = {}
    runs: list[Run] = []
    for i, entry in enumerate(entries, 1):
        where_run = f"{where}, run {i}"
        _check_keys(where_run, entry, _RUN_KEYS)
        names = entry.get("data")
        names = names if isinstance(names, list) else [names]
        data_files = _data_files(where_run, names, folder, entry, file_defaults, known)
        runs += _runs(where_run, names, entry, defaults, data_files)
    baselines = table.get("baselines", True)
    if not isinstance(baselines, bool):
        raise ValueError(f"{where}: baselines={baselines!r} must be true or false")
    if baselines:
        runs.extend(_baselines(runs))
    seen: set[str] = set()
    for run in runs:
        if run.key in seen:
            raise ValueError(
                f"{where}: two runs are called {run.key}; give one of them another label or seed"
            )
        seen.add(run.key)
    rows: dict[str, int] = {}
    for run in runs:
        if rows.setdefault(run.data, run.n_test) != run.n_test:
            raise ValueError(
                f"{where}: runs of {run.data} have n_test={rows[run.data]} and n_test={run.n_test}, but "
                "scores of different rows are not comparable; use one n_test"
            )
    return Suite(name, str(table.get("description", "")), tuple(runs))


def _data_files(
    where: str,
    names: list[Any],
    folder: Path,
    entry: dict[str, Any],
    defaults: dict[str, Any],
    known: dict[str, files.DataFile],
) -> dict[str, files.DataFile]:
    """The data files of an entry, by the paths in the entry.

    ``known`` has the files of earlier entries by their names, and is updated.
    """
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"{where}: data must be a string, got {name!r}")
        if name not in datasets.names() and not files.is_file(name):
            hint = nearest(name, datasets.names())
            raise ValueError(
                f"{where}: no data set is called {name!r}{hint}; the path of a file must have a "
                "suffix"
            )
    paths = [name for name in names if name not in datasets.names()]
    given = {key: entry[key] for key in files.KEYS if key in entry}
    if given and not paths:
        raise ValueError(
            f"{where}: {next(iter(given))} is for data files, but {names[0]} is a data set with its own "
            "parts and columns"
        )
    data_files = {}
    for name in paths:
        file = files.DataFile.of(where, name, folder, {**defaults, **given})
        if (other := known.setdefault(file.name, file)) != file:
            raise ValueError(f"{where}: {_difference(file, other)}")
        data_files[name] = file
    return data_files


def _difference(file: files.DataFile, other: files.DataFile) -> str:
    """The reason why two runs cannot have these two files as data of the same name."""
    if file.path != other.path:
        return f"two files are called {file.name}: {other.path} and {file.path}; rename one"
    key = next(
        f.name for f in dataclasses.fields(file) if getattr(file, f.name) != getattr(other, f.name)
    )
    return (
        f"runs of {file.name} differ in {key}: {getattr(other, key)!r} and {getattr(file, key)!r}, but "
        f"scores of different rows or columns are not comparable; use one {key}"
    )


def _runs(
    where: str,
    names: list[str],
    entry: dict[str, Any],
    defaults: dict[str, Any],
    data_files: dict[str, files.DataFile],
) -> Iterator[Run]:
    """One run for each data set and seed of an entry."""
    if not isinstance(entry.get("model"), str):
        raise ValueError(f"{where}: model must be a string, got {entry.get('model')!r}")
    values = {**defaults, **_values(where, {k: entry[k] for k in _DEFAULTS if k in entry})}
    settings = entry.get("settings", {})
    if not isinstance(settings, dict):
        raise ValueError(f"{where}: settings must be a table, got {settings!r}")
    label = entry.get("label", entry["model"].rpartition(":")[2])
    if not isinstance(label, str) or not re.search(r"\w", label):
        raise ValueError(f"{where}: label must be a name, got {label!r}")
    # TOML arrays become tuples, the type of estimators' fields.
    settings = {k: frozen(v) for k, v in settings.items()}
    seeds = values.pop("seeds")
    for name in names:
        file = data_files.get(name)
        for seed in seeds:
            data = name if file is None else file.name
            yield Run(data, entry["model"], label, settings, seed=seed, file=file, **values)


def _baselines(runs: list[Run]) -> Iterator[Run]:
    """The missing baselines of data sets, with seed, budget and limits of their first runs."""
    for name in dict.fromkeys(run.data for run in runs):
        others = [run for run in runs if run.data == name]
        model, settings = _BASELINES[others[0].modality]
        if not any(run.model == model and run.settings == settings for run in others):
            yield dataclasses.replace(
                others[0],
                model=model,
                label=f"{model} (baseline)",
                settings=settings,
                baseline=True,
            )


def _values(where: str, table: dict[str, Any]) -> dict[str, Any]:
    """The validated values of keys that both a suite and its entries may have."""
    for key, value in table.items():
        if key in ("seeds", "metrics"):
            if not isinstance(value, list) or (not value and key == "seeds"):
                raise ValueError(f"{where}: {key}={value!r} must be a list")
            continue
        is_count = key.startswith("n_")
        least = _LEAST.get(key, 0.1)
        is_number = isinstance(value, int) or (isinstance(value, float) and not is_count)
        if isinstance(value, bool) or not is_number or not least <= value < math.inf:
            kind = f"a number of {_UNITS[key]}" if key in _UNITS else "an integer"
            raise ValueError(f"{where}: {key}={value!r} must be {kind}, at least {least}")
    for seed in table.get("seeds", ()):
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ValueError(f"{where}: seeds has {seed!r}: must be integers, at least 0")
    for metric in table.get("metrics", ()):
        if metric not in _METRICS:
            hint = nearest(str(metric), _METRICS)
            raise ValueError(f"{where}: no metric is called {metric!r}{hint}")
    return {**table, "metrics": tuple(table["metrics"])} if "metrics" in table else table


def _check_keys(where: str, table: dict[str, Any], known: tuple[str, ...]) -> None:
    for key in table:
        if key not in known:
            raise ValueError(f"{where}: unknown key {key!r}{nearest(key, known)}")
