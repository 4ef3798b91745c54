"""
A learned density as a prior
============================

A fitted estimator is a Pyro distribution, so it can be the prior of a Pyro program. Here a flow
learns the distribution of positions from data, and inference combines it with a noisy measurement
of one position.
"""

# %%
# The prior is learned from data, the two moons.

import matplotlib.pyplot as plt
import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import MCMC, NUTS

from densekit import NeuralSplineFlow, datasets

moons = datasets.load("two_moons")
flow = NeuralSplineFlow(
    n_transforms=2,
    n_bins=6,
    hidden_sizes=(32, 32),
    max_steps=1000,
    dtype="float64",
    random_state=0,
    device="cpu",
).fit(moons.train)

# %%
# The Pyro program. ``flow.distribution_`` is a distribution over rows in the units of the data. Only the
# first coordinate is measured, with a standard error of 0.3.


def program(measured: torch.Tensor) -> None:
    position = pyro.sample("position", flow.distribution_)
    pyro.sample("measured", dist.Normal(position[..., 0], 0.3), obs=measured)


measured = torch.tensor(0.5, dtype=torch.float64)
pyro.set_rng_seed(0)
start = {"position": torch.tensor([0.2, 0.9], dtype=torch.float64)}
sampler = MCMC(
    NUTS(program, max_tree_depth=5),
    num_samples=200,
    warmup_steps=80,
    initial_params=start,
    disable_progbar=True,
)
sampler.run(measured)
draws = sampler.get_samples()["position"].numpy()

# %%
# In two dimensions the posterior can also be computed on a grid: the score of the flow plus the
# log-likelihood, normalized.

x, y = np.linspace(-1.5, 2.5, 160), np.linspace(-1, 1.5, 120)
grid = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
prior = flow.score_samples(grid)
posterior = np.exp(prior - 0.5 * ((grid[:, 0] - measured.item()) / 0.3) ** 2)
posterior /= posterior.sum() * (x[1] - x[0]) * (y[1] - y[0])

figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True, layout="constrained")
axes[0].pcolormesh(x, y, np.exp(prior).reshape(120, 160), rasterized=True)
axes[0].set_title("prior: the flow")
axes[1].pcolormesh(x, y, posterior.reshape(120, 160), rasterized=True)
axes[1].plot(*draws.T, ".", color="w", ms=2)
axes[1].axvline(measured.item(), color="C3", ls=":")
axes[1].set_title("posterior on a grid, and draws of NUTS")
plt.show()

# %%
# The probability of the upper moon from both. A chain of 200 draws is short, and NUTS rarely
# moves between the two moons, so the share of draws is much less certain than that of 200
# independent draws.

upper = posterior[grid[:, 1] > 0.25].sum() / posterior.sum()
{"grid": round(float(upper), 2), "draws": round((draws[:, 1] > 0.25).mean(), 2)}
