"""Draws of every model of tables, column by column: values that cannot be, shapes and trends.

    python benchmarks/columns.py --data shared/data                        # all: an hour of one core
    python benchmarks/columns.py --data shared/data --sets buddy --models VAE MADE --seconds 5
    python benchmarks/columns.py --data shared/data --name columns_before  # results/columns_before.json

Each model is fitted to the training part with its defaults but for the budget: neural ones get
``--seconds``, whatever ``max_steps`` is by default. The figures are

    impossible    share of the values of 10,000 draws that the training rows rule out: beyond the end of
                  a column whose smallest or largest value is an atom, off the grid on which all rows
                  lie, levels that do not exist; and the share of draws with such a value
    shape, trend  distance of columns and of pairs of columns of the draws from those of the training
                  rows, as SDMetrics defines them (1 - score), of as many draws as there are test rows

all beside the same of the test rows, which no model can be expected to beat (``test rows``). The sets:

    adult               integers with atoms at an end (capital gains), categories
    churn               a float with an atom at 0 and two decimals, flags, counts
    california_housing  ages cut off at 52, prices at 500,001, coordinates of two decimals, a category
    buddy               dates at midnight, whole minutes, two decimals, categories
    king                integers with atoms at 0, floats of few values, coordinates, prices
    uci_bike            floats of few values (flags, months, hours), counts

Everything runs on one core. What was run stands in the file and is not run again: stop it and start it
as you like; ``--again`` repeats. ``--draws FOLDER`` keeps the draws, and measures those that it finds.
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
    """Training and test rows, the two times of ``buddy`` as datetimes."""
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
    """10,000 draws of a model, and how they came about."""
    kept = folder and folder / f"{name}-{label}.parquet"
    told = folder and folder / f"{name}-{label}.json"
    if folder and kept.exists():
        return pd.read_parquet(kept).astype(train.dtypes), json.loads(told.read_text())
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
        told.write_text(json.dumps(about))
    return draws, about


def figures(train, rows, n):
    """Of ``rows``: impossible values of all, shapes and trends of the first ``n``."""
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
    """One entry of the file; a model that fails is told, and does not end the rest."""
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
    parser.add_argument("--data", help="folder of data sets: DENSEKIT_DATA")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--models", nargs="+", choices=known, default=known)
    parser.add_argument(
        "--seconds", type=float, default=20, help="of each neural fit: 20 unless given"
    )
    parser.add_argument("--name", default="columns", help="of the file in results/: columns")
    parser.add_argument("--draws", type=Path, help="folder that keeps the draws")
    parser.add_argument("--again", action="store_true", help="repeat what was run")
    arguments = parser.parse_args()
    if arguments.data:
        os.environ["DENSEKIT_DATA"] = os.path.abspath(arguments.data)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of what fits say of their data
    path = RESULTS / f"{arguments.name}.json"
    code = commit()
    # Model by model, so that a run that is stopped has some of them on all sets.
    for label in [TEST, *arguments.models]:
        for name in arguments.sets:
            record = json.loads(path.read_text()) if path.exists() else {}
            if label in record.get("sets", {}).get(name, {}) and not arguments.again:
                continue
            found = {"commit": code}
            found |= run(name, label, tables(name), arguments.seconds, arguments.draws)
            # Others may have written in the meantime.
            record = json.loads(path.read_text()) if path.exists() else {}
            head = {"threads": 1, "seconds_per_network": arguments.seconds, "draws": DRAWS}
            record["environment"] = environment() | head
            record.setdefault("sets", {}).setdefault(name, {})[label] = found
            path.write_text(json.dumps(record, indent=1) + "\n")
            told = {
                k: v["value"] for k, v in found.items() if isinstance(v, dict) and "value" in v
            }
            print(name, label, found.get("failed") or told, flush=True)


if __name__ == "__main__":
    main()
