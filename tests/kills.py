"""Kill fits at random moments and see whether they end as if nothing had happened.

    python tests/kills.py --kills 20                     # of the fits of every family
    python tests/kills.py --kills 5 --families VAE GAN

For each family one fit is left alone. Others, with a `checkpoint_dir`, get SIGKILL at a random moment
and are started again in another process, until the asked number of kills is reached and the last fit
ends. Every fit that ends must have the weights, history and samples of the first, bit for bit, and
leave no file in its folder. Each process is a fork of this one, which only imports: a kill then costs a
fit's time and not an import's.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import densekit
import densekit.checkpoints

TABLE = np.random.default_rng(0).normal(size=(300, 2)) * [1, 50] + [0, 1000]
WORDS = ["abba", "baab", "abab", "bb", "a"] * 40
SHARED = {"random_state": 0, "device": "cpu", "max_steps": 60, "batch_size": 32}
STEPS = 600
"""Of a fit that is killed: about a second."""
FAMILIES = {
    "RealNVP": ({"n_transforms": 2, "hidden_sizes": (8,)}, TABLE),
    "NeuralSplineFlow": ({"n_transforms": 2, "hidden_sizes": (8,)}, TABLE.astype(int)),
    "VAE": ({"latent_dim": 1, "hidden_sizes": (8,)}, TABLE),
    "GAN": ({"hidden_sizes": (8,), "validation_fraction": 0.1}, TABLE),
    "TransformerLanguageModel": (
        {"n_layers": 1, "width": 16, "n_heads": 2, "dropout": 0.1},
        WORDS,
    ),
    "NoiseConditionalScore": ({"hidden_sizes": (16,), "dropout": 0.1}, TABLE),
}
"""Small fits that between them draw whatever a fit can draw: noise of dequantization, of a latent, of a
generator, of dropout, of levels."""


def make(family, **changes):
    settings, rows = FAMILIES[family]
    return densekit.all_estimators()[family](**{**SHARED, **settings, **changes}), rows


def outcome(estimator):
    """Weights, history and samples of a fit, as two texts of which equality means equality."""
    weights = {k: v.numpy().tobytes().hex() for k, v in estimator.module_.state_dict().items()}
    history = {k: v for k, v in estimator.history_.items() if k != "seconds"}
    samples = estimator.sample(20, random_state=1)
    samples = samples if isinstance(samples, list) else np.asarray(samples).tobytes().hex()
    return json.dumps({"weights": weights, "history": history, "samples": samples})


def fork(family, target, **changes):
    """A fit in a process of its own, which writes its outcome to `target`; the process's id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        estimator, rows = make(family, **changes)
        target.write_text(outcome(estimator.fit(rows)))
        status = 0
    finally:
        os._exit(status)


def finish(child):
    """Whether a process ended by itself, and well; False where it was killed."""
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return False
    if os.WEXITSTATUS(status):
        raise RuntimeError("a fit failed; its traceback is above")
    return True


def survive(family, kills, seed):
    """Kill fits of a family, and tell how it went."""
    moments = random.Random(f"{family}{seed}")
    counts = {"kills": 0, "resumed": 0, "half-written": 0, "fits": 0, "unlike": 0, "left": 0}
    with tempfile.TemporaryDirectory() as name:
        folder, target = Path(name) / "fit", Path(name) / "outcome"
        begun = time.perf_counter()
        finish(fork(family, target, max_steps=STEPS))
        duration, alone = time.perf_counter() - begun, target.read_text()
        while True:
            counts["resumed"] += (folder / "fit.safetensors").exists()
            child = fork(family, target, max_steps=STEPS, checkpoint_dir=str(folder))
            if counts["kills"] < kills:
                time.sleep(moments.uniform(0, duration))
                os.kill(child, signal.SIGKILL)
            if not finish(child):
                counts["kills"] += 1
                counts["half-written"] += len(list(folder.glob(".fit-*"))) > 0
                for part in folder.glob(".fit-*"):
                    part.unlink()
                continue
            counts["fits"] += 1
            counts["unlike"] += target.read_text() != alone
            for part in folder.iterdir():
                counts["left"] += 1
                part.unlink()
            if counts["kills"] >= kills:
                return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument(
        "--families", nargs="+", choices=sorted(FAMILIES), default=sorted(FAMILIES)
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write what was counted as JSON")
    given = parser.parse_args()
    torch.set_num_threads(1)
    # What a first fit imports for seconds is imported here; and a file is written at every round.
    for family in given.families:
        make(family)
    torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
    densekit.checkpoints._SHARE = 1e9
    counted = {}
    for family in given.families:
        counts = counted[family] = survive(family, given.kills, given.seed)
        sys.stdout.write(f"{family}: {', '.join(f'{v} {k}' for k, v in counts.items())}\n")
        sys.stdout.flush()
        if given.out:
            given.out.write_text(json.dumps(counted))
    return int(any(counts["unlike"] or counts["left"] for counts in counted.values()))


if __name__ == "__main__":
    sys.exit(main())
