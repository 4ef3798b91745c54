"""Distributions whose ``log_prob`` is a bound or an estimate from a fixed number of draws."""

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
    """Scores of events and their errors, each of the shape of ``log_prob``."""

    score: Tensor
    std: Tensor
    """Standard error in nats; 0 where exact."""
    effective_sample_size: Tensor
    """:func:`effective_sample_size` of the draws of each score; NaN if there are none or it is
    unknown.
    """
    exact: Tensor | None
    """Which scores are exact, or None if this is the same for all events."""


def scores_of(dist: TorchDistribution, value: Tensor) -> Scores:
    """Scores of any distribution; those without Monte Carlo have the standard error zero."""
    if isinstance(dist, MonteCarloDistribution):
        return dist.scores(value)
    logp = dist.log_prob(value)
    return Scores(logp, torch.zeros_like(logp), torch.full_like(logp, torch.nan), None)


class MonteCarloDistribution(TorchDistribution, ABC):
    """A distribution with Monte Carlo scores and their standard errors.

    The draws of a score come from one bank of noise, which all rows share and which is fixed when
    the module is built. Hence a row's score depends neither on its batch nor on the call.
    """

    @abstractmethod
    def log_prob_and_error(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and their standard errors in nats, each of the shape of ``log_prob``."""

    def scores(self, value: Tensor) -> Scores:
        """Scores, standard errors and effective sample sizes."""
        logp, std = self.log_prob_and_error(value)
        return Scores(logp, std, torch.full_like(logp, torch.nan), None)

    def log_prob(self, value: Tensor) -> Tensor:
        """Scores without their errors."""
        return self.log_prob_and_error(value)[0]


def resized(bank: Tensor, n: int, draw: Callable[[int], Tensor]) -> Tensor:
    r"""Resize a bank of noise to n entries, keeping the first ones.

    Missing entries are drawn by ``draw``, which takes their number, with a seed that depends on
    the bank only. Copies of a model therefore have the same bank of every size.

    Parameters
    ----------
    bank : Tensor of shape (K, \*)
    n : int
    draw : callable

    Returns
    -------
    Tensor of shape (n, \*)

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
    """Context manager that seeds the generator by the values of a tensor."""
    digest = hashlib.sha256(bank.cpu().contiguous().numpy().tobytes()).digest()
    with seeded(int.from_bytes(digest[:4], "big")):
        yield


def log_mean_exp(logw: Tensor) -> tuple[Tensor, Tensor]:
    r"""Logarithm of the mean of K weights over the first axis, and its standard error.

    The standard error is that of the jackknife. With :math:`\theta_{(i)}` the estimate without
    weight i,

    .. math:: s^2 = \frac{K - 1}{K} \sum_i (\theta_{(i)} - \bar\theta)^2

    For weights of similar size it equals the error of the delta method, :math:`s_w / (\sqrt K \bar
    w)`. If one weight dominates, it is the gap to the second largest, because the estimate depends
    on that single draw; the delta method would report one nat for any gap.

    Parameters
    ----------
    logw : Tensor of shape (K, \*)
        Logarithms of the weights.

    Returns
    -------
    value, error : Tensor of shape (\*)

    References
    ----------
    B. Efron and C. Stein. The Jackknife Estimate of Variance. Annals of Statistics, 1981.
    https://doi.org/10.1214/aos/1176345462

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
    # Without the largest weight the difference would cancel, so the other weights are summed directly.
    top = logw.argmax(0, keepdim=True)
    rest = torch.logsumexp(logw.scatter(0, top, -torch.inf), 0)
    without = without.scatter(0, top, rest[None])
    spread = (without - without.mean(0)).square().sum(0).mul((k - 1) / k).sqrt()
    return total - math.log(k), torch.where(spread.isfinite(), spread, 0.0)


def effective_sample_size(logw: Tensor) -> Tensor:
    r"""Effective sample size of K weights over the first axis, :math:`(\sum_k w_k)^2 / \sum_k w_k^2`.

    Examples
    --------
    >>> effective_sample_size(torch.tensor([0.0, 0.0, -torch.inf])).item()
    2.0
    """
    share = torch.softmax(logw, 0).nan_to_num(1 / len(logw))
    return 1 / share.square().sum(0)


def resample(logw: Tensor, n: int) -> Tensor:
    """Systematic resampling: n indices of candidates in random order, each as often as its weight
    says to within one.
    """
    ends = logw.double().softmax(0).cumsum(0)
    steps = torch.arange(n, device=ends.device, dtype=ends.dtype)
    places = (steps + torch.rand((), device=ends.device, dtype=ends.dtype)) / n * ends[-1]
    found = torch.searchsorted(ends, places, right=True).clamp_max(len(ends) - 1)
    return found[torch.randperm(n, device=ends.device)]
