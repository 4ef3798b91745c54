"""Overhead of an estimator over its bare module: import, fit, score_samples and memory.

    python benchmarks/overhead.py

Estimator and bare code run alternately in one process; ratios are medians over pairs. The bare
loop trains the same module with batches, loss, backward pass and fused AdamW only: no held-out
rows, averaged weights, gradient clipping or schedule. Writes results/overhead.json.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from _record import environment

from densekit import VAE, NeuralSplineFlow, RealNVP

ROUNDS = 5
STEPS = 300
RESULTS = Path(__file__).parent / "results" / "overhead.json"


def data(n, d=8):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + 5


def clock(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def bare_fit(estimator, events):
    """Train the module of ``fit`` with a bare loop."""
    module = estimator._build(estimator.schema_, None)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, fused=True)
    size, steps = estimator.batch_size, estimator.max_steps
    done = 0
    while done < steps:
        for index in torch.randperm(len(events)).split(size):
            loss = estimator._loss(module, events[index], None).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            done += 1
            if done == steps:
                break


def fit_overhead(kind, X, **settings):
    estimator = kind(max_steps=STEPS, patience=None, verbose=False, random_state=0, **settings)
    estimator.fit(X)
    events = estimator.codec_.encode(X)[0].float()
    pairs = [
        (clock(lambda: estimator.fit(X)), clock(lambda: bare_fit(estimator, events)))
        for _ in range(ROUNDS)
    ]
    return summary(pairs)


def score_overhead(kind, X, **settings):
    estimator = kind(max_steps=20, verbose=False, random_state=0, **settings).fit(X[:2000])
    events = estimator.codec_.encode(X)[0].float()
    batch = estimator._capabilities.score_batch

    def bare():
        with torch.no_grad():
            dist = estimator.module_(None)
            torch.cat([dist.log_prob(piece) for piece in events.split(batch)])

    estimator.score_samples(X)
    pairs = [(clock(lambda: estimator.score_samples(X)), clock(bare)) for _ in range(ROUNDS)]
    return summary(pairs)


def summary(pairs):
    ratios = [a / b for a, b in pairs]
    return {
        "densekit_s": round(float(np.median([a for a, _ in pairs])), 4),
        "bare_s": round(float(np.median([b for _, b in pairs])), 4),
        "ratio": round(float(np.median(ratios)), 4),
        "ratio_min": round(min(ratios), 4),
        "ratio_max": round(max(ratios), 4),
    }


def import_seconds():
    """Median seconds of a new interpreter with the import, minus those of one without."""
    code = "import time; t = time.perf_counter(); import densekit; print(time.perf_counter() - t)"
    runs = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout)
        for _ in range(9)
    ]
    torch_free = subprocess.run(
        [sys.executable, "-c", "import sys, densekit; print('torch' not in sys.modules)"],
        capture_output=True,
        text=True,
    ).stdout.strip()
    return {"seconds": round(float(np.median(runs)), 4), "without_torch": torch_free == "True"}


MEMORY = """
import resource, sys, numpy as np
from densekit import {name}
rng = np.random.default_rng(0)
est = {name}(**{settings}).fit(rng.normal(size=(2000, 8)))
est.score_samples(rng.normal(size=(5000, 8)))
X = rng.normal(size=(1_000_000, 8))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
est.score_samples(X)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) / 1024)
"""


def peak_growth(name, settings):
    """Growth of peak memory in MiB while a million rows of 8 columns (61 MiB) are scored."""
    code = MEMORY.format(name=name, settings=settings)
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return round(float(out.stdout), 1)


def main():
    # With two threads, other processes on the second core could slow down only one half of a pair.
    torch.set_num_threads(1)
    small = {"max_steps": 10, "verbose": False}
    results = {
        "command": "python benchmarks/overhead.py",
        "environment": environment(),
        "threads": 1,
        "import": import_seconds(),
        "fit_over_bare_loop": {
            f"{kind.__name__}, {STEPS} steps, 10,000 x 8": fit_overhead(kind, data(10_000))
            for kind in (NeuralSplineFlow, RealNVP, VAE)
        },
        "score_samples_over_bare_module": {
            f"{kind.__name__}, 100,000 x 8": score_overhead(kind, data(100_000))
            for kind in (NeuralSplineFlow, RealNVP)
        },
        "peak_growth_mib_scoring_1e6_rows_of_8": {
            "Gaussian": peak_growth("Gaussian", {}),
            "GaussianMixture": peak_growth("GaussianMixture", {}),
            "RealNVP": peak_growth("RealNVP", small),
            "NeuralSplineFlow": peak_growth("NeuralSplineFlow", small),
        },
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
