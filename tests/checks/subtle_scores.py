"""A correct density with no densekit in it, whose scores or transform are wrong by little or where few
look.

Each class says what is wrong with it; the draws are right.
"""

import numpy as np
import torch
from foreign_mutants import Normal
from scipy import special
from subtle_draws import RemembersRows
from torch.distributions.transforms import Transform


class Rescored(Normal):
    """A normal whose scores a mutant may change, knowing the whitened rows."""

    def score_samples(self, X):
        return self._broken(super().score_samples(X), self._whiten(X))


# Temperature.


class NarrowScores(Rescored):
    """The density of draws at a temperature of 0.97, normalized."""

    def _broken(self, scores, z):
        d = z.shape[1]
        return scores - 0.5 * (z**2).sum(1) * (0.97**-2 - 1) - d * np.log(0.97)


# Mass and shape.


class OnePercentTooMuch(Rescored):
    """Mass 1.01."""

    def _broken(self, scores, z):
        return scores + np.log(1.01)


class OnePercentTooLittle(Rescored):
    """Mass 0.99."""

    def _broken(self, scores, z):
        return scores + np.log(0.99)


class OnePercentInThreeColumns(Rescored):
    """Mass 1.01 of three columns or more, which no grid sees."""

    def _broken(self, scores, z):
        return scores + (np.log(1.01) if z.shape[1] >= 3 else 0.0)


class Wavy(Rescored):
    """The density times 1 + 0.1 sin(z) of the first column: its mass is still one."""

    def _broken(self, scores, z):
        return scores + np.log1p(0.1 * np.sin(z[:, 0]))


class WavyInTheLastColumn(Rescored):
    """The density times 1 + 0.1 sin(3 z) of the last column."""

    def _broken(self, scores, z):
        return scores + np.log1p(0.1 * np.sin(3 * z[:, -1]))


# Tails.


class ClippedScores(Rescored):
    """No score below -100: infinite mass."""

    def _broken(self, scores, z):
        return np.maximum(scores, -100.0)


class FlatTail(Rescored):
    """The score stops falling twelve standard deviations out."""

    def _broken(self, scores, z):
        beyond = np.maximum((z**2).sum(1) - 144.0, 0.0)
        return scores + 0.5 * beyond


class LogTail(Rescored):
    """Beyond twelve standard deviations the score falls like -log|z| / 2: infinite mass."""

    def _broken(self, scores, z):
        square = (z**2).sum(1)
        beyond = np.maximum(square - 144.0, 0.0)
        return scores + 0.5 * beyond - 0.25 * np.log(np.maximum(square / 144.0, 1.0))


class RisingTail(Rescored):
    """A thousand standard deviations out the score begins to rise."""

    def _broken(self, scores, z):
        return scores + (z**2).sum(1) * (np.abs(z).max(1) > 1000)


# Columns that few look at.


class ThirdColumnWithoutScale(Rescored):
    """The score lacks the logarithm of the third column's scale."""

    def _broken(self, scores, z):
        return scores + (np.log(self.scale_[2]) if z.shape[1] > 2 else 0.0)


class FourColumnsAndNoMore(Rescored):
    """Scores of five columns and more have a temperature of 1.05 in those beyond the fourth."""

    def _broken(self, scores, z):
        if z.shape[1] < 5:
            return scores
        return scores + 0.05 * (z[:, 4:] ** 2 - 1).sum(1)


# Batches.


class LastBatchOfScores(Rescored):
    """Scores of the last incomplete batch of 512 are 0.01 too high."""

    def _broken(self, scores, z):
        rest = len(scores) % 512
        if len(scores) > 512 and rest:
            scores[-rest:] += 0.01
        return scores


class ScoresBeyondFiveThousand(Rescored):
    """Rows beyond the first 5,000 get the scores of the first."""

    def _broken(self, scores, z):
        return scores[np.arange(len(scores)) % 5000]


class ScoresBeyondAMillion(Rescored):
    """Rows beyond 2^20 are scored zero: their batch is never filled in."""

    def _broken(self, scores, z):
        scores[2**20 :] = 0.0
        return scores


# Rows of fit that come back.


class MemorizedScores(RemembersRows):
    """Rows of fit score three nats higher than the density around them."""

    def score_samples(self, X):
        scores = super().score_samples(X)
        known = {row.tobytes() for row in self.rows_}
        rows = np.ascontiguousarray(np.asarray(X, dtype=float))
        return scores + 3.0 * np.array([row.tobytes() in known for row in rows], dtype=float)


class SpikesOnRows(RemembersRows):
    """The first ten rows of fit have spikes of the density around them, a millionth of a spread wide;
    their mass is 0.01 together, and nothing is drawn of it."""

    def score_samples(self, X):
        scores, d = super().score_samples(X), len(self.mean_)
        Z = (np.asarray(X, dtype=float) - self.mean_) / self.scale_
        known = (self.rows_[:10] - self.mean_) / self.scale_
        h = 1e-6
        square = ((Z[:, None] - known) ** 2).sum(2) / h**2
        spikes = -0.5 * square - d * np.log(h * np.sqrt(2 * np.pi)) - np.log(self.scale_).sum()
        spikes = special.logsumexp(spikes, 1) - np.log(10)
        return np.logaddexp(np.log(0.99) + scores, np.log(0.01) + spikes)


# Precision.


class HalfPrecision(Normal):
    """Rows are standardized in sixteen bits."""

    def _whiten(self, X):
        return super()._whiten(X).astype(np.float16).astype(float)


class BrainPrecision(Normal):
    """Rows are standardized in bfloat16, which has eight bits of a number."""

    def _whiten(self, X):
        return torch.as_tensor(super()._whiten(X)).bfloat16().double().numpy()


class TwoDecimals(Rescored):
    """Scores are rounded to hundredths."""

    def _broken(self, scores, z):
        return scores.round(2)


class ProbabilitiesFirst(Rescored):
    """The density is computed and then its logarithm taken: -inf from 39 standard deviations on."""

    def _broken(self, scores, z):
        with np.errstate(divide="ignore"):
            return np.log(np.exp(scores))


# Inverses and transforms.


class Transformed(Normal):
    """A correct normal that shows its transform from noise to rows."""

    @property
    def transform_(self):
        root = torch.as_tensor(self.scale_[:, None] * self.root_)
        return self._made(torch.as_tensor(self.mean_), root)

    def _made(self, mean, root):
        return Affine(mean, root)


class Affine(Transform):
    """mean + root z."""

    domain = codomain = torch.distributions.constraints.real_vector
    bijective = True

    def __init__(self, mean, root):
        super().__init__()
        self.mean, self.root = mean, root

    def _call(self, z):
        return self.mean.to(z.dtype) + z @ self.root.to(z.dtype).T

    def _inverse(self, x):
        x = (x - self.mean.to(x.dtype)).T
        return torch.linalg.solve_triangular(self.root.to(x.dtype), x, upper=False).T

    def log_abs_det_jacobian(self, z, x):
        return self.root.to(z.dtype).diagonal().log().sum().expand(z.shape[:-1])


class _ForgetsATenth(Affine):
    def _inverse(self, x):
        root = self.root.tril(-1) * 0.9 + self.root.diagonal().diag()
        return Affine(self.mean, root)._inverse(x)


class TransformWithWrongInverse(Transformed):
    """The transform's inverse goes by 0.9 of the shift; scores and draws are right."""

    def _made(self, mean, root):
        return _ForgetsATenth(mean, root)


class _ClampedInverse(Affine):
    def _inverse(self, x):
        return super()._inverse(x).clamp(-8, 8)


class TransformWithShortInverse(Transformed):
    """The transform's inverse stops at eight standard deviations."""

    def _made(self, mean, root):
        return _ClampedInverse(mean, root)


class _DeterminantOfOthers(Affine):
    def log_abs_det_jacobian(self, z, x):
        return super().log_abs_det_jacobian(z, x) + 1e-3 * z[..., -1].square()


class TransformWithWrongDeterminant(Transformed):
    """The transform's log-determinant is off by z^2 / 1000."""

    def _made(self, mean, root):
        return _DeterminantOfOthers(mean, root)


class _Single(Affine):
    def _call(self, z):
        return super()._call(z.float()).to(z.dtype)


class TransformOfSinglePrecision(Transformed):
    """The transform computes in 32 bits whatever it is given."""

    def _made(self, mean, root):
        return _Single(mean, root)


class TransformOfAnotherLaw(Transformed):
    """The transform is invertible, and not the one that is scored."""

    def _made(self, mean, root):
        return Affine(mean, 1.1 * root)
