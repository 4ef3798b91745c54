"""Runs of checks on estimators that are known to be right, or to be wrong: which of the wrong ones are
caught, how small a defect is seen, and how often a right one is failed.

    python benchmarks/trust.py --run caught curves zoo

Each run of a check on an estimator is a line of results/checked.jsonl and is not run again, so that a
part may be stopped and started; lines of another version of the package, or of the
files of check or estimator, are passed over. The log is not kept with the sources.
"""

import hashlib
import json
import sys
import time
import warnings
from functools import cache
from pathlib import Path

import numpy as np
from _pages import ROOT
from _record import RESULTS
from scipy import signal

import densekit
from densekit.checks import density_checks

sys.path.insert(0, str(ROOT / "tests" / "checks"))

import foreign_mutants
import own_mutants
import power_mutants
import subtle
import subtle_contexts
import zoo
import zoo_shapes
import zoo_tables
from foreign_mutants import Normal

LOG = RESULTS / "checked.jsonl"
SEEDS = 4
"""Repetitions of each point of a power curve."""
SEEDS_OF_ZOO = {"quick": 50, "standard": 20}
"""Repetitions of the checks that are left to chance, on each correct density; all others run once."""


@cache
def summary(kind):
    """The first paragraph of a docstring, on one line; densekit appends sections of its own to it."""
    return " ".join((kind.__dict__.get("__doc__") or "").split("\n\n")[0].split())


def digest(module):
    """Of the source of a module: a run is of one state of the files of its check and its estimator."""
    return hashlib.sha256(Path(sys.modules[module].__file__).read_bytes()).hexdigest()[:16]


def key(line):
    """What makes two lines the same run."""
    names = ("version", "source", "part", "name", "size", "check", "seed", "effort")
    return tuple(str(line[k]) for k in names)


def logged():
    """Lines of the log, without a last one that was cut off."""
    for line in LOG.read_text().splitlines() if LOG.exists() else []:
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


class Runs:
    """What was run so far; ``of`` runs what was not, until the time is over."""

    def __init__(self, seconds=float("inf")):
        self.until = time.monotonic() + seconds
        self.done = {key(line): line for line in logged()}

    def of(self, part, name, estimator, check, seed=0, effort="standard", size=None):
        """The line of one run; None where there is no time left for it."""
        line = {
            "version": densekit.__version__,
            "source": digest(check.function.__module__) + digest(type(estimator).__module__),
            "part": part, "name": name, "size": size,
            "check": check.name, "seed": seed, "effort": effort,
        }  # fmt: skip
        if key(line) in self.done:
            return self.done[key(line)]
        if time.monotonic() > self.until:
            return None
        line |= outcome(estimator, check.at(effort), seed)
        self.done[key(line)] = line
        with LOG.open("a") as file:
            file.write(json.dumps(line) + "\n")
        return line


def outcome(estimator, check, seed):
    """Whether a check passes, what it says if not, and the smallest defects it would have seen."""
    start, message, findings = time.process_time(), "", ()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            findings = check(estimator, seed)
    except AssertionError as error:
        message = str(error)
    smallest = {f.what: [f.smallest, f.n] for f in findings if f.smallest > 0}
    seconds = round(time.process_time() - start, 2)
    return {"passed": not message, "seconds": seconds, "message": message, "smallest": smallest}


def check_named(estimator, name):
    """The check of that name, or None where it does not apply."""
    return {c.name: c for _, c in density_checks(estimator)}.get(name)


# Mutants.


def mutants():
    """Of each broken estimator the class, an instance, and the check that is meant for it."""
    found = [(kind, kind(), name) for kind, name in subtle.MEANT.items()]
    found += [(kind, power_mutants.make(kind), name) for kind, name in power_mutants.MEANT.items()]
    found += [(kind, kind(), name) for kind, name in foreign_mutants.MEANT.items()]
    found += [(kind, own_mutants.make(kind), name) for kind, name in own_mutants.MEANT.items()]
    return found


def caught(seconds=float("inf")):
    """Whether each mutant is caught by the check that is meant for it."""
    runs, table = Runs(seconds), []
    for kind, estimator, name in mutants():
        check = check_named(estimator, name)
        if check is None:
            continue
        line = runs.of("caught", kind.__name__, estimator, check)
        what = summary(kind)
        table.append(
            {
                "mutant": kind.__name__,
                "what": what,
                "new": kind in subtle.MEANT or kind in power_mutants.MEANT,
                "check": name,
                "caught": None if line is None else not line["passed"],
                "seconds": None if line is None else line["seconds"],
            }
        )
    unseen = [
        {"mutant": kind.__name__, "what": summary(kind), "why": why}
        for kind, why in subtle.UNSEEN.items()
    ]
    return {"mutants": table, "unseen": unseen}


# Power.


class Graded(Normal):
    """A normal whose defect has a size."""

    def __init__(self, size=0.0, ridge=1e-12, random_state=None):
        super().__init__(ridge, random_state)
        self.size = size


class Cooler(Graded):
    """draws at a temperature of 1 - size"""

    def _noise(self, n, random_state):
        return (1 - self.size) * super()._noise(n, random_state)


class Heavier(Graded):
    """mass 1 + size"""

    def score_samples(self, X):
        return super().score_samples(X) + np.log1p(self.size)


class Wavier(Graded):
    """density times 1 + size sin(z)"""

    def score_samples(self, X):
        z = self._whiten(X)[:, 0]
        return super().score_samples(X) + np.log1p(self.size * np.sin(z))


class Uncorrelated(Graded):
    """draws with a correlation that is smaller by size"""

    def _noise(self, n, random_state):
        z = super()._noise(n, random_state)
        corr = self.root_ @ self.root_.T
        weaker = corr - self.size * np.sign(corr) * (1 - np.eye(len(corr)))
        least = np.linalg.eigvalsh(weaker)[0]
        weaker += max(0.0, 1e-3 - least) * np.eye(len(corr))
        return np.linalg.solve(self.root_, np.linalg.cholesky(weaker) @ z.T).T


class Chained(Graded):
    """neighboring draws correlated by size"""

    def _noise(self, n, random_state):
        z = super()._noise(n, random_state)
        start = np.concatenate([z[:1], np.sqrt(1 - self.size**2) * z[1:]])
        return signal.lfilter([1.0], [1.0, -self.size], start, axis=0)


class Shrunk(subtle_contexts.Linear):
    """size of the second context column's effect missing in draws"""

    size: float = 0.0

    def sample(self, n_samples=1, *, context=None, random_state=None):
        whole = self.coefficients_
        weaker = whole.copy()
        weaker[2:3] *= 1 - self.size
        self.coefficients_ = weaker
        try:
            return super().sample(n_samples, context=context, random_state=random_state)
        finally:
            self.coefficients_ = whole


_LAW = "draws_follow_scores_in_many_columns"
CURVES = {
    Cooler: (_LAW, (0.003, 0.01, 0.02, 0.03), "temperature of column"),
    Heavier: ("mass_is_one_in_many_columns", (0.001, 0.003, 0.01, 0.03), "mass in 3"),
    Wavier: (_LAW, (0.01, 0.03, 0.1), "wave"),
    Uncorrelated: (_LAW, (0.01, 0.03, 0.05), "correlation of columns"),
    Chained: ("draws_are_independent", (0.003, 0.01, 0.03, 0.1), "correlation with the draw 1 "),
    Shrunk: ("draws_follow_scores_under_contexts", (0.03, 0.1, 0.3), "correlation of column"),
}
"""A defect whose size can be chosen, the check that is meant for it, sizes, and how the findings begin
that state what it would have seen."""


def curves(seconds=float("inf")):
    """Of each defect and size how many of ``SEEDS`` repetitions catch it."""
    runs, found = Runs(seconds), {}
    for kind, (name, sizes, begins) in CURVES.items():
        points, stated = [], []
        for size in (0.0, *sizes):
            check = check_named(kind(size=size), name)
            if check is None:
                continue
            lines = [
                runs.of("curves", kind.__name__, kind(size=size), check, seed, size=size)
                for seed in range(SEEDS)
            ]
            lines = [line for line in lines if line is not None]
            hits = sum(not line["passed"] for line in lines)
            points.append({"size": size, "runs": len(lines), "caught": hits})
            for line in lines:
                smallest = line["smallest"].items()
                stated += [size for what, (size, _) in smallest if what.startswith(begins)]
        found[kind.__name__] = {
            "defect": summary(kind),
            "check": name,
            "points": points,
            "stated": max(stated) if stated else None,
        }
    return {"effort": "standard", "defects": found}


# False alarms.


def zoo_of_all(seconds=float("inf")):
    """Of each correct density every check that applies, and which fail.

    All ``quick`` runs come before those of ``standard``, and all densities before the next seed. Beyond
    the first seed only the checks run that are left to chance.
    """
    runs, found = Runs(seconds), {}
    numbers = (*zoo.OF_NUMBERS, *zoo_shapes.OF_SHAPES, Normal)
    kinds = (*numbers, *zoo_tables.OF_MIXED_ROWS, subtle_contexts.Linear)
    checks = {kind: [c for _, c in density_checks(kind())] for kind in kinds}
    lines = {}
    for effort, seeds in SEEDS_OF_ZOO.items():
        for seed in range(seeds):
            for kind in kinds:
                for check in checks[kind]:
                    if seed and not check.chance:
                        continue
                    line = runs.of("zoo", kind.__name__, kind(), check, seed, effort)
                    if line is not None:
                        lines.setdefault((kind, effort), []).append(line)
    for kind in kinds:
        of_kind = found[kind.__name__] = {"what": summary(kind), "checks": len(checks[kind])}
        for effort in SEEDS_OF_ZOO:
            mine = lines.get((kind, effort), [])
            of_kind[effort] = {
                "run": len(mine),
                "seeds": len({line["seed"] for line in mine}),
                "seconds": round(sum(line["seconds"] for line in mine), 1),
                "failed": [
                    f"seed {line['seed']}: {line['message']}"
                    for line in mine
                    if not line["passed"]
                ],
            }
    return {"densities": found}
