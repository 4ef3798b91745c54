r"""Latent-variable distributions, scored by the importance-weighted bound.

The density

.. math:: p(x) = \int p(x \mid z)\, p(z)\, dz

cannot be computed, but a guide q(z | x) and K draws from it give a lower bound,

.. math::
    \log p(x) \ge E\Big[\log \frac{1}{K} \sum_{i=1}^K w_i\Big], \qquad
    w_i = \frac{p(x \mid z_i)\, p(z_i)}{q(z_i \mid x)}, \quad z_i \sim q(z \mid x).

With K = 1 it is the evidence lower bound. It never decreases with K and converges to log p(x).

References
----------
Y. Burda, R. Grosse and R. Salakhutdinov. Importance Weighted Autoencoders. ICLR 2016.
https://arxiv.org/abs/1509.00519
"""

import math
from collections.abc import Callable

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from densekit.distributions.montecarlo import (
    MonteCarloDistribution,
    Scores,
    effective_sample_size,
    log_mean_exp,
)

_MAX_DECODER_ROWS = 1 << 15
"""Largest number of rows that the decoder scores at once, so that they fit into the cache."""


class LatentVariable(MonteCarloDistribution):
    r"""The distribution of x when z ~ p(z) and x ~ p(x | z), with a guide that approximates p(z | x).

    Parameters
    ----------
    prior : TorchDistribution
        p(z), event shape (L,), batch shape ().
    decoder : callable
        From z (..., \*batch_shape, L) to the distribution p(x | z) of batch shape (...,
        \*batch_shape).
    guide : callable
        From x (..., \*batch_shape, \*event_shape) to the mean and the standard deviation of the
        normal q(z | x), each (..., \*batch_shape, L).
    noise : Tensor of shape (K, L)
        Standard normal draws of the scores, shared by all rows and all calls.
    event_shape : torch.Size
        Shape of x.
    batch_shape : torch.Size
        () or the batch shape of the context of the decoder and the guide.

    Examples
    --------
    With p(x | z) = N(z, 1) and z ~ N(0, 1), x is N(0, 2). The guide below is the exact posterior,
    so every weight equals p(x) and the bound is exact:

    >>> import pyro.distributions as dist
    >>> d = LatentVariable(
    ...     dist.Normal(torch.zeros(1), 1).to_event(1),
    ...     lambda z: dist.Normal(z, 1).to_event(1),
    ...     lambda x: (x / 2, torch.full_like(x, 0.5**0.5)),
    ...     torch.randn(8, 1),
    ...     torch.Size([1]),
    ... )
    >>> logp, error = d.log_prob_and_error(torch.ones(1))
    >>> bool(torch.isclose(logp, dist.Normal(0, 2**0.5).log_prob(torch.tensor(1.0))))
    True
    """

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(
        self,
        prior: TorchDistribution,
        decoder: Callable[[Tensor], TorchDistribution],
        guide: Callable[[Tensor], tuple[Tensor, Tensor]],
        noise: Tensor,
        event_shape: torch.Size,
        batch_shape: torch.Size = torch.Size(),
    ) -> None:
        self.prior, self.decoder, self.guide, self.noise = prior, decoder, guide, noise
        super().__init__(batch_shape, event_shape, validate_args=False)

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> constraints.Constraint:
        """Real events."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> "LatentVariable":
        """The distribution with its batch shape expanded."""
        return LatentVariable(
            self.prior, self.decoder, self.guide, self.noise, self.event_shape, batch_shape
        )

    def log_weights(self, value: Tensor, noise: Tensor) -> Tensor:
        """Log-weights (K, ...) of the draws that ``noise`` (K, ..., L) gives for ``value``."""
        loc, scale = self.guide(value)
        noise = noise.reshape(len(noise), *(1,) * (loc.ndim + 1 - noise.ndim), *noise.shape[1:])
        z = loc + scale * noise
        log_q = -(0.5 * noise**2 + scale.log() + 0.5 * math.log(2 * math.pi)).sum(-1)
        return self.decoder(z).log_prob(value) + self.prior.log_prob(z) - log_q

    def log_prob_and_error(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """The bound and its standard error, which is infinite for K = 1 (see
        :func:`~densekit.distributions.montecarlo.log_mean_exp`).
        """
        return self.scores(value)[:2]

    def scores(self, value: Tensor) -> Scores:
        """The bound, its standard error and the effective sample size of the draws."""
        batch = torch.broadcast_shapes(
            value.shape[: value.ndim - len(self.event_shape)], self.batch_shape
        )
        if not batch.numel():
            # torch's Independent, which prior and decoder may be, cannot sum over zero rows.
            empty = value.new_zeros(batch)
            return Scores(empty, empty, empty, None)
        value = value.expand(*batch, *self.event_shape)
        step = max(1, _MAX_DECODER_ROWS // max(1, batch.numel()))
        log_w = torch.cat([self.log_weights(value, part) for part in self.noise.split(step)])
        return Scores(*log_mean_exp(log_w), effective_sample_size(log_w), None)

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        r"""Samples (\*sample_shape, \*batch_shape, \*event_shape): first z, then x given z."""
        z = self.prior.expand(torch.Size([*sample_shape, *self.batch_shape])).sample()
        x: Tensor = self.decoder(z).sample()
        return x
