"""Distributions whose log_prob is a bound or an estimate from a fixed number of draws."""

import contextlib
import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from densekit.runtime import seeded


class Scores(NamedTuple):
    """Scores of events and what is known of their errors, all of the shape that ``log_prob`` has."""

    score: Tensor
    std: Tensor
    """Standard error in nats; 0 where exact."""
    effective_sample_size: Tensor
    """:func:`effective_sample_size` of the draws behind each score; NaN where there are none, or it is
    not known."""
    exact: Tensor | None
    """Which scores are exact, where that differs from event to event."""


def scores_of(dist: TorchDistribution, value: Tensor) -> Scores:
    """The scores that any distribution gives."""
    if isinstance(dist, MonteCarloDistribution):
        return dist.scores(value)
    logp = dist.log_prob(value)
    return Scores(logp, torch.zeros_like(logp), torch.full_like(logp, torch.nan), None)


class MonteCarloDistribution(TorchDistribution, ABC):
    """A distribution that scores by Monte Carlo and says how far off it may be.

    The draws behind a score come from one bank of noise that all rows share and that is fixed when
    the module is built, so that a row's score depends neither on its batch nor on the call.
    """

    @abstractmethod
    def log_prob_and_error(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Score and its standard error, both of the shape that ``log_prob`` has, in nats."""

    def scores(self, value: Tensor) -> Scores:
        """Scores, standard errors and effective sample sizes."""
        logp, std = self.log_prob_and_error(value)
        return Scores(logp, std, torch.full_like(logp, torch.nan), None)

    def log_prob(self, value: Tensor) -> Tensor:
        """The score alone."""
        return self.log_prob_and_error(value)[0]


def resized(bank: Tensor, n: int, draw: Callable[[int], Tensor]) -> Tensor:
    """The first n entries of a bank of noise; what it lacks is drawn by ``draw``, given how many, under
    a seed that is a function of the bank: copies of a model have the same bank of any size.

    Examples
    --------
    >>> bank = torch.zeros(2, 3)
    >>> more = resized(bank, 4, lambda k: torch.rand(k, 3))
    >>> torch.equal(more, resized(bank, 4, lambda k: torch.rand(k, 3)))
    True
    >>> resized(bank, 1, torch.rand).shape
    torch.Size([1, 3])
    """
    if n <= len(bank):
        return bank[:n]
    with drawn_from(bank):
        rest = draw(n - len(bank))
    return torch.cat([bank, rest.to(bank)])


@contextlib.contextmanager
def drawn_from(bank: Tensor) -> Iterator[None]:
    """Draw from a seed that is a function of a tensor, within a ``with`` block."""
    held = hashlib.sha256(bank.cpu().contiguous().numpy().tobytes()).digest()
    with seeded(int.from_bytes(held[:4], "big")):
        yield


def log_mean_exp(logw: Tensor) -> tuple[Tensor, Tensor]:
    r"""The log of the mean of K weights, over the first axis, and its standard error.

    The error is the jackknife's: with :math:`\theta_{(i)}` the estimate without weight i,

    .. math:: s^2 = \frac{K - 1}{K} \sum_i (\theta_{(i)} - \bar\theta)^2

    For weights that are about equal that is the delta method's :math:`s_w / (\sqrt K \bar w)`; where
    one weight outdoes all others, of which the delta method would say one nat whatever the gap, it is
    the gap to the second: so much hangs on one draw.

    Examples
    --------
    >>> value, error = log_mean_exp(torch.tensor([0.0, 0.0, 0.0, 800.0]))
    >>> round(value.item(), 2), error.item() > 100
    (798.61, True)
    """
    k = len(logw)
    total = torch.logsumexp(logw, 0)
    if k == 1:
        return total, torch.full_like(total, torch.inf)
    share = (logw - torch.where(total.isfinite(), total, 0)).exp()
    without = total + torch.log1p(-share.clamp(max=0.5))
    # The largest may be all there is: what is left without it is summed anew.
    top = logw.argmax(0, keepdim=True)
    rest = torch.logsumexp(logw.scatter(0, top, -torch.inf), 0)
    without = without.scatter(0, top, rest[None])
    spread = (without - without.mean(0)).square().sum(0).mul((k - 1) / k).sqrt()
    return total - math.log(k), torch.where(spread.isfinite(), spread, 0.0)


def effective_sample_size(logw: Tensor) -> Tensor:
    r"""How many equal weights K unequal ones over the first axis are worth,
    :math:`(\sum_k w_k)^2 / \sum_k w_k^2`.

    Examples
    --------
    >>> effective_sample_size(torch.tensor([0.0, 0.0, -torch.inf])).item()
    2.0
    """
    share = torch.softmax(logw, 0).nan_to_num(1 / len(logw))
    return 1 / share.square().sum(0)
