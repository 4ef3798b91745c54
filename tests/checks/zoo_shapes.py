"""More correct densities that densekit did not write: dependence that no covariance states, heavy and
skewed columns, and a normalizing flow in NumPy."""

import numpy as np
from scipy import special, stats
from zoo import Columns, Law


class SkewNormal(Columns):
    def _law(self, z):
        skewness = np.clip(stats.skew(z) if z.std() > 1e-6 else 0.0, -0.9, 0.9)
        # The skewness of a skew normal as a function of its shape, solved for the shape.
        part = np.abs(skewness) ** (2 / 3)
        size = np.sqrt(np.pi / 2 * part / (part + ((4 - np.pi) / 2) ** (2 / 3)))
        delta = np.sign(skewness) * size
        width = max(z.std(), 1e-3) / np.sqrt(1 - 2 * delta**2 / np.pi)
        center = z.mean() - width * delta * np.sqrt(2 / np.pi)
        return stats.skewnorm(delta / np.sqrt(1 - delta**2), center, width)


class Gumbel(Columns):
    """A tail that falls like an exponential on one side, and much faster on the other."""

    def _law(self, z):
        width = max(z.std(), 1e-3) * np.sqrt(6) / np.pi
        return stats.gumbel_r(z.mean() - np.euler_gamma * width, width)


class Triangular(Columns):
    """On an interval a little wider than the rows, with a kink at the median."""

    def _law(self, z):
        low, width = z.min() - 0.1, np.ptp(z) + 0.2
        return stats.triang((np.median(z) - low) / width, low, width)


class InverseGaussian(Columns):
    """First passage times of a Brownian motion with drift, from a little below the smallest row on."""

    def _law(self, z):
        low = z.min() - 0.5
        mean, variance = z.mean() - low, max(z.var(), 1e-4)
        shape = mean**3 / variance
        return stats.invgauss(mean / shape, low, shape)


class Banana(Law):
    """Every other column is bent along the square of the one before: contours are curved."""

    bend = 0.4

    def _learn(self, Z):
        self.d_ = Z.shape[1]

    def _log_density(self, Z):
        noise = Z.copy()
        noise[:, 1::2] -= self.bend * (Z[:, :-1:2] ** 2 - 1)
        return stats.norm.logpdf(noise).sum(1)

    def _draw(self, n, rng):
        Z = rng.normal(size=(n, self.d_))
        Z[:, 1::2] += self.bend * (Z[:, :-1:2] ** 2 - 1)
        return Z


class Clayton(Law):
    """Normal columns under Clayton's copula, which are dependent in the lower tail alone.

    Draws divide exponentials by one gamma variable (Marshall and Olkin 1988).
    """

    theta = 1.5

    def _learn(self, Z):
        self.d_ = Z.shape[1]

    def _log_density(self, Z):
        d, theta = self.d_, self.theta
        power = -theta * special.log_ndtr(Z)
        # log(sum u^-theta - d + 1), without a difference of large numbers or of ones.
        high = power.max(1)
        near = np.log1p(np.expm1(np.minimum(power, 500)).sum(1))
        far = high + np.log(np.exp(power - high[:, None]).sum(1))
        total = np.where(high < 500, near, far)
        constant = np.log1p(theta * np.arange(d)).sum()
        copula = constant + (1 + 1 / theta) * power.sum(1) - (1 / theta + d) * total
        return copula + stats.norm.logpdf(Z).sum(1)

    def _draw(self, n, rng):
        frailty = rng.gamma(1 / self.theta, size=(n, 1))
        log_u = -np.log1p(rng.exponential(size=(n, self.d_)) / frailty) / self.theta
        return special.ndtri_exp(log_u)


class CouplingFlow(Law):
    """Affine couplings with fixed networks on whitened rows, and a sinh-arcsinh map of each column.

    Each coupling shifts and scales half of the columns by a tanh network of the other half (Dinh et al.
    2017); the last map gives each column tails of its own (Jones and Pewsey 2009).
    """

    n_couplings = 4
    skewness, weight = 0.2, 0.9

    def _learn(self, Z):
        d = Z.shape[1]
        self.root_ = np.linalg.cholesky(Z.T @ Z / len(Z) + 1e-6 * np.eye(d))
        rng = np.random.default_rng(d)
        self.networks_ = [
            (rng.normal(size=(d, 16)), rng.normal(size=16), 0.1 * rng.normal(size=(16, 2 * d)))
            for _ in range(self.n_couplings)
        ]
        x = self._couple(rng.normal(size=(20_000, d)))
        self.middle_, self.width_ = x.mean(0), x.std(0)

    def _moves(self, x, i):
        """Log-scales and shifts (n, d) of coupling i, zero where its mask leaves columns alone."""
        into, bias, out = self.networks_[i]
        still = np.arange(x.shape[1]) % 2 == i % 2
        raw = np.tanh(np.where(still, x, 0.0) @ into + bias) @ out
        log_scale, shift = np.split(raw, 2, axis=1)
        return np.where(still, 0.0, np.tanh(log_scale)), np.where(still, 0.0, shift)

    def _log_density(self, Z):
        noise = np.linalg.solve(self.root_, Z.T).T * self.width_ + self.middle_
        constant = np.log(self.width_).sum() - np.log(np.diag(self.root_)).sum()
        total = np.full(len(Z), constant)
        for i in reversed(range(self.n_couplings)):
            log_scale, shift = self._moves(noise, i)
            noise = (noise - shift) * np.exp(-log_scale)
            total -= log_scale.sum(1)
        # z = sinh(w asinh(y) - e): its slope is w cosh(w asinh(y) - e) / sqrt(1 + y^2).
        inner = self.weight * np.arcsinh(noise) - self.skewness
        total += (np.log(self.weight * np.cosh(inner)) - 0.5 * np.log1p(noise**2)).sum(1)
        return total + stats.norm.logpdf(np.sinh(inner)).sum(1)

    def _couple(self, z):
        x = np.sinh((np.arcsinh(z) + self.skewness) / self.weight)
        for i in range(self.n_couplings):
            log_scale, shift = self._moves(x, i)
            x = x * np.exp(log_scale) + shift
        return x

    def _draw(self, n, rng):
        x = self._couple(rng.normal(size=(n, len(self.root_))))
        return (x - self.middle_) / self.width_ @ self.root_.T


OF_SHAPES = (SkewNormal, Gumbel, Triangular, InverseGaussian, Banana, Clayton, CouplingFlow)
"""Those that take tables of numbers, by scikit-learn's conventions alone."""
