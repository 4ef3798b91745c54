"""Distributions whose log_prob is a bound or an estimate from a fixed number of draws."""

import math
from abc import ABC, abstractmethod

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor


class MonteCarloDistribution(TorchDistribution, ABC):
    """A distribution that scores by Monte Carlo and says how far off it may be.

    The draws behind a score come from one bank of noise that all rows share and that is fixed when
    the module is built, so that a row's score depends neither on its batch nor on the call.
    """

    @abstractmethod
    def log_prob_and_error(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Score and its standard error, both of the shape that ``log_prob`` has, in nats."""

    def log_prob(self, value: Tensor) -> Tensor:
        """The score alone."""
        return self.log_prob_and_error(value)[0]


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
