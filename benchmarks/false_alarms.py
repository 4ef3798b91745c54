"""False alarms: how often the random checks of the contract suite fail for densekit's own models.

    python benchmarks/false_alarms.py                        # every model, 200 seeds
    python benchmarks/false_alarms.py --models Gaussian NGram --seeds 5
    python benchmarks/false_alarms.py --all-checks           # the checks without chance too
    python benchmarks/false_alarms.py --effort quick         # fewer draws and columns

Each seed is an independent repetition with its own data, fits and samples. Networks are small and
train for few steps, because the checks test the agreement of samples and scores, not the quality
of a fit. Each run is a line of results/false_alarms.jsonl and is not repeated, so the script can
be interrupted and continued, also by several processes on different models. Lines with other
settings or of other versions are ignored. Delete the log after a change of checks or models.
Writes results/false_alarms.json, in which a model keeps an earlier result with the same settings
and more seeds, unless the new one has more checks and at least 20 seeds. The log is too
long for the repository.

A seed of all models takes about 50 s of one core.
"""

import argparse
import json
import sys
import time

import torch
from _pages import ROOT
from _record import RESULTS, environment, write
from scipy import stats

import densekit
from densekit.checks import density_checks

sys.path.insert(0, str(ROOT / "tests"))

from small_models import SMALL as SETTINGS

ENOUGH = 20
"""Seeds with which a result of more checks replaces one of more seeds."""
LOG = RESULTS / "false_alarms.jsonl"


def key(line):
    """Key that identifies the run of a line."""
    names = ("version", "model", "settings", "check", "seed", "effort")
    return tuple(str(line.get(k, "standard")) for k in names)


def repeat(models, seeds, everything, effort):
    """Run what is missing in the log. Seeds are the outer loop, so a short log covers all models."""
    done = {key(line) for line in logged()}
    for seed in range(seeds):
        for name in models:
            estimator = densekit.all_estimators()[name](**SETTINGS[name])
            for _, check in density_checks(estimator, effort):
                if not (everything or check.chance):
                    continue
                line = {
                    "version": densekit.__version__,
                    "model": name,
                    "settings": repr(SETTINGS[name]),
                    "check": check.name,
                    "seed": seed,
                    "effort": effort,
                }
                if key(line) not in done:
                    append(line | outcome(estimator, check, seed))


def outcome(estimator, check, seed):
    """Whether a check passes, its duration, and its message if it fails."""
    start, message = time.perf_counter(), ""
    try:
        check(estimator, seed)
    except AssertionError as error:
        message = str(error)
    seconds = round(time.perf_counter() - start, 3)
    return {"passed": not message, "seconds": seconds, "message": message}


def append(line):
    """Append a whole line to the log, safely with concurrent writers."""
    with LOG.open("a") as file:
        file.write(json.dumps(line) + "\n")


def logged():
    """Lines of the log, without an incomplete last line."""
    lines = LOG.read_text().splitlines() if LOG.exists() else []
    for line in lines:
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def summary(models, effort):
    """Runs and failures of each model by check, over the log of an effort."""
    lines = {key(line): line for line in logged() if line["version"] == densekit.__version__}
    found = {}
    for name in models:
        mine = [
            line
            for line in lines.values()
            if line["model"] == name and line["settings"] == repr(SETTINGS[name])
            if line.get("effort", "standard") == effort
        ]
        failed = [line for line in mine if not line["passed"]]
        wrong, seeds = {line["seed"] for line in failed}, {line["seed"] for line in mine}
        checks = {}
        for line in mine:
            count = checks.setdefault(line["check"], {"runs": 0, "failed": 0})
            count["runs"] += 1
            count["failed"] += not line["passed"]
        found[name] = {
            "settings": SETTINGS[name],
            "effort": effort,
            "seeds": len(seeds),
            "seeds_with_a_failure": len(wrong),
            # The Clopper-Pearson bound: the largest rate that is consistent with so few failures.
            "rate_below_at_95_percent": upper(len(wrong), len(seeds)),
            "seconds": round(sum(line["seconds"] for line in mine), 1),
            "checks": checks,
            "failures": [f"seed {line['seed']}: {line['message']}" for line in failed],
        }
    return found


def upper(wrong, n):
    """Upper end of the one-sided 95 % confidence interval of a rate, ``wrong`` in ``n``."""
    return round(float(stats.beta.ppf(0.95, wrong + 1, n - wrong)), 4) if wrong < n else 1.0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--seeds", type=int, default=200, help="run the seeds 0 ... SEEDS - 1")
    parser.add_argument(
        "--all-checks", action="store_true", help="also run the checks without randomness"
    )
    parser.add_argument("--effort", default="standard", help="quick, standard or thorough")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    RESULTS.mkdir(exist_ok=True)
    repeat(arguments.models, arguments.seeds, arguments.all_checks, arguments.effort)
    chances = {c.name: c.chance for kind in densekit.all_estimators().values()
               for _, c in density_checks(kind()) if c.chance}  # fmt: skip
    now = environment()
    models = {
        name: {"date": now["date"]} | found
        for name, found in summary(arguments.models, arguments.effort).items()
    }
    path = RESULTS / "false_alarms.json"
    for name, old in (json.loads(path.read_text())["models"] if path.exists() else {}).items():
        same = json.dumps(old["settings"]) == json.dumps(SETTINGS.get(name))
        new = models.get(name, {"seeds": 0, "checks": {}})
        covered = set(new["checks"]) <= set(old["checks"])
        if same and old["seeds"] >= new["seeds"] and (covered or new["seeds"] < ENOUGH):
            models[name] = old
    record = {"environment": now, "threads": 1, "chance_stated": chances}
    write("false_alarms", record | {"models": models})


if __name__ == "__main__":
    main()
