"""A correct density with no densekit in it, and the ways in which such ones are broken."""

import random
from dataclasses import dataclass

import numpy as np
from scipy import special, stats
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data


class Normal(BaseEstimator):
    """A correct density by someone else: no densekit in it."""

    def __init__(self, ridge=1e-12, random_state=None):
        self.ridge = ridge
        self.random_state = random_state

    def fit(self, X, y=None):
        X = validate_data(self, X, dtype=np.float64, ensure_min_samples=3)
        self.names_ = getattr(self, "feature_names_in_", None)
        self.mean_, self.scale_ = X.mean(0), np.maximum(X.std(0), 1e-9)
        z = (X - self.mean_) / self.scale_
        cov = z.T @ z / len(z) + self.ridge * np.eye(X.shape[1])
        self.root_ = np.linalg.cholesky(cov)
        return self

    def _whiten(self, X):
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return np.linalg.solve(self.root_, ((X - self.mean_) / self.scale_).T).T

    def _log_scale(self):
        return np.log(self.scale_).sum() + np.log(np.diag(self.root_)).sum()

    def score_samples(self, X):
        z = self._whiten(X)
        d = len(self.mean_)
        return -0.5 * (z**2).sum(1) - self._log_scale() - 0.5 * d * np.log(2 * np.pi)

    def score(self, X, y=None):
        return float(self.score_samples(X).mean())

    def _noise(self, n, random_state):
        return np.random.default_rng(random_state).normal(size=(n, len(self.mean_)))

    def sample(self, n_samples=1, random_state=None):
        check_is_fitted(self)
        X = self._noise(n_samples, random_state) @ self.root_.T * self.scale_ + self.mean_
        if self.names_ is None:
            return X
        import pandas as pd

        return pd.DataFrame(X, columns=self.names_)


class FlippedSign(Normal):
    def score_samples(self, X):
        return -super().score_samples(X)


class MissingJacobian(Normal):
    def score_samples(self, X):
        return super().score_samples(X) + np.log(self.scale_).sum()


class WrongSignOfJacobian(Normal):
    def score_samples(self, X):
        return super().score_samples(X) + 2 * np.log(self.scale_).sum()


class Unnormalized(Normal):
    def score_samples(self, X):
        return super().score_samples(X) + 0.05


class BetterThanTheTruth(Normal):
    def score_samples(self, X):
        return super().score_samples(X) + 2.0


class SumInScore(Normal):
    def score(self, X, y=None):
        return float(self.score_samples(X).sum())


class LogOfMeanInScore(Normal):
    def score(self, X, y=None):
        return float(np.log(np.exp(self.score_samples(X)).mean()))


class SeedIgnored(Normal):
    def _noise(self, n, random_state):
        return super()._noise(n, None)


class OneSeedForAll(Normal):
    def _noise(self, n, random_state):
        return super()._noise(n, 0)


class GlobalNumpy(Normal):
    def _noise(self, n, random_state):
        np.random.seed(random_state)
        return np.random.standard_normal((n, len(self.mean_)))


class GlobalPython(Normal):
    def fit(self, X, y=None):
        random.random()
        return super().fit(X)


class GlobalTorch(Normal):
    def score_samples(self, X):
        import torch

        torch.rand(1)
        return super().score_samples(X)


class LostInPickle(Normal):
    def __getstate__(self):
        state = dict(super().__getstate__())
        if "scale_" in state:
            state["scale_"] = np.ones_like(state["scale_"])
        return state


class StaleAfterRefit(Normal):
    def _log_scale(self):
        if not hasattr(self, "_cache"):
            self._cache = super()._log_scale()
        return self._cache


class BatchDependent(Normal):
    def score_samples(self, X):
        scores = super().score_samples(X)
        return scores + 0.01 * (scores.mean() - scores)


class OrderDependent(Normal):
    def score_samples(self, X):
        return super().score_samples(X) + 1e-3 * np.arange(len(X)) / len(X)


class NanFarAway(Normal):
    def score_samples(self, X):
        scores = super().score_samples(X)
        return np.where(scores < -1e4, np.nan, scores)


class SamplesIgnoreAMode(Normal):
    def _noise(self, n, random_state):
        return np.abs(super()._noise(n, random_state))


class SamplesMissATail(Normal):
    def _noise(self, n, random_state):
        noise = super()._noise(n, random_state)
        return np.where(noise < -2, -noise, noise)


class SamplesAreTrainingRows(Normal):
    def fit(self, X, y=None):
        super().fit(X)
        self.rows_ = np.array(X, dtype=float)
        return self

    def sample(self, n_samples=1, random_state=None):
        check_is_fitted(self)
        rows = np.random.default_rng(random_state).integers(0, len(self.rows_), n_samples)
        return self.rows_[rows]


class ChangesItsInput(Normal):
    def fit(self, X, y=None):
        super().fit(X)
        if isinstance(X, np.ndarray) and X.dtype == float and X.flags.writeable:
            X -= self.mean_
        return self


class CountsItsCalls(Normal):
    def score_samples(self, X):
        self.calls_ = getattr(self, "calls_", 0) + 1
        return super().score_samples(X)


class ParameterLostInClone(Normal):
    def __init__(self, ridge=1e-12, random_state=None):
        self.ridge = float(ridge) * 2
        self.random_state = random_state


class ScoresUnfitted(Normal):
    def score_samples(self, X):
        return super().score_samples(X) if hasattr(self, "mean_") else np.zeros(len(X))


class SinglePrecisionMoments(Normal):
    def fit(self, X, y=None):
        super().fit(X)
        single = np.asarray(X, dtype=np.float32)
        self.mean_ = single.mean(0).astype(float)
        variance = (single**2).mean(0) - single.mean(0) ** 2
        self.scale_ = np.sqrt(np.maximum(variance, 1e-18)).astype(float)
        return self


class ArraysForFrames(Normal):
    def sample(self, n_samples=1, random_state=None):
        return np.asarray(super().sample(n_samples, random_state))


class NansWelcome(Normal):
    def fit(self, X, y=None):
        return super().fit(np.nan_to_num(np.asarray(X, dtype=float)) if len(X) else X)


@dataclass(kw_only=True, eq=False, repr=False)
class Decorated(Normal):
    ridge: float = 1e-12
    random_state: object = None


class ForgottenDecorator(Decorated):
    shrinkage: float = 0.0


class FirstFactorOfColumnZero(Normal):
    """The chain rule from the last column to the first, whose first factor is the wrong one."""

    def score_samples(self, X):
        self._whiten(X)
        root = self.scale_[:, None] * self.root_
        X, cov = np.asarray(X, dtype=float), root @ root.T

        def log_p(columns):
            law = stats.multivariate_normal(self.mean_[columns], cov[np.ix_(columns, columns)])
            return law.logpdf(X[:, columns])

        total, given = log_p([0]), [len(cov) - 1]
        for j in range(len(cov) - 2, -1, -1):
            total = total + log_p([j, *given]) - log_p(given)
            given.append(j)
        return total


class MassOfACell(Normal):
    """The mass of a cell around the row, a tenth of a standard deviation wide."""

    def score_samples(self, X):
        z = self._whiten(X)
        mass = special.ndtr(z + 0.05) - special.ndtr(z - 0.05)
        return np.log(np.maximum(mass, 1e-300)).sum(1)


class MeanOfLogs(Normal):
    """A mixture of two normals that averages their logs and not their densities."""

    def score_samples(self, X):
        X = np.asarray(X, dtype=float)
        left, right = (super(MeanOfLogs, self).score_samples(X + s * self.scale_) for s in (1, -1))
        return (left + right) / 2


class ColdDraws(Normal):
    def _noise(self, n, random_state):
        return 0.5 * super()._noise(n, random_state)


class DrawsForgetTheCorrelation(Normal):
    def _noise(self, n, random_state):
        return np.linalg.solve(self.root_, super()._noise(n, random_state).T).T


class LocationNotLearned(Normal):
    def fit(self, X, y=None):
        super().fit(X)
        self.mean_ = self.mean_ + 3 * self.scale_
        return self


class LabelsBesideTheDraws(Normal):
    def sample(self, n_samples=1, random_state=None):
        return super().sample(n_samples, random_state), np.zeros(n_samples)


class ReturnsNothingFromFit(Normal):
    def fit(self, X, y=None):
        super().fit(X)


class ReadsTheBufferAsItLies(Normal):
    def score_samples(self, X):
        X = np.asarray(X, dtype=float)
        return super().score_samples(X.ravel(order="K").reshape(X.shape))


class FitWithoutSeed(Normal):
    def fit(self, X, y=None):
        super().fit(X)
        self.mean_ = self.mean_ + 0.01 * np.random.default_rng().normal(size=self.mean_.shape)
        return self


class IgnoresFurtherColumns(Normal):
    def score_samples(self, X):
        check_is_fitted(self)
        X = np.asarray(X, dtype=float)
        return super().score_samples(X[:, : len(self.mean_)] if X.ndim == 2 else X)


class FitsNoRows(Normal):
    def fit(self, X, y=None):
        return super().fit(X if len(X) else np.zeros((3, 2)))


class DividesByZero(Normal):
    def fit(self, X, y=None):
        super().fit(X)
        self.scale_ = np.asarray(X, dtype=float).std(0)
        return self

    def score_samples(self, X):
        with np.errstate(all="ignore"):
            return super().score_samples(X)


class WordsWelcome(Normal):
    def fit(self, X, y=None):
        if isinstance(X, np.ndarray) and X.dtype.kind == "O":
            X = np.array([[len(x) if isinstance(x, str) else x for x in row] for row in X])
        return super().fit(X)


class HalfFitted(Normal):
    def fit(self, X, y=None):
        d = np.shape(X)[1]
        self.mean_, self.scale_, self.root_ = np.zeros(d), np.ones(d), np.eye(d)
        self.names_ = None
        return super().fit(X)


MEANT = {
    FlippedSign: "scores_fall_off",
    MissingJacobian: "moves_with_the_units",
    WrongSignOfJacobian: "integrates_to_one_on_a_plane",
    Unnormalized: "integrates_to_one_on_a_line",
    BetterThanTheTruth: "never_beats_the_truth",
    SumInScore: "score_is_the_mean",
    LogOfMeanInScore: "score_is_the_mean",
    SeedIgnored: "draws_follow_the_seed",
    OneSeedForAll: "draws_follow_the_seed",
    GlobalNumpy: "global_generators_are_left_alone",
    GlobalPython: "global_generators_are_left_alone",
    GlobalTorch: "global_generators_are_left_alone",
    LostInPickle: "copies_score_and_draw_alike",
    StaleAfterRefit: "refit_equals_a_fresh_fit",
    BatchDependent: "scores_do_not_depend_on_the_batch",
    OrderDependent: "scores_do_not_depend_on_the_batch",
    NanFarAway: "never_nan_far_away",
    SamplesIgnoreAMode: "draws_follow_scores_on_a_plane",
    SamplesMissATail: "draws_follow_scores_on_a_line",
    SamplesAreTrainingRows: "draws_are_not_training_rows",
    ChangesItsInput: "the_input_is_not_changed",
    CountsItsCalls: "use_changes_no_state",
    ParameterLostInClone: "parameters_survive_clone",
    ScoresUnfitted: "unfitted_says_so",
    SinglePrecisionMoments: "survives_a_huge_offset",
    ArraysForFrames: "frames_come_back_as_frames",
    NansWelcome: "nan_and_infinity_are_refused",
    ForgottenDecorator: "every_field_is_a_parameter",
    FirstFactorOfColumnZero: "integrates_to_one_on_a_plane",
    MassOfACell: "moves_with_the_units",
    MeanOfLogs: "integrates_to_one_on_a_line",
    ColdDraws: "importance_identity",
    DrawsForgetTheCorrelation: "draws_pass_a_two_sample_test",
    LocationNotLearned: "draws_resemble_the_data",
    LabelsBesideTheDraws: "draws_have_the_shape_asked_for",
    ReturnsNothingFromFit: "fit_returns_self",
    ReadsTheBufferAsItLies: "scores_do_not_depend_on_the_dtype",
    FitWithoutSeed: "fit_follows_the_seed",
    IgnoresFurtherColumns: "wrong_width_is_refused",
    FitsNoRows: "empty_and_single_rows",
    DividesByZero: "constant_columns",
    WordsWelcome: "object_arrays",
    HalfFitted: "a_failed_fit_leaves_nothing",
}
"""The check that is meant for each."""
