"""One library in one process: reads what to do, a line of JSON each, and answers with seconds."""

import json
import os
import sys
import time
import traceback

import numpy as np


def data(n_features, n):
    """Correlated, skewed columns: nothing that a flow knows already."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(n_features, n_features)) / n_features**0.5
    X = rng.normal(size=(n, n_features)) @ mix
    X = X + 0.5 * np.sin(3 * X[:, ::-1]) + 0.3 * X**2
    return ((X - X.mean(0)) / X.std(0)).astype(np.float32)


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints
    from libraries import LIBRARIES

    library, X = None, None
    for line in sys.stdin:
        order = json.loads(line)
        try:
            start = time.perf_counter()
            answer = {}
            if order["do"] == "build":
                options = order.get("options", {})
                library = LIBRARIES[order["library"]](**options)
                X = data(order["n_features"], 20_000)
                library.build(order["model"], order["n_features"])
                library.train(X, 3)
                library.log_prob(X[:4096])
                answer["parameters"] = int(library.n_parameters())
            elif order["do"] == "quality":
                library = LIBRARIES[order["library"]]()
                parts = np.load(order["data"])
                parts = [parts[name] for name in ("train", "valid", "test")]
                answer["score"] = library.quality(*parts, order["seconds"], order["seed"])
            elif order["do"] == "train":
                answer["seconds"] = library.train(X, order["n"])
            elif order["do"] == "score":
                library.log_prob(X[: order["n"]])
            else:
                library.sample(order["n"])
            answer.setdefault("seconds", time.perf_counter() - start)
        except Exception:
            answer = {"error": traceback.format_exc().splitlines()[-1]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
