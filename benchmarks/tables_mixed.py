"""TabularAutoregressive on mixed tables, compared with simple baselines.

    python benchmarks/tables_mixed.py --data shared/data                  # all: 15 minutes each
    python benchmarks/tables_mixed.py --data shared/data --tasks churn --seconds 20
    python benchmarks/tables_mixed.py --list

All scores are nats per row of the test part over the same measure: masses of categories, integers
and spikes (values that a twentieth of the rows of a float column share), and densities of other
numbers in their units. The baselines are

- independent columns: shares of categories with add-one smoothing; shares of integers, mixed with
  a broad logistic by the Good-Turing estimate of unseen mass; spikes mixed with a Gaussian
  mixture;
- a Gaussian copula of these columns: discrete columns are dequantized, and the density of a row is
  the mean over 64 draws of the noise;
- an n-gram over columns with 16 bins each, with its order chosen on the validation part; within a
  bin, a column has its distribution under independent columns.

Results in results/tables_mixed.json are not computed again, so the script can be interrupted and
continued; ``--again`` repeats them.
"""

import argparse
import json
import math
import os
import time

import numpy as np
import pandas as pd
import torch
from _record import RESULTS, environment
from scipy import special, stats
from sklearn.mixture import GaussianMixture

from densekit import NGram, TabularAutoregressive, datasets

TASKS = ("adult", "churn", "cardio")
BINS, DRAWS, COMPONENTS, ROWS = 16, 64, 16, 20_000


class Codes:
    """Distribution of levels: their shares with add-one smoothing."""

    def __init__(self, x, column):
        counts = np.bincount(x.astype(int), minlength=len(column.levels)) + 1
        self.share = counts / counts.sum()
        self.cuts = np.arange(len(counts))

    def at(self, x):
        return self.share[x.astype(int)]

    def below(self, x):
        return np.concatenate([[0], np.cumsum(self.share)])[np.asarray(x).astype(int)]

    def log_prob(self, x):
        return np.log(self.at(x))


class Integers:
    """Distribution of integers: shares of known values, mixed with a discretized logistic."""

    def __init__(self, x, column):
        self.values, counts = np.unique(x, return_counts=True)
        self.rare = ((counts == 1).sum() + 1) / (len(x) + 1)
        self.share = (1 - self.rare) * counts / len(x)
        self.law = stats.logistic(np.median(x), max(1.0, x.std()))
        self.cuts = np.unique(np.quantile(x, np.linspace(0, 1, BINS + 1)[1:-1], method="nearest"))

    def at(self, x):
        place = np.searchsorted(self.values, x).clip(max=len(self.values) - 1)
        seen = np.where(self.values[place] == x, self.share[place], 0)
        # By symmetry the upper tail is used, because the lower one would be a difference of
        # numbers near 1.
        middle = self.law.median()
        far = middle + np.abs(x - middle)
        return seen + self.rare * (self.law.sf(far - 0.5) - self.law.sf(far + 0.5))

    def below(self, x):
        seen = np.concatenate([[0], np.cumsum(self.share)])[np.searchsorted(self.values, x)]
        return seen + self.rare * self.law.cdf(x - 0.5)

    def log_prob(self, x):
        return np.log(self.at(x))


class Numbers:
    """Distribution of numbers: spikes with their shares, mixed with a Gaussian mixture."""

    def __init__(self, x, column):
        self.spikes = np.array(column.spikes)
        slab = x[~np.isin(x, self.spikes)]
        n = np.array([(x == v).sum() for v in self.spikes])
        self.spike_shares = (n + 1) / (len(x) + len(n) + 1)
        self.slab = 1 - self.spike_shares.sum()
        self.loc, self.scale = slab.mean(), slab.std()
        rows = np.random.default_rng(0).permutation(slab)[:ROWS]
        k = min(COMPONENTS, len(np.unique(rows)))
        mixture = GaussianMixture(k, random_state=0, reg_covar=1e-6)
        self.mixture = mixture.fit(self._standard(rows)[:, None])
        self.cuts = np.unique(np.quantile(slab, np.linspace(0, 1, BINS + 1)[1:-1]))

    def _standard(self, x):
        return (x - self.loc) / self.scale

    def at(self, x):
        """The mass of spikes; other numbers have none."""
        return sum(
            (p * (x == v) for v, p in zip(self.spikes, self.spike_shares, strict=True)), 0.0 * x
        )

    def below(self, x):
        z = self._standard(np.asarray(x))[:, None]
        m = self.mixture
        cdf = special.ndtr((z - m.means_.T) / np.sqrt(m.covariances_[:, 0].T)) @ m.weights_
        spikes = (p * (x > v) for v, p in zip(self.spikes, self.spike_shares, strict=True))
        return self.slab * cdf + sum(spikes, 0.0 * x)

    def log_prob(self, x):
        slab = self.mixture.score_samples(self._standard(x)[:, None]) - math.log(self.scale)
        at = self.at(x)
        return np.where(at > 0, np.log(np.maximum(at, 1e-300)), math.log(self.slab) + slab)


def columns_of(X, schema):
    """Columns that are not constant, as numbers: codes of levels, or values."""
    out = []
    for c in schema.varying:
        values = X[c.name]
        if c.levels:
            code = {level: k for k, level in enumerate(c.levels)}
            values = [code[v] for v in values.tolist()]
        out.append(np.asarray(values, float))
    return out


def marginals(train, schema):
    kinds = (Codes if c.levels else Integers if c.kind == "integer" else Numbers
             for c in schema.varying)  # fmt: skip
    return [kind(x, c) for kind, x, c in zip(kinds, train, schema.varying, strict=True)]


def independent(laws, train, valid, test):
    return sum(law.log_prob(x) for law, x in zip(laws, test, strict=True))


def normal_scores(laws, columns, rng):
    """Columns transformed to standard normals; discrete columns are dequantized with noise."""
    z = []
    for law, x in zip(laws, columns, strict=True):
        u = law.below(x) + law.at(x) * rng.random(len(x))
        z.append(special.ndtri(u.clip(1e-7, 1 - 1e-7)))
    return np.stack(z, 1)


def copula(laws, train, valid, test):
    rng = np.random.default_rng(0)
    R = np.corrcoef(normal_scores(laws, train, rng), rowvar=False)
    R = (R + 1e-4 * np.eye(len(laws))) / (1 + 1e-4)  # Columns may be functions of each other.
    law = stats.multivariate_normal(np.zeros(len(laws)), R)
    ratios = []
    for _ in range(DRAWS):
        z = normal_scores(laws, test, rng)
        ratios.append(law.logpdf(z) - stats.norm.logpdf(z).sum(1))
    tied = special.logsumexp(ratios, 0) - math.log(DRAWS)
    return independent(laws, train, valid, test) + tied


def binned(laws, columns):
    """Rows as sentences of bins, and the log-density of what is in them, given the bins."""
    words, inside = [], 0
    for j, (law, x) in enumerate(zip(laws, columns, strict=True)):
        if isinstance(law, Codes):
            words.append([f"{j}.{int(v)}" for v in x])
            continue
        spikes = getattr(law, "spikes", np.zeros(0))
        edges = np.concatenate([[-np.inf], law.cuts, [np.inf]])
        place = np.searchsorted(law.cuts, x, side="right")
        # Spikes have their own symbols, so their mass is not counted in a bin.
        below = np.array([0, *law.below(law.cuts), 1])
        for v, p in zip(spikes, getattr(law, "spike_shares", ()), strict=True):
            below -= p * (edges > v)
        at = np.isin(x, spikes)
        mass = np.diff(below)[place]
        inside = inside + np.where(at, 0, law.log_prob(x) - np.log(np.maximum(mass, 1e-300)))
        words.append(
            [f"{j}.{v}" if s else f"{j}:{k}" for v, s, k in zip(x, at, place, strict=True)]
        )
    return [" ".join(row) for row in zip(*words, strict=True)], inside


def ngram(laws, train, valid, test):
    (texts, _), (held, _), (rows, inside) = (binned(laws, part) for part in (train, valid, test))
    models = [NGram(order=k, tokens="word", random_state=0).fit(texts) for k in (2, 3, 4)]
    best = max(models, key=lambda m: m.score(held))
    return best.score_samples(rows) + inside


SIMPLE = {"independent_columns": independent, "gaussian_copula": copula, "ngram_over_bins": ngram}


def run(name, seconds):
    data = datasets.load(name)
    test = data.test.for_scoring()
    start = time.perf_counter()
    model = TabularAutoregressive(
        max_time=seconds, max_steps=10**7, patience=None, random_state=0, device="cpu"
    ).fit(data.train)
    took = time.perf_counter() - start
    ours = model.score_samples(test).astype(float)
    parts = [columns_of(pd.DataFrame(X), model.schema_) for X in (data.train, data.valid, test)]
    laws = marginals(parts[0], model.schema_)
    simple = {name: score(laws, *parts) for name, score in SIMPLE.items()}
    best = max(simple, key=lambda k: simple[k].mean())
    gap = ours - simple[best]
    return {
        "goal": "at most the nats of the best simple model, minus 1.0",
        "nats": {"ours": nats(ours)} | {name: nats(s) for name, s in simple.items()},
        "best_simple": best,
        "nats_below_it": round(float(gap.mean()), 3),
        "standard_error": round(float(gap.std() / math.sqrt(len(gap))), 3),
        "rows_scored": len(test),
        "spikes": {c.name: list(c.spikes) for c in model.schema_.varying if c.spikes},
        "fit_seconds": round(took, 1),
        "steps": model.n_iter_,
    }


def nats(scores):
    return round(-float(scores.mean()), 3)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder of data sets, by default DENSEKIT_DATA")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument(
        "--seconds", type=float, default=900, help="seconds of each fit, by default 900"
    )
    parser.add_argument("--threads", type=int, help="threads of torch, by default all cores")
    parser.add_argument("--again", action="store_true", help="repeat runs that have a result")
    parser.add_argument("--list", action="store_true", help="list the tasks")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(TASKS))
        return
    if arguments.data:
        os.environ["DENSEKIT_DATA"] = os.path.abspath(arguments.data)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    path = RESULTS / "tables_mixed.json"
    for name in arguments.tasks:
        key = f"{name}_{arguments.seconds:g}s"
        table = json.loads(path.read_text()) if path.exists() else {}
        if key in table and not arguments.again:
            continue
        head = environment() | {"threads": torch.get_num_threads()}
        found = run(name, arguments.seconds) | {"environment": head}
        # Another process may have written to the file.
        table = json.loads(path.read_text()) if path.exists() else {}
        table[key] = found
        path.write_text(json.dumps(table, indent=1) + "\n")
        print(key, {k: v for k, v in found.items() if k != "environment"}, flush=True)


if __name__ == "__main__":
    main()
