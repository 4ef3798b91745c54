"""
Comparing models honestly
=========================

Two numbers may be ranked only if they are the same kind of number over the same measure, and only
as far as their errors let them. This example does it by hand; ``densekit bench`` does it for a
suite.
"""

# %%
# Seven models of 11 measurements of wines, each asked what its score is. Two more columns hold whole
# numbers and are left out: as real numbers, their density would have no upper bound.

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
# One panel for each kind. Across panels no bar is comparable: a lower bound of -12 may belong to
# a better density than an exact -11, and an estimate may err to either side by more than its
# standard error says.

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
# The bars overlap, but they share their rows: what is hard for one model is hard for the others.
# The standard error of the *difference*, row by row, is what a ranking needs.

exact = [name for name in scores if table.kind[name] == "exact"]
best = max(exact, key=lambda name: scores[name].mean())
gaps = {name: held_out_nats(scores[best] - scores[name]) for name in exact if name != best}
rows = [(g.value, g.standard_error, g.value / g.standard_error) for g in gaps.values()]
columns = [f"{best} is ahead by", "error", "in errors"]
pd.DataFrame(rows, index=list(gaps), columns=columns).round(2)

# %%
# The GAN stands in none of the panels. What remains for it is how well a classifier tells its
# samples from the data: 0.5 is the best, and all models can be compared by it.

table["two-sample AUC"].sort_values().round(3)
