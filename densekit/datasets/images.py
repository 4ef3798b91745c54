"""Images: uint8 arrays (n, height, width) or (n, height, width, 3), without labels."""

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
_SEED = 2011  # of the fixed draw; the draws of the dynamic set count on from it
_BLOCK = 10_000


def mnist() -> Dataset:
    """60,000 and 10,000 gray digits, (n, 28, 28); valid is the last 10,000 of the first.

    LeCun, Bottou, Bengio and Haffner 1998.
    """
    return dataset("mnist", _mnist("mnist"))


def fashion_mnist() -> Dataset:
    """60,000 and 10,000 gray articles of clothing, (n, 28, 28), parted as :func:`mnist`.

    Xiao, Rasul and Vollgraf 2017; MIT.
    """
    return dataset("fashion_mnist", _mnist("fashion-mnist"))


def binarised_mnist() -> Dataset:
    """:func:`mnist` with each pixel drawn once, 1 with probability level / 255 (seed 2011).

    The draw that the papers call static or fixed is another one (Larochelle and Murray 2011), and
    figures on the two differ by some tenths of a nat.
    """
    parts = _mnist("mnist")
    drawn = (binarize(x, _SEED + 1000 * i) for i, x in enumerate(parts))
    return dataset("binarised_mnist", drawn, support=_BITS)


def binarised_mnist_dynamic() -> Dataset:
    """:func:`binarised_mnist` whose train part holds four independent draws of every image.

    Papers draw the training pixels afresh in every epoch; rows of a data set do not change, so
    train has four draws one after the other, 200,000 rows. A loop of one's own draws as many as it
    wants with :func:`binarize` from :func:`mnist`. valid and test are those of binarised_mnist.
    """
    train, valid, test = _mnist("mnist")
    drawn = np.concatenate([binarize(train, _SEED + draw) for draw in range(_DRAWS)])
    held_out = binarize(valid, _SEED + 1000), binarize(test, _SEED + 2000)
    return dataset("binarised_mnist_dynamic", (drawn, *held_out), support=_BITS)


def cifar10() -> Dataset:
    """50,000 and 10,000 color images, (n, 32, 32, 3); valid is the last 5,000 of the first.

    Krizhevsky 2009.
    """
    path = "cifar10/cifar-10-binary.tar.gz"
    found = fetch.members(path, r"(data_batch_[1-5]|test_batch)(?=\.bin$)")
    batches = [found[f"data_batch_{i}"] for i in range(1, 6)]
    train, test = (_cifar(b"".join(b)) for b in (batches, [found["test_batch"]]))
    n_valid = len(train) // 10
    return dataset("cifar10", (train[:-n_valid], train[-n_valid:], test))


def cifar10_jpeg() -> Dataset:
    """The 10,000 test images of CIFAR-10 after lossy compression, in parts of our own.

    For trying things out. Its bits per dim and FID mean nothing beside the literature's: JPEG took
    most of the noise, and the training images are missing.
    """
    found = fetch.members("cifar10-jpeg/cifar10_test_jpeg.zip", r"test/\w+/\d+\.jpg$")
    x = np.stack([_decode(found[name]) for name in sorted(found)])
    return dataset("cifar10_jpeg", take(x, split(len(x), seed=32)))


def freyfaces() -> Dataset:
    """1,965 frames of a video of one face, (n, 28, 20), at random in 1,565, 200 and 200.

    Neighboring frames are much alike, so the parts are less independent than they look.
    """
    x = fetch.arrays("freyfaces/freyfaces.npz", _frey_mat)["images"]
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
    """One draw of black and white images from gray ones: 1 with probability level / 255.

    Parameters
    ----------
    images : array of uint8, any shape
        Gray levels.
    seed : int
        Of the draw; another seed draws afresh.

    Returns
    -------
    array of uint8
        0 and 1, shaped as ``images``. Black (0) and white (255) pixels are never changed.

    Examples
    --------
    >>> binarize(np.array([[0, 255, 128]], np.uint8), seed=0)[0, :2].tolist()
    [0, 1]
    """
    if images.dtype != np.uint8:
        raise TypeError(f"images are {images.dtype}: gray levels must be uint8, 0 to 255")
    rng = np.random.RandomState(seed)
    drawn = np.empty_like(images)
    for start in range(0, len(images), _BLOCK):
        part = images[start : start + _BLOCK]
        drawn[start : start + _BLOCK] = rng.randint(255, size=part.shape, dtype=np.uint8) < part
    return drawn


def _mnist(folder: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    train, test = (
        _idx(fetch.text(f"{folder}/{part}-images-idx3-ubyte.gz")) for part in ("train", "t10k")
    )
    n_train = len(train) * 5 // 6
    return train[:n_train], train[n_train:], test


def _idx(data: bytes) -> np.ndarray:
    """An array from the format of MNIST: type, number of axes, their lengths, bytes."""
    shape = np.frombuffer(data, ">i4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def _cifar(data: bytes) -> np.ndarray:
    """Images from the binary format of CIFAR-10: a label, then red, green and blue planes."""
    planes = np.frombuffer(data, np.uint8).reshape(-1, 3073)[:, 1:].reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(np.moveaxis(planes, 1, -1))


def _frey_mat(paths: list[Path]) -> dict[str, np.ndarray]:
    from scipy.io import loadmat

    return {"images": np.ascontiguousarray(loadmat(paths[0])["ff"].T.reshape(-1, 28, 20))}


def _decode(data: bytes) -> np.ndarray:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)
