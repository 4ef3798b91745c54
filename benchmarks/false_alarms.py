"""False alarms: how often the random checks of the contract suite fail for densekit's own models.

    python benchmarks/false_alarms.py                        # every model, 200 seeds
    python benchmarks/false_alarms.py --models Gaussian NGram --seeds 5
    python benchmarks/false_alarms.py --all-checks           # the checks without chance too

Each seed is an independent repetition with its own data, fits and samples. Networks are small and
train for few steps, because the checks test the agreement of samples and scores, not the quality
of a fit. Each run is a line of results/false_alarms.jsonl and is not repeated, so the script can
be interrupted and continued, also by several processes on different models. Lines with other
settings or of other versions are ignored. Delete the log after a change of checks or models.
Writes results/false_alarms.json, in which a model keeps an earlier result with the same settings
and more seeds. The log is too long for the repository.

A seed of all models takes about 50 s of one core.
"""

import argparse
import json
import time

import torch
from _record import RESULTS, environment, write
from scipy import stats

import densekit
from densekit.checks import density_checks

EXACT = {"max_steps": 100, "device": "cpu"}
NET = {**EXACT, "hidden_sizes": (32,)}
SETTINGS = {
    "Gaussian": {},
    "KernelDensity": {},
    "GaussianMixture": {},
    "MaskedAutoregressiveFlow": {**NET, "n_transforms": 2},
    "NeuralSplineFlow": {**NET, "n_transforms": 2},
    "PlanarFlow": {**NET, "n_transforms": 6},
    "RadialFlow": {**NET, "n_transforms": 6},
    "NeuralAutoregressiveFlow": {**NET, "n_transforms": 2},
    "GaussianizationFlow": {**NET, "n_transforms": 2, "n_components": 8},
    "RealNVP": {**NET, "n_transforms": 4},
    "TransformFlow": EXACT,
    "SylvesterFlow": {**NET, "n_transforms": 4},
    "TarFlow": {**EXACT, "n_transforms": 2, "width": 16},
    "ContinuousFlow": {**EXACT, "hidden_sizes": (16,), "n_steps": 4},
    "Glow": {**NET, "n_transforms": 2},
    "VAE": {"hidden_sizes": (32,), "n_importance": 32, "device": "cpu"},
    "MADE": {**NET, "n_masks": 2},
    "TabularAutoregressive": {**NET, "n_orders": 2, "dropout": 0.0},
    "NGram": {},
    "TransformerLanguageModel": {"n_layers": 1, "width": 32, "device": "cpu"},
    "PixelCNN": {**EXACT, "max_steps": 400, "width": 8, "n_layers": 2},
    "ImageTransformer": {**EXACT, "width": 16, "n_layers": 1, "n_heads": 2},
    "GAN": {"hidden_sizes": (64, 64), "device": "cpu"},
    "RecurrentLanguageModel": {"n_layers": 1, "width": 32, "device": "cpu"},
    "MaskedDiffusion": {"n_layers": 1, "width": 32, "device": "cpu"},
    "Seq2Seq": {"n_layers": 1, "width": 32, "device": "cpu"},
    "NoiseConditionalScore": {"hidden_sizes": (32,), "device": "cpu"},
}
"""Small, and yet able to learn the data of the checks."""
LOG = RESULTS / "false_alarms.jsonl"


def key(line):
    """Key that identifies the run of a line."""
    return tuple(str(line[k]) for k in ("version", "model", "settings", "check", "seed"))


def repeat(models, seeds, everything):
    """Run what is missing in the log. Seeds are the outer loop, so a short log covers all models."""
    done = {key(line) for line in logged()}
    for seed in range(seeds):
        for name in models:
            estimator = densekit.all_estimators()[name](**SETTINGS[name])
            for _, check in density_checks(estimator):
                if not (everything or check.chance):
                    continue
                line = {
                    "version": densekit.__version__,
                    "model": name,
                    "settings": repr(SETTINGS[name]),
                    "check": check.name,
                    "seed": seed,
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


def summary(models):
    """Runs and failures of each model by check, over the log."""
    lines = {key(line): line for line in logged() if line["version"] == densekit.__version__}
    found = {}
    for name in models:
        mine = [
            line
            for line in lines.values()
            if line["model"] == name and line["settings"] == repr(SETTINGS[name])
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
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    RESULTS.mkdir(exist_ok=True)
    repeat(arguments.models, arguments.seeds, arguments.all_checks)
    chances = {c.name: c.chance for kind in densekit.all_estimators().values()
               for _, c in density_checks(kind()) if c.chance}  # fmt: skip
    now = environment()
    models = {
        name: {"date": now["date"]} | found for name, found in summary(arguments.models).items()
    }
    path = RESULTS / "false_alarms.json"
    for name, old in (json.loads(path.read_text())["models"] if path.exists() else {}).items():
        same = json.dumps(old["settings"]) == json.dumps(SETTINGS.get(name))
        if same and old["seeds"] >= models.get(name, {"seeds": 0})["seeds"]:
            models[name] = old
    record = {"environment": now, "threads": 1, "chance_stated": chances}
    write("false_alarms", record | {"models": models})


if __name__ == "__main__":
    main()
