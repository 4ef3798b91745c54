"""Binary sets on which tractable and autoregressive models of masses are compared."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from densekit.datasets import fetch
from densekit.datasets.base import Dataset
from densekit.datasets.catalog import dataset


def binary(name: str) -> Dataset:
    """Rows of zeros and ones with their published split, as a DataFrame of levels 0 and 1.

    They are declared as levels because a few columns are constant in the training part alone
    (``mushrooms``, ``nips``): as plain numbers these would be points, and test rows impossible.
    Rows may be repeated, in ``nltcs`` most are. Lowd and Davis 2010, Van Haaren and Davis 2012,
    Larochelle and Murray 2011.
    """
    found = fetch.arrays(f"binary_debd/{name}.npz", _rows)
    return dataset(name, (_levels(found[part]) for part in ("train", "valid", "test")))


LOADERS: dict[str, Callable[[], Dataset]] = {
    name: functools.partial(binary, name)
    for name in (
        "accidents", "baudio", "bbc", "bnetflix", "dna", "jester", "mushrooms", "nips", "nltcs",
        "plants", "pumsb_star", "voting",
    )
}  # fmt: skip


def _levels(x: np.ndarray) -> pd.DataFrame:
    bit = pd.CategoricalDtype([0, 1], ordered=True)
    columns = {f"x{j}": pd.Categorical.from_codes(c, dtype=bit) for j, c in enumerate(x.T)}
    return pd.DataFrame(columns)


def _rows(paths: list[Path]) -> dict[str, np.ndarray]:
    """The three parts as they are published: a row on a line, digits with commas between."""
    found = {}
    for path in paths:
        lines = path.read_bytes().split()
        digits = np.frombuffer(b"".join(lines).replace(b",", b""), np.uint8) - ord("0")
        found[path.name.split(".")[-2]] = digits.reshape(len(lines), -1)
    return found
