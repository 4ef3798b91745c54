"""Laws with a density from which rows like given ones can be drawn, for importance sampling."""

import math
from typing import Any

import numpy as np
from scipy import special

from densekit.checks.subject import quiet

_LEAST = 0.02
"""Share of the components that guard against tails and modes that the rows do not show."""
_CONDITION = 1e-12


def _spread(x: np.ndarray) -> np.ndarray:
    low, high = np.quantile(x, [0.25, 0.75], axis=0)
    widest = np.ptp(x, axis=0)
    wide = np.where(high > low, (high - low) / 1.35, widest / 4)
    return np.where(wide > 0, wide, 1.0)


class Normal:
    """A normal (shape=None), or a multivariate Student t with ``shape`` degrees of freedom."""

    def __init__(self, mean: np.ndarray, covariance: np.ndarray, shape: float | None = None):
        d = len(mean)
        ridge = _CONDITION * np.diag(np.maximum(np.diag(covariance), 1e-300))
        self.mean, self.root, self.shape = mean, np.linalg.cholesky(covariance + ridge), shape
        log_det = float(np.log(np.diag(self.root)).sum())
        if shape is None:
            self.constant = -log_det - 0.5 * d * math.log(2 * math.pi)
        else:
            self.constant = float(
                special.gammaln((shape + d) / 2) - special.gammaln(shape / 2)
                - 0.5 * d * math.log(shape * math.pi) - log_det
            )  # fmt: skip

    def draw(self, n: int, rng: np.random.Generator) -> np.ndarray:
        z = rng.normal(size=(n, len(self.mean)))
        if self.shape is not None:
            z /= np.sqrt(rng.chisquare(self.shape, n) / self.shape)[:, None]
        return z @ self.root.T + self.mean

    def log_density(self, x: np.ndarray) -> np.ndarray:
        from scipy.linalg import solve_triangular

        z = solve_triangular(self.root, (x - self.mean).T, lower=True, check_finite=False)
        square = (z**2).sum(0)
        if self.shape is None:
            return self.constant - 0.5 * square
        return self.constant - 0.5 * (self.shape + len(z)) * np.log1p(square / self.shape)


class Cauchys:
    """Independent Cauchy columns."""

    def __init__(self, middle: np.ndarray, scale: np.ndarray):
        self.middle, self.scale = middle, scale

    def draw(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return self.middle + self.scale * rng.standard_cauchy((n, len(self.middle)))

    def log_density(self, x: np.ndarray) -> np.ndarray:
        z = (x - self.middle) / self.scale
        out: np.ndarray = -(np.log1p(z**2) + np.log(math.pi * self.scale)).sum(1)
        return out


class Histograms:
    """Independent columns, uniform between neighboring quantiles of the rows, and a little beyond."""

    def __init__(self, x: np.ndarray, bins: int = 48):
        self.edges, self.log_height = [], []
        for column in x.T:
            edges = np.quantile(column, np.linspace(0, 1, bins + 1))
            beyond = 0.02 * (np.ptp(edges) or 1.0)
            edges = np.unique(np.concatenate([[edges[0] - beyond], edges, [edges[-1] + beyond]]))
            share = np.histogram(column, edges)[0] / len(column)
            share = (share + 0.2 / len(share)) / 1.2
            self.edges.append(edges)
            self.log_height.append(np.log(share / np.diff(edges)))

    def draw(self, n: int, rng: np.random.Generator) -> np.ndarray:
        out = []
        for edges, height in zip(self.edges, self.log_height, strict=True):
            share = np.exp(height) * np.diff(edges)
            bin_ = rng.choice(len(share), n, p=share / share.sum())
            out.append(edges[bin_] + rng.random(n) * np.diff(edges)[bin_])
        return np.stack(out, 1)

    def log_density(self, x: np.ndarray) -> np.ndarray:
        total = np.zeros(len(x))
        for column, edges, height in zip(x.T, self.edges, self.log_height, strict=True):
            place = np.searchsorted(edges, column, side="right") - 1
            inside = (place >= 0) & (place < len(height))
            total += np.where(inside, height[np.clip(place, 0, len(height) - 1)], -np.inf)
        return total


class Proposal:
    """A mixture of laws around rows, moved by a linear function of the features of a context."""

    def __init__(self, laws: list[Any], shares: np.ndarray, slope: np.ndarray | None) -> None:
        self.laws, self.shares, self.slope = laws, shares, slope

    @classmethod
    def of(
        cls, x: np.ndarray, features: np.ndarray | None, rng: np.random.Generator
    ) -> "Proposal":
        """The proposal for draws x (m, d), given features (m, k) of their contexts.

        Half of the draws place the laws, the other half say by expectation maximization how much of
        each there should be.
        """
        slope = None
        if features is not None:
            design = np.column_stack([np.ones(len(x)), features])
            slope = np.linalg.lstsq(design, x, rcond=None)[0]
            x = x - design @ slope
        one, two = x[::2], x[1::2]
        laws = _laws(one, rng)
        logs = np.stack([law.log_density(two) for law in laws], 1)
        shares = np.full(len(laws), 1 / len(laws))
        for _ in range(60):
            weight = logs + np.log(shares)
            weight = np.exp(weight - special.logsumexp(weight, axis=1, keepdims=True))
            shares = np.maximum(weight.mean(0), 1e-12)
        guards = np.arange(len(laws)) < _GUARDS
        shares = np.where(guards, np.maximum(shares, _LEAST), np.where(shares < 0.01, 0, shares))
        kept = shares > 0
        laws = [law for law, keep in zip(laws, kept, strict=True) if keep]
        return cls(laws, shares[kept] / shares[kept].sum(), slope)

    def draw(
        self, n: int, features: np.ndarray | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows (n, d) and their log-density (n,), given features (n, k) of a context.

        The mixture is sampled by counts that are rounded at random: every row has its law still.
        """
        counts = rng.multinomial(n, self.shares)
        x = np.concatenate([law.draw(k, rng) for law, k in zip(self.laws, counts, strict=True)])
        x = x[rng.permutation(n)]
        log_q = self._log_density(x)
        return x + self._moved(n, features), log_q

    def log_density(self, x: np.ndarray, features: np.ndarray | None = None) -> np.ndarray:
        """Log-density (n,) of rows (n, d), given features (n, k) of a context."""
        return self._log_density(x - self._moved(len(x), features))

    def _moved(self, n: int, features: np.ndarray | None) -> np.ndarray | float:
        if self.slope is None or features is None:
            return 0.0
        moved: np.ndarray = np.column_stack([np.ones(n), features]) @ self.slope
        return moved

    def _log_density(self, x: np.ndarray) -> np.ndarray:
        total: np.ndarray | None = None
        for law, share in zip(self.laws, self.shares, strict=True):
            one = law.log_density(x) + math.log(share)
            total = one if total is None else np.logaddexp(total, one)
        assert total is not None
        return total


_GUARDS = 3
_SCALES = 2.0 ** np.array([4, 3, 2, 1, -1, -2, -3, -4, -5, -6])
"""Scales of normals around one place, for parts of the density that no clustering separates."""
_ROWS_OF_A_MIXTURE = 1000
"""Rows that a mixture is fitted to, in up to five columns; twice as many in more."""


def _laws(x: np.ndarray, rng: np.random.Generator) -> list[Any]:
    """Three guards (see ``_GUARDS``), and what fits rows of many kinds."""
    d = x.shape[1]
    middle, scale = np.median(x, 0), _spread(x)
    # Draws far out would make a covariance of theirs alone.
    z = np.clip((x - middle) / scale, -6, 6)
    mean, covariance = z.mean(0), np.cov(z.T).reshape(d, d) + 1e-6 * np.eye(d)
    back = np.outer(scale, scale)
    center = middle + scale * mean
    laws: list[Any] = [
        Cauchys(middle, scale),
        Normal(center, 2.0 * covariance * back, 3.0),
        Normal(center, 1.5 * covariance * back),
        Normal(center, 1.02 * covariance * back),
        Histograms(x),
    ]
    laws += [Normal(middle, s**2 * covariance * back) for s in _SCALES]
    few = z[rng.permutation(len(z))[: _ROWS_OF_A_MIXTURE * (1 if d <= 5 else 2)]]
    for mu, sigma in _mixture(few, 6):
        laws.append(Normal(middle + scale * mu, 1.1 * sigma * back))
    return laws


def _mixture(z: np.ndarray, most: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Means and covariances of a mixture of normals fitted to rows (n, d); fewer than ``most`` where
    there are too few rows for so many covariances."""
    from sklearn.mixture import GaussianMixture

    n, d = z.shape
    k = max(1, min(most, n // (10 * d)))
    # A floor far below the spread: the covariance of a narrow part of the density is its own.
    mixture = GaussianMixture(k, reg_covar=1e-5, max_iter=50, random_state=0)
    with quiet():  # Any mixture will do: the shares of its parts are found by other rows.
        mixture.fit(z)
    return list(zip(mixture.means_, mixture.covariances_, strict=True))
