"""Default models on tables of 50 to 500 rows, compared with the Gaussian.

    python benchmarks/small_tables.py --data shared/data                 # ten tables, all models
    python benchmarks/small_tables.py --data shared/data --tables wine iris --models RealNVP
    python benchmarks/small_tables.py --data shared/data --label before  # of another revision
    python benchmarks/small_tables.py --list

Each result is the held-out log-density of a model with default parameters minus that of the
Gaussian, in nats per row, averaged over seeds. All models and seeds use the same training rows,
the first of a permutation by ``numpy.random.RandomState(0)``, and the same held-out rows, at most
500 of the rest. Densities of columns with repeated values are unbounded, which can dominate the
mean, so the worst table is more informative.

All models get one description of the training rows, so all scores of a table have the same measure.

Results are in results/small_tables.json under their label and are not repeated without ``--again``.
"""

import argparse
import json
import os
import time
import warnings

import numpy as np
import torch
from _record import RESULTS, environment
from sklearn import datasets as sklearn_datasets

import densekit
from densekit import datasets

TABLES = {
    "concrete": 50,
    "iris": 90,
    "wine": 106,
    "breastcancer": 155,
    "yacht": 240,
    "autompg": 300,
    "stock": 400,
    "housing": 400,
    "forest": 400,
    "pendulum": 500,
}
"""Rows to fit."""
FLOWS = (
    "NeuralSplineFlow",
    "RealNVP",
    "MaskedAutoregressiveFlow",
    "NeuralAutoregressiveFlow",
    "ContinuousFlow",
    "GaussianizationFlow",
    "PlanarFlow",
    "RadialFlow",
    "SylvesterFlow",
    "TarFlow",
    "TransformFlow",
)
OTHERS = (
    "MADE",
    "TabularAutoregressive",
    "VAE",
    "NoiseConditionalScore",
    "GaussianMixture",
    "KernelDensity",
)
MOST_SCORED = 500


def rows(name):
    """Training rows and held-out rows."""
    if name == "iris":
        X = sklearn_datasets.load_iris().data
    elif name == "wine":
        X = sklearn_datasets.load_wine().data[:, :12]
    else:
        data = datasets.load(f"uci_{name}")
        X = np.concatenate([data.train, data.valid, data.test.for_scoring()])
    X = X[np.random.RandomState(0).permutation(len(X))]
    n = TABLES[name]
    return X[:n], X[n : n + MOST_SCORED]


def run(model, name, seeds):
    """Mean held-out nats and CPU seconds of a model on a table, for each seed."""
    train, test = rows(name)
    columns = densekit.describe(train)
    nats, seconds, steps = [], [], []
    for seed in range(seeds):
        est = getattr(densekit, model)(columns=columns, random_state=seed, device="cpu")
        start = time.process_time()
        est.fit(train)
        seconds.append(round(time.process_time() - start, 2))
        steps.append(getattr(est, "history_", {}).get("best_step"))
        nats.append(round(float(np.mean(est.score_samples(test), dtype=float)), 4))
    found = {"nats": nats, "cpu_seconds": seconds, "best_step": steps}
    return found | {"kind": est.density_kind_, "measure": est.base_measure_}


def summary(runs):
    """Mean nats over seeds minus those of the Gaussian, by model and table."""
    means = {k: {t: float(np.mean(r["nats"])) for t, r in v.items()} for k, v in runs.items()}
    gaussian = means.get("Gaussian", {})
    out = {}
    for model, found in means.items():
        gap = {t: round(v - gaussian[t], 3) for t, v in found.items() if t in gaussian}
        if gap and model != "Gaussian":
            values = list(gap.values())
            out[model] = gap | {"worst": min(values), "mean": round(float(np.mean(values)), 3)}
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder of data sets, by default DENSEKIT_DATA")
    parser.add_argument("--tables", nargs="+", choices=list(TABLES), default=list(TABLES))
    parser.add_argument("--models", nargs="+", default=[*FLOWS, *OTHERS])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--label", default="now", help="key of the result, by default now")
    parser.add_argument("--out", default=str(RESULTS / "small_tables.json"))
    parser.add_argument("--again", action="store_true", help="repeat runs that have a result")
    parser.add_argument("--list", action="store_true", help="list tables and models")
    arguments = parser.parse_args()
    if arguments.list:
        print(*TABLES, *FLOWS, *OTHERS, sep="\n")
        return
    if arguments.data:
        os.environ["DENSEKIT_DATA"] = os.path.abspath(arguments.data)
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")
    for table in arguments.tables:
        for model in ["Gaussian", *arguments.models]:
            stored = _load(arguments.out)
            runs = stored.setdefault(arguments.label, {}).setdefault("runs", {})
            if table in runs.get(model, {}) and not arguments.again:
                continue
            found = run(model, table, arguments.seeds if model != "Gaussian" else 1)
            # Another process may have written to the file.
            stored = _load(arguments.out)
            record = stored.setdefault(arguments.label, {})
            record["environment"] = environment() | {"threads": arguments.threads}
            record["rows_to_fit"] = TABLES
            record.setdefault("runs", {}).setdefault(model, {})[table] = found
            record["minus_gaussian"] = summary(record["runs"])
            with open(arguments.out, "w", encoding="utf-8") as file:
                file.write(json.dumps(stored, indent=1) + "\n")
            print(arguments.label, table, model, found, flush=True)


def _load(path):
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as file:
        return json.load(file)


if __name__ == "__main__":
    main()
