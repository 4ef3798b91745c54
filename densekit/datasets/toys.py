"""Toys in two dimensions whose density and entropy are known."""

import functools
import math
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.utils import check_random_state

from densekit.datasets.base import Dataset, HeldOut, Truth

_SEED = 20240229


class TwoMoons(Truth):
    r"""Two half circles with Gaussian noise, as scikit-learn's ``make_moons`` draws them.

    .. math::  p(x) = \frac{1}{2} \sum_{k=1}^{2} \frac{1}{\pi} \int_0^\pi
                      N(x \mid c_k(t), \sigma^2 I)\,dt, \quad
               c_1 = (\cos t, \sin t), \quad c_2 = (1 - \cos t, \tfrac12 - \sin t).

    The integral is taken by Gauss-Legendre quadrature; the rule converges so fast that its error
    is that of float64 wherever the density is not itself negligible.

    Parameters
    ----------
    noise : float
        The standard deviation :math:`\sigma`, at least 0.02.

    Examples
    --------
    >>> moons = TwoMoons(noise=0.1)
    >>> X = moons.sample(3, random_state=0)
    >>> X.shape, moons.log_prob(X).shape
    ((3, 2), (3,))
    """

    n_dims = 2

    def __init__(self, noise: float = 0.1):
        if not noise >= 0.02:
            raise ValueError(f"noise={noise!r}: must be at least 0.02, where the quadrature holds")
        self.noise = noise

    @functools.cached_property
    def _rule(self) -> tuple[np.ndarray, np.ndarray]:
        """Centres (2 * n_nodes, 2) and log-weights (2 * n_nodes,) of the quadrature."""
        n_nodes = max(64, math.ceil(20 / self.noise))
        t, w = np.polynomial.legendre.leggauss(n_nodes)
        return _arcs((t + 1) * math.pi / 2), np.log(np.tile(w / 4, 2))

    def log_prob(self, X: Any) -> np.ndarray:
        """Log-density in nats, (n,), for rows (n, 2)."""
        rows = self._rows(X)
        centres, log_weight = self._rule
        constant = log_weight - math.log(2 * math.pi * self.noise**2)
        out = np.empty(len(rows))
        for start in range(0, len(rows), 1024):
            block = slice(start, start + 1024)
            square = cdist(rows[block], centres, "sqeuclidean")
            terms = constant - square / (2 * self.noise**2)
            top = terms.max(1)
            out[block] = top + np.log(np.exp(terms - top[:, None]).sum(1))
        return out

    def sample(self, n_samples: int = 1, *, random_state: Any = None) -> np.ndarray:
        """Independent rows, (n_samples, 2)."""
        rng = check_random_state(random_state)
        t = rng.uniform(0, math.pi, n_samples)
        upper = rng.uniform(size=n_samples) < 0.5
        both = _arcs(t).reshape(2, n_samples, 2)
        return np.where(upper[:, None], both[0], both[1]) + self.noise * rng.normal(
            size=(n_samples, 2)
        )

    @functools.cached_property
    def entropy(self) -> float:
        """Differential entropy in nats, by the trapezoidal rule: spectrally accurate here."""
        step, margin = self.noise / 4, 8 * self.noise
        x = np.arange(-1 - margin, 2 + margin, step)
        y = np.arange(-0.5 - margin, 1 + margin, step)
        grid = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
        logp = self.log_prob(grid)
        return float(-(np.exp(logp) * logp).sum() * step**2)


def _arcs(t: np.ndarray) -> np.ndarray:
    """Points of the upper arc, then of the lower, (2 * len(t), 2)."""
    x, y = np.cos(t), np.sin(t)
    return np.concatenate([np.stack([x, y], 1), np.stack([1 - x, 0.5 - y], 1)])


class Checkerboard(Truth):
    r"""Uniform on the eight black cells of a 4 by 4 board over :math:`[-2, 2)^2`.

    .. math::  p(x) = 1/8 \text{ where } \lfloor x_1 \rfloor + \lfloor x_2 \rfloor
               \text{ is even and } -2 \le x_1, x_2 < 2, \quad H = \log 8.

    Examples
    --------
    >>> Checkerboard().log_prob([[0.5, 0.5], [0.5, 1.5]]).round(4).tolist()
    [-2.0794, -inf]
    """

    n_dims = 2

    def log_prob(self, X: Any) -> np.ndarray:
        """Log-density in nats, (n,), for rows (n, 2); -inf on white cells and off the board."""
        rows = self._rows(X)
        on_board = ((rows >= -2) & (rows < 2)).all(1)
        black = np.floor(rows).sum(1) % 2 == 0
        return np.where(on_board & black, -math.log(8), -math.inf)

    def sample(self, n_samples: int = 1, *, random_state: Any = None) -> np.ndarray:
        """Independent rows, (n_samples, 2)."""
        rng = check_random_state(random_state)
        row = rng.randint(4, size=n_samples)
        column = 2 * rng.randint(2, size=n_samples) + row % 2
        corner = np.stack([row, column], 1) - 2.0
        return corner + rng.uniform(size=(n_samples, 2))

    @property
    def entropy(self) -> float:
        """log 8 nats."""
        return math.log(8)


def _draw(name: str, truth: Truth, source: str) -> Dataset:
    X = truth.sample(6000, random_state=_SEED)
    test = HeldOut(X[5000:], name)
    return Dataset(X[:4500], X[4500:5000], test, name, "table", truth, source)


def two_moons() -> Dataset:
    """4500, 500 and 1000 rows of :class:`TwoMoons` with noise 0.1."""
    return _draw("two_moons", TwoMoons(0.1), "two noisy half circles, drawn from a known density")


def checkerboard() -> Dataset:
    """4500, 500 and 1000 rows of :class:`Checkerboard`."""
    return _draw("checkerboard", Checkerboard(), "uniform on the black cells of a 4 x 4 board")
