"""Toy data sets, drawn from distributions with known density and entropy.

The distributions are in :mod:`curves` and :mod:`planar` (two dimensions), :mod:`multivariate` and
:mod:`copulas` (any number of dimensions), and :mod:`sources` (text and images).
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from densekit.datasets.base import Dataset, HeldOut, Truth
from densekit.datasets.copulas import ClaytonCopula, GaussianCopula, StudentCopula
from densekit.datasets.curves import Spirals, TwoMoons
from densekit.datasets.multivariate import Funnel, MixtureOfGaussians
from densekit.datasets.planar import (
    Banana,
    Checkerboard,
    EightGaussians,
    GaussianGrid,
    Pinwheel,
)
from densekit.datasets.sources import IsingImages, MarkovText

__all__ = [
    "TOYS",
    "Banana",
    "Checkerboard",
    "ClaytonCopula",
    "EightGaussians",
    "Funnel",
    "GaussianCopula",
    "GaussianGrid",
    "IsingImages",
    "MarkovText",
    "MixtureOfGaussians",
    "Pinwheel",
    "Spirals",
    "StudentCopula",
    "TwoMoons",
]

_SEED = 20240229
_PLANAR = (4500, 500, 1000)
_MANY_DIMS = (14_000, 2000, 4000)
_STRINGS = (2800, 400, 800)


def _draw(
    name: str,
    truth: Truth,
    source: str,
    sizes: tuple[int, int, int] = _PLANAR,
    modality: Literal["table", "image", "text"] = "table",
    domain: Mapping[str, Any] | None = None,
) -> Dataset:
    """A data set of independent rows, in the order in which they were drawn."""
    X = truth.sample(sum(sizes), random_state=_SEED)
    n_train, n_fit = sizes[0], sizes[0] + sizes[1]
    test = HeldOut(X[n_fit:], name)
    return Dataset(
        X[:n_train], X[n_train:n_fit], test, name, modality, truth, source, domain or {}
    )


def two_moons() -> Dataset:
    """4500, 500 and 1000 rows of :class:`TwoMoons` with noise 0.1."""
    return _draw("two_moons", TwoMoons(0.1), "two noisy half circles, drawn from a known density")


def checkerboard() -> Dataset:
    """4500, 500 and 1000 rows of :class:`Checkerboard`."""
    return _draw("checkerboard", Checkerboard(), "uniform on the black cells of a 4 x 4 board")


def eight_gaussians() -> Dataset:
    """4500, 500 and 1000 rows of :class:`EightGaussians`."""
    return _draw("eight_gaussians", EightGaussians(), "eight round Gaussians on a circle")


def gaussian_grid() -> Dataset:
    """4500, 500 and 1000 rows of :class:`GaussianGrid`: 25 Gaussians."""
    return _draw("gaussian_grid", GaussianGrid(), "25 round Gaussians on a 5 x 5 grid")


def pinwheel() -> Dataset:
    """4500, 500 and 1000 rows of :class:`Pinwheel`."""
    return _draw("pinwheel", Pinwheel(), "five Gaussian arms, twisted by an area-preserving map")


def spirals() -> Dataset:
    """4500, 500 and 1000 rows of :class:`Spirals` with noise 0.1."""
    return _draw("spirals", Spirals(0.1), "two noisy Archimedean spirals")


def banana() -> Dataset:
    """4500, 500 and 1000 rows of :class:`Banana` with its default, strong bend."""
    return _draw("banana", Banana(), "a Gaussian bent along a parabola (Haario et al. 1999)")


def funnel() -> Dataset:
    """14000, 2000 and 4000 rows of :class:`Funnel`: 10 columns, the first a log-variance."""
    return _draw("funnel", Funnel(), "Neal's funnel in 10 dimensions (Neal 2003)", _MANY_DIMS)


def gaussian_mixture() -> Dataset:
    """14000, 2000 and 4000 rows of :class:`MixtureOfGaussians`: 10 components, 8 columns."""
    source = "ten Gaussians of random but fixed shapes in 8 dimensions"
    return _draw("gaussian_mixture", MixtureOfGaussians(), source, _MANY_DIMS)


def gaussian_copula() -> Dataset:
    """14000, 2000 and 4000 rows of :class:`GaussianCopula`: 8 columns with different marginals."""
    truth = GaussianCopula(_decaying_correlation(), _marginals())
    source = "eight different marginals joined by a Gaussian copula"
    return _draw("gaussian_copula", truth, source, _MANY_DIMS, domain=_SUPPORT)


def student_copula() -> Dataset:
    """14000, 2000 and 4000 rows of :class:`StudentCopula`: 8 columns, 3 degrees of freedom."""
    truth = StudentCopula(3.0, _decaying_correlation(), _marginals())
    source = "eight different marginals joined by a Student t copula"
    return _draw("student_copula", truth, source, _MANY_DIMS, domain=_SUPPORT)


def clayton_copula() -> Dataset:
    """14000, 2000 and 4000 rows of :class:`ClaytonCopula`: 8 columns, Kendall's tau 1/2."""
    truth = ClaytonCopula(2.0, _marginals())
    source = "eight different marginals joined by a Clayton copula"
    return _draw("clayton_copula", truth, source, _MANY_DIMS, domain=_SUPPORT)


def markov_text() -> Dataset:
    """2800, 400 and 800 strings of :class:`MarkovText`: 10 letters, about 40 per string."""
    source = "strings of a fixed Markov chain with an end symbol"
    return _draw("markov_text", MarkovText(), source, _STRINGS, "text")


def ising_images() -> Dataset:
    """4500, 500 and 1000 images of :class:`IsingImages`: uint8 0 or 1, (n, 8, 8)."""
    source = "8 x 8 black and white pixels of an Ising model"
    domain = {"support": ("interval", 0, 1)}
    return _draw("ising_images", IsingImages(), source, modality="image", domain=domain)


_SUPPORT = {"support": {1: "positive", 2: "positive", 5: ("interval", 0, 1), 7: "positive"}}
"""Supports of the columns of :func:`_marginals`, for the codec."""


def _marginals() -> list[Any]:
    from scipy import stats

    return [
        stats.norm(), stats.gamma(3), stats.lognorm(0.5), stats.t(5),
        stats.logistic(), stats.beta(2, 5), stats.gumbel_r(), stats.weibull_min(1.5),
    ]  # fmt: skip


def _decaying_correlation() -> np.ndarray:
    """The correlation matrix (8, 8) with entries 0.7 ** abs(i - j)."""
    i = np.arange(8)
    return 0.7 ** np.abs(i[:, None] - i)


TOYS: tuple[Callable[[], Dataset], ...] = (
    two_moons,
    checkerboard,
    eight_gaussians,
    gaussian_grid,
    pinwheel,
    spirals,
    banana,
    funnel,
    gaussian_mixture,
    gaussian_copula,
    student_copula,
    clayton_copula,
    markov_text,
    ising_images,
)
"""The loader of each toy; its ``__name__`` is the name of the data set."""
