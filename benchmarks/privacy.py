"""Memorization: what samples reveal about the training rows of a model.

    python benchmarks/privacy.py

Tables: models are fitted to one half of scikit-learn's breast cancer data (30 real columns,
standardized), and the other half is held out. The results are averages over five random splits,
with as many samples as rows in a half:

    nearer to train   share of samples that are closer to a training row than to any held-out
                      row, which is one half without memorization
    distance ratio    median distance of a sample to its closest training row, divided by that of
                      a held-out row: below 1 if samples are closer to training rows than new
                      rows are
    copies            share of samples that are training rows

A model *memorizes* if the first share exceeds one half by three standard errors. The ratio is not
a criterion: samples near the mean are close to all rows, and training rows with noise in thirty
columns are far from all rows, but closest to their own.

Text: sentences of the Penn Treebank. The results are the share of samples that are training
sentences, and the share of their windows of 30 characters that occur in a training sentence; the
same for held-out sentences.

Each network trains for 10 seconds, except one that is made to memorize. Writes
results/privacy.json and the tables of SECURITY.md.
"""

import argparse
import collections

import numpy as np
import torch
from _pages import insert, table
from _record import environment, write
from scipy.spatial.distance import cdist
from sklearn.datasets import load_breast_cancer

import densekit
from densekit import NGram, TransformerLanguageModel, datasets
from densekit.discovery import family_of

SECONDS = 10
SPLITS = 5
WINDOW = 30
SENTENCES = 3000
ERRORS = 3
BY_HEART = {
    "width": 64,
    "n_layers": 2,
    "max_time": 60,
    "max_epochs": 10_000,
    "validation_fraction": 0.0,
    "patience": None,
    "device": "cpu",
}


def halves(seed):
    """Equal numbers of training and held-out rows, standardized by the training rows."""
    X = load_breast_cancer().data
    X = X[np.random.default_rng(seed).permutation(len(X))]
    n = len(X) // 2
    train, held_out = X[:n], X[n : 2 * n]
    return (train - train.mean(0)) / train.std(0), (held_out - train.mean(0)) / train.std(0)


def distances(drawn, train, held_out):
    """The three results of the module's docstring for samples."""
    to_train, to_held_out = (cdist(drawn, rows).min(1) for rows in (train, held_out))
    typical = cdist(held_out, train).min(1)
    return (
        (to_train < to_held_out).mean(),
        np.median(to_train) / np.median(typical),
        (to_train == 0).mean(),
    )


def tables():
    """Results of every model of tables, and of the training rows themselves."""
    found, about = collections.defaultdict(list), {}
    for seed in range(SPLITS):
        train, held_out = halves(seed)
        for label, estimator in estimators(seed):
            print(seed, label, flush=True)
            drawn = np.asarray(estimator.fit(train).sample(len(train), random_state=seed))
            found[label].append(distances(drawn, train, held_out))
            about[label] = {"family": family_of(type(estimator)), "settings": changed(estimator)}
        again = np.random.default_rng(seed).choice(train, len(train))
        found["training rows, drawn again"].append(distances(again, train, held_out))
    return {label: about.get(label, {}) | summary(found[label], len(train)) for label in found}


def summary(figures, n):
    """Means over splits, and whether the model memorizes."""
    shares = [nearer for nearer, _, _ in figures]
    nearer, ratio, copies = (float(x) for x in np.mean(figures, 0))
    # At least the error of a fair coin, because five splits may agree by chance.
    error = max(np.std(shares, ddof=1), 0.5 / n**0.5) / len(shares) ** 0.5
    return {
        "nearer_to_train": round(nearer, 3),
        "nearer_standard_error": round(float(error), 3),
        "distance_ratio": round(ratio, 3),
        "copies": round(copies, 4),
        "memorizes": bool(nearer > 0.5 + ERRORS * error),
    }


def estimators(seed):
    """A fast version of each model, and a kernel density with a learned bandwidth."""
    for name, kind in densekit.all_estimators(modality="table").items():
        neural = (
            {"max_time": SECONDS, "device": "cpu"} if "max_time" in kind().get_params() else {}
        )
        yield name, kind(random_state=seed, **neural)
    yield 'KernelDensity, `bandwidth="cv"`', densekit.KernelDensity(bandwidth="cv")


def changed(estimator):
    """Hyper-parameters that differ from their defaults."""
    default = type(estimator)().get_params()
    return {k: v for k, v in estimator.get_params().items() if v != default[k]}


def texts(seed=0):
    """Shares of copied sentences and windows: n-grams of growing order, and a network that is let to
    learn a hundred sentences by heart."""
    data = datasets.load("ptb")
    sentences = [s for s in dict.fromkeys(data.train) if len(s) >= WINDOW]
    order = np.random.default_rng(seed).permutation(len(sentences))[: 2 * SENTENCES]
    train, held_out = ([sentences[i] for i in part] for part in np.split(order, 2))
    found = {"held-out sentences": copied(held_out, train)}
    for n in (4, 6, 12, 24):
        drawn = NGram(order=n).fit(train).sample(SENTENCES, random_state=seed)
        found[f"NGram, `order={n}`"] = copied(drawn, train)
    few = train[:100]
    by_heart = TransformerLanguageModel(**BY_HEART, random_state=seed).fit(few)
    drawn = by_heart.sample(300, random_state=seed)
    label = f"TransformerLanguageModel, 100 sentences, {BY_HEART['max_time']} s, nothing held out"
    found[label] = copied(drawn, few)
    return found


def windows_of(sentence):
    return [sentence[i : i + WINDOW] for i in range(len(sentence) - WINDOW + 1)]


def copied(drawn, train):
    """Shares of strings that are training strings, and of their windows that occur in one."""
    known, windows = set(train), {w for s in train for w in windows_of(s)}
    seen = [w in windows for s in drawn for w in windows_of(s)]
    return {
        "copies": round(float(np.mean([s in known for s in drawn])), 4),
        "windows": round(float(np.mean(seen)), 4),
    }


def pages(record):
    """The tables of SECURITY.md."""
    lines = [
        [
            name,
            f"{100 * f['nearer_to_train']:.1f} ± {100 * f['nearer_standard_error']:.1f} %",
            f"{f['distance_ratio']:.2f}",
            f"{100 * f['copies']:.1f} %",
            "yes" if f["memorizes"] else "no",
        ]
        for name, f in record["tables"].items()
    ]
    heads = ["draws of", "nearer to train", "distance ratio", "copies", "memorizes"]
    source = f"{record['date'][:10]}, `{record['command']}`"
    insert("SECURITY.md", "privacy of tables", f"{table(heads, lines)}\n\n({source})")
    lines = [
        [n, f"{100 * f['copies']:.1f} %", f"{100 * f['windows']:.1f} %"]
        for n, f in record["text"].items()
    ]
    heads = ["strings", "are training strings", f"windows of {WINDOW} characters that are"]
    insert("SECURITY.md", "privacy of text", table(heads, lines))


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    torch.set_num_threads(1)
    record = environment() | {"threads": 1, "seconds_per_network": SECONDS}
    record |= {"tables": tables(), "text": texts()}
    write("privacy", record)
    pages(record)


if __name__ == "__main__":
    main()
