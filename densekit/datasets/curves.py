"""Two-dimensional distributions around a curve, with known density and entropy."""

import functools
import math
from abc import abstractmethod
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.utils import check_random_state

from densekit.datasets.base import Truth
from densekit.datasets.planar import grid_points

__all__ = ["Spirals", "TwoMoons"]

_LOG_2PI = math.log(2 * math.pi)
_BLOCK = 1024
"""Rows that are scored at a time against all nodes of a quadrature."""


class _NoisyCurve(Truth):
    """A curve with isotropic Gaussian noise; a quadrature computes the integral along the curve.

    If the nodes are at most about ``noise / 2`` apart, the error of the quadrature is that of float64
    wherever the density is not negligible.
    """

    n_dims = 2
    noise: float

    def __init__(self, noise: float):
        if not noise >= 0.02:
            raise ValueError(
                f"noise={noise!r}: must be at least 0.02, or the quadrature is not accurate"
            )
        self.noise = noise

    @property
    @abstractmethod
    def _quadrature(self) -> tuple[np.ndarray, np.ndarray]:
        """Centers (n_nodes, 2) and log-weights (n_nodes,) of the quadrature."""

    def log_prob(self, X: Any) -> np.ndarray:
        """Log-density in nats, (n,), for rows (n, 2)."""
        rows = self._rows(X)
        centers, log_weight = self._quadrature
        constant = log_weight - _LOG_2PI - 2 * math.log(self.noise)
        out = np.empty(len(rows))
        for start in range(0, len(rows), _BLOCK):
            block = slice(start, start + _BLOCK)
            square = cdist(rows[block], centers, "sqeuclidean")
            terms = constant - square / (2 * self.noise**2)
            top = terms.max(1)
            out[block] = top + np.log(np.exp(terms - top[:, None]).sum(1))
        return out

    @functools.cached_property
    def entropy(self) -> float:
        """Differential entropy in nats, by the trapezoidal rule, which is spectrally accurate here."""
        step, margin = self.noise / 3, 8 * self.noise
        low, high = self._quadrature[0].min(0) - margin, self._quadrature[0].max(0) + margin
        x, y = (np.arange(a, b, step) for a, b in zip(low, high, strict=True))
        logp = self.log_prob(grid_points(x, y))
        return float(-(np.exp(logp) * logp).sum() * step**2)


class TwoMoons(_NoisyCurve):
    r"""Two interleaved half circles with Gaussian noise, as in scikit-learn's ``make_moons``.

    .. math::  p(x) = \frac{1}{2} \sum_{k=1}^{2} \frac{1}{\pi} \int_0^\pi
                      N(x \mid c_k(t), \sigma^2 I)\,dt, \quad
               c_1 = (\cos t, \sin t), \quad c_2 = (1 - \cos t, \tfrac12 - \sin t).

    Gauss-Legendre quadrature computes the integral, with an error of float64 wherever the density is
    not negligible.

    Parameters
    ----------
    noise : float
        The standard deviation :math:`\sigma`, at least 0.02.

    Raises
    ------
    ValueError
        ``noise`` is below 0.02.

    Examples
    --------
    >>> moons = TwoMoons(noise=0.1)
    >>> X = moons.sample(3, random_state=0)
    >>> X.shape, moons.log_prob(X).shape
    ((3, 2), (3,))
    """

    def __init__(self, noise: float = 0.1):
        super().__init__(noise)

    @functools.cached_property
    def _quadrature(self) -> tuple[np.ndarray, np.ndarray]:
        n_nodes = max(64, math.ceil(20 / self.noise))
        t, w = np.polynomial.legendre.leggauss(n_nodes)
        return _arcs((t + 1) * math.pi / 2), np.log(np.tile(w / 4, 2))

    def sample(self, n_samples: int = 1, *, random_state: Any = None) -> np.ndarray:
        """Independent rows, (n_samples, 2)."""
        rng = check_random_state(random_state)
        t = rng.uniform(0, math.pi, n_samples)
        upper = rng.uniform(size=n_samples) < 0.5
        both = _arcs(t).reshape(2, n_samples, 2)
        return np.where(upper[:, None], both[0], both[1]) + self.noise * rng.normal(
            size=(n_samples, 2)
        )


class Spirals(_NoisyCurve):
    r"""Two interleaved Archimedean spirals of one and a half turns with Gaussian noise.

    .. math::  p(x) = \frac12 \sum_{s = \pm 1} \int_0^1
                      N\!\left(x \mid s\,c(3\pi\sqrt{u}), \sigma^2 I\right) du, \quad
               c(t) = \tfrac{t}{3} (-\cos t, \sin t).

    These are the spirals of FFJORD without the uniform jitter that its code adds before the Gaussian
    noise. The square root makes the rows nearly uniform along the curve, except near the center.
    Composite Gauss-Legendre quadrature in :math:`\sqrt u` computes the integral.

    Parameters
    ----------
    noise : float
        The standard deviation :math:`\sigma`, at least 0.02.

    Raises
    ------
    ValueError
        ``noise`` is below 0.02.

    References
    ----------
    Grathwohl et al. (2019), *FFJORD: Free-form continuous dynamics for scalable reversible generative
    models*, https://arxiv.org/abs/1810.01367

    Examples
    --------
    >>> spirals = Spirals()
    >>> X = spirals.sample(3, random_state=0)
    >>> bool(np.allclose(spirals.log_prob(X), spirals.log_prob(-X)))
    True
    """

    def __init__(self, noise: float = 0.1):
        super().__init__(noise)

    @functools.cached_property
    def _quadrature(self) -> tuple[np.ndarray, np.ndarray]:
        # The speed of the curve in sqrt(u) is at most 30, so each panel is at most 4 sigma long. For
        # this length twelve Gauss-Legendre nodes are exact to float64.
        n_panels = math.ceil(30 / (4 * self.noise))
        t, w = np.polynomial.legendre.leggauss(12)
        root = ((np.arange(n_panels)[:, None] + (t + 1) / 2) / n_panels).ravel()
        w = np.tile(w / n_panels, n_panels)
        # The weight has three factors: du = 2 root d(root), 1/2 for the length of a panel relative to
        # the interval [-1, 1] of the nodes, and 1/2 for each of the two arms.
        return _arms(3 * math.pi * root), np.log(np.tile(w * root / 2, 2))

    def sample(self, n_samples: int = 1, *, random_state: Any = None) -> np.ndarray:
        """Independent rows, (n_samples, 2)."""
        rng = check_random_state(random_state)
        t = 3 * math.pi * np.sqrt(rng.uniform(size=n_samples))
        side = rng.choice([-1.0, 1.0], size=n_samples)
        curve = side[:, None] * _arms(t)[:n_samples]
        return curve + self.noise * rng.normal(size=(n_samples, 2))


def _arcs(t: np.ndarray) -> np.ndarray:
    """Points of the upper arc, then of the lower arc, (2 * len(t), 2)."""
    x, y = np.cos(t), np.sin(t)
    return np.concatenate([np.stack([x, y], 1), np.stack([1 - x, 0.5 - y], 1)])


def _arms(t: np.ndarray) -> np.ndarray:
    """Points of the first spiral, then of the second, (2 * len(t), 2)."""
    arm = np.stack([-t * np.cos(t), t * np.sin(t)], 1) / 3
    return np.concatenate([arm, -arm])
