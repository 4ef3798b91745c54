"""A density of noisy data whose samples are denoised."""

from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from densekit.distributions.montecarlo import MonteCarloDistribution


class Denoised(MonteCarloDistribution):
    r"""Samples y of a density of noisy data, each replaced by the expected clean value.

    .. math:: \hat x = y + \sigma^2\, \nabla_y \log p(y) = E[x \mid y] \quad
              \text{where } y = x + \sigma \epsilon

    This is Tweedie's formula. ``log_prob`` remains that of the noisy density p. The density of the
    denoised samples differs from it and is unknown.

    Parameters
    ----------
    noisy : TorchDistribution
        p, with a ``log_prob`` that is differentiable in the value.
    noise_std : float
        The standard deviation :math:`\sigma` of the noise.

    References
    ----------
    B. Efron. Tweedie's Formula and Selection Bias. JASA 2011.
    https://doi.org/10.1198/jasa.2011.tm11181

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
        """The support of the noisy density."""
        return self.noisy.support

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Denoised":
        """The distribution with its batch shape expanded."""
        return Denoised(self.noisy.expand(batch_shape), self.noise_std)

    def log_prob_and_error(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Log-density of the noisy distribution. Its error as a score of the samples is unknown: NaN."""
        logp = self.noisy.log_prob(value)
        return logp, torch.full_like(logp, torch.nan)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """Samples of the noisy distribution with the expected noise removed."""
        with torch.no_grad():
            y = self.noisy.sample(sample_shape)
        with torch.enable_grad():
            y = y.requires_grad_()
            (gradient,) = torch.autograd.grad(self.noisy.log_prob(y).sum(), y)
        return y.detach() + self.noise_std**2 * gradient
