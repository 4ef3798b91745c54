"""UCI regression data sets as tables of numbers, with the folds of Evans and Nair (2018)."""

import functools
import io
from collections.abc import Callable

import numpy as np

from densekit.datasets import fetch
from densekit.datasets.base import Dataset
from densekit.datasets.catalog import dataset
from densekit.datasets.tables import take

_NAMES = (
    "airfoil", "autompg", "bike", "breastcancer", "concrete", "elevators", "energy", "forest",
    "gas", "housing", "keggdirected", "kin40k", "machine", "parkinsons", "pendulum", "pol",
    "protein", "pumadyn32nm", "servo", "skillcraft", "sml", "solar", "stock", "tamielectric",
    "wine", "yacht",
)  # fmt: skip


def regression(name: str) -> Dataset:
    """Load a regression data set as float64 columns, of which the last is the target.

    The test part is fold 0, and the validation part is a random tenth of the other rows. The
    published columns are centered and rounded to five digits; their units are the original ones.
    Densities are best compared on ``uci_kin40k``, ``uci_pumadyn32nm``, ``uci_pendulum`` and
    ``uci_protein``. Repeated rows of the last, and its column 4 (correlation 0.998 with column 0),
    are dropped. The other data sets have columns with few values, linear dependencies or many
    repeated rows, which make the likelihood unbounded.

    References
    ----------
    Evans and Nair (2018), *Scalable Gaussian processes with grid-structured eigenfunctions*,
    https://arxiv.org/abs/1807.02125
    """
    x, mask = (
        np.loadtxt(io.BytesIO(fetch.text(f"uci_regression/{name}/{part}.csv.gz")), delimiter=",")
        for part in ("data", "test_mask")
    )
    in_test = mask[:, 0] == 1
    if name == "protein":
        first = np.sort(np.unique(x, axis=0, return_index=True)[1])
        x, in_test = np.delete(x[first], 4, axis=1), in_test[first]
    rest = np.random.RandomState(0).permutation(np.flatnonzero(~in_test))
    n_valid = round(0.1 * len(rest))
    return dataset(f"uci_{name}", take(x, (rest[n_valid:], rest[:n_valid], in_test)))


LOADERS: dict[str, Callable[[], Dataset]] = {
    f"uci_{name}": functools.partial(regression, name) for name in _NAMES
}
