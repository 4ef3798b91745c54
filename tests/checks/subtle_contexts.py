"""A correct conditional density in closed form, and the ways in which ones like it are subtly broken.

Each class says what is wrong with it.
"""

from typing import Annotated, ClassVar

import numpy as np
import torch
from pyro.distributions import MultivariateNormal, TorchDistribution
from torch import Tensor

from densekit import Capabilities, DensityEstimator
from densekit.codecs.space import DataDistribution, NoiseToData
from densekit.params import OneOf


class Linear(DensityEstimator):
    """x given c is N(A c + b, S), fitted by least squares; without a context one normal."""

    dtype: Annotated[str, OneOf("float32", "float64")] = "float64"

    _capabilities: ClassVar[Capabilities] = Capabilities(
        density="exact",
        view="relaxed",
        modalities=("table",),
        context="features",
        score_batch=4096,
    )

    def _fit(self, events: Tensor, context: Tensor | None) -> None:
        x = events.double()
        c = _with_one(torch.zeros(len(x), 0) if context is None else context)
        coefficients = torch.linalg.lstsq(c, x, driver="gelsd").solution
        apart = x - c @ coefficients
        self.coefficients_ = coefficients.cpu().numpy()
        self.covariance_ = (apart.T @ apart / len(x)).cpu().numpy() + 1e-9 * np.eye(x.shape[1])

    def _mean(self, context: Tensor | None) -> Tensor:
        coefficients = torch.as_tensor(self.coefficients_)
        if context is None:
            return coefficients[0]
        return _with_one(context) @ coefficients

    def _distribution(self, context: Tensor | None) -> TorchDistribution:
        root = torch.linalg.cholesky(torch.as_tensor(self.covariance_)).to(self._torch_dtype)
        mean = self._mean(context).to(self._torch_dtype)
        return MultivariateNormal(mean, scale_tril=root, validate_args=False)


def _with_one(c: Tensor) -> Tensor:
    return torch.cat([c.new_ones(len(c), 1).double(), c.double()], 1)


# What a context column is ignored by.


def _entries(schema):
    """Of each entry of a context its features, and whether it is a category."""
    first = 0
    for cardinality, ordered in zip(schema.cardinality, schema.ordered, strict=True):
        width = int(cardinality) if cardinality > 2 and not ordered else 1
        yield slice(first, first + width), cardinality > 0
        first += width


class SecondContextIgnored(Linear):
    """The second column of the context counts for nothing, in fit, scores and draws."""

    def _seen(self, context):
        context = context.clone()
        for j, (features, category) in enumerate(_entries(self._context_schema)):
            if self._hidden(j, category):
                context[:, features] = 0
        return context

    def _hidden(self, j, category):
        return j == 1

    def _fit(self, events: Tensor, context: Tensor | None) -> None:
        super()._fit(events, None if context is None else self._seen(context))

    def _mean(self, context):
        return super()._mean(None if context is None else self._seen(context))


class LastContextIgnored(SecondContextIgnored):
    """The third column of the context and all behind it count for nothing."""

    def _hidden(self, j, category):
        return j >= 2


class CategoriesIgnored(SecondContextIgnored):
    """Columns of categories in the context count for nothing."""

    def _hidden(self, j, category):
        return category


class LevelsMerged(Linear):
    """The last level of a category in the context is taken for the first."""

    def _mean(self, context):
        if context is not None:
            context = context.clone()
            for features, category in _entries(self._context_schema):
                if category and features.stop - features.start > 2:
                    last = context[:, features.stop - 1].clone()
                    context[:, features.start] += last
                    context[:, features.stop - 1] = 0
        return super()._mean(context)


class ContextIgnoredInDraws(Linear):
    """Draws go by the first column of the context alone."""

    def sample(self, n_samples=1, *, context=None, random_state=None):
        self._first_only = True
        try:
            return super().sample(n_samples, context=context, random_state=random_state)
        finally:
            del self._first_only

    def _mean(self, context):
        if context is not None and hasattr(self, "_first_only"):
            context = context.clone()
            context[:, 1:] = 0
        return super()._mean(context)


# Rows of X and rows of context.


class ScoresOfTheNextContext(Linear):
    """Where contexts are several, each row is scored by that of the row after it."""

    def _score_events(self, typed, context):
        turned = context if context is None or len(context) < 2 else context.roll(-1, 0)
        return super()._score_events(typed, turned)


class DrawsOfTheNextContext(Linear):
    """Where contexts are several, each draw is of that of the row after it."""

    def _sample_events(self, n, context):
        turned = context if context is None or len(context) < 2 else context.roll(-1, 0)
        return super()._sample_events(n, turned)


class FirstContextForAll(Linear):
    """Scores of a batch all go by its first context."""

    def _score_events(self, typed, context):
        first = context if context is None else context[:1].expand(len(context), -1)
        return super()._score_events(typed, first)


class ContextsBeginAgain(Linear):
    """The second batch of 4,096 rows is scored by the contexts of the first."""

    def _score_events(self, typed, context):
        if context is not None:
            context = context[torch.arange(len(context)) % 4096]
        return super()._score_events(typed, context)


class DrawsBeginAgain(Linear):
    """The second batch of 8,192 draws goes by the contexts of the first."""

    def _sample_events(self, n, context):
        if context is not None:
            context = context[torch.arange(len(context)) % 8192]
        return super()._sample_events(n, context)


class LastRowsWithoutContext(Linear):
    """The last of several rows is scored by an average context."""

    def _score_events(self, typed, context):
        if context is not None and len(context) > 1:
            context = context.clone()
            context[-1] = 0
        return super()._score_events(typed, context)


# Laws under a context.


class WrongInverseUnderContext(Linear):
    """Scores use x - t(c), draws 0.9 t(c)."""

    def sample(self, n_samples=1, *, context=None, random_state=None):
        whole = self.coefficients_
        self.coefficients_ = np.concatenate([whole[:1], 0.9 * whole[1:]])
        try:
            return super().sample(n_samples, context=context, random_state=random_state)
        finally:
            self.coefficients_ = whole


class CoolUnderContext(Linear):
    """Draws under a context come at a temperature of 0.95."""

    def sample(self, n_samples=1, *, context=None, random_state=None):
        whole = self.covariance_
        self.covariance_ = whole if context is None else 0.95**2 * whole
        try:
            return super().sample(n_samples, context=context, random_state=random_state)
        finally:
            self.covariance_ = whole


class _Heavier(MultivariateNormal):
    def log_prob(self, value):
        bent = 0.1 * (self.loc.mean(-1) > 0).to(value.dtype)
        return super().log_prob(value) + bent


class MassMovesWithContext(Linear):
    """The density has mass 1.1 under half of all contexts."""

    def _distribution(self, context: Tensor | None) -> TorchDistribution:
        law = super()._distribution(context)
        if context is None:
            return law
        return _Heavier(law.loc, scale_tril=law.scale_tril, validate_args=False)


class OneNoiseForAllContexts(Linear):
    """Draws under several contexts have the same noise."""

    def _sample_events(self, n, context):
        if context is None or n < 2:
            yield from super()._sample_events(n, context)
            return
        law = self._distribution(context)
        noise = torch.randn(1, law.event_shape[0], dtype=law.loc.dtype)
        yield law.loc + noise @ law.scale_tril.reshape(-1, *law.scale_tril.shape[-2:])[0].T


# Transforms.


class CoolNoise(Linear):
    """The noise of draws, which the transform shows, has a spread of 0.95."""

    def _sample_events(self, n, context):
        law = self._distribution(context)
        shape = (n,) if context is None else (len(context),)
        noise = 0.95 * torch.randn(*shape, law.event_shape[0], dtype=law.loc.dtype)
        yield law.loc + (law.scale_tril @ noise[..., None])[..., 0]


class _Odd(DataDistribution):
    @property
    def from_noise(self):
        made = super().from_noise
        return _Forgetful(made.events, made.rows, made.dtype)


class _Forgetful(NoiseToData):
    def _inverse(self, x):
        return super()._inverse(x) + 0.1 * self.events.loc


class InverseForgetsContext(Linear):
    """The inverse of the transform under a context takes nine tenths of the shift off."""

    def condition(self, context):
        law = super().condition(context)
        law.__class__ = _Odd
        return law
