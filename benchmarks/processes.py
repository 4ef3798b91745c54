"""Two processes against one: seconds of a fit, steps per second, and the held-out score of each.

    python benchmarks/processes.py
    python benchmarks/processes.py --steps 20 --rounds 1 --dry    # does it run? writes nothing

The same fit with ``devices=1`` and ``devices=2`` on the CPU, by turns, each round with a seed of its
own. Two processes share the threads of one, and have one each where it has one (OMP_NUM_THREADS=1).
``fit_seconds`` is the whole call, with the start of the second process; ``steps_per_second`` is that of
the training loop alone. Ratios are medians over the rounds of one process' seconds divided by two's, so
above 1 two are faster. Writes results/processes.json.
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
    """Both fits in turns; what each took and reached."""
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
        # The first of each only warmed up.
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
    """Measure, and write the record or show it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dry", action="store_true", help="show the record, write nothing")
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
