"""A suite: which models meet which data, with which settings, seed and budgets. Read from TOML.

.. code-block:: toml

    description = "what the suite is for"
    budget = 10          # seconds of training for models that have ``max_time``
    time_limit = 60      # seconds after which a run is killed
    n_samples = 500      # rows drawn from each model
    seed = 0

    [[runs]]
    data = "digits"
    model = "RealNVP"            # or "package.module:Class"
    label = "RealNVP, 4 steps"   # its name in the table, where one model runs twice
    budget = 20                  # budget, time_limit, n_samples and seed of this run alone
    settings = { n_transforms = 4 }
"""

import difflib
import importlib
import importlib.resources
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from densekit import datasets

_DEFAULTS: dict[str, Any] = {"budget": 30.0, "time_limit": 300.0, "n_samples": 500, "seed": 0}
_SUITE_KEYS = ("description", "runs", *_DEFAULTS)
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
    n_samples: int = 500

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


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message: the nearest known name, or all of them."""
    known = sorted(known)
    lower = {word.lower(): word for word in known}
    close = difflib.get_close_matches(name.lower(), lower, n=1)
    if close:
        return f"; did you mean {lower[close[0]]!r}?"
    return f"; known are {', '.join(known)}"


def resolve(model: str) -> type:
    """The estimator class of that name, or ``"package.module:Class"``.

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
            known = resolve(run.model)().get_params(deep=False)
        except ValueError as error:
            raise ValueError(f"suite {suite.name}, run {run.key}: {error}") from error
        for key in run.settings:
            if key not in known:
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
    defaults = {key: table.get(key, value) for key, value in _DEFAULTS.items()}
    runs = [_run(f"{where}, run {i + 1}", entry, defaults) for i, entry in enumerate(entries)]
    seen: set[str] = set()
    for run in runs:
        if run.key in seen:
            raise ValueError(f"{where}: two runs are called {run.key}; give one a label or a seed")
        seen.add(run.key)
    return Suite(name, str(table.get("description", "")), tuple(runs))


def _run(where: str, entry: dict[str, Any], defaults: dict[str, Any]) -> Run:
    _check_keys(where, entry, _RUN_KEYS)
    for key in ("data", "model"):
        if not isinstance(entry.get(key), str):
            raise ValueError(f"{where}: {key} must be a string, got {entry.get(key)!r}")
    if entry["data"] not in datasets.names():
        hint = nearest(entry["data"], datasets.names())
        raise ValueError(f"{where}: no data set is called {entry['data']!r}{hint}")
    values = {**defaults, **{key: entry[key] for key in _DEFAULTS if key in entry}}
    for key, value in values.items():
        whole = key in ("seed", "n_samples")
        least = {"seed": 0, "n_samples": 10}.get(key, 0.1)
        right = isinstance(value, int) or (isinstance(value, float) and not whole)
        if isinstance(value, bool) or not right or not least <= value < math.inf:
            kind = "an integer" if whole else "a number of seconds"
            raise ValueError(f"{where}: {key}={value!r} must be {kind}, at least {least}")
    settings = entry.get("settings", {})
    if not isinstance(settings, dict):
        raise ValueError(f"{where}: settings must be a table, got {settings!r}")
    label = entry.get("label", entry["model"].rpartition(":")[2])
    if not isinstance(label, str) or not re.search(r"\w", label):
        raise ValueError(f"{where}: label must be a name, got {label!r}")
    # Fields of estimators are tuples where TOML has arrays.
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    return Run(entry["data"], entry["model"], label, settings, **values)


def _check_keys(where: str, table: dict[str, Any], known: tuple[str, ...]) -> None:
    for key in table:
        if key not in known:
            raise ValueError(f"{where}: unknown key {key!r}{nearest(key, known)}")
