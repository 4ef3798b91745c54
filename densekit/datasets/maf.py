"""The five tables of Papamakarios, Pavlakou and Murray 2017 (masked autoregressive flows).

POWER, GAS, HEPMASS and MINIBOONE are prepared by the paper's rules from the authors' raw files
(Zenodo 1161203), rows float32; BSDS300 is drawn from the images again. Scores are in nats over
the prepared columns, as in the literature.
"""

import io
from collections.abc import Callable

import numpy as np
import pandas as pd

from densekit.datasets import fetch
from densekit.datasets.base import Dataset
from densekit.datasets.catalog import dataset

_ARCHIVE = "maf_suite/data.tar.gz"
_CORRELATED = 0.98
_REPEATED = 5
_HELD_OUT_IMAGES = 20
_BLOCK = 50_000

Parts = tuple[np.ndarray, np.ndarray, np.ndarray]


def power() -> Dataset:
    """POWER: electric power of a household by the minute, 6 columns (:func:`prepare_power`)."""
    return dataset("power", prepare_power(_npy("power/data.npy")))


def power_partial() -> Dataset:
    """Two days of the file behind POWER through the same rules: for trying them, not for a score."""
    path = "power_partial_2days/household_power_consumption_2days.txt.gz"
    return dataset("power_partial", prepare_power(read_power(fetch.text(path))))


def gas() -> Dataset:
    """GAS: sensors in a mixture of ethylene and CO, 8 columns (:func:`prepare_gas`).

    The rows are those of the authors' file, a quarter of UCI's. It is a pickle of pandas, and the
    sum of the archive that holds it is an MD5: nothing that the pickle may hold is run.
    """
    found = fetch.members(_ARCHIVE, r"gas/ethylene_CO\.pickle$")["gas/ethylene_CO.pickle"]
    return dataset("gas", prepare_gas(fetch.frame(found)))


def hepmass() -> Dataset:
    """HEPMASS: collisions that made a particle of mass 1000, 21 columns (:func:`prepare_hepmass`)."""
    found = fetch.members(_ARCHIVE, r"hepmass/1000_(train|test)\.csv$")
    train, test = (
        pd.read_csv(io.BytesIO(found[f"hepmass/1000_{part}.csv"]), index_col=False)
        for part in ("train", "test")
    )
    return dataset("hepmass", prepare_hepmass(train, test))


def miniboone() -> Dataset:
    """MINIBOONE: events of electron neutrinos, 43 columns (:func:`prepare_miniboone`)."""
    return dataset("miniboone", prepare_miniboone(_npy("miniboone/data.npy")))


def bsds300(sizes: tuple[int, int, int] = (1_000_000, 50_000, 250_000)) -> Dataset:
    """BSDS300: 8 x 8 gray patches of photographs, 63 columns, drawn again from the 300 images.

    20 of the 200 training images, at random, are there for valid alone; test comes from the 100
    test images. For each patch an image is drawn, then a place in it. Noise on [0, 1) is added to
    every pixel, the sum divided by 256, the patch's mean taken off and its last pixel dropped.
    These are not the patches of the paper, only alike. Martin, Fowlkes, Tal and Malik 2001;
    Papamakarios et al. 2017.
    """
    found = fetch.members("bsds300/bsds300_images.zip", r"(train|test)/\d+\.jpg$")
    names = sorted(found)
    train = [_gray(found[name]) for name in names if name.startswith("train")]
    test = [_gray(found[name]) for name in names if name.startswith("test")]
    rng = np.random.RandomState(300)
    order = rng.permutation(len(train))
    valid = [train[i] for i in order[:_HELD_OUT_IMAGES]]
    train = [train[i] for i in order[_HELD_OUT_IMAGES:]]
    drawn = zip((train, valid, test), sizes, strict=True)
    return dataset("bsds300", (patches(images, n, rng) for images, n in drawn))


LOADERS: dict[str, Callable[[], Dataset]] = {
    loader.__name__: loader for loader in (power, power_partial, gas, hepmass, miniboone, bsds300)
}


# ---------------------------------------------------------------------------------------- recipes


def read_power(text: bytes) -> np.ndarray:
    """UCI's text file to rows (n, 8): active and reactive power, voltage, intensity, three
    sub-meterings and the time of day in minutes; rows with a ``?`` are left out."""
    frame = pd.read_csv(io.BytesIO(text), sep=";", na_values="?").dropna()
    time = pd.to_timedelta(frame["Time"]).dt.total_seconds() / 60
    return np.column_stack([frame.iloc[:, 2:].to_numpy(np.float64), time])


def prepare_power(raw: np.ndarray) -> Parts:
    """Shuffle, drop reactive power and intensity, blur each column by its own resolution, part,
    standardize by train and valid.

    Everything random comes from one ``RandomState(42)``, in the order of the paper's program.
    """
    rng = np.random.RandomState(42)
    x = raw.copy()
    rng.shuffle(x)
    x = np.delete(x, [1, 3], axis=1)
    n = len(x)
    voltage = 0.01 * rng.rand(n, 1)
    active = 0.001 * rng.rand(n, 1)
    sub_meterings = rng.rand(n, 3)
    x += np.hstack([active, voltage, sub_meterings, np.zeros((n, 1))])
    return _standardized(*_last_tenths(x))


def prepare_gas(raw: pd.DataFrame) -> Parts:
    """Drop time and concentrations; while a pair of sensors has a correlation above 0.98, drop the
    first such; standardize by all rows (n - 1 degrees of freedom), part without a shuffle."""
    x = raw.drop(columns=["Time", "Meth", "Eth"])
    correlation = x.corr().to_numpy()
    keep = np.arange(x.shape[1])
    while True:
        inner = correlation[np.ix_(keep, keep)]
        paired = np.flatnonzero((inner > _CORRELATED).sum(1) > 1)
        if not len(paired):
            break
        keep = np.delete(keep, paired[0])
    x = x.iloc[:, keep]
    return _last_tenths(((x - x.mean()) / x.std()).to_numpy(np.float32))


def prepare_hepmass(train: pd.DataFrame, test: pd.DataFrame) -> Parts:
    """Class 1 without its label, and without the last column of the test file, which is foreign;
    standardized by the training file (n - 1 degrees of freedom); columns with a repeated smallest
    value dropped; the last tenth of the training file for valid."""
    x = train[train.iloc[:, 0] == 1].iloc[:, 1:]
    y = test[test.iloc[:, 0] == 1].iloc[:, 1:-1]
    mean, scale = x.mean().to_numpy(), x.std().to_numpy()
    x, y = (x.to_numpy() - mean) / scale, (y.to_numpy() - mean) / scale
    keep = _continuous(x)
    x, y = x[:, keep].astype(np.float32), y[:, keep].astype(np.float32)
    n_valid = int(0.1 * len(x))
    return x[:-n_valid], x[-n_valid:], y


def prepare_miniboone(raw: np.ndarray) -> Parts:
    """Rows whose first entry is below -100 and columns with a repeated smallest value dropped,
    parted without a shuffle, standardized by train and valid."""
    x = raw[raw[:, 0] >= -100]
    return _standardized(*_last_tenths(x[:, _continuous(x)]))


def patches(images: list[np.ndarray], n: int, rng: np.random.RandomState) -> np.ndarray:
    """``n`` patches of gray images as rows of BSDS300, float32 (n, 63)."""
    pixels = np.concatenate([image.ravel() for image in images])
    height, width = np.array([image.shape for image in images]).T
    start = np.concatenate([[0], np.cumsum(height * width)[:-1]])
    row, column = np.divmod(np.arange(64), 8)
    out = np.empty((n, 63), np.float32)
    for first in range(0, n, _BLOCK):
        size = min(_BLOCK, n - first)
        i = rng.randint(len(images), size=size)
        top = (rng.rand(size) * (height[i] - 7)).astype(int)
        left = (rng.rand(size) * (width[i] - 7)).astype(int)
        corner = start[i] + top * width[i] + left
        x = pixels[corner[:, None] + width[i][:, None] * row + column]
        x = (x + rng.rand(size, 64)) / 256
        out[first : first + size] = (x - x.mean(1, keepdims=True))[:, :63]
    return out


def _last_tenths(x: np.ndarray) -> Parts:
    """The last tenth of the rows for test, the last tenth of the others for valid."""
    n_test = int(0.1 * len(x))
    n_valid = int(0.1 * (len(x) - n_test))
    stop = len(x) - n_test
    return x[: stop - n_valid], x[stop - n_valid : stop], x[stop:]


def _standardized(train: np.ndarray, valid: np.ndarray, test: np.ndarray) -> Parts:
    both = np.vstack([train, valid])
    mean, scale = both.mean(0), both.std(0)
    train, valid, test = (((x - mean) / scale).astype(np.float32) for x in (train, valid, test))
    return train, valid, test


def _continuous(x: np.ndarray) -> np.ndarray:
    """Columns whose smallest value occurs at most five times. (The paper means any value; its
    program counts the smallest, and that is what everyone compares on.)"""
    return np.flatnonzero((x == x.min(0)).sum(0) <= _REPEATED)


def _npy(member: str) -> np.ndarray:
    found = fetch.members(_ARCHIVE, member.replace(".", r"\.") + "$")[member]
    return np.load(io.BytesIO(found), allow_pickle=False)


def _gray(data: bytes) -> np.ndarray:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("L"))
