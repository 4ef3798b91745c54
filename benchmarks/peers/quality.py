"""How well flows fit real tables in equal wall-clock time: densekit, zuko, nflows, scikit-learn tuned.

    python benchmarks/peers/quality.py --peers peers/bin/python --data shared/data

Continuous columns alone: numbers of which no value is taken by more than one row in a hundred. All
get the same rows, standardized by the training rows' mean and spread (densekit does so by itself) and
one thread. densekit is its default estimator with ``max_time``; the others are trained by Adam at
1e-3 with batches of 512, keeping the weights that score best on the validation rows. The mixture and
the kernel estimator of scikit-learn are chosen on the validation rows and take what time they take.
Scores are mean nats of the test rows in the units of the data; differences are paired by seed. What is
done is a line of results/quality.jsonl, and is not done again.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from _record import RESULTS, environment, write
from run import THREADS, Worker

LOG = RESULTS / "quality.jsonl"
SETS = [
    "uci_kin40k", "uci_pumadyn32nm", "uci_pendulum", "uci_protein",
    "abalone", "buddy", "california", "default", "house", "king", "wilt",
]  # fmt: skip
_COMMONEST = 0.01


def rows(name):
    """Train, valid and test rows of the continuous columns, float64."""
    import pandas as pd

    from densekit import datasets

    data = datasets.load(name)
    parts = [pd.DataFrame(p) for p in (data.train, data.valid, data.test.for_scoring())]
    whole = parts[0].select_dtypes("number")
    keep = [c for c in whole if whole[c].value_counts(normalize=True).iloc[0] <= _COMMONEST]
    return [part[keep].to_numpy(np.float64) for part in parts], [str(c) for c in keep]


def classical(train, valid, test):
    """Scores of scikit-learn's mixture and kernel estimator, each chosen on the validation rows."""
    from sklearn.mixture import GaussianMixture
    from sklearn.neighbors import KernelDensity

    mean, spread = train.mean(0), train.std(0)
    x, v, t = ((part - mean) / spread for part in (train, valid, test))
    shift = np.log(spread).sum()
    mixtures = [GaussianMixture(k, random_state=0, reg_covar=1e-5).fit(x) for k in (5, 10, 20, 40)]
    mixture = max(mixtures, key=lambda m: m.score(v))
    few = v[:1000]
    kernels = [KernelDensity(bandwidth=h, rtol=1e-4).fit(x) for h in (0.05, 0.1, 0.2, 0.3, 0.5)]
    kernel = max(kernels, key=lambda k: k.score(few))
    return {
        "sklearn mixture": float(mixture.score(t) - shift),
        "sklearn kernels": float(kernel.score_samples(t[:2000]).mean() - shift),
    }


def done():
    lines = LOG.read_text().splitlines() if LOG.exists() else []
    return {
        (x["data"], x["library"], x["seed"], x["seconds"]): x["score"]
        for x in map(json.loads, lines)
    }


def note(**line):
    RESULTS.mkdir(exist_ok=True)
    with LOG.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(line, flush=True)


def measure(arguments):
    pythons = {"densekit": sys.executable, "zuko": arguments.peers, "nflows": arguments.peers}
    workers = [Worker(name, pythons[name], arguments.core) for name in arguments.libraries]
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.sets:
            (train, valid, test), columns = rows(name)
            if len(columns) < 2:
                print(f"{name}: {len(columns)} continuous columns, left out")
                continue
            path = os.path.join(folder, f"{name}.npz")
            np.savez(path, train=train, valid=valid, test=test)
            if (name, "sklearn mixture", 0, 0) not in done():
                for library, score in classical(train, valid, test).items():
                    note(data=name, library=library, seed=0, seconds=0, score=score)
            for seed in range(arguments.seeds):
                for worker in workers:
                    if (name, worker.name, seed, arguments.seconds) in done():
                        continue
                    answer = worker.ask(
                        do="quality", library=worker.library, data=path,
                        seconds=arguments.seconds, seed=seed,
                    )  # fmt: skip
                    if "error" in answer:
                        print(f"{name}, {worker.name}, seed {seed}: {answer['error']}")
                        continue
                    note(
                        data=name, library=worker.name, seed=seed,
                        seconds=arguments.seconds, score=answer["score"],
                    )  # fmt: skip
    for worker in workers:
        worker.close()


def summary(seconds):
    """Mean scores, and densekit's lead over each other with twice its standard error over seeds."""
    found, table = done(), {}
    for name in SETS:
        scores = {}
        for (data, library, _, s), score in sorted(found.items()):
            if data == name and s in (0, seconds):
                scores.setdefault(library, []).append(score)
        if not scores:
            table[name] = {"left_out": "fewer than two continuous columns"}
            continue
        ours = np.array(scores.get("densekit", []))
        lead = {}
        for library, theirs in scores.items():
            apart = ours[: len(theirs)] - theirs if len(theirs) > 1 else ours - theirs[0]
            if library != "densekit" and len(apart) > 1:
                error = 2 * apart.std(ddof=1) / len(apart) ** 0.5
                lead[library] = [round(float(apart.mean()), 3), round(float(error), 3)]
        means = {k: round(float(np.mean(v)), 3) for k, v in scores.items()}
        table[name] = {"mean_test_nats": means, "densekit_ahead_by": lead, "seeds": len(ours)}
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", required=True, help="the Python that has the other libraries")
    parser.add_argument("--data", help="folder of data sets: DENSEKIT_DATA")
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--libraries", nargs="+", default=["densekit", "zuko", "nflows"])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--report", action="store_true", help="only write results/quality.json")
    arguments = parser.parse_args()
    if arguments.data:
        os.environ["DENSEKIT_DATA"] = str(Path(arguments.data).resolve())
    os.environ.update(dict.fromkeys(THREADS, "1"))
    if not arguments.report:
        subprocess.run([arguments.peers, "-c", "import zuko, nflows"], check=True)
        measure(arguments)
    about = environment()
    about["command"] = about["command"].replace(arguments.peers, "peers/bin/python")
    record = {"environment": about, "seconds": arguments.seconds, "threads": 1}
    write("quality", {**record, "tables": summary(arguments.seconds)})


if __name__ == "__main__":
    main()
