"""densekit's flows beside those of other libraries: training steps, scores and draws per second.

    python -m venv peers && peers/bin/pip install -r benchmarks/peers/requirements.txt
    python benchmarks/peers/run.py --peers peers/bin/python

Same layers, bins and widths everywhere (trainable parameters are printed), one thread on one core,
all libraries in turn within each round; a ratio is that of one round, and its median is reported.
densekit is called as a user calls it, ``fit`` and ``score_samples``, with its codec, held-out rows and
average of weights; the others by the loop that their documentation shows. Writes results/peers.json.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from _record import environment, write

HERE = Path(__file__).parent
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
XLA = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
OURS = {
    "densekit": {},
    "densekit, plain torch": {"DENSEKIT_KERNELS": "0"},
}
"""Our rows in the table: with the compiled spline, and without."""


class Worker:
    """A library in a process of its own, pinned to one core."""

    def __init__(self, name, python, core):
        library = "densekit" if name in OURS else name
        env = {**os.environ, **dict.fromkeys(THREADS, "1"), "XLA_FLAGS": XLA, **OURS.get(name, {})}
        self.name, self.library = name, library
        self.process = subprocess.Popen(
            ["taskset", "-c", str(core), python, str(HERE / "worker.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE, env=env,
        )  # fmt: skip

    def ask(self, **order):
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def measure(workers, model, n_features, rounds):
    """Of each library the parameters, and of each round milliseconds or rows a second."""
    table, slow = {}, 100 if model == "nsf_ar" and n_features > 20 else 1000
    for worker in workers:
        answer = worker.ask(do="build", library=worker.library, model=model, n_features=n_features)
        if "error" in answer:
            print(f"{worker.name} is left out of {model}, D={n_features}: {answer['error']}")
            continue
        n = 10_000 if worker.name in OURS or model in ("nsf_c", "realnvp") else slow
        worker.draws = n
        worker.ask(do="sample", n=n)
        row = {"parameters": answer["parameters"], "step_ms": [], "score": [], "sample": []}
        table[worker.name] = row
    steps = 50 if model == "nsf_ar" else 100
    for _ in range(rounds):
        for worker in workers:
            if worker.name not in table:
                continue
            row = table[worker.name]
            seconds = worker.ask(do="train", n=steps)["seconds"]
            row["step_ms"].append(1000 * seconds / steps)
            row["score"].append(4096 / worker.ask(do="score", n=4096)["seconds"])
            n = worker.draws
            row["sample"].append(n / worker.ask(do="sample", n=n)["seconds"])
    return table


def against(table, peer):
    """Medians over rounds of our figure beside ``peer``'s: steps as a share, rates as a multiple."""
    ratios = {}
    for ours in (name for name in table if name in OURS):
        ratios[ours] = {
            key: round(
                statistics.median(
                    a / b for a, b in zip(table[ours][key], table[peer][key], strict=True)
                ),
                3,
            )
            for key in ("step_ms", "score", "sample")
        }
    return ratios


def limit(model, n_features, core):
    """Milliseconds that the matrix products of one training step take alone, dense and one thread."""
    code = f"""
import time, statistics, torch
torch.set_num_threads(1)
D, N, H = {n_features}, 512, 128
half = D if {model in ("nsf_ar", "maf")} else D // 2
out = (D if half == D else D - half) * {23 if "nsf" in model else 2}
layers = {{"nsf_ar": 5, "nsf_c": 5, "maf": 5, "realnvp": 8}}["{model}"]
pairs = [(H, half), (H, H), (out, H)]
mats = [(torch.randn(a, b), torch.randn(b, N), torch.randn(a, N)) for a, b in pairs]
def step():
    for _ in range(layers):
        for i, (w, x, g) in enumerate(mats):
            w @ x; g @ x.t(); w.t() @ g
step()
times = []
for _ in range(15):
    t = time.perf_counter(); step(); times.append(time.perf_counter() - t)
print(1000 * statistics.median(times))
"""
    env = {**os.environ, **dict.fromkeys(THREADS, "1")}
    command = ["taskset", "-c", str(core), sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    return float(done.stdout)


def show(title, table, ratios, bound):
    print(f"\n{title}   (matrix products alone: {bound:.1f} ms)")
    print(f"{'':24}{'parameters':>12}{'step ms':>10}{'of limit':>9}{'rows/s':>10}{'draws/s':>10}")
    for name, row in table.items():
        step, score, sample = (statistics.median(row[k]) for k in ("step_ms", "score", "sample"))
        print(
            f"{name:24}{row['parameters']:12,}{step:10.1f}{bound / step:9.0%}"
            f"{score:10,.0f}{sample:10,.0f}"
        )
    for peer, ours in ratios.items():
        for name, ratio in ours.items():
            print(
                f"  {name} against {peer}: step {ratio['step_ms']:.2f} of its time, "
                f"scores {ratio['score']:.1f}x, draws {ratio['sample']:.1f}x"
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", required=True, help="the Python that has the other libraries")
    parser.add_argument("--libraries", nargs="+", default=["zuko", "nflows", "pyro", "flowjax"])
    parser.add_argument("--models", nargs="+", default=["nsf_ar", "maf", "nsf_c", "realnvp"])
    parser.add_argument("--features", nargs="+", type=int, default=[6, 43])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--dry", action="store_true", help="print only")
    arguments = parser.parse_args()
    results = {}
    with contextlib.ExitStack() as stack:
        workers = [Worker(name, sys.executable, arguments.core) for name in OURS]
        workers += [Worker(name, arguments.peers, arguments.core) for name in arguments.libraries]
        for worker in workers:
            stack.callback(worker.close)
        for model in arguments.models:
            for n_features in arguments.features:
                table = measure(workers, model, n_features, arguments.rounds)
                bound = limit(model, n_features, arguments.core)
                ratios = {peer: against(table, peer) for peer in table if peer not in OURS}
                show(f"{model}, D={n_features}", table, ratios, bound)
                results[f"{model}, D={n_features}"] = {
                    "matrix_products_ms": round(bound, 2),
                    "rounds": table,
                    "medians_of_ratios": ratios,
                }
    if not arguments.dry:
        code = "import importlib.metadata as m, json; print(json.dumps({p: m.version(p) for p in "
        code += f"{['torch', *arguments.libraries, 'jax']!r}".replace("pyro", "pyro-ppl") + "}))"
        found = subprocess.run(
            [arguments.peers, "-c", code], capture_output=True, text=True, check=True
        )
        about = environment()
        about["command"] = about["command"].replace(arguments.peers, "peers/bin/python")
        record = {"environment": about, "peers": json.loads(found.stdout)}
        write("peers", {**record, "batch": 512, "threads": 1, "models": results})


if __name__ == "__main__":
    main()
