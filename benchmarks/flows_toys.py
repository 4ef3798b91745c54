"""Scores of the default NeuralSplineFlow() on toys with a known density, after a minute on one core.

    python benchmarks/flows_toys.py

The result is the mean negative log-density of 20,000 new rows in nats, and the entropy of the true
density, for the default of 2,000 steps and for ``max_time=60``. Writes results/flows_toys.json.
"""

import argparse
import time

import numpy as np
import torch
from _record import environment, write

from densekit import NeuralSplineFlow, datasets

TOYS = ("two_moons", "checkerboard", "eight_gaussians")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=60)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = {}
    for name in TOYS:
        law = datasets.load(name).truth
        X, test = law.sample(50_000, random_state=0), law.sample(20_000, random_state=1)
        # The entropy is estimated on the same rows, so that their noise cancels in the difference.
        truth = -float(np.mean(law.log_prob(test)))
        row = {"rows": len(X), "truth": round(truth, 4), "entropy": round(law.entropy, 4)}
        for label, budget in (
            ("default", {}),
            (
                f"max_time={arguments.seconds:g}",
                {"max_time": arguments.seconds, "max_steps": 10**7},
            ),
        ):
            runs = []
            for seed in range(arguments.seeds):
                start = time.process_time()
                flow = NeuralSplineFlow(random_state=seed, device="cpu", **budget).fit(X)
                runs.append(
                    {
                        "nats": round(-flow.score(test), 4),
                        "above_truth": round(-flow.score(test) - truth, 4),
                        "steps": flow.n_iter_,
                        "cpu_seconds": round(time.process_time() - start, 1),
                    }
                )
                print(name, label, runs[-1], flush=True)
            row[label] = runs
        table[name] = row
    write("flows_toys", {"environment": environment(), "threads": 1, "toys": table})


if __name__ == "__main__":
    main()
