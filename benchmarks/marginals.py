"""Scores of rows with missing cells by the two methods of TabularAutoregressive.

    python benchmarks/marginals.py                 # three tables, some minutes
    python benchmarks/marginals.py --tasks wine

Rows of a test part have one missing cell, or half of their columns missing at random.
``score_samples`` scores them with ``method="marginal"`` and ``method="network"``. The results are
the mean, the mean absolute value and the maximum of the difference per row, in nats; the largest
standard error of the marginals; and the CPU milliseconds per row of both methods. The tables are

- normals: three correlated normals, 500 rows;
- wine: thirteen numbers of 178 wines from scikit-learn;
- mixed: six numbers, four categories and an integer that depend on three latent normals, 2,000 rows.
"""

import argparse
import json
import time

import numpy as np
import pandas as pd
from _record import RESULTS, environment
from sklearn.datasets import load_wine

from densekit import TabularAutoregressive

STEPS, ROWS = 300, 40


def normals():
    """Three correlated normals."""
    cov = [[1, 0.8, 0.5], [0.8, 1, 0.6], [0.5, 0.6, 1]]
    return pd.DataFrame(np.random.default_rng(0).multivariate_normal(np.zeros(3), cov, 560))


def wine():
    """Thirteen numbers."""
    X = load_wine(as_frame=True).data
    return X.sample(frac=1, random_state=0, ignore_index=True)


def mixed():
    """Numbers, categories and an integer that depend on three latent normals."""
    rng = np.random.default_rng(0)
    n = 2060
    z = rng.normal(size=(n, 3))
    X = pd.DataFrame({f"number{j}": z[:, j % 3] + 0.7 * rng.normal(size=n) for j in range(6)})
    for j in range(4):
        code = (1.2 * z[:, j % 3] + 2 + 0.5 * rng.normal(size=n)).clip(0, 3).astype(int)
        X[f"code{j}"] = pd.Categorical(np.array(list("abcd"))[code])
    X["age"] = (45 + 12 * z[:, 0] + 5 * rng.normal(size=n)).round().astype(int)
    return X


TASKS = {"normals": normals, "wine": wine, "mixed": mixed}


def holes(X, which):
    """Rows with one missing cell, or with half of their columns missing."""
    rng = np.random.default_rng(1)
    gone = rng.random(X.shape).argsort(1) < (1 if which == "one cell" else X.shape[1] // 2)
    return X.astype(object).mask(gone)


def measure(name):
    """Differences and costs on one table."""
    X = TASKS[name]()
    X.columns = [str(c) for c in X]
    test, train = X[:ROWS], X[ROWS:]
    est = TabularAutoregressive(max_steps=STEPS, random_state=0, device="cpu").fit(train)
    found = {}
    for which in ("one cell", "half"):
        rows, scores, seconds = holes(test, which), {}, {}
        for method in ("marginal", "network"):
            start = time.process_time()
            scores[method], info = est.score_samples(rows, method=method, return_info=True)
            seconds[method] = time.process_time() - start
            if method == "marginal":
                error, exact = float(info["std"].max()), float((info["kind"] == "exact").mean())
        gap = scores["network"].astype(float) - scores["marginal"]
        found[which] = {
            "mean": round(float(gap.mean()), 3),
            "absolute": round(float(np.abs(gap).mean()), 3),
            "greatest": round(float(np.abs(gap).max()), 2),
            "exact": round(exact, 2),
            "greatest_standard_error": round(error, 3),
            "ms_a_row": {m: round(1000 * s / ROWS, 1) for m, s in seconds.items()},
        }
    return found


def main():
    """Measure the tasks of the command line, and store the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--tasks", nargs="*", choices=TASKS, default=list(TASKS))
    path = RESULTS / "marginals.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for name in parser.parse_args().tasks:
        head = environment()
        results[name] = {**measure(name), "environment": head}
        path.write_text(json.dumps(results, indent=1) + "\n")
        print(name, json.dumps({k: v for k, v in results[name].items() if k != "environment"}))


if __name__ == "__main__":
    main()
