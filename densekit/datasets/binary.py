"""Binary data sets that are used to compare autoregressive and other tractable models."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from densekit.datasets import fetch
from densekit.datasets.base import Dataset
from densekit.datasets.catalog import dataset


def binary(name: str) -> Dataset:
    """Load a binary data set with its published split, as a DataFrame of categories 0 and 1.

    The dtype declares both levels because some columns of ``mushrooms`` and ``nips`` are constant in
    the training part only. As numbers, these columns would have a single possible value, and test rows
    would score -inf. Rows may be repeated; most rows of ``nltcs`` are.

    References
    ----------
    Lowd and Davis (2010), *Learning Markov network structure with decision trees*,
    https://doi.org/10.1109/ICDM.2010.128

    Van Haaren and Davis (2012), *Markov network structure learning: A randomized feature generation
    approach*

    Larochelle and Murray (2011), *The neural autoregressive distribution estimator*,
    https://proceedings.mlr.press/v15/larochelle11a.html
    """
    parts = fetch.arrays(f"binary_debd/{name}.npz", _parse_parts)
    return dataset(name, (_categories(parts[part]) for part in ("train", "valid", "test")))


LOADERS: dict[str, Callable[[], Dataset]] = {
    name: functools.partial(binary, name)
    for name in (
        "accidents", "baudio", "bbc", "bnetflix", "dna", "jester", "mushrooms", "nips", "nltcs",
        "plants", "pumsb_star", "voting",
    )
}  # fmt: skip


def _categories(x: np.ndarray) -> pd.DataFrame:
    bit = pd.CategoricalDtype([0, 1], ordered=True)
    columns = {f"x{j}": pd.Categorical.from_codes(c, dtype=bit) for j, c in enumerate(x.T)}
    return pd.DataFrame(columns)


def _parse_parts(paths: list[Path]) -> dict[str, np.ndarray]:
    """The three parts by name, from text files with one row of comma-separated digits per line."""
    parts = {}
    for path in paths:
        lines = path.read_bytes().split()
        digits = np.frombuffer(b"".join(lines).replace(b",", b""), np.uint8) - ord("0")
        parts[path.name.split(".")[-2]] = digits.reshape(len(lines), -1)
    return parts
