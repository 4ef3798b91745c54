"""A density of noisy data whose draws have the noise taken off."""

from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from densekit.distributions.montecarlo import MonteCarloDistribution


class Denoised(MonteCarloDistribution):
    r"""Draws y of a law of data plus Gaussian noise, each moved to what it was probably made of.

    .. math:: \hat x = y + \sigma^2\, \nabla_y \log p(y) = E[x \mid y] \quad
              \text{where } y = x + \sigma \epsilon

    Robbins (1956) and Miyasawa (1961), called Tweedie's formula. ``log_prob`` stays that of the
    noisy law p, which is not the law of these draws: theirs is not known.

    Parameters
    ----------
    noisy : TorchDistribution
        p, whose score is differentiable in the value.
    noise_std : float
        The :math:`\sigma` in it.

    Examples
    --------
    >>> from densekit.distributions.flow import FlowDistribution
    >>> from densekit.transforms.linear import Diagonal
    >>> Denoised(FlowDistribution(Diagonal(2)), 0.1).sample((4,)).shape
    torch.Size([4, 2])
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    has_rsample = False

    def __init__(self, noisy: TorchDistribution, noise_std: float) -> None:
        self.noisy, self.noise_std = noisy, noise_std
        super().__init__(noisy.batch_shape, noisy.event_shape, validate_args=False)

    @property
    def support(self) -> Any:
        """That of the noisy law."""
        return self.noisy.support

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Denoised":
        """The distribution with its batch shape expanded."""
        return Denoised(self.noisy.expand(batch_shape), self.noise_std)

    def log_prob_and_error(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Log-density of the noisy law; how far it is from that of the draws nobody knows: NaN."""
        logp = self.noisy.log_prob(value)
        return logp, torch.full_like(logp, torch.nan)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """Draws of the noisy law, with the noise that is to be expected in each taken off."""
        with torch.no_grad():
            y = self.noisy.sample(sample_shape)
        with torch.enable_grad():
            y = y.requires_grad_()
            (slope,) = torch.autograd.grad(self.noisy.log_prob(y).sum(), y)
        return y.detach() + self.noise_std**2 * slope
