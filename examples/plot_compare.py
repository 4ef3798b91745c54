"""
Comparing models
================

Two scores can be ranked only if they have the same density kind and the same measure, and if their
difference is larger than its standard error. This example compares models by hand; ``densekit bench``
does it for a suite.
"""

# %%
# Seven models are fitted to 11 measurements of wines. Two columns of integers are dropped, because a
# density of repeated values has no upper bound.

import matplotlib.pyplot as plt
import pandas as pd
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split

from densekit import (
    GAN,
    VAE,
    Gaussian,
    GaussianMixture,
    KernelDensity,
    NoiseConditionalScore,
    RealNVP,
)
from densekit.metrics import held_out_nats, two_sample_auc

wine = load_wine(as_frame=True).data.drop(columns=["proline", "magnesium"])
train, test = train_test_split(wine, test_size=0.4, random_state=0)
models = [
    Gaussian(random_state=0),
    GaussianMixture(n_components=3, random_state=0),
    KernelDensity(bandwidth="cv", random_state=0),
    RealNVP(max_steps=200, random_state=0),
    VAE(max_steps=300, random_state=0),
    NoiseConditionalScore(max_steps=300, random_state=0),
    GAN(max_steps=300, random_state=0),
]
rows, scores = [], {}
for model in models:
    name = type(model).__name__
    model.fit(train)
    auc = two_sample_auc(test, model.sample(len(test), random_state=0))
    row = {"model": name, "kind": model.density_kind_, "two-sample AUC": auc.value}
    if hasattr(model, "score_samples"):
        scores[name], errors = model.score_samples(test, return_std=True)
        nats = held_out_nats(scores[name], errors)
        row |= {"nats per row": nats.value, "standard error": nats.standard_error}
    rows.append(row)
table = pd.DataFrame(rows).set_index("model")
table.round(2)

# %%
# One panel per density kind. Values in different panels are not comparable: a lower bound of -12 may
# belong to a better density than an exact score of -11, and an estimate may be off in either direction
# by more than its standard error.

kinds = [k for k in ("exact", "lower_bound", "estimate") if (table.kind == k).any()]
widths = [(table.kind == k).sum() for k in kinds]
figure, axes = plt.subplots(
    1, len(kinds), figsize=(9, 3.5), sharey=True, width_ratios=widths, layout="constrained"
)
for ax, kind in zip(axes, kinds, strict=True):
    part = table[table.kind == kind]
    ax.errorbar(part.index, part["nats per row"], 2 * part["standard error"], fmt="o", capsize=4)
    ax.set_title(kind.replace("_", " "))
    plt.setp(ax.get_xticklabels(), rotation=30, ha="right")
    ax.margins(x=0.4)
axes[0].set_ylabel("nats per row, ± 2 standard errors")
plt.show()

# %%
# The error bars overlap, but all models are scored on the same rows, so their errors are correlated. A
# ranking needs the standard error of the *difference*, row by row.

exact = [name for name in scores if table.kind[name] == "exact"]
best = max(exact, key=lambda name: scores[name].mean())
gaps = {name: held_out_nats(scores[best] - scores[name]) for name in exact if name != best}
rows = [(g.value, g.standard_error, g.value / g.standard_error) for g in gaps.values()]
columns = [f"{best} is ahead by", "error", "in errors"]
pd.DataFrame(rows, index=list(gaps), columns=columns).round(2)

# %%
# The GAN has no density and is in none of the panels. It can be compared by its samples: how well does a
# classifier separate them from the data? The best value is 0.5, and all models have this metric.

table["two-sample AUC"].sort_values().round(3)
