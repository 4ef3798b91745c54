"""
An n-gram model and a small transformer on the same sentences
=============================================================

Both models compute the exact probability of a whole string including its end, so their bits per
character are comparable.
"""

# %%
# Sentences from Python's documentation, as characters. The transformer is tiny and is trained
# for seconds. With so little text and time, the n-gram model is better.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from densekit import NGram, TransformerLanguageModel, datasets
from densekit.metrics import bits_per_character

sentences = datasets.load("pydoc")
held_out = sentences.test.for_scoring()
models = {
    "6-gram": NGram(order=6).fit(sentences.train),
    "transformer": TransformerLanguageModel(
        width=64, n_layers=2, batch_size=8, max_steps=300, learning_rate=6e-3, random_state=0
    ).fit(sentences.train),
}
bits = {
    name: bits_per_character(model.score_samples(held_out), held_out)
    for name, model in models.items()
}
pd.DataFrame(
    [(name, e.value, e.standard_error) for name, e in bits.items()],
    columns=["model", "bits per character", "error"],
).round(3)

# %%
# Samples given a prompt. The score of a string given a prompt is exact as well.

samples = {
    name: model.sample(3, context="Return the ", random_state=0) for name, model in models.items()
}
pd.DataFrame(samples).map(lambda text: "Return the " + text[:80]).style.hide(axis="index")

# %%
# The bits of each character. Let the prompt be the first i characters and the text the rest. The bits of
# character i are the change of the score when the character moves from the text to the prompt.

sentence = next(s for s in held_out if 40 <= len(s) <= 60)
cuts = range(len(sentence) + 1)
prompts, rests = [sentence[:i] for i in cuts], [sentence[i:] for i in cuts]
figure, ax = plt.subplots(figsize=(10, 3), layout="constrained")
for name, model in models.items():
    remaining = -model.score_samples(rests, context=prompts) / np.log(2)
    ax.step(range(len(sentence)), -np.diff(remaining), where="mid", label=name)
ax.set(xticks=range(len(sentence)), ylabel="bits", xlabel="each character, given those before it")
ax.set_xticklabels(list(sentence.replace(" ", "␣")), fontfamily="monospace")
ax.legend()
plt.show()
