"""Copulas with given marginal distributions, with known density and entropy."""

import functools
import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import digamma, gammaln, logsumexp, ndtr, ndtri, stdtr, stdtrit
from sklearn.utils import check_random_state

from densekit.datasets.base import Truth

__all__ = ["ClaytonCopula", "GaussianCopula", "StudentCopula"]

_TINY = np.finfo(float).tiny


class _Copula(Truth):
    r"""Base class of a distribution with given marginals and the dependence of a copula.

    .. math::  p(x) = c(F_1(x_1), \dots, F_D(x_D)) \prod_{d=1}^{D} p_d(x_d), \quad
               H = \sum_d H_d - E[\log c(U)].

    A probability is represented by two numbers, its lower and its upper tail, to keep full precision in
    both tails of a marginal.
    """

    n_dims: int

    def __init__(self, marginals: Sequence[Any]):
        if len(marginals) < 2:
            raise ValueError(f"marginals has {len(marginals)} entries: a copula needs at least 2")
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
        log_marginals = np.stack([m.logpdf(x) for m, x in columns], 1).sum(1)
        # Tails that underflow are replaced by the smallest number to keep log c finite.
        lower = np.stack([m.cdf(x) for m, x in columns], 1).clip(_TINY)
        upper = np.stack([m.sf(x) for m, x in columns], 1).clip(_TINY)
        return log_marginals + self._log_copula(lower, upper)

    def sample(self, n_samples: int = 1, *, random_state: Any = None) -> np.ndarray:
        """Independent rows, (n_samples, n_dims)."""
        lower, upper = self._tails(n_samples, check_random_state(random_state))
        columns = zip(self.marginals, lower.T, upper.T, strict=True)
        return np.stack([np.where(a < 0.5, m.ppf(a), m.isf(b)) for m, a, b in columns], 1)

    @functools.cached_property
    def entropy(self) -> float:
        """Differential entropy in nats, the sum of the marginals' entropies and the copula's."""
        return sum(float(m.entropy()) for m in self.marginals) + self._copula_entropy


class GaussianCopula(_Copula):
    r"""Given marginal distributions with the dependence of a multivariate Gaussian.

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
        A marginal is not a frozen continuous distribution.
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
    r"""Given marginal distributions with the dependence of a multivariate Student t.

    .. math::  c(u) = \frac{t_{\nu,R}(z)}{\prod_d t_\nu(z_d)}, \quad z_d = T_\nu^{-1}(u_d), \qquad
               H = \sum_d H_d + H(t_{\nu,R}) - D\,H(t_\nu).

    Unlike under a Gaussian copula, extreme values of different columns occur together. With
    :math:`s = (\nu + D)/2`, the entropies of the Student t distributions have the closed form
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
        A marginal is not a frozen continuous distribution.
    ValueError
        ``df`` is below 1, or ``correlation`` is not a correlation matrix of D dimensions.

    References
    ----------
    Demarta and McNeil (2005), *The t copula and related copulas*,
    https://doi.org/10.1111/j.1751-5823.2005.tb00254.x

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
        # Quantiles of smaller tails overflow when squared, and scipy's can have the wrong sign.
        lower, upper = lower.clip(1e-140), upper.clip(1e-140)
        z = np.where(lower < 0.5, stdtrit(nu, lower), -stdtrit(nu, upper))
        white = solve_triangular(self._factor, z.T, lower=True)
        joint = -(nu + d) / 2 * np.log1p((white**2).sum(0) / nu)
        marginal = -(nu + 1) / 2 * np.log1p(z**2 / nu).sum(1)
        log_det = np.log(np.diag(self._factor)).sum()
        return joint - _log_t_constant(nu, d) - log_det - marginal + d * _log_t_constant(nu, 1)

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
    r"""Given marginal distributions with the dependence of a Clayton copula.

    The Clayton copula is Archimedean. Small values of different columns tend to occur together.

    .. math::  c(u) = \prod_{d=0}^{D-1} (1 + d\,\theta) \prod_d u_d^{-1-\theta}\;
                      S^{-D - 1/\theta}, \quad S = 1 + \sum_d (u_d^{-\theta} - 1).

    In Marshall and Olkin's construction from a Gamma variable, :math:`1/S` has the distribution
    :math:`\mathrm{Beta}(1/\theta, D)`, which gives the entropy in closed form:

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
        A marginal is not a frozen continuous distribution.
    ValueError
        ``theta`` is not positive.

    References
    ----------
    Marshall and Olkin (1988), *Families of multivariate distributions*,
    https://doi.org/10.1080/01621459.1988.10478671

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
        # log S by logsumexp, because the powers would overflow; 1 - D is one more term e^0.
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
    """A validated correlation matrix (n_dims, n_dims)."""
    R = np.asarray(matrix, dtype=float)
    if R.shape != (n_dims, n_dims):
        raise ValueError(
            f"correlation has shape {R.shape}: {n_dims} marginals need shape ({n_dims}, {n_dims})"
        )
    if not (np.allclose(R, R.T) and np.allclose(np.diag(R), 1)):
        raise ValueError("correlation: must be symmetric with ones on the diagonal")
    if not np.linalg.eigvalsh(R)[0] > 0:
        raise ValueError(
            f"correlation has the smallest eigenvalue {np.linalg.eigvalsh(R)[0]:.3g}: it must be "
            "positive definite"
        )
    return R


def _log_t_constant(df: float, n_dims: int) -> float:
    """Log normalizing constant of a standard Student t distribution in ``n_dims`` dimensions."""
    ratio = gammaln(df / 2) - gammaln((df + n_dims) / 2)
    return float(n_dims / 2 * math.log(df * math.pi) + ratio)


def _t_entropy(df: float, n_dims: int) -> float:
    """Entropy in nats of a standard Student t distribution in ``n_dims`` dimensions."""
    half = (df + n_dims) / 2
    return float(_log_t_constant(df, n_dims) + half * (digamma(half) - digamma(df / 2)))
