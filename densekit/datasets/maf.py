"""The five tables of the paper on masked autoregressive flows (MAF).

POWER, GAS, HEPMASS and MINIBOONE are prepared from the authors' raw files
(https://doi.org/10.5281/zenodo.1161203) with the preprocessing of the paper. Rows are float32. The
patches of BSDS300 are drawn again from the images. Scores are in nats over the prepared columns,
as in papers.

References
----------
Papamakarios, Pavlakou and Murray (2017), *Masked autoregressive flow for density estimation*,
https://arxiv.org/abs/1705.07057
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
    """POWER: electric power of a household per minute, 6 columns, see :func:`prepare_power`."""
    return dataset("power", prepare_power(_npy("power/data.npy")))


def power_partial() -> Dataset:
    """Two days of POWER with the same preprocessing, to try it out; scores are not comparable."""
    path = "power_partial_2days/household_power_consumption_2days.txt.gz"
    return dataset("power_partial", prepare_power(read_power(fetch.text(path))))


def gas() -> Dataset:
    """GAS: sensors in a mixture of ethylene and CO, 8 columns, see :func:`prepare_gas`.

    The rows are those of the authors' file, a quarter of UCI's rows. The file is a pickle and its
    archive has an MD5 checksum only, so it is loaded without running pickled code.
    """
    pickled = fetch.members(_ARCHIVE, r"gas/ethylene_CO\.pickle$")["gas/ethylene_CO.pickle"]
    return dataset("gas", prepare_gas(fetch.frame(pickled)))


def hepmass() -> Dataset:
    """HEPMASS: collisions with a particle of mass 1000, 21 columns, see :func:`prepare_hepmass`."""
    csv_files = fetch.members(_ARCHIVE, r"hepmass/1000_(train|test)\.csv$")
    train, test = (
        pd.read_csv(io.BytesIO(csv_files[f"hepmass/1000_{part}.csv"]), index_col=False)
        for part in ("train", "test")
    )
    return dataset("hepmass", prepare_hepmass(train, test))


def miniboone() -> Dataset:
    """MINIBOONE: events of electron neutrinos, 43 columns, see :func:`prepare_miniboone`."""
    return dataset("miniboone", prepare_miniboone(_npy("miniboone/data.npy")))


def bsds300(sizes: tuple[int, int, int] = (1_000_000, 50_000, 250_000)) -> Dataset:
    """BSDS300: grayscale 8 x 8 patches of photographs, 63 columns.

    The patches have the same distribution as those of the paper but are drawn again. A patch is a
    uniform position in a random image. Uniform noise on [0, 1) is added to the pixels, which are
    divided by 256 and centered by the mean of the patch; the last pixel is dropped. Training
    patches are from 180 of the 200 training images, validation patches from the other 20, test
    patches from the 100 test images.

    Parameters
    ----------
    sizes : tuple of three int
        Numbers of training, validation and test patches.

    References
    ----------
    Martin, Fowlkes, Tal and Malik (2001), *A database of human segmented natural images*,
    https://doi.org/10.1109/ICCV.2001.937655
    """
    images = fetch.members("bsds300/bsds300_images.zip", r"(train|test)/\d+\.jpg$")
    names = sorted(images)
    train = [_grayscale(images[name]) for name in names if name.startswith("train")]
    test = [_grayscale(images[name]) for name in names if name.startswith("test")]
    rng = np.random.RandomState(300)
    order = rng.permutation(len(train))
    valid = [train[i] for i in order[:_HELD_OUT_IMAGES]]
    train = [train[i] for i in order[_HELD_OUT_IMAGES:]]
    parts = zip((train, valid, test), sizes, strict=True)
    return dataset("bsds300", (patches(part, n, rng) for part, n in parts))


LOADERS: dict[str, Callable[[], Dataset]] = {
    loader.__name__: loader for loader in (power, power_partial, gas, hepmass, miniboone, bsds300)
}


# ---------------------------------------------------------------------------------- preprocessing


def read_power(text: bytes) -> np.ndarray:
    """Parse UCI's text file of POWER to rows (n, 8).

    The columns are active power, reactive power, voltage, intensity, three sub-meterings and the time of
    day in minutes. Rows with a missing value (``?``) are dropped.
    """
    frame = pd.read_csv(io.BytesIO(text), sep=";", na_values="?").dropna()
    time = pd.to_timedelta(frame["Time"]).dt.total_seconds() / 60
    return np.column_stack([frame.iloc[:, 2:].to_numpy(np.float64), time])


def prepare_power(raw: np.ndarray) -> Parts:
    """Prepare POWER from raw rows (n, 8).

    Rows are shuffled, reactive power and intensity are dropped, and uniform noise of the resolution of
    each column is added. The rows are split and then standardized by training and validation rows. All
    randomness is drawn from one ``RandomState(42)`` in the order of the paper's program.
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
    """Prepare GAS from the authors' DataFrame.

    Time and concentrations are dropped. As long as two sensors have a correlation above 0.98, the first
    sensor of such a pair is dropped. Columns are standardized by all rows (n - 1 degrees of freedom) and
    split without a shuffle.
    """
    x = raw.drop(columns=["Time", "Meth", "Eth"])
    correlation = x.corr().to_numpy()
    keep = np.arange(x.shape[1])
    while True:
        remaining = correlation[np.ix_(keep, keep)]
        correlated = np.flatnonzero((remaining > _CORRELATED).sum(1) > 1)
        if not len(correlated):
            break
        keep = np.delete(keep, correlated[0])
    x = x.iloc[:, keep]
    return _last_tenths(((x - x.mean()) / x.std()).to_numpy(np.float32))


def prepare_hepmass(train: pd.DataFrame, test: pd.DataFrame) -> Parts:
    """Prepare HEPMASS from the training and the test file.

    Rows of class 1 are kept without their label. The test file has one column too many, its last, which
    is dropped. Columns are standardized by the training file (n - 1 degrees of freedom); those whose
    smallest value is repeated are dropped. The last tenth of the training file is the validation part.
    """
    x = train[train.iloc[:, 0] == 1].iloc[:, 1:]
    y = test[test.iloc[:, 0] == 1].iloc[:, 1:-1]
    mean, scale = x.mean().to_numpy(), x.std().to_numpy()
    x, y = (x.to_numpy() - mean) / scale, (y.to_numpy() - mean) / scale
    keep = _continuous(x)
    x, y = x[:, keep].astype(np.float32), y[:, keep].astype(np.float32)
    n_valid = int(0.1 * len(x))
    return x[:-n_valid], x[-n_valid:], y


def prepare_miniboone(raw: np.ndarray) -> Parts:
    """Prepare MINIBOONE from raw rows.

    Rows whose first entry is below -100 and columns whose smallest value is repeated are dropped.
    The rows are split without a shuffle and standardized by training and validation rows.
    """
    x = raw[raw[:, 0] >= -100]
    return _standardized(*_last_tenths(x[:, _continuous(x)]))


def patches(images: list[np.ndarray], n: int, rng: np.random.RandomState) -> np.ndarray:
    """Draw ``n`` patches of grayscale images as rows of BSDS300, float32 (n, 63)."""
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
    """Split rows: the last tenth is the test part, the last tenth of the others the validation part."""
    n_test = int(0.1 * len(x))
    n_valid = int(0.1 * (len(x) - n_test))
    stop = len(x) - n_test
    return x[: stop - n_valid], x[stop - n_valid : stop], x[stop:]


def _standardized(train: np.ndarray, valid: np.ndarray, test: np.ndarray) -> Parts:
    """Standardize all parts by the training and validation rows."""
    seen = np.vstack([train, valid])
    mean, scale = seen.mean(0), seen.std(0)
    train, valid, test = (((x - mean) / scale).astype(np.float32) for x in (train, valid, test))
    return train, valid, test


def _continuous(x: np.ndarray) -> np.ndarray:
    """Indices of columns whose smallest value occurs at most five times.

    The paper describes a count of any value. Its program counts the smallest, and published results use
    the program.
    """
    return np.flatnonzero((x == x.min(0)).sum(0) <= _REPEATED)


def _npy(member: str) -> np.ndarray:
    data = fetch.members(_ARCHIVE, member.replace(".", r"\.") + "$")[member]
    return np.load(io.BytesIO(data), allow_pickle=False)


def _grayscale(data: bytes) -> np.ndarray:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("L"))
