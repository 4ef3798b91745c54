"""Distributions in D dimensions whose density and entropy are known; :mod:`toys` draws from
them."""

import functools
import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import digamma, gammaln, logsumexp, ndtr, ndtri, stdtr, stdtrit, xlogy
from sklearn.utils import check_random_state

from densekit.datasets.base import Truth

__all__ = ["ClaytonCopula", "Funnel", "GaussianCopula", "MixtureOfGaussians", "StudentCopula"]

_LOG_2PI = math.log(2 * math.pi)
_TINY = np.finfo(float).tiny


class Funnel(Truth):
    r"""Neal's funnel: the first coordinate is the log-variance of all others.

    .. math::  v \sim N(0, s^2), \quad x_d \mid v \sim N(0, e^v), \quad
               H = \tfrac{D}{2} \log(2 \pi e) + \log s.

    Rows are :math:`(v, x_1, \dots, x_{D-1})`. Neal 2003, "Slice sampling", has
    :math:`D = 10` and :math:`s = 3`.

    Parameters
    ----------
    n_dims : int
        Number of coordinates :math:`D`, at least 2.
    width : float
        The standard deviation :math:`s` of the first, positive.

    Raises
    ------
    ValueError
        ``n_dims`` is below 2 or ``width`` not positive.

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
        # Below v = -600, where there is no mass that float64 knows, the squares would overflow.
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
        """D/2 log(2 pi e) + log width nats."""
        return self.n_dims * (1 + _LOG_2PI) / 2 + math.log(self.width)


class MixtureOfGaussians(Truth):
    r"""A mixture of Gaussians whose parameters are random but fixed by a seed.

    .. math::  p(x) = \sum_{k=1}^{K} w_k\,N(x \mid \mu_k, L_k L_k^\top), \quad
               w \sim \mathrm{Dirichlet}(5, \dots, 5), \quad \mu_k \sim N(0, a^2 I),

    with :math:`L_k` lower triangular, its diagonal uniform on [0.3, 1] and its other entries
    normal with standard deviation 0.3. The parameters are ``weights`` (K,), ``means``
    (K, D) and ``factors`` (K, D, D).

    The entropy has no closed form, but all of it that is large has: row and component together
    have :math:`\sum_k w_k (H_k - \log w_k)` nats, and the entropy of the component given the row,
    which comes off, is a mean over 65,536 fixed draws of a function between 0 and
    :math:`\log K`. Its standard error is ``entropy_error``, at most :math:`\log(K) / 512`.

    Parameters
    ----------
    n_dims : int
        Number of coordinates :math:`D`, at least 1.
    n_components : int
        Number of Gaussians :math:`K`, at least 1.
    spread : float
        The standard deviation :math:`a` of the means.
    seed : int
        Seed of the parameters, in a stream that NumPy has frozen.

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
        """Log-density of each row together with each component, (n, n_components)."""
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
        """Differential entropy in nats, off by about ``entropy_error``."""
        return self._entropy[0]

    @property
    def entropy_error(self) -> float:  # type: ignore[override]  # not constant, but read alike
        """Standard error of ``entropy`` in nats."""
        return self._entropy[1]

    @functools.cached_property
    def _entropy(self) -> tuple[float, float]:
        diagonals = np.diagonal(self.factors, axis1=1, axis2=2)
        of_each = self.n_dims * (1 + _LOG_2PI) / 2 + np.log(diagonals).sum(1)
        both = (self.weights * (of_each - np.log(self.weights))).sum()
        joint = self._joint(self.sample(2**16, random_state=np.random.RandomState(self.seed)))
        share = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
        given_row = -xlogy(share, share).sum(1)
        error = given_row.std(ddof=1) / math.sqrt(len(given_row))
        return float(both - given_row.mean()), float(error)


class _Copula(Truth):
    r"""Given marginals joined by a copula: what the three copulas below share.

    .. math::  p(x) = c(F_1(x_1), \dots, F_D(x_D)) \prod_{d=1}^{D} p_d(x_d), \quad
               H = \sum_d H_d - E[\log c(U)].

    A probability travels as two numbers, its lower and its upper tail, so that neither end of a
    marginal is rounded away.
    """

    n_dims: int

    def __init__(self, marginals: Sequence[Any]):
        if len(marginals) < 2:
            raise ValueError(f"marginals: {len(marginals)} given; a copula joins at least 2")
        for i, marginal in enumerate(marginals):
            if not hasattr(marginal, "logpdf"):
                raise TypeError(
                    f"marginals[{i}]={marginal!r}: must be a frozen continuous distribution of "
                    "scipy.stats, such as scipy.stats.norm(0, 1)"
                )
        self.marginals = tuple(marginals)
        self.n_dims = len(self.marginals)

    @abstractmethod
    def _log_copula(self, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
        """Log-density of the copula, (n,), at tails (n, n_dims) that add up to one."""

    @abstractmethod
    def _tails(self, n: int, rng: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
        """Draws of the copula as lower and upper tails, (n, n_dims) each."""

    @property
    @abstractmethod
    def _copula_entropy(self) -> float:
        """-E[log c(U)], at most 0."""

    def log_prob(self, X: Any) -> np.ndarray:
        """Log-density in nats, (n,), for rows (n, n_dims); -inf outside the marginals' support."""
        rows = self._rows(X)
        columns = list(zip(self.marginals, rows.T, strict=True))
        own = np.stack([m.logpdf(x) for m, x in columns], 1).sum(1)
        # A tail that underflows is the smallest number instead: log c stays finite.
        lower = np.stack([m.cdf(x) for m, x in columns], 1).clip(_TINY)
        upper = np.stack([m.sf(x) for m, x in columns], 1).clip(_TINY)
        return own + self._log_copula(lower, upper)

    def sample(self, n_samples: int = 1, *, random_state: Any = None) -> np.ndarray:
        """Independent rows, (n_samples, n_dims)."""
        lower, upper = self._tails(n_samples, check_random_state(random_state))
        columns = zip(self.marginals, lower.T, upper.T, strict=True)
        return np.stack([np.where(a < 0.5, m.ppf(a), m.isf(b)) for m, a, b in columns], 1)

    @functools.cached_property
    def entropy(self) -> float:
        """Differential entropy in nats: the marginals', as scipy has them, and the copula's."""
        return sum(float(m.entropy()) for m in self.marginals) + self._copula_entropy


class GaussianCopula(_Copula):
    r"""Given marginals with the dependence of a multivariate Gaussian.

    .. math::  \log c(u) = -\tfrac12 \log\det R
                           - \tfrac12 z^\top (R^{-1} - I) z, \quad z_d = \Phi^{-1}(u_d), \qquad
               H = \sum_d H_d + \tfrac12 \log\det R.

    Parameters
    ----------
    correlation : array, (D, D)
        The correlation matrix :math:`R`, positive definite.
    marginals : sequence of D frozen scipy.stats distributions
        Continuous, for instance ``[scipy.stats.gamma(2), scipy.stats.norm(1, 3)]``.

    Raises
    ------
    TypeError
        A marginal is no frozen continuous distribution.
    ValueError
        ``correlation`` is not a correlation matrix of D dimensions.

    Examples
    --------
    >>> from scipy import stats
    >>> R = [[1.0, 0.8], [0.8, 1.0]]
    >>> both = GaussianCopula(R, [stats.norm(), stats.norm()])    # a Gaussian again
    >>> X = [[0.3, -1.0]]
    >>> bool(np.isclose(both.log_prob(X), stats.multivariate_normal(cov=R).logpdf(X)))
    True
    """

    def __init__(self, correlation: Any, marginals: Sequence[Any]):
        super().__init__(marginals)
        self.correlation = _correlation(correlation, self.n_dims)
        self._factor = np.linalg.cholesky(self.correlation)

    def _log_copula(self, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
        z = np.where(lower < 0.5, ndtri(lower), -ndtri(upper))
        white = solve_triangular(self._factor, z.T, lower=True)
        return -self._copula_entropy - ((white**2).sum(0) - (z**2).sum(1)) / 2

    def _tails(self, n: int, rng: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
        z = rng.normal(size=(n, self.n_dims)) @ self._factor.T
        return ndtr(z), ndtr(-z)

    @property
    def _copula_entropy(self) -> float:
        return float(np.log(np.diag(self._factor)).sum())


class StudentCopula(_Copula):
    r"""Given marginals with the dependence of a multivariate Student t: extremes come together.

    .. math::  c(u) = \frac{t_{\nu,R}(z)}{\prod_d t_\nu(z_d)}, \quad z_d = T_\nu^{-1}(u_d), \qquad
               H = \sum_d H_d + H(t_{\nu,R}) - D\,H(t_\nu).

    With :math:`s = (\nu + D)/2`, the last two are in closed form by
    :math:`H(t_{\nu,R}) = \tfrac12 \log\det R + \log\frac{(\nu\pi)^{D/2}\,\Gamma(\nu/2)}{\Gamma(s)}
    + s\,(\psi(s) - \psi(\nu/2))`.

    Parameters
    ----------
    df : float
        Degrees of freedom :math:`\nu`, at least 1.
    correlation : array, (D, D)
        The matrix :math:`R`, positive definite with ones on the diagonal.
    marginals : sequence of D frozen scipy.stats distributions
        Continuous.

    Raises
    ------
    TypeError
        A marginal is no frozen continuous distribution.
    ValueError
        ``df`` is below 1 or ``correlation`` not a correlation matrix of D dimensions.

    Examples
    --------
    >>> from scipy import stats
    >>> R = [[1.0, 0.8], [0.8, 1.0]]
    >>> both = StudentCopula(4.0, R, [stats.t(4), stats.t(4)])    # a Student t again
    >>> X = [[0.3, -1.0]]
    >>> bool(np.isclose(both.log_prob(X), stats.multivariate_t(shape=R, df=4).logpdf(X)))
    True
    """

    def __init__(self, df: float, correlation: Any, marginals: Sequence[Any]):
        super().__init__(marginals)
        if not 1 <= df < math.inf:
            raise ValueError(f"df={df!r}: must be at least 1 and finite")
        self.df = df
        self.correlation = _correlation(correlation, self.n_dims)
        self._factor = np.linalg.cholesky(self.correlation)

    def _log_copula(self, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
        nu, d = self.df, self.n_dims
        # Below this a quantile overflows when squared, and scipy's has the wrong sign further on.
        lower, upper = lower.clip(1e-140), upper.clip(1e-140)
        z = np.where(lower < 0.5, stdtrit(nu, lower), -stdtrit(nu, upper))
        white = solve_triangular(self._factor, z.T, lower=True)
        joint = -(nu + d) / 2 * np.log1p((white**2).sum(0) / nu)
        alone = -(nu + 1) / 2 * np.log1p(z**2 / nu).sum(1)
        log_det = np.log(np.diag(self._factor)).sum()
        return joint - _log_t_constant(nu, d) - log_det - alone + d * _log_t_constant(nu, 1)

    def _tails(self, n: int, rng: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
        z = rng.normal(size=(n, self.n_dims)) @ self._factor.T
        z /= np.sqrt(rng.chisquare(self.df, size=(n, 1)) / self.df)
        return stdtr(self.df, z), stdtr(self.df, -z)

    @property
    def _copula_entropy(self) -> float:
        log_det = np.log(np.diag(self._factor)).sum()
        joint = log_det + _t_entropy(self.df, self.n_dims)
        return float(joint - self.n_dims * _t_entropy(self.df, 1))


class ClaytonCopula(_Copula):
    r"""Given marginals that are small together: a copula of Archimedes' family.

    .. math::  c(u) = \prod_{d=0}^{D-1} (1 + d\,\theta) \prod_d u_d^{-1-\theta}\;
                      S^{-D - 1/\theta}, \quad S = 1 + \sum_d (u_d^{-\theta} - 1).

    By its construction from a Gamma variable (Marshall and Olkin 1988) :math:`1/S` is
    :math:`\mathrm{Beta}(1/\theta, D)`, so that the entropy has a closed form:

    .. math::  E[\log c(U)] = \sum_{d=0}^{D-1} \log(1 + d\,\theta) + D\,(1 + \theta)
               - (D + \tfrac1\theta)\,(\psi(D + \tfrac1\theta) - \psi(\tfrac1\theta)).

    Parameters
    ----------
    theta : float
        Strength of the dependence :math:`\theta`, positive; Kendall's tau of any two coordinates is
        :math:`\theta / (\theta + 2)`.
    marginals : sequence of D frozen scipy.stats distributions
        Continuous.

    Raises
    ------
    TypeError
        A marginal is no frozen continuous distribution.
    ValueError
        ``theta`` is not positive.

    Examples
    --------
    >>> from scipy import stats
    >>> copula = ClaytonCopula(1.0, [stats.uniform(), stats.uniform()])
    >>> copula.log_prob([[0.5, 0.5], [0.5, 1.5]]).round(4).tolist()    # log(2 * 16 / 27)
    [0.1699, -inf]
    """

    def __init__(self, theta: float, marginals: Sequence[Any]):
        super().__init__(marginals)
        if not 0 < theta < math.inf:
            raise ValueError(f"theta={theta!r}: must be positive and finite")
        self.theta = theta

    def _log_copula(self, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
        log_u = np.where(lower < 0.5, np.log(lower), np.log1p(-upper.clip(max=0.5)))
        a = np.append(-self.theta * log_u, np.zeros((len(log_u), 1)), 1)
        # S, of which the powers alone would overflow: D of the terms e^0 come off again.
        signs = np.append(np.ones(self.n_dims), 1.0 - self.n_dims)
        log_s = logsumexp(a, axis=1, b=signs)
        power = self.n_dims + 1 / self.theta
        return self._log_constant - (1 + self.theta) * log_u.sum(1) - power * log_s

    @property
    def _log_constant(self) -> float:
        return float(np.log1p(self.theta * np.arange(self.n_dims)).sum())

    def _tails(self, n: int, rng: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
        frailty = rng.gamma(1 / self.theta, size=(n, 1))
        log_u = -np.log1p(rng.exponential(size=(n, self.n_dims)) / frailty) / self.theta
        return np.exp(log_u), -np.expm1(log_u)

    @property
    def _copula_entropy(self) -> float:
        shape, d = 1 / self.theta, self.n_dims
        mean_log_s = digamma(d + shape) - digamma(shape)
        return float((d + shape) * mean_log_s - d * (1 + self.theta) - self._log_constant)


def _correlation(matrix: Any, n_dims: int) -> np.ndarray:
    R = np.asarray(matrix, dtype=float)
    if R.shape != (n_dims, n_dims):
        raise ValueError(
            f"correlation has shape {R.shape}: {n_dims} marginals need shape ({n_dims}, {n_dims})"
        )
    if not (np.allclose(R, R.T) and np.allclose(np.diag(R), 1)):
        raise ValueError("correlation: must be symmetric with ones on the diagonal")
    if not np.linalg.eigvalsh(R)[0] > 0:
        raise ValueError(
            f"correlation: its least eigenvalue is {np.linalg.eigvalsh(R)[0]:.3g}; it must be "
            "positive definite"
        )
    return R


def _log_t_constant(df: float, n_dims: int) -> float:
    """Log of what the kernel of a standard Student t in n_dims dimensions is divided by."""
    ratio = gammaln(df / 2) - gammaln((df + n_dims) / 2)
    return float(n_dims / 2 * math.log(df * math.pi) + ratio)


def _t_entropy(df: float, n_dims: int) -> float:
    half = (df + n_dims) / 2
    return float(_log_t_constant(df, n_dims) + half * (digamma(half) - digamma(df / 2)))
