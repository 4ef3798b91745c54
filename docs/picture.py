"""Draw the picture of the README and the front page: ``python docs/picture.py``.

A spline flow learns a toy whose density is known. The picture shows the true density, draws of the
flow and its scores, on the color scale of the truth. It takes about a minute on one core.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from densekit import NeuralSplineFlow, datasets
from densekit.metrics import held_out_nats

TARGET = Path(__file__).with_name("_static") / "two_moons.png"


def draw(target: Path = TARGET, max_steps: int = 2000) -> None:
    """Fit the flow with ``max_steps`` steps and write the picture to ``target``."""
    moons = datasets.load("two_moons")
    flow = NeuralSplineFlow(max_steps=max_steps, random_state=0, device="cpu").fit(moons.train)
    x, y = np.linspace(-1.5, 2.5, 240), np.linspace(-1.0, 1.5, 150)
    grid = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    truth, learned = moons.truth.log_prob(grid), flow.score_samples(grid)
    draws = flow.sample(4000, random_state=0)
    best = held_out_nats(moons.truth.log_prob(moons.test))
    reached = held_out_nats(flow.score_samples(moons.test))

    figure, axes = plt.subplots(1, 3, figsize=(9, 2.15), layout="constrained", dpi=160)
    scale = {
        "vmin": 0.0,
        "vmax": float(np.exp(truth).max()),
        "cmap": "viridis",
        "rasterized": True,
    }
    axes[0].pcolormesh(x, y, np.exp(truth).reshape(150, 240), **scale)
    axes[0].set_title(f"true density: {best.value:.2f} nats per row", fontsize=9)
    axes[1].scatter(*draws.T, s=1.2, color="#31688e", linewidths=0)
    axes[1].set_title("flow.sample(4000)", fontsize=9, family="monospace")
    axes[2].pcolormesh(x, y, np.exp(learned).reshape(150, 240), **scale)
    axes[2].set_title(f"exp(flow.score_samples): {reached.value:.2f} nats", fontsize=9)
    for ax in axes:
        ax.set(xlim=(-1.5, 2.5), ylim=(-1.0, 1.5), xticks=[], yticks=[], aspect="equal")
    figure.savefig(target)


if __name__ == "__main__":
    draw()
