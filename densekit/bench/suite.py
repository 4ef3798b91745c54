"""A suite: which models meet which data, with which settings, seeds and budgets. Read from TOML.

.. code-block:: toml

    description = "what the suite is for"
    budget = 10          # seconds of training for models that have ``max_time``
    time_limit = 60      # seconds after which a run is killed
    memory_limit = 4096  # megabytes at which a run is killed
    n_samples = 500      # rows drawn from each model
    n_test = 2000        # rows of the test part that are scored, the first ones, at most
    seeds = [0, 1]       # each run once from each
    metrics = ["two_sample_auc", "mmd"]    # of samples; held-out scores are always there

    [[runs]]
    data = ["digits", "mnist"]   # one name, or several
    model = "RealNVP"            # or "package.module:Class"
    label = "RealNVP, 4 steps"   # its name in the table, where one model runs twice
    budget = 20                  # any of the keys above, for this entry alone
    settings = { n_transforms = 4 }

Every data set meets a baseline of its modality too, unless the suite says ``baselines = false``.
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
from densekit.metrics import SAMPLE_METRICS
from densekit.params import nearest

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
_SUITE_KEYS = ("description", "runs", "baselines", *_DEFAULTS)
_RUN_KEYS = ("data", "model", "label", "settings", *_DEFAULTS)


@dataclass(frozen=True)
class Run:
    """One model on one data set from one seed."""

    data: str
    model: str
    label: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    budget: float = 30.0
    """Seconds of training, handed to estimators that have ``max_time``."""
    time_limit: float = 300.0
    """Seconds for the whole run; then it is killed."""
    memory_limit: float = 8192.0
    """Megabytes resident in the run's process, libraries included; then it is killed."""
    n_samples: int = 500
    n_test: int = 2000
    """Rows of the test part that are scored, at most."""
    metrics: tuple[str, ...] = ("two_sample_auc",)
    """Of samples: names of :data:`densekit.metrics.SAMPLE_METRICS`, and ``"hpd"``."""
    baseline: bool = False
    """The suite did not ask for it: every data set meets it."""

    @property
    def key(self) -> str:
        """What names the run among its suite's, and its file."""
        label = re.sub(r"[^\w.-]+", "-", self.label).strip("-")
        return f"{self.data}--{label}--{self.seed}"


@dataclass(frozen=True)
class Suite:
    """Runs that belong together."""

    name: str
    description: str
    runs: tuple[Run, ...]


def suites() -> tuple[str, ...]:
    """Names of the suites that come with the package.

    Examples
    --------
    >>> "quick" in suites()
    True
    """
    folder = importlib.resources.files("densekit.bench") / "suites"
    return tuple(sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".toml")))


def load_suite(name: str) -> Suite:
    """The suite called ``name``, or the one in the TOML file of that path.

    Raises
    ------
    ValueError
        No such suite or file, no TOML, or a wrong key, value or data set; the nearest right name
        is given.

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
        raise ValueError(f"no suite is called {name!r}{hint}; a file's path ends in .toml")
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
    return _suite(Path(name).stem, table)


def resolve(model: str) -> Callable[..., Any]:
    """The estimator class of that name, or whatever ``"package.module:name"`` is that makes one.

    Raises
    ------
    ValueError
        There is none; the nearest name is given.
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
    """Raise before anything runs if a model or one of its settings does not exist.

    Apart from :func:`load_suite` because it has to import the models.

    Raises
    ------
    ValueError
        Naming the run, the model or setting, and the nearest right name.
    """
    for run in suite.runs:
        try:
            kind = resolve(run.model)
            known = inspect.signature(kind).parameters
        except ValueError as error:
            raise ValueError(f"suite {suite.name}, run {run.key}: {error}") from error
        lacks = [name for name in ("fit", "sample") if not hasattr(kind, name)]
        if isinstance(kind, type) and lacks:
            raise ValueError(
                f"suite {suite.name}, run {run.key}: {run.model} has no {' and no '.join(lacks)}; "
                "a model has fit and sample, and score_samples if it has a density"
            )
        anything = any(p.kind is p.VAR_KEYWORD for p in known.values())
        for key in run.settings:
            if key not in known and not anything:
                raise ValueError(
                    f"suite {suite.name}, run {run.key}: {run.model} has no setting "
                    f"{key!r}{nearest(key, known)}"
                )


def _suite(name: str, table: dict[str, Any]) -> Suite:
    where = f"suite {name}"
    _check_keys(where, table, _SUITE_KEYS)
    entries = table.get("runs", [])
    if (
        not isinstance(entries, list)
        or not entries
        or not all(isinstance(e, dict) for e in entries)
    ):
        raise ValueError(f"{where}: it needs at least one [[runs]] entry")
    defaults = _values(where, {key: table.get(key, value) for key, value in _DEFAULTS.items()})
    runs = [
        run
        for i, entry in enumerate(entries, 1)
        for run in _runs(f"{where}, run {i}", entry, defaults)
    ]
    baselines = table.get("baselines", True)
    if not isinstance(baselines, bool):
        raise ValueError(f"{where}: baselines={baselines!r} must be true or false")
    if baselines:
        runs.extend(_baselines(runs))
    seen: set[str] = set()
    for run in runs:
        if run.key in seen:
            raise ValueError(f"{where}: two runs are called {run.key}; give one a label or a seed")
        seen.add(run.key)
    rows: dict[str, int] = {}
    for run in runs:
        if rows.setdefault(run.data, run.n_test) != run.n_test:
            raise ValueError(
                f"{where}: runs of {run.data} are to score n_test={rows[run.data]} and "
                f"{run.n_test} rows; scores of different rows are not comparable, give them one"
            )
    return Suite(name, str(table.get("description", "")), tuple(runs))


def _runs(where: str, entry: dict[str, Any], defaults: dict[str, Any]) -> Iterator[Run]:
    """One run for each data set and seed of an entry."""
    _check_keys(where, entry, _RUN_KEYS)
    names = entry.get("data")
    names = names if isinstance(names, list) else [names]
    for key, value in (*(("data", name) for name in names), ("model", entry.get("model"))):
        if not isinstance(value, str):
            raise ValueError(f"{where}: {key} must be a string, got {value!r}")
    for name in names:
        if name not in datasets.names():
            hint = nearest(name, datasets.names())
            raise ValueError(f"{where}: no data set is called {name!r}{hint}")
    values = {**defaults, **_values(where, {k: entry[k] for k in _DEFAULTS if k in entry})}
    settings = entry.get("settings", {})
    if not isinstance(settings, dict):
        raise ValueError(f"{where}: settings must be a table, got {settings!r}")
    label = entry.get("label", entry["model"].rpartition(":")[2])
    if not isinstance(label, str) or not re.search(r"\w", label):
        raise ValueError(f"{where}: label must be a name, got {label!r}")
    # Fields of estimators are tuples where TOML has arrays.
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    seeds = values.pop("seeds")
    for name in names:
        for seed in seeds:
            yield Run(name, entry["model"], label, settings, seed=seed, **values)


def _baselines(runs: list[Run]) -> Iterator[Run]:
    """For each data set that has none, its modality's baseline under the terms of its first run."""
    for name in dict.fromkeys(run.data for run in runs):
        others = [run for run in runs if run.data == name]
        model, settings = _BASELINES[datasets.info(name).modality]
        if not any(run.model == model and run.settings == settings for run in others):
            yield dataclasses.replace(
                others[0],
                model=model,
                label=f"{model} (baseline)",
                settings=settings,
                baseline=True,
            )


def _values(where: str, table: dict[str, Any]) -> dict[str, Any]:
    """The values of keys that a suite and its entries share, checked."""
    for key, value in table.items():
        if key in ("seeds", "metrics"):
            if not isinstance(value, list) or (not value and key == "seeds"):
                raise ValueError(f"{where}: {key}={value!r} must be a list")
            continue
        whole = key.startswith("n_")
        least = _LEAST.get(key, 0.1)
        right = isinstance(value, int) or (isinstance(value, float) and not whole)
        if isinstance(value, bool) or not right or not least <= value < math.inf:
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
