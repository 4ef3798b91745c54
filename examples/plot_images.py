"""
Models of digits from four families
===================================

The pixels of images are integers with a probability mass, so likelihoods are measured in bits per
pixel. A GAN has no likelihood and can be evaluated only by its samples.
"""

# %%
# The images have 8 by 8 pixels with 17 gray levels, which ``support`` declares. Each model is
# trained for a few seconds. This is enough to see how the families differ, but not to rank them.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from densekit import GAN, VAE, GaussianMixture, RealNVP, datasets
from densekit.metrics import bits_per_dim

digits = datasets.load("digits")
levels = ("interval", 0, 16)
models = {
    "GaussianMixture": GaussianMixture(n_components=10, support=levels, random_state=0),
    "RealNVP": RealNVP(support=levels, max_steps=150, random_state=0),
    "VAE": VAE(support=levels, max_steps=250, random_state=0),
    "GAN": GAN(support=levels, max_steps=300, random_state=0),
}
for model in models.values():
    model.fit(digits.train)

# %%
# Ten samples of each model, and ten images of the data.

figure, axes = plt.subplots(5, 1, figsize=(8, 5), layout="constrained")
rows = {"data": digits.train[:10]}
rows |= {name: model.sample(10, random_state=0) for name, model in models.items()}
for ax, (name, images) in zip(axes, rows.items(), strict=True):
    ax.imshow(np.hstack(list(images)), cmap="gray_r", vmin=0, vmax=16)
    ax.set_ylabel(name, rotation=0, ha="right", va="center")
    ax.set(xticks=[], yticks=[])
plt.show()

# %%
# Fewer bits per pixel are better. All scores are lower bounds of the log-probability, so the
# bits are upper bounds. The bounds are Monte Carlo estimates, whose standard errors
# ``return_std=True`` returns. A uniform distribution needs log2(17) = 4.09 bits.

bits = {}
for name, model in models.items():
    if hasattr(model, "score_samples"):
        scores, errors = model.score_samples(digits.test, return_std=True)
        estimate = bits_per_dim(scores, 64, errors)
        bits[name] = (model.density_kind_, estimate.value, estimate.standard_error)
columns = ["kind", "bits per pixel", "error"]
pd.DataFrame.from_dict(bits, orient="index", columns=columns).round(3)
