"""Distillation into an inverse flow: gain in samples per second and loss in nats.

    python benchmarks/distillation.py --data shared/data

Teachers are fitted to rows, and the student only to its teacher. Both have the same budget of
wall-clock time and one thread. Scores are mean nats per test row. Writes
results/distillation.json.
"""

import argparse
import os
import statistics
import time

import numpy as np
import torch
from _record import environment, write

from densekit import MaskedAutoregressiveFlow, NeuralSplineFlow, datasets, distill

DRAWS = 20_000


def rate(flow):
    """Samples per second, median of five repetitions."""
    flow.sample(DRAWS)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        flow.sample(DRAWS)
        seconds.append(time.perf_counter() - start)
    return round(DRAWS / statistics.median(seconds))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder of data sets, by default DENSEKIT_DATA")
    parser.add_argument("--sets", nargs="+", default=["two_moons", "uci_kin40k"])
    parser.add_argument("--seconds", type=float, default=45)
    arguments = parser.parse_args()
    if arguments.data:
        os.environ["DENSEKIT_DATA"] = os.path.abspath(arguments.data)
    torch.set_num_threads(1)
    budget = {
        "max_time": arguments.seconds,
        "max_steps": 10**7,
        "random_state": 0,
        "device": "cpu",
    }
    table = {}
    for name in arguments.sets:
        data = datasets.load(name)
        X, test = np.concatenate([data.train, data.valid]), data.test.for_scoring()
        for kind in (MaskedAutoregressiveFlow, NeuralSplineFlow):
            teacher = kind(**budget).fit(X)
            student = distill(teacher, MaskedAutoregressiveFlow(direction="sample", **budget))
            row = {
                "teacher_nats": round(teacher.score(test), 3),
                "student_nats": round(student.score(test), 3),
                "divergence": round(min(student.history_["valid_loss"]), 3),
                "teacher_draws_per_second": rate(teacher),
                "student_draws_per_second": rate(student),
            }
            table[f"{name}: {kind.__name__}"] = row
            print(name, kind.__name__, row, flush=True)
    record = {"environment": environment(), "seconds": arguments.seconds, "threads": 1}
    write("distillation", {**record, "pairs": table})


if __name__ == "__main__":
    main()
