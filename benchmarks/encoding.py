"""Time to encode and score a million rows, compared with another checkout of this repository.

    python benchmarks/encoding.py --other ../densekit-before      # results/encoding.json

Each result is the smallest CPU time of one core over interleaved rounds. A round times both
checkouts one after the other, each in its own process. The table ``zeros`` has a column with 80 %
zeros, which shows the cost of an atom.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import warnings

from _record import RESULTS, environment

ROWS, ROUNDS = 1_000_000, 5


def timed(work):
    start = time.process_time()
    work()
    return time.process_time() - start


def measure():
    """Seconds of CPU time by table and task, for the imported densekit."""
    import numpy as np
    import pandas as pd
    import torch

    from densekit import Gaussian

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 6))
    times = pd.to_datetime("2020-01-01") + pd.to_timedelta(1e6 * x[:, 2], unit="s")
    zeros = x[:, :2].copy()
    zeros[rng.random(ROWS) < 0.8, 0] = 0.0
    tables = {
        "array": x,
        "frame": pd.DataFrame(
            {
                "a": x[:, 0],
                "b": x[:, 1],
                "count": rng.integers(0, 10_000, ROWS),
                "kind": rng.choice(list("abcdef"), ROWS),
                "time": times,
            }
        ),
        "zeros": zeros,
    }
    found = {}
    for name, rows in tables.items():
        some = rows.iloc[:20_000] if hasattr(rows, "iloc") else rows[:20_000]
        est = Gaussian(shrinkage=0.0, dequantization_draws=2, random_state=0).fit(some)
        found[name] = {
            "encode": timed(lambda est=est, rows=rows: est.codec_.encode(rows)),
            "score": timed(lambda est=est, rows=rows: est.score_samples(rows)),
        }
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--other", help="a checkout of another commit")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure()))
        return
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    checkouts = {"this": here} | ({"other": arguments.other} if arguments.other else {})
    rounds = {name: [] for name in checkouts}
    for _ in range(ROUNDS):
        for name, path in checkouts.items():
            done = subprocess.run(
                [sys.executable, __file__, "--measure"],
                env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
                capture_output=True,
                text=True,
                check=True,
            )
            rounds[name].append(json.loads(done.stdout))
    least = {
        name: {
            table: {work: min(r[table][work] for r in found) for work in found[0][table]}
            for table in found[0]
        }
        for name, found in rounds.items()
    }
    result = {"environment": environment(), "rows": ROWS, "rounds": ROUNDS, "cpu_seconds": least}
    if "other" in least:
        result["ratio"] = {
            table: {w: round(s / least["other"][table][w], 3) for w, s in by_work.items()}
            for table, by_work in least["this"].items()
        }
    (RESULTS / "encoding.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
