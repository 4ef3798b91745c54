"""Distributions in D dimensions with known density and entropy."""

import functools
import math
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import logsumexp, xlogy
from sklearn.utils import check_random_state

from densekit.datasets.base import Truth

__all__ = ["Funnel", "MixtureOfGaussians"]

_LOG_2PI = math.log(2 * math.pi)


class Funnel(Truth):
    r"""Neal's funnel: the first coordinate is the log-variance of all others.

    .. math::  v \sim N(0, s^2), \quad x_d \mid v \sim N(0, e^v), \quad
               H = \tfrac{D}{2} \log(2 \pi e) + \log s.

    Rows are :math:`(v, x_1, \dots, x_{D-1})`. The paper uses :math:`D = 10` and :math:`s = 3`.

    Parameters
    ----------
    n_dims : int
        Number of coordinates :math:`D`, at least 2.
    width : float
        The standard deviation :math:`s` of the first coordinate, positive.

    Raises
    ------
    ValueError
        ``n_dims`` is below 2, or ``width`` is not positive.

    References
    ----------
    Neal (2003), *Slice sampling*, https://doi.org/10.1214/aos/1056562461

    Examples
    --------
    >>> funnel = Funnel(n_dims=3)
    >>> funnel.log_prob([[0.0, 0.0, 0.0], [3.0, 0.0, 0.0]]).round(3).tolist()
    [-3.855, -7.355]
    """

    n_dims: int

    def __init__(self, n_dims: int = 10, width: float = 3.0):
        if n_dims < 2:
            raise ValueError(f"n_dims={n_dims!r}: a funnel has at least 2 coordinates")
        if not 0 < width < math.inf:
            raise ValueError(f"width={width!r}: must be positive and finite")
        self.n_dims, self.width = n_dims, width

    def log_prob(self, X: Any) -> np.ndarray:
        """Log-density in nats, (n,), for rows (n, n_dims)."""
        rows = self._rows(X)
        v, x = rows[:, 0], rows[:, 1:]
        # Below v = -600 the squares would overflow. The mass there is below float64 precision.
        z = x * np.exp(-v.clip(-600) / 2)[:, None]
        square = (v / self.width) ** 2 + (z**2).sum(1)
        ladj = math.log(self.width) + (self.n_dims - 1) * v / 2
        return -square / 2 - ladj - self.n_dims * _LOG_2PI / 2

    def sample(self, n_samples: int = 1, *, random_state: Any = None) -> np.ndarray:
        """Independent rows, (n_samples, n_dims)."""
        z = check_random_state(random_state).normal(size=(n_samples, self.n_dims))
        z[:, 0] *= self.width
        z[:, 1:] *= np.exp(z[:, :1] / 2)
        return z

    @property
    def entropy(self) -> float:
        """Differential entropy, D/2 log(2 pi e) + log width nats."""
        return self.n_dims * (1 + _LOG_2PI) / 2 + math.log(self.width)


class MixtureOfGaussians(Truth):
    r"""A mixture of Gaussians with random parameters, fixed by a seed.

    .. math::  p(x) = \sum_{k=1}^{K} w_k\,N(x \mid \mu_k, L_k L_k^\top), \quad
               w \sim \mathrm{Dirichlet}(5, \dots, 5), \quad \mu_k \sim N(0, a^2 I),

    where :math:`L_k` is lower triangular, with a diagonal uniform on [0.3, 1] and other entries normal
    with standard deviation 0.3. The parameters are the attributes ``weights`` (K,), ``means`` (K, D)
    and ``factors`` (K, D, D).

    The entropy of a row is the joint entropy of row and component minus the entropy of the component
    given the row. The first has the closed form :math:`\sum_k w_k (H_k - \log w_k)`. The second is a
    Monte Carlo mean over 65,536 fixed draws of a function between 0 and :math:`\log K`. Its standard
    error is ``entropy_error``, at most :math:`\log(K) / 512`.

    Parameters
    ----------
    n_dims : int
        Number of coordinates :math:`D`, at least 1.
    n_components : int
        Number of Gaussians :math:`K`, at least 1.
    spread : float
        The standard deviation :math:`a` of the means.
    seed : int
        Seed of the parameters, which are the same in all versions of NumPy.

    Raises
    ------
    ValueError
        ``n_dims`` or ``n_components`` is below 1.

    Examples
    --------
    >>> mixture = MixtureOfGaussians(n_dims=3, n_components=2)
    >>> mixture.sample(4, random_state=0).shape, mixture.entropy_error < 0.0014
    ((4, 3), True)
    """

    n_dims: int

    def __init__(
        self, n_dims: int = 8, n_components: int = 10, spread: float = 1.0, seed: int = 0
    ):
        if min(n_dims, n_components) < 1:
            raise ValueError(
                f"n_dims={n_dims!r}, n_components={n_components!r}: both must be at least 1"
            )
        self.n_dims, self.n_components, self.spread, self.seed = n_dims, n_components, spread, seed
        rng = np.random.RandomState(seed)
        self.weights = rng.dirichlet(np.full(n_components, 5.0))
        self.means = spread * rng.normal(size=(n_components, n_dims))
        lower = 0.3 * np.tril(rng.normal(size=(n_components, n_dims, n_dims)), -1)
        diagonal = rng.uniform(0.3, 1, size=(n_components, n_dims))
        self.factors = lower + diagonal[:, :, None] * np.eye(n_dims)

    def log_prob(self, X: Any) -> np.ndarray:
        """Log-density in nats, (n,), for rows (n, n_dims)."""
        return logsumexp(self._joint(self._rows(X)), axis=1)

    def _joint(self, rows: np.ndarray) -> np.ndarray:
        """Joint log-density of each row and each component, (n, n_components)."""
        parts = []
        for weight, mean, factor in zip(self.weights, self.means, self.factors, strict=True):
            z = solve_triangular(factor, (rows - mean).T, lower=True)
            parts.append(math.log(weight) - np.log(np.diag(factor)).sum() - (z**2).sum(0) / 2)
        return np.stack(parts, 1) - self.n_dims * _LOG_2PI / 2

    def sample(self, n_samples: int = 1, *, random_state: Any = None) -> np.ndarray:
        """Independent rows, (n_samples, n_dims)."""
        rng = check_random_state(random_state)
        k = rng.choice(self.n_components, size=n_samples, p=self.weights)
        z = rng.normal(size=(n_samples, self.n_dims))
        return self.means[k] + np.einsum("nij,nj->ni", self.factors[k], z)

    @property
    def entropy(self) -> float:
        """Differential entropy in nats, with standard error ``entropy_error``."""
        return self._entropy[0]

    @property
    def entropy_error(self) -> float:  # type: ignore[override]  # A property overrides an attribute.
        """Standard error of ``entropy`` in nats."""
        return self._entropy[1]

    @functools.cached_property
    def _entropy(self) -> tuple[float, float]:
        diagonals = np.diagonal(self.factors, axis1=1, axis2=2)
        component_entropy = self.n_dims * (1 + _LOG_2PI) / 2 + np.log(diagonals).sum(1)
        joint_entropy = (self.weights * (component_entropy - np.log(self.weights))).sum()
        joint = self._joint(self.sample(2**16, random_state=np.random.RandomState(self.seed)))
        posterior = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
        posterior_entropy = -xlogy(posterior, posterior).sum(1)
        error = posterior_entropy.std(ddof=1) / math.sqrt(len(posterior_entropy))
        return float(joint_entropy - posterior_entropy.mean()), float(error)
