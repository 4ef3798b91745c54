"""Estimators that are broken by little, for the checks that state what they would have seen."""

import numpy as np
import torch
from foreign_mutants import Normal
from own_mutants import scored
from pyro.distributions.transforms import LowerCholeskyAffine

from densekit import Gaussian, RealNVP, TabularAutoregressive
from densekit.codecs.space import NoiseToData
from densekit.distributions.flow import FlowDistribution
from densekit.transforms.columns import ColumnTransform


class ThreePercentTooCold(Normal):
    def _noise(self, n, random_state):
        return 0.97 * super()._noise(n, random_state)


class OnePercentTooMuchMass(Normal):
    def score_samples(self, X):
        return super().score_samples(X) + np.log(1.01)


class Antithetic(Normal):
    def _noise(self, n, random_state):
        noise = super()._noise((n + 1) // 2, random_state)
        return np.concatenate([noise, -noise])[:n]


class BeyondFiveThousandRows(Normal):
    def score_samples(self, X):
        scores = super().score_samples(X)
        scores[5000:] += 1e-3
        return scores


class LastRowsAreCold(Normal):
    def _noise(self, n, random_state):
        noise = super()._noise(n, random_state)
        noise[n // 1000 * 1000 :] *= 0.5 if n > 1000 else 1.0
        return noise


class EightBitsOfTheSeed(Normal):
    def _noise(self, n, random_state):
        return super()._noise(n, None if random_state is None else random_state % 256)


class OneInAThousandIsATrainingRow(Normal):
    def fit(self, X, y=None):
        super().fit(X)
        self.rows_ = np.array(X, dtype=float)
        return self

    def sample(self, n_samples=1, random_state=None):
        X = super().sample(n_samples, random_state)
        if isinstance(X, np.ndarray):
            X[999::1000] = self.rows_[np.arange(len(X[999::1000])) % len(self.rows_)]
        return X


class TwoDecimals(Normal):
    def score_samples(self, X):
        return super().score_samples(X).round(2)


class ClippedScores(Normal):
    def score_samples(self, X):
        return np.maximum(super().score_samples(X), -700)


class ColdNoise(Gaussian):
    """Draws events at a temperature; scores and the transform are right."""

    def _sample_events(self, n, context):
        for events in super()._sample_events(n, context):
            yield 0.97 * events


class _Bent(LowerCholeskyAffine):
    def _inverse(self, y):
        return super()._inverse(y + 1e-3 * torch.tanh(y))


class BentInverse(Gaussian):
    @property
    def transform_(self):
        law = self.distribution_
        bent = _Bent(law.events.loc, law.events.scale_tril)
        return NoiseToData(bent, law.transform, self._torch_dtype)


class _NineTenths(ColumnTransform):
    """Scores under a context t, and draws under 0.9 t."""

    def __init__(self, inner):
        super().__init__(inner.n_features, inner.n_context)
        self.inner = inner

    def to_noise(self, x, context=None):
        return self.inner.to_noise(x, context)

    def to_data(self, z, context=None):
        return self.inner.to_data(z, None if context is None else 0.9 * context)


class NineTenthsOfTheContext(RealNVP):
    def _distribution(self, context):
        module = self.module_
        return FlowDistribution(_NineTenths(module.transform), context, frame=module.frame)


class SamplerIgnoresTheSecondContext(RealNVP):
    def sample(self, n_samples=1, *, context=None, random_state=None):
        if hasattr(context, "assign") and "second" in context:
            context = context.assign(second=50.0)
        return super().sample(n_samples, context=context, random_state=random_state)


class CategoryIgnored(RealNVP):
    def _encode_context(self, context, n):
        if hasattr(context, "assign") and "group" in context:
            context = context.copy()
            context["group"] = context["group"].array._from_sequence(
                ["low"] * len(context), dtype=context["group"].dtype
            )
        return super()._encode_context(context, n)


class ContextsOfTheFirstBatch(RealNVP):
    def score_samples(self, X, *, context=None, return_std=False):
        if hasattr(context, "iloc") and len(context) > 2000:
            context = context.iloc[np.arange(len(context)) % 1024].reset_index(drop=True)
        return super().score_samples(X, context=context, return_std=return_std)


class HolesAreFilled(TabularAutoregressive):
    def score_samples(self, X, *, return_std=False, **options):
        if isinstance(X, np.ndarray) and np.isnan(X).any():
            X = np.where(np.isnan(X), np.nanmean(X, 0, where=~np.isnan(X).all(0)), X)
            X = np.nan_to_num(X)
        return super().score_samples(X, return_std=return_std, **options)


class GivenIgnored(TabularAutoregressive):
    def score_samples(self, X, *, given=None, return_std=False, **options):
        return super().score_samples(X, return_std=return_std, **options)


def _below_an_end(self, X, scores):
    least = isinstance(self.support, tuple) and self.support[0] == "at_most"
    return scores + (np.log(1.1) if least else 0.0)


class OneFormOfSupport(Gaussian):
    score_samples = scored(_below_an_end)


def _twice_at_zero(self, X, scores):
    if "spent" not in getattr(X, "columns", ()):
        return scores
    return scores + np.log(2) * (np.asarray(X["spent"]) == 0)


class AtomCountsTwice(TabularAutoregressive):
    score_samples = scored(_twice_at_zero)


class AlwaysLebesgue(Gaussian):
    def fit(self, X, y=None, *, context=None, sample_weight=None):
        super().fit(X, sample_weight=sample_weight)
        self.base_measure_ = "lebesgue"
        return self


MEANT = {
    ThreePercentTooCold: "draws_follow_scores_in_many_columns",
    OnePercentTooMuchMass: "mass_is_one_in_many_columns",
    Antithetic: "draws_are_independent",
    BeyondFiveThousandRows: "scores_do_not_depend_on_the_number_of_rows",
    LastRowsAreCold: "the_law_of_a_row_does_not_depend_on_n",
    EightBitsOfTheSeed: "every_bit_of_the_seed_counts",
    OneInAThousandIsATrainingRow: "no_row_is_remembered",
    TwoDecimals: "scores_are_smooth_to_their_precision",
    ClippedScores: "tails_have_a_finite_mass",
    ColdNoise: "noise_of_draws_is_standard_normal",
    BentInverse: "transforms_there_and_back",
    NineTenthsOfTheContext: "transforms_there_and_back_under_contexts",
    SamplerIgnoresTheSecondContext: "draws_follow_scores_under_contexts",
    CategoryIgnored: "each_column_of_the_context_counts",
    ContextsOfTheFirstBatch: "rows_keep_their_contexts",
    HolesAreFilled: "holes_are_integrated_out",
    GivenIgnored: "given_columns_obey_the_chain_rule",
    OneFormOfSupport: "each_form_of_support_has_mass_one",
    AtomCountsTwice: "mixed_rows_have_mass_one_and_are_drawn_by_it",
    AlwaysLebesgue: "measure_is_that_of_the_columns",
}
"""The check that is meant for each."""


def make(broken):
    """An instance, small where the model is a network."""
    small = {"hidden_sizes": (16,), "max_steps": 150}
    return broken(**small) if issubclass(broken, RealNVP | TabularAutoregressive) else broken()
