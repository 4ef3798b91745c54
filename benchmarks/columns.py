"""Samples of every model of tables, by column: impossible values, shape errors and trend errors.

    python benchmarks/columns.py --data shared/data                        # all: an hour of one core
    python benchmarks/columns.py --data shared/data --sets buddy --models VAE MADE --seconds 5
    python benchmarks/columns.py --data shared/data --name columns_before  # results/columns_before.json

Each model is fitted to the training part with default parameters, except that neural models train for
``--seconds`` instead of ``max_steps``. The results are

    impossible    share of the values of 10,000 samples that the training rows rule out (beyond
                  the end of a column, off the grid of its values, or unknown levels), and the
                  share of samples with such a value
    shape, trend  errors of columns and of pairs of columns against the training rows, as defined by
                  SDMetrics (1 - score), for as many samples as there are test rows

and the same for the test rows, a baseline that no model is expected to beat (``test rows``). The
data sets:

    adult               integers with atoms at an end (capital gains), categories
    churn               a float with an atom at 0 and two decimals, flags, counts
    california_housing  ages cut off at 52, prices at 500,001, coordinates of two decimals, a category
    buddy               dates at midnight, whole minutes, two decimals, categories
    king                integers with atoms at 0, floats of few values, coordinates, prices
    uci_bike            floats of few values (flags, months, hours), counts

Everything runs on one core. Results in the file are not computed again, so the script can be
interrupted and continued; ``--again`` repeats them. ``--draws FOLDER`` stores the samples and
reuses stored ones.
"""

import argparse
import json
import math
import os
import subprocess
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from _record import RESULTS, environment

import densekit
from densekit import datasets
from densekit.metrics import impossible_values, shape_errors, trend_errors

SETS = ("adult", "churn", "california_housing", "buddy", "king", "uci_bike")
DRAWS = 10_000
TEST = "test rows"


def tables(name):
    """Training and test rows; the two times of ``buddy`` are datetimes."""
    data = datasets.load(name)
    parts = [pd.DataFrame(part) for part in (data.train, data.test.for_scoring())]
    if isinstance(data.train, np.ndarray):
        parts = [part.add_prefix("x") for part in parts]
    if name == "buddy":
        for part in parts:
            for column, unit in (("num_0", "D"), ("num_1", "m")):
                times = part[column].to_numpy().astype(f"datetime64[{unit}]")
                part[column] = times.astype("datetime64[s]")
    return parts


def estimator(kind, seconds, seed=0):
    budget = {}
    if "max_steps" in kind().get_params():
        budget = {"max_time": seconds, "max_steps": 10**7, "device": "cpu"}
    elif "max_time" in kind().get_params():
        budget = {"max_time": seconds}
    return kind(random_state=seed, **budget), budget


def drawn(name, label, train, seconds, folder):
    """10,000 samples of a model, and details of its fit."""
    kept = folder and folder / f"{name}-{label}.parquet"
    details_path = folder and folder / f"{name}-{label}.json"
    if folder and kept.exists():
        return pd.read_parquet(kept).astype(train.dtypes), json.loads(details_path.read_text())
    model, budget = estimator(densekit.all_estimators(modality="table")[label], seconds)
    load, start, busy = os.getloadavg()[0], time.perf_counter(), time.process_time()
    model.fit(train)
    about = {
        "settings": budget,
        "fit_seconds": round(time.perf_counter() - start, 1),
        "fit_cpu_seconds": round(time.process_time() - busy, 1),
        "load_before": round(load, 1),
    }
    if hasattr(model, "n_iter_"):
        about["steps"] = int(model.n_iter_)
    draws = model.sample(DRAWS, random_state=0)
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        draws.to_parquet(kept)
        details_path.write_text(json.dumps(about))
    return draws, about


def figures(train, rows, n):
    """Impossible values of all ``rows``, and shape and trend errors of the first ``n``."""
    bad = impossible_values(train, rows)
    some = rows.iloc[:n]
    found = {
        "impossible_values": figure(bad.values),
        "rows_with_one": figure(bad.rows),
        "columns": {
            str(column): {
                reason: share
                for reason in ("beyond_end", "off_grid", "unknown_level", "no_value")
                if (share := round(float(line[reason]), 4))
            }
            for column, line in bad.table.iterrows()
            if line["share"]
        },
        "shape_error": figure(shape_errors(train, some).mean),
        "trend_error": figure(trend_errors(train, some).mean),
    }
    return found | {"rows": len(rows), "rows_of_errors": len(some)}


def figure(estimate):
    return {
        name: None if math.isnan(x) else round(x, 6)
        for name, x in (("value", estimate.value), ("standard_error", estimate.standard_error))
    }


def commit():
    git = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
    ]
    return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()


def run(name, label, parts, seconds, folder):
    """The result of one model. A failure is printed and does not stop the script."""
    train, test = parts
    n = min(DRAWS, len(test))
    if label == TEST:
        chosen = np.random.default_rng(0).permutation(len(test))[:n]
        return figures(train, test.iloc[chosen].reset_index(drop=True), n)
    try:
        draws, about = drawn(name, label, train, seconds, folder)
        return figures(train, draws, n) | about
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}"[:300]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = list(densekit.all_estimators(modality="table"))
    parser.add_argument("--data", help="folder of data sets, by default DENSEKIT_DATA")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--models", nargs="+", choices=known, default=known)
    parser.add_argument(
        "--seconds", type=float, default=20, help="seconds of each neural fit, by default 20"
    )
    parser.add_argument(
        "--name", default="columns", help="name of the file in results, by default columns"
    )
    parser.add_argument("--draws", type=Path, help="folder for samples")
    parser.add_argument("--again", action="store_true", help="repeat runs that have a result")
    arguments = parser.parse_args()
    if arguments.data:
        os.environ["DENSEKIT_DATA"] = os.path.abspath(arguments.data)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # Warnings of fits about their data.
    path = RESULTS / f"{arguments.name}.json"
    code = commit()
    # Models are the outer loop, so an interrupted run has some models on all data sets.
    for label in [TEST, *arguments.models]:
        for name in arguments.sets:
            record = json.loads(path.read_text()) if path.exists() else {}
            if label in record.get("sets", {}).get(name, {}) and not arguments.again:
                continue
            found = {"commit": code}
            found |= run(name, label, tables(name), arguments.seconds, arguments.draws)
            # Another process may have written to the file.
            record = json.loads(path.read_text()) if path.exists() else {}
            head = {"threads": 1, "seconds_per_network": arguments.seconds, "draws": DRAWS}
            record["environment"] = environment() | head
            record.setdefault("sets", {}).setdefault(name, {})[label] = found
            path.write_text(json.dumps(record, indent=1) + "\n")
            summary = {
                k: v["value"] for k, v in found.items() if isinstance(v, dict) and "value" in v
            }
            print(name, label, found.get("failed") or summary, flush=True)


if __name__ == "__main__":
    main()
