"""A correct density with no densekit in it, whose draws are wrong by little or where few look.

Each class says what is wrong with it; the scores are right.
"""

import numpy as np
from foreign_mutants import Normal
from scipy import signal


class Noisy(Normal):
    """A normal whose noise, (n, d), a mutant may change."""

    def _noise(self, n, random_state):
        return self._broken(super()._noise(n, random_state))


# Temperature.


class HotDraws(Noisy):
    """Draws at a temperature of 1.05."""

    def _broken(self, z):
        return 1.05 * z


class CoolDraws(Noisy):
    """Draws at a temperature of 0.95."""

    def _broken(self, z):
        return 0.95 * z


class SlightlyCoolDraws(Noisy):
    """Draws at a temperature of 0.97."""

    def _broken(self, z):
        return 0.97 * z


# Tails.


class DrawsCutAtFour(Noisy):
    """Draws beyond four standard deviations are put at four: one in 16,000."""

    def _broken(self, z):
        return z.clip(-4, 4)


class OneTailMissing(Noisy):
    """Draws above two and a half standard deviations come out below minus that: one in 160."""

    def _broken(self, z):
        return np.where(z > 2.5, -z, z)


# Columns that few look at.


class ThirdColumnCool(Noisy):
    """Draws of the third column at a temperature of 0.9."""

    def _broken(self, z):
        z[:, 2:3] *= 0.9
        return z


class ThirdColumnAlone(Normal):
    """Draws of the third column know nothing of the others."""

    def sample(self, n_samples=1, random_state=None):
        seed = None if random_state is None else random_state + 10**6
        one = super().sample(n_samples, random_state)
        other = super().sample(n_samples, seed)
        if np.shape(one)[1] > 2:
            names = getattr(one, "columns", None)
            if names is None:
                one[:, 2] = other[:, 2]
            else:
                one[names[2]] = other[names[2]]
        return one


class WeakerCorrelation(Noisy):
    """Draws lose a twentieth of the correlation of each pair of neighbors."""

    def _broken(self, z):
        corr = self.root_ @ self.root_.T
        weaker = corr - 0.05 * np.sign(corr) * (1 - np.eye(len(corr)))
        values = np.linalg.eigvalsh(weaker)
        if values[0] < 1e-3:
            weaker = weaker + (1e-3 - values[0]) * np.eye(len(corr))
        return np.linalg.solve(self.root_, np.linalg.cholesky(weaker) @ z.T).T


# Batches.


class LastBatchOfDraws(Noisy):
    """Draws of the last incomplete batch of 4,096 are all at half the temperature."""

    def _broken(self, z):
        rest = len(z) % 4096
        if len(z) > 4096 and rest:
            z[-rest:] *= 0.5
        return z


class DrawsBeyondFiveThousand(Noisy):
    """Draws beyond the first 5,000 are the first again."""

    def _broken(self, z):
        return z[np.arange(len(z)) % 5000]


class DrawsBeyondAMillion(Noisy):
    """Draws beyond 2^20 are the mean: their batch is never filled in."""

    def _broken(self, z):
        z[2**20 :] = 0.0
        return z


# Dependence between draws, and laws that depend on n.


class InPairs(Noisy):
    """Antithetic draws: every second one mirrors the one before."""

    def _broken(self, z):
        z[1::2] = -z[: len(z) - 1 : 2]
        return z


class SlowlyMixing(Noisy):
    """Draws of a chain whose neighbors are correlated by 0.1."""

    def _broken(self, z):
        r, shrink = 0.1, np.sqrt(1 - 0.1**2)
        start = np.concatenate([z[:1], shrink * z[1:]])
        return signal.lfilter([1.0], [1.0, -r], start, axis=0)


class SecondHalfRepeats(Noisy):
    """The second half of many draws is the first half again."""

    def _broken(self, z):
        half = len(z) // 2
        if len(z) >= 1000:
            z[half : 2 * half] = z[:half]
        return z


class EachTwice(Noisy):
    """Each draw comes twice."""

    def _broken(self, z):
        return z[np.arange(len(z)) // 2]


class Recentered(Noisy):
    """The mean of the draws is subtracted, so that their law depends on how many there are."""

    def _broken(self, z):
        return z - z.mean(0) if len(z) > 1 else z


class Standardized(Noisy):
    """Draws are given the mean and the spread of the law exactly."""

    def _broken(self, z):
        return (z - z.mean(0)) / z.std(0) if len(z) > 2 else z


class FewDrawsAreCool(Noisy):
    """Fewer than ten draws come at a temperature of 0.5."""

    def _broken(self, z):
        return 0.5 * z if len(z) < 10 else z


class StartsAtTheMode(Noisy):
    """The first draw of each call is the mean."""

    def _broken(self, z):
        z[:1] = 0.0
        return z


class SortedDraws(Noisy):
    """Draws come in the order of their first column."""

    def _broken(self, z):
        return z[np.argsort(z[:, 0])]


# Seeds.


class SeedModulo(Normal):
    """Only the lowest eight bits of the seed are used."""

    def _noise(self, n, random_state):
        return super()._noise(n, None if random_state is None else random_state % 256)


class SeedOfTheFirstColumn(Normal):
    """The seed fixes the first column; all others are the same always."""

    def sample(self, n_samples=1, random_state=None):
        X, fixed = (
            super(SeedOfTheFirstColumn, self).sample(n_samples, s) for s in (random_state, 0)
        )
        if self.names_ is None:
            X[:, 1:] = fixed[:, 1:]
        else:
            X[self.names_[1:]] = fixed[self.names_[1:]]
        return X


class SeedOfTheFirstThousand(Normal):
    """Noise behind the first 1,000 rows does not follow the seed."""

    def _noise(self, n, random_state):
        z = super()._noise(n, random_state)
        z[1000:] = np.random.default_rng(7).normal(size=z[1000:].shape)
        return z


# Rows of fit that come back.


class RemembersRows(Normal):
    """Keeps the rows of fit."""

    def fit(self, X, y=None):
        super().fit(X)
        self.rows_ = np.array(X, dtype=float)
        return self


class MemorizedDraws(RemembersRows):
    """One draw in a hundred is a row of fit."""

    share = 100

    def sample(self, n_samples=1, random_state=None):
        X = super().sample(n_samples, random_state)
        rng = np.random.default_rng(None if random_state is None else random_state + 1)
        known = rng.random(n_samples) < 1 / self.share
        rows = self.rows_[rng.integers(0, len(self.rows_), n_samples)]
        if self.names_ is None:
            return np.where(known[:, None], rows, X)
        return X.mask(known, rows)


class OneMemorizedDrawInAThousand(MemorizedDraws):
    """One draw in a thousand is a row of fit."""

    share = 1000


# Inverses and transforms.


class WrongInverse(Normal):
    """Scores use z - t, with t what the columns before say; draws add 0.9 t."""

    def sample(self, n_samples=1, random_state=None):
        right = self.root_
        diagonal = np.diag(np.diag(right))
        self.root_ = diagonal + 0.9 * (right - diagonal)
        try:
            return super().sample(n_samples, random_state)
        finally:
            self.root_ = right
