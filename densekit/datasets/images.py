"""Image data sets without labels, as uint8 arrays (n, height, width) or (n, height, width, 3)."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np

from densekit.datasets import fetch
from densekit.datasets.base import Dataset, split
from densekit.datasets.catalog import dataset
from densekit.datasets.tables import take

_BITS = ("interval", 0, 1)
_DRAWS = 4
_SEED = 2011
"""Seed of the fixed binarization; further draws use the seeds after it."""
_BLOCK = 10_000


def mnist() -> Dataset:
    """MNIST: 60,000 and 10,000 grayscale images of digits, (n, 28, 28).

    The validation part is the last 10,000 of the 60,000 images. LeCun, Bottou, Bengio and Haffner
    (1998), https://doi.org/10.1109/5.726791.
    """
    return dataset("mnist", _mnist("mnist"))


def fashion_mnist() -> Dataset:
    """Fashion-MNIST: 60,000 and 10,000 grayscale images of clothing, (n, 28, 28).

    The split is that of :func:`mnist`. Xiao, Rasul and Vollgraf (2017),
    https://arxiv.org/abs/1708.07747, MIT License.
    """
    return dataset("fashion_mnist", _mnist("fashion-mnist"))


def binarised_mnist() -> Dataset:
    """MNIST binarized once: a pixel is 1 with probability level / 255 (seed 2011).

    The static binarization of papers is another draw (Larochelle and Murray 2011,
    https://proceedings.mlr.press/v15/larochelle11a.html). Scores on the two differ by some tenths
    of a nat.
    """
    parts = _mnist("mnist")
    binarized = (binarize(x, _SEED + 1000 * i) for i, x in enumerate(parts))
    return dataset("binarised_mnist", binarized, support=_BITS)


def binarised_mnist_dynamic() -> Dataset:
    """Binarized MNIST with four independent draws of every training image, 200,000 rows.

    Papers binarize the training images again in every epoch. The rows of a data set are fixed, so four
    draws stand in for that. A custom training loop can draw more with :func:`binarize` from
    :func:`mnist`. The validation and test parts are those of :func:`binarised_mnist`.
    """
    train, valid, test = _mnist("mnist")
    draws = np.concatenate([binarize(train, _SEED + draw) for draw in range(_DRAWS)])
    held_out = binarize(valid, _SEED + 1000), binarize(test, _SEED + 2000)
    return dataset("binarised_mnist_dynamic", (draws, *held_out), support=_BITS)


def cifar10() -> Dataset:
    """CIFAR-10: 50,000 and 10,000 color images, (n, 32, 32, 3).

    The validation part is the last 5,000 of the 50,000 images. Krizhevsky (2009),
    https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf.
    """
    path = "cifar10/cifar-10-binary.tar.gz"
    files = fetch.members(path, r"(data_batch_[1-5]|test_batch)(?=\.bin$)")
    batches = [files[f"data_batch_{i}"] for i in range(1, 6)]
    train, test = (_cifar(b"".join(b)) for b in (batches, [files["test_batch"]]))
    n_valid = len(train) // 10
    return dataset("cifar10", (train[:-n_valid], train[-n_valid:], test))


def cifar10_jpeg() -> Dataset:
    """The 10,000 test images of CIFAR-10 after JPEG compression, with a split of densekit.

    The data set is for trying things out. Its scores are not comparable to published ones: JPEG removes
    most of the noise, and the training images are missing.
    """
    files = fetch.members("cifar10-jpeg/cifar10_test_jpeg.zip", r"test/\w+/\d+\.jpg$")
    x = np.stack([_decode(files[name]) for name in sorted(files)])
    return dataset("cifar10_jpeg", take(x, split(len(x), seed=32)))


def freyfaces() -> Dataset:
    """Frey faces: 1,965 frames of a video of one face, (n, 28, 20), randomly split 1,565 / 200 / 200.

    Neighboring frames are very similar, so the parts are not independent.
    """
    x = fetch.arrays("freyfaces/freyfaces.npz", _parse_frey_mat)["images"]
    order = np.random.RandomState(1965).permutation(len(x))
    return dataset("freyfaces", take(x, (order[400:], order[200:400], order[:200])))


LOADERS: dict[str, Callable[[], Dataset]] = {
    loader.__name__: loader
    for loader in (
        mnist, binarised_mnist, binarised_mnist_dynamic, fashion_mnist, cifar10, cifar10_jpeg,
        freyfaces,
    )
}  # fmt: skip


def binarize(images: np.ndarray, seed: int) -> np.ndarray:
    """Binarize grayscale images at random: a pixel is 1 with probability level / 255.

    Parameters
    ----------
    images : array of uint8, any shape
        Gray levels.
    seed : int
        Seed of the draw.

    Returns
    -------
    binary : array of uint8
        Zeros and ones with the shape of ``images``. Black (0) is always 0 and white (255) always 1.

    Raises
    ------
    TypeError
        ``images`` is not uint8.

    Examples
    --------
    >>> binarize(np.array([[0, 255, 128]], np.uint8), seed=0)[0, :2].tolist()
    [0, 1]
    """
    if images.dtype != np.uint8:
        raise TypeError(f"images has dtype {images.dtype}: gray levels must be uint8, 0 to 255")
    rng = np.random.RandomState(seed)
    binary = np.empty_like(images)
    for start in range(0, len(images), _BLOCK):
        part = images[start : start + _BLOCK]
        binary[start : start + _BLOCK] = rng.randint(255, size=part.shape, dtype=np.uint8) < part
    return binary


def _mnist(folder: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    train, test = (
        _idx(fetch.text(f"{folder}/{part}-images-idx3-ubyte.gz")) for part in ("train", "t10k")
    )
    n_train = len(train) * 5 // 6
    return train[:n_train], train[n_train:], test


def _idx(data: bytes) -> np.ndarray:
    """The array of an IDX file, the format of MNIST: type, number of axes, their lengths, bytes."""
    shape = np.frombuffer(data, ">i4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def _cifar(data: bytes) -> np.ndarray:
    """Images of CIFAR-10's binary format: a label, then the red, green and blue planes."""
    planes = np.frombuffer(data, np.uint8).reshape(-1, 3073)[:, 1:].reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(np.moveaxis(planes, 1, -1))


def _parse_frey_mat(paths: list[Path]) -> dict[str, np.ndarray]:
    from scipy.io import loadmat

    return {"images": np.ascontiguousarray(loadmat(paths[0])["ff"].T.reshape(-1, 28, 20))}


def _decode(data: bytes) -> np.ndarray:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)
