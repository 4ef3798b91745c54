"""Distributions whose log_prob is a bound or an estimate from a fixed number of draws."""

from abc import ABC, abstractmethod

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
