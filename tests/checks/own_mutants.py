"""densekit's own models, broken: tables with support and categories, images, text, contexts."""

import dataclasses
from typing import ClassVar

import numpy as np
import torch
from pyro.distributions import MultivariateNormal

import densekit
from densekit import VAE, Capabilities, Gaussian, NGram, RealNVP
from densekit.distributions.backoff import BackoffTable
from densekit.distributions.sequence import END, TokenSequence


def scored(change):
    """The method ``score_samples`` with ``change(estimator, X, scores)`` made to its scores."""

    def score_samples(self, X, *, context=None, return_std=False):
        base = super(type(self), self).score_samples
        scores, std = base(X, context=context, return_std=True)
        scores = change(self, X, scores)
        return (scores, std) if return_std else scores

    return score_samples


def _log_width(self, X, scores):
    width = self.schema_.width
    return scores - np.log(width[width > 0]).sum()


def _log_x(self, X, scores):
    if self.support != "positive":
        return scores
    return scores + np.log(np.maximum(np.asarray(X, dtype=float), 1e-300)).sum(1)


def _log_cardinality(self, X, scores):
    return scores + np.log(np.maximum(self.schema_.cardinality, 1)).sum()


def _nan_outside(self, X, scores):
    return np.where(np.isneginf(scores), np.nan, scores)


def _log_255(self, X, scores):
    return scores + (4 * np.log(255) if np.ndim(X) == 3 else 0)


def _per_token(self, X, scores):
    return scores / [len(word) + 1 for word in X]


def _whole_unknown(self, X, scores):
    known = set("ab")
    return scores + np.log(1e6) * np.array([any(c not in known for c in word) for word in X])


# Tables


class DensityOfIntegers(Gaussian):
    score_samples = scored(_log_width)


class DensityOfCodes(Gaussian):
    score_samples = scored(_log_cardinality)


class PositiveWithoutJacobian(Gaussian):
    score_samples = scored(_log_x)


class SupportIgnored(Gaussian):
    score_samples = scored(lambda self, X, scores: np.maximum(scores, -50))


class NanOutsideTheSupport(Gaussian):
    score_samples = scored(_nan_outside)


class ErrorsWhereExact(Gaussian):
    def score_samples(self, X, *, context=None, return_std=False):
        scores = super().score_samples(X)
        return (scores, np.ones_like(scores)) if return_std else scores


class FirstLevelOnly(Gaussian):
    def sample(self, n_samples=1, *, context=None, random_state=None):
        X = super().sample(n_samples, random_state=random_state)
        for name in getattr(X, "columns", ()):
            if hasattr(X[name], "cat"):
                X[name] = X[name].where(X[name].isna(), X[name].cat.categories[0])
        return X


class NamelessErrors(Gaussian):
    def fit(self, X, y=None, *, context=None):
        try:
            return super().fit(X)
        except ValueError:
            raise ValueError("bad parameter") from None


class NoDensityAndYetScores(Gaussian):
    _capabilities: ClassVar[Capabilities] = Capabilities(
        density="none", view="relaxed", modalities=("table",)
    )

    def score_samples(self, X):
        return np.zeros(len(X))


class DistributionOfEvents(Gaussian):
    @property
    def distribution_(self):
        return self._distribution(None)


class Detached(MultivariateNormal):
    def log_prob(self, value):
        return super().log_prob(value.detach())


class DistributionWithoutGradient(Gaussian):
    def _distribution(self, context):
        normal = super()._distribution(context)
        return Detached(normal.loc, scale_tril=normal.scale_tril, validate_args=False)


class LostInFile(Gaussian):
    """Its file is one of a Gaussian, and holds half the covariance."""

    def save(self, path):
        twin = densekit.Gaussian(**self.get_params())
        vars(twin).update(vars(self))
        twin.event_covariance_ = self.event_covariance_ / 2
        twin.save(path)


LostInFile.__module__ = Gaussian.__module__

# Bounds


class ReconstructionOnly(VAE):
    """How well the encoder's z decodes, with nothing taken off for telling z: no bound at all."""

    def score_samples(self, X, *, context=None, return_std=False):
        with torch.no_grad():
            events, ladj, given = self._observed(X, context)
            z, _ = self.module_.encode(events, given)
            scores = (self.module_.decode(z, given).log_prob(events) + ladj).numpy()
        return (scores, np.zeros_like(scores)) if return_std else scores


class SumOfWeights(VAE):
    """The log of the sum of the importance weights where the log of their mean belongs."""

    score_samples = scored(lambda self, X, scores: scores + np.log(self.n_importance))


class FrozenDraws(VAE):
    """The number of draws of a score is fixed when the module is built."""

    def _distribution(self, context):
        return self.module_(context)


class WeightsForgotten(RealNVP):
    """Rows of weight zero are dropped, and all others have equal weights."""

    def _weigh(self, rows, context, sample_weight):
        rows, context, weights = super()._weigh(rows, context, sample_weight)
        return rows, context, None if weights is None else np.ones_like(weights)


# Images


class PixelsFromNoughtToOne(Gaussian):
    score_samples = scored(_log_255)


class SignedBytes(Gaussian):
    def sample(self, n_samples=1, *, context=None, random_state=None):
        X = super().sample(n_samples, random_state=random_state)
        return X % 128 if X.dtype == np.uint8 else X


# Images and no tables


def only_images(kind):
    """Claims of a model, with images alone."""
    return dataclasses.replace(kind._capabilities, modalities=("image",))


class ShadesWithoutJacobian(Gaussian):
    _capabilities: ClassVar[Capabilities] = only_images(Gaussian)
    score_samples = scored(lambda self, X, scores: scores - self.codec_.encode(X)[1].numpy())


class Negatives(Gaussian):
    _capabilities: ClassVar[Capabilities] = only_images(Gaussian)

    def sample(self, n_samples=1, *, context=None, random_state=None):
        return 1 - super().sample(n_samples, random_state=random_state)


class NeverBlack(Gaussian):
    _capabilities: ClassVar[Capabilities] = only_images(Gaussian)
    score_samples = scored(lambda self, X, scores: np.where((X == 0).any((1, 2)), -np.inf, scores))


class RangeIgnored(Gaussian):
    _capabilities: ClassVar[Capabilities] = only_images(Gaussian)
    score_samples = scored(lambda self, X, scores: np.maximum(scores, -50))


class AnyImageWillDo(Gaussian):
    _capabilities: ClassVar[Capabilities] = only_images(Gaussian)

    def score_samples(self, X, *, context=None, return_std=False):
        X = np.resize(X, (len(X), *self.codec_.row_shape))
        return super().score_samples(X, return_std=return_std)


class DistributionOfRelaxedImages(DistributionOfEvents):
    _capabilities: ClassVar[Capabilities] = only_images(Gaussian)


class ImagesWithoutContext(RealNVP):
    _capabilities: ClassVar[Capabilities] = only_images(RealNVP)

    def _distribution(self, context):
        return super()._distribution(None if context is None else context * 0)


# Text


class _NoEnd(BackoffTable):
    def log_probs(self, given, tokens):
        return torch.where(tokens == END, 0, super().log_probs(given, tokens))


class EndNotScored(NGram):
    def _distribution(self, context):
        whole = super()._distribution(context)
        table = _NoEnd(whole.model.unigram, whole.model.orders)
        return TokenSequence(table, whole.max_length, whole.prompt)


class PerToken(NGram):
    score_samples = scored(_per_token)


class WholeUnknownMassForEach(NGram):
    score_samples = scored(_whole_unknown)


class PromptForgotten(NGram):
    def score_samples(self, X, *, context=None, return_std=False):
        return super().score_samples(X, return_std=return_std)


class LikelyDrawsOnly(NGram):
    def sample(self, n_samples=1, *, context=None, random_state=None):
        X = super().sample(2 * n_samples, context=context, random_state=random_state)
        order = np.argsort(-self.score_samples(X), kind="stable")[:n_samples]
        return [X[i] for i in order]


# Distributions


class _Matrices(MultivariateNormal):
    def log_prob(self, value):
        return super().log_prob(value.reshape(-1, value.shape[-1]))


class MatricesOnly(Gaussian):
    def _distribution(self, context):
        law = super()._distribution(context)
        return _Matrices(law.loc, scale_tril=law.scale_tril, validate_args=False)


# Contexts


class ContextIgnored(RealNVP):
    def _distribution(self, context):
        return super()._distribution(None if context is None else context * 0)


class DrawsOfAnotherContext(RealNVP):
    def sample(self, n_samples=1, *, context=None, random_state=None):
        turned = None if context is None else context[::-1]
        return super().sample(n_samples, context=turned, random_state=random_state)


SMALL = {"hidden_sizes": (16,), "max_steps": 150}

MEANT = {
    DensityOfIntegers: "sums_to_one_over_integers",
    DensityOfCodes: "sums_to_one_over_cells",
    PositiveWithoutJacobian: "integrates_to_one_over_positive_numbers",
    SupportIgnored: "minus_infinity_outside_the_support",
    NanOutsideTheSupport: "minus_infinity_outside_the_support",
    ErrorsWhereExact: "says_what_its_scores_are",
    FirstLevelOnly: "draws_follow_scores_over_cells",
    NamelessErrors: "wrong_hyper_parameters_are_named",
    NoDensityAndYetScores: "without_density_no_scores",
    DistributionOfEvents: "distribution_is_pyro_and_agrees",
    DistributionWithoutGradient: "distribution_works_in_pyro",
    LostInFile: "saved_and_loaded_in_a_new_process",
    ReconstructionOnly: "never_beats_the_truth",
    SumOfWeights: "integrates_to_one_on_a_line",
    FrozenDraws: "parameters_set_after_fit_act_or_are_warned_of",
    WeightsForgotten: "weights_count_and_rows_of_weight_zero_do_not",
    PixelsFromNoughtToOne: "sums_to_one_over_images",
    SignedBytes: "draws_follow_scores_over_images",
    ShadesWithoutJacobian: "integrates_to_one_over_shades",
    Negatives: "draws_follow_scores_over_shades",
    NeverBlack: "black_and_white_have_finite_scores",
    RangeIgnored: "minus_infinity_outside_the_range",
    AnyImageWillDo: "other_images_are_refused",
    DistributionOfRelaxedImages: "distribution_over_events_agrees",
    ImagesWithoutContext: "images_follow_their_context",
    EndNotScored: "sums_to_one_over_strings",
    PerToken: "never_beats_the_truth",
    WholeUnknownMassForEach: "sums_to_one_over_strings",
    PromptForgotten: "prompts_condition",
    LikelyDrawsOnly: "draws_follow_scores_over_strings",
    MatricesOnly: "distribution_takes_any_batch_shape",
    ContextIgnored: "conditional_density_integrates_to_one",
    DrawsOfAnotherContext: "conditional_draws_follow_the_context",
}
"""The check that is meant for each."""


def make(broken):
    """An instance, small where the model is a network."""
    if issubclass(broken, ReconstructionOnly):
        # With little weight on the prior, so that the encoder has much to tell.
        return broken(hidden_sizes=(16,), beta=0.1, max_steps=600)
    return broken(**SMALL) if issubclass(broken, VAE | RealNVP) else broken()
