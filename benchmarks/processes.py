"""Two processes compared with one: seconds of a fit, steps per second, and held-out score.

    python benchmarks/processes.py
    python benchmarks/processes.py --steps 20 --rounds 1 --dry    # a quick test that writes nothing

The same fit runs alternately with ``devices=1`` and ``devices=2`` on the CPU; each round has its
own seed. Two processes share the threads of one, but each has at least one thread. ``fit_seconds``
is the time of the whole call, including the start of the second process; ``steps_per_second`` is
that of the training loop only. Ratios are medians over rounds of the time with one process divided
by that with two: two are faster above 1. Writes results/processes.json.
"""

import argparse
import json
import statistics

import numpy as np
import torch
from _record import environment, interleaved, ratio, write

from densekit import NeuralSplineFlow, RealNVP

N, D = 50_000, 16
SIZES = {
    "small": (RealNVP, {"hidden_sizes": (64,), "batch_size": 256}),
    "wide": (RealNVP, {"hidden_sizes": (256, 256), "batch_size": 1024}),
    "spline": (NeuralSplineFlow, {"batch_size": 1024}),
}
"""A step that is over before the gradients are sent, and two that are long."""


def rows(n, seed):
    """Correlated, skewed numbers: the seed changes the draws only."""
    mix = np.random.default_rng(0).normal(size=(D, D)) / np.sqrt(D)
    return np.exp(0.3 * np.random.default_rng(seed).normal(size=(n, D)) @ mix)


def compare(kind, settings, steps, rounds):
    """Run both fits alternately, and return their times and scores."""
    X, test = rows(N, 1), rows(5000, 2)
    done = {devices: [] for devices in (1, 2)}

    def fit(devices):
        est = kind(
            devices=devices,
            device="cpu",
            random_state=len(done[devices]),
            max_steps=steps,
            patience=None,
            verbose=False,
            **settings,
        ).fit(X)
        speed = est.n_iter_ / est.history_["seconds"][-1]
        done[devices].append((speed, est.score(test)))

    seconds = interleaved({str(d): lambda d=d: fit(d) for d in done}, rounds)
    loops = {str(d): [steps / speed for speed, _ in done[d][1:]] for d in done}
    record = {"model": kind.__name__, "settings": settings, "steps": steps, "rounds": rounds}
    for devices, fits in done.items():
        # The first fit of each is a warm-up.
        speeds, scores = (list(values) for values in zip(*fits[1:], strict=True))
        record[f"devices={devices}"] = {
            "fit_seconds": statistics.median(seconds[str(devices)]),
            "steps_per_second": statistics.median(speeds),
            "held_out_nats": {
                "mean": statistics.mean(scores),
                "each": scores,
            },
        }
    differences = [b[1] - a[1] for a, b in zip(done[1][1:], done[2][1:], strict=True)]
    record["two_against_one"] = {
        "fit_speed_up": ratio(seconds, "1", "2"),
        "loop_speed_up": ratio(loops, "1", "2"),
        "held_out_nats": {"mean": statistics.mean(differences), "each": differences},
    }
    return record


def main():
    """Measure, and store or print the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dry", action="store_true", help="print the record without storing it")
    args = parser.parse_args()
    record = environment() | {"threads": torch.get_num_threads(), "rows": N, "columns": D}
    record["sizes"] = {
        name: compare(kind, settings, args.steps, args.rounds)
        for name, (kind, settings) in SIZES.items()
    }
    if args.dry:
        print(json.dumps(record, indent=1))
    else:
        write("processes", record)


if __name__ == "__main__":
    main()
