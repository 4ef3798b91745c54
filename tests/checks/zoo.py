"""Correct densities that densekit did not write, which every check must pass.

Each fits its columns after they were centered and divided by their standard deviations, so that the
scores move with the units. Several have what a careless check trips over: rows outside the support,
no mean, a density that is zero inside the range of the data, or a hundred scales at once.
"""

import numpy as np
from scipy import optimize, special, stats
from sklearn.base import BaseEstimator
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from sklearn.utils.validation import check_is_fitted, validate_data


class Law(BaseEstimator):
    """An estimator of columns of numbers; a density of standardized rows is what it is given.

    A density has ``_learn(Z)``, ``_log_density(Z)``, (n,), and ``_draw(n, rng)``, (n, d).
    """

    def __init__(self, random_state=None):
        self.random_state = random_state

    def fit(self, X, y=None):
        X = validate_data(self, X, dtype=np.float64, ensure_min_samples=5)
        self.names_ = getattr(self, "feature_names_in_", None)
        self.center_ = X.mean(0)
        self.spread_ = np.where(np.ptp(X, 0) > 0, X.std(0), 1e-9)
        self._learn((X - self.center_) / self.spread_)
        return self

    def score_samples(self, X):
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        with np.errstate(divide="ignore", over="ignore"):
            logp = self._log_density((X - self.center_) / self.spread_)
        return logp - np.log(self.spread_).sum()

    def score(self, X, y=None):
        return float(self.score_samples(X).mean())

    def sample(self, n_samples=1, random_state=None):
        check_is_fitted(self)
        rng = np.random.default_rng(random_state)
        X = self._draw(n_samples, rng) * self.spread_ + self.center_
        if self.names_ is None:
            return X
        import pandas as pd

        return pd.DataFrame(X, columns=self.names_)


class Columns(Law):
    """Independent columns, each of a law of SciPy's that ``_law(z)`` fits to standardized numbers."""

    def _learn(self, Z):
        self.laws_ = [self._law(z) for z in Z.T]

    def _log_density(self, Z):
        return sum(law.logpdf(z) for law, z in zip(self.laws_, Z.T, strict=True))

    def _draw(self, n, rng):
        return np.stack([law.rvs(size=n, random_state=rng) for law in self.laws_], 1)


class Cauchy(Columns):
    """No mean and no variance: location and scale are quartiles."""

    def _law(self, z):
        low, middle, high = np.quantile(z, [0.25, 0.5, 0.75])
        return stats.cauchy(middle, max((high - low) / 2, 1e-3))


class Uniform(Columns):
    """Uniform on the box of the rows: half of all held-out rows may lie outside."""

    def _law(self, z):
        return stats.uniform(z.min(), max(np.ptp(z), 1e-3))


class TruncatedNormal(Columns):
    def _law(self, z):
        low, high = z.min() - 0.01, z.max() + 0.01
        return stats.truncnorm(low, high)


class Gamma(Columns):
    """From a little below the smallest row on."""

    def _law(self, z):
        low = z.min() - 0.5
        mean, variance = z.mean() - low, max(z.var(), 1e-4)
        return stats.gamma(mean**2 / variance, low, variance / mean)


class LogNormal(Columns):
    def _law(self, z):
        low = z.min() - 0.5
        log = np.log(z - low)
        return stats.lognorm(max(log.std(), 1e-3), low, np.exp(log.mean()))


class Beta(Columns):
    """A Beta law on an interval a little wider than the rows."""

    def _law(self, z):
        low, width = z.min() - 0.1, np.ptp(z) + 0.2
        u = (z - low) / width
        mean, variance = u.mean(), max(u.var(), 1e-4)
        size = mean * (1 - mean) / variance - 1
        return stats.beta(mean * size, (1 - mean) * size, low, width)


class Laplace(Columns):
    def _law(self, z):
        middle = np.median(z)
        return stats.laplace(middle, max(np.abs(z - middle).mean(), 1e-3))


class Histograms(Columns):
    """Twenty bins a column, with densities of zero where a bin has no row."""

    def _law(self, z):
        edges = np.linspace(z.min(), z.min() + max(np.ptp(z), 1e-3), 21)
        return stats.rv_histogram(np.histogram(z, edges), density=False)


class VonMises(Columns):
    """Angles: the range of the rows and a tenth more is once around a circle."""

    def _law(self, z):
        low, period = z.min() - 0.05 * max(np.ptp(z), 1), 1.1 * max(np.ptp(z), 1)
        angles = 2 * np.pi * (z - low) / period
        mean = np.exp(1j * angles).mean()
        length = min(abs(mean), 0.99)
        kappa = optimize.brentq(
            lambda k: special.ive(1, k) / special.ive(0, k) - length, 1e-9, 1e4
        )
        return _OnCircle(low, period, np.angle(mean), kappa)


class _OnCircle:
    def __init__(self, low, period, mean, kappa):
        self.low, self.period, self.mean, self.kappa = low, period, mean, kappa

    def logpdf(self, z):
        angle = 2 * np.pi * (z - self.low) / self.period
        logp = self.kappa * (np.cos(angle - self.mean) - 1) - np.log(special.ive(0, self.kappa))
        inside = (z >= self.low) & (z < self.low + self.period)
        return np.where(inside, logp - np.log(self.period), -np.inf)

    def rvs(self, size, random_state):
        angle = random_state.vonmises(self.mean, self.kappa, size) % (2 * np.pi)
        return self.low + self.period * angle / (2 * np.pi)


class StudentT(Law):
    """Multivariate Student t with three degrees of freedom and the covariance of the rows."""

    df = 3.0

    def _learn(self, Z):
        scatter = (Z.T @ Z / len(Z)) * (self.df - 2) / self.df + 1e-6 * np.eye(Z.shape[1])
        self.root_ = np.linalg.cholesky(scatter)

    def _log_density(self, Z):
        d = Z.shape[1]
        square = (np.linalg.solve(self.root_, Z.T) ** 2).sum(0)
        half = (self.df + d) / 2
        constant = special.gammaln(half) - special.gammaln(self.df / 2)
        constant -= 0.5 * d * np.log(self.df * np.pi) + np.log(np.diag(self.root_)).sum()
        return constant - half * np.log1p(square / self.df)

    def _draw(self, n, rng):
        normal = rng.normal(size=(n, len(self.root_))) @ self.root_.T
        return normal / np.sqrt(rng.chisquare(self.df, (n, 1)) / self.df)


class GaussianCopula(Law):
    """Normal dependence between columns that are sums of ten logistic kernels."""

    width = 0.4

    def _learn(self, Z):
        self.places_ = np.quantile(Z, (np.arange(10) + 0.5) / 10, axis=0)
        low, high = self.places_.min(0) - 40 * self.width, self.places_.max(0) + 40 * self.width
        self.grid_ = np.linspace(low, high, 4001)
        quantiles = self._margins(Z)[1]
        scale = quantiles.std(0).clip(1e-6)
        corr = np.cov(quantiles.T / scale[:, None]).reshape(Z.shape[1], -1)
        self.root_ = np.linalg.cholesky(0.99 * corr + 0.01 * np.eye(Z.shape[1]))
        self.root_ /= np.sqrt((self.root_**2).sum(1, keepdims=True))

    def _margins(self, Z):
        """Log-densities of the columns and normal quantiles of their probabilities, (n, d) each."""
        apart = (Z[:, None] - self.places_) / self.width
        below, above = (special.log_expit(side * apart) for side in (1, -1))
        logp = special.logsumexp(below + above, 1) - np.log(len(self.places_) * self.width)
        below, above = (
            special.logsumexp(a, 1) - np.log(len(self.places_)) for a in (below, above)
        )
        # From the nearer tail, where the probability does not round to one.
        low, high = (special.ndtri_exp(np.minimum(a, -1e-300)) for a in (below, above))
        return logp, np.where(below < above, low, -high)

    def _log_density(self, Z):
        return np.concatenate([self._of_few(z) for z in np.split(Z, range(5000, len(Z), 5000))])

    def _of_few(self, Z):
        logp, quantiles = self._margins(Z)
        white = np.linalg.solve(self.root_, quantiles.T)
        dependence = 0.5 * ((quantiles**2).sum(1) - (white**2).sum(0))
        return logp.sum(1) + dependence - np.log(np.diag(self.root_)).sum()

    def _draw(self, n, rng):
        quantiles = rng.normal(size=(n, len(self.root_))) @ self.root_.T
        known = self._margins(self.grid_)[1]
        columns = zip(quantiles.T, known.T, self.grid_.T, strict=True)
        z = np.stack([np.interp(q, k, g) for q, k, g in columns], 1)
        # One step of Newton's method makes the inverse exact to rounding.
        logp, reached = self._margins(z)
        slope = np.exp(logp - stats.norm.logpdf(reached))
        return z - (reached - quantiles) / slope


class Kernels(Law):
    """scikit-learn's kernel density on standardized rows."""

    def _learn(self, Z):
        self.model_ = KernelDensity(bandwidth=0.3).fit(Z)

    def _log_density(self, Z):
        return self.model_.score_samples(Z)

    def _draw(self, n, rng):
        seed = np.random.RandomState(rng.integers(2**31))
        return self.model_.sample(n, random_state=seed)


class Mixture(Law):
    """scikit-learn's mixture on standardized rows."""

    n_components = 2

    def _learn(self, Z):
        seed = 0 if self.random_state is None else self.random_state
        self.model_ = GaussianMixture(self.n_components, random_state=seed).fit(Z)

    def _log_density(self, Z):
        return self.model_.score_samples(Z)

    def _draw(self, n, rng):
        which = rng.choice(len(self.model_.weights_), n, p=self.model_.weights_)
        roots = np.linalg.cholesky(self.model_.covariances_)
        noise = rng.normal(size=(n, self.model_.means_.shape[1]))
        return self.model_.means_[which] + np.einsum("nij,nj->ni", roots[which], noise)


class ScalesApart(Law):
    """A mixture of normals around one place whose scales are 0.03, 0.3 and 3."""

    scales, weights = np.array([0.03, 0.3, 3.0]), np.array([0.2, 0.7, 0.1])

    def _learn(self, Z):
        self.d_ = Z.shape[1]

    def _log_density(self, Z):
        square = (Z**2).sum(1)[:, None] / self.scales**2
        each = -0.5 * square - self.d_ * np.log(self.scales * np.sqrt(2 * np.pi))
        return special.logsumexp(each + np.log(self.weights), 1)

    def _draw(self, n, rng):
        scale = rng.choice(self.scales, (n, 1), p=self.weights)
        return scale * rng.normal(size=(n, self.d_))


class Ring(Law):
    """Standard normal rows in all directions alike, whose length has a law of its own: a density with a
    hole in the middle."""

    def _learn(self, Z):
        self.d_ = Z.shape[1]

    def _log_density(self, Z):
        d, length = self.d_, np.sqrt((Z**2).sum(1))
        area = np.log(2) + 0.5 * d * np.log(np.pi) - special.gammaln(d / 2)
        radial = stats.norm.logpdf(length, 2.0, 0.25) - stats.norm.logsf(0, 2.0, 0.25)
        return radial - area - (d - 1) * np.log(np.maximum(length, 1e-300))

    def _draw(self, n, rng):
        direction = rng.normal(size=(n, self.d_))
        direction /= np.sqrt((direction**2).sum(1, keepdims=True))
        length = stats.truncnorm(-8, np.inf, 2.0, 0.25).rvs(size=(n, 1), random_state=rng)
        return length * direction


OF_NUMBERS = (
    StudentT, Cauchy, Uniform, TruncatedNormal, Gamma, LogNormal, Beta, Laplace,
    Histograms, VonMises, GaussianCopula, Kernels, Mixture, ScalesApart, Ring,
)  # fmt: skip
"""Those that take tables of numbers, by scikit-learn's conventions alone."""
