"""Each broken estimator is caught by the check that is meant for it; correct ones pass."""

import random
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.neighbors import KernelDensity
from sklearn.utils.validation import check_is_fitted, validate_data

from densekit import Capabilities, Gaussian, RealNVP
from densekit.checks import check_density_estimator, check_id, density_checks


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


class Unnormalised(Normal):
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


class DensityOfIntegers(Gaussian):
    def score_samples(self, X, *, context=None, return_std=False):
        scores, std = super().score_samples(X, return_std=True)
        width = self.schema_.width
        scores = scores - np.log(width[width > 0]).sum()
        return (scores, std) if return_std else scores


class SupportIgnored(Gaussian):
    def score_samples(self, X, *, context=None, return_std=False):
        scores, std = super().score_samples(X, return_std=True)
        scores = np.maximum(scores, -50)
        return (scores, std) if return_std else scores


class ErrorsWhereExact(Gaussian):
    def score_samples(self, X, *, context=None, return_std=False):
        scores = super().score_samples(X)
        return (scores, np.ones_like(scores)) if return_std else scores


class DistributionOfEvents(Gaussian):
    @property
    def distribution_(self):
        return self._distribution(None)


class NoDensityAndYetScores(Gaussian):
    _capabilities: ClassVar[Capabilities] = Capabilities(
        density="none", view="relaxed", modalities=("table",)
    )

    def score_samples(self, X):
        return np.zeros(len(X))


class ContextIgnored(RealNVP):
    def _distribution(self, context):
        return super()._distribution(None if context is None else context * 0)


MEANT = {
    FlippedSign: "scores_fall_off",
    MissingJacobian: "moves_with_the_units",
    WrongSignOfJacobian: "integrates_to_one_on_a_plane",
    Unnormalised: "integrates_to_one_on_a_line",
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
    DensityOfIntegers: "sums_to_one_over_integers",
    SupportIgnored: "minus_infinity_outside_the_support",
    ErrorsWhereExact: "says_what_its_scores_are",
    DistributionOfEvents: "distribution_is_pyro_and_agrees",
    NoDensityAndYetScores: "without_density_no_scores",
    ContextIgnored: "conditional_density_integrates_to_one",
}


@pytest.mark.parametrize(("estimator", "check"), density_checks(Normal()), ids=check_id)
def test_a_correct_estimator_of_someone_else_passes(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    ("broken", "name"), MEANT.items(), ids=lambda v: getattr(v, "__name__", v)
)
def test_a_broken_estimator_is_caught_by_the_check_meant_for_it(broken, name):
    checks = {check.__name__: check for _, check in density_checks(broken())}
    with pytest.raises(AssertionError, match=rf"{broken.__name__} fails {name}: .*Usual cause"):
        checks[name](broken())


def test_one_error_names_every_failed_check():
    with pytest.raises(AssertionError) as caught:
        check_density_estimator(KernelDensity(bandwidth=0.3))
    said = str(caught.value)
    # scikit-learn's kernel density: score is a sum, the bandwidth has the units of the data, draws
    # with no seed come from NumPy's global generator, and frames come back as arrays.
    for name in ("score_is_the_mean", "moves_with_the_units", "frames_come_back_as_frames",
                 "global_generators_are_left_alone"):  # fmt: skip
        assert name in said
    assert "integrates_to_one_on_a_line" not in said
    assert "draws_follow_scores" not in said


def test_an_estimator_that_cannot_fit_gets_one_line():
    class Stuck(Normal):
        def fit(self, X, y=None):
            raise NotFittedError("no")

    with pytest.raises(AssertionError, match="No other check was run"):
        check_density_estimator(Stuck())


def test_ids_are_readable():
    assert check_id(density_checks(Normal())[0][0]) == "Normal"
    assert all(check_id(check).isidentifier() for _, check in density_checks(Normal()))
