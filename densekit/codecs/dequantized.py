"""A density over relaxed events as a distribution over typed ones: it bounds their mass."""

from typing import Any

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor

from densekit.codecs.schema import Schema
from densekit.distributions.montecarlo import (
    MonteCarloDistribution,
    Scores,
    effective_sample_size,
    log_mean_exp,
)

_ROWS = 4096
"""Relaxed events scored at once: the draws of a few rows go together, those of many one by one."""


class Dequantized(MonteCarloDistribution):
    r"""Typed events t, of which codes and integers have a mass and numbers a density.

    .. math:: \log P(t) \ge E\Big[\log \frac1K \sum_{k=1}^K p(z(t, u_k))\,
              \Big|\frac{dz}{du}\Big|\Big], \qquad u_k \sim U[0, 1)

    by Jensen's inequality (Theis, van den Oord & Bethge 2016; Ho et al. 2019), with equality as K
    grows. The noise is stratified in each entry, fixed, and shared by all rows.

    Parameters
    ----------
    relaxed : TorchDistribution
        p, over relaxed events.
    schema : Schema
        Says how typed events are relaxed.
    draws : int
        K.
    """

    arg_constraints: dict[str, Any] = {}

    def __init__(self, relaxed: TorchDistribution, schema: Schema, draws: int):
        self.relaxed, self.schema, self.draws = relaxed, schema, draws
        self._bank: Tensor | None = None
        super().__init__(relaxed.batch_shape, relaxed.event_shape, validate_args=False)

    @constraints.dependent_property(is_discrete=True)
    def support(self) -> Any:
        """All typed events; values that no code has score as their neighbors do."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Dequantized":
        """The same distribution with a larger batch shape."""
        return Dequantized(self.relaxed.expand(batch_shape), self.schema, self.draws)

    def log_prob_and_error(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """The bound and its standard error (:func:`log_mean_exp`), in float64."""
        return self.scores(value)[:2]

    def scores(self, value: Tensor) -> Scores:
        """The same with the effective sample size of the draws."""
        lead = value.shape[: value.ndim - len(self.event_shape)]
        group = max(1, _ROWS // max(1, lead.numel()))
        if self._bank is None:
            self._bank = self._noise(value)
        parts = [self._weights(value, noise) for noise in self._bank.split(group)]
        logw, error = (torch.cat(p).double() for p in zip(*parts, strict=True))
        score, spread = log_mean_exp(logw)
        # Where every draw scores -inf there is nothing to weigh.
        weight = torch.softmax(logw, 0).nan_to_num(1 / len(logw))
        std = torch.hypot(spread, (weight * error).square().sum(0).sqrt())
        return Scores(score, std, effective_sample_size(logw), None)

    def _weights(self, value: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """log p(z) + log|dz/du| of each draw and row, (k, \\*lead), and the error of log p."""
        shape = (len(noise), *value.shape)
        typed = value.expand(shape).reshape(-1, *self.event_shape)
        noise = noise.reshape(len(noise), *(1,) * (value.ndim - noise.ndim + 1), *noise.shape[1:])
        z, ladj = self.schema.relax(typed, noise.expand(shape).reshape(typed.shape))
        logp, error = log_prob_and_error(self.relaxed, z.reshape(shape))
        return logp + ladj.reshape(logp.shape), error

    def _noise(self, like: Tensor) -> Tensor:
        """(K, \\*event_shape), uniform on [0, 1): a stratum of each entry to each draw."""
        generator = torch.Generator().manual_seed(0)
        shape = (self.draws, *self.event_shape)
        strata = torch.rand(shape, generator=generator, dtype=torch.float64).argsort(0)
        jitter = torch.rand(shape, generator=generator, dtype=torch.float64)
        return ((strata + jitter) / self.draws).to(like.device, like.dtype)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """Typed events: relaxed draws, each put back into the bin it fell into."""
        with torch.no_grad():
            z = self.relaxed.sample(sample_shape)
            return self.schema.unrelax(z.reshape(-1, *self.event_shape)).reshape(z.shape)


def log_prob_and_error(dist: TorchDistribution, events: Tensor) -> tuple[Tensor, Tensor]:
    """Scores and their standard errors; zero where the score is exact."""
    if isinstance(dist, MonteCarloDistribution):
        return dist.log_prob_and_error(events)
    logp = dist.log_prob(events)
    return logp, torch.zeros_like(logp)


def within_reach(events: Tensor) -> Tensor:
    """Whether each entry is so near that its square is a number: beyond, every density here is zero to
    the last digit, and a network would make NaN of it. An entry that is NaN already is missing."""
    if not events.is_floating_point():
        return torch.ones_like(events, dtype=torch.bool)
    return ~(events.abs() >= torch.finfo(events.dtype).max ** 0.4)
