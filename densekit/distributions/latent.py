r"""Latent-variable distributions, scored by the importance-weighted bound.

.. math:: p(x) = \int p(x \mid z)\, p(z)\, dz

is out of reach, but a guide q(z | x) and K draws from it bound it from below,

.. math::
    \log p(x) \ge E\Big[\log \frac{1}{K} \sum_{i=1}^K w_i\Big], \qquad
    w_i = \frac{p(x \mid z_i)\, p(z_i)}{q(z_i \mid x)}, \quad z_i \sim q(z \mid x),

which is the evidence lower bound at K = 1, never gets worse with K, and goes to log p(x).

References
----------
Burda, Grosse & Salakhutdinov 2016, "Importance weighted autoencoders".
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

_ROWS = 1 << 15
"""Decoder rows that are scored at once: K draws of many events would not stay in cache."""


class LatentVariable(MonteCarloDistribution):
    r"""The distribution of x when z ~ p(z), x ~ p(x | z), and a guide approximates p(z | x).

    Parameters
    ----------
    prior : TorchDistribution
        p(z), event shape (L,), batch shape ().
    decoder : callable
        z (..., \*batch_shape, L) to the distribution p(x | z) of batch shape (..., \*batch_shape).
    guide : callable
        x (..., \*batch_shape, \*event_shape) to the mean and the standard deviation of the normal
        q(z | x), each (..., \*batch_shape, L).
    noise : Tensor
        (K, L), standard normal: the draws behind each score, shared by all rows and all calls.
    event_shape : torch.Size
        Shape of x.
    batch_shape : torch.Size
        () or that of the context on which decoder and guide are conditioned.

    Examples
    --------
    A fair mixture of nothing but noise: with p(x | z) = N(z, 1) and z ~ N(0, 1), x is N(0, 2). The
    guide below is the exact posterior, so every weight is p(x) and the bound is no bound:

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
        """Where the decoder puts its mass."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> "LatentVariable":
        """The same distribution with a larger batch shape."""
        return LatentVariable(
            self.prior, self.decoder, self.guide, self.noise, self.event_shape, batch_shape
        )

    def log_weights(self, value: Tensor, noise: Tensor) -> Tensor:
        """log w of the draws that ``noise`` (K, ..., L) makes for ``value``: (K, ...)."""
        loc, scale = self.guide(value)
        noise = noise.reshape(len(noise), *(1,) * (loc.ndim + 1 - noise.ndim), *noise.shape[1:])
        z = loc + scale * noise
        log_q = -(0.5 * noise**2 + scale.log() + 0.5 * math.log(2 * math.pi)).sum(-1)
        return self.decoder(z).log_prob(value) + self.prior.log_prob(z) - log_q

    def log_prob_and_error(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """The bound and its standard error, infinite for K = 1 (see
        :func:`~densekit.distributions.montecarlo.log_mean_exp`)."""
        return self.scores(value)[:2]

    def scores(self, value: Tensor) -> Scores:
        """The same with the effective sample size of the draws."""
        batch = torch.broadcast_shapes(
            value.shape[: value.ndim - len(self.event_shape)], self.batch_shape
        )
        if not batch.numel():
            # torch's Independent, which prior and decoder may be, cannot sum over no rows.
            none = value.new_zeros(batch)
            return Scores(none, none, none, None)
        value = value.expand(*batch, *self.event_shape)
        step = max(1, _ROWS // max(1, batch.numel()))
        log_w = torch.cat([self.log_weights(value, part) for part in self.noise.split(step)])
        return Scores(*log_mean_exp(log_w), effective_sample_size(log_w), None)

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """Draws (\\*sample_shape, \\*batch_shape, \\*event_shape): first z, then x."""
        z = self.prior.expand(torch.Size([*sample_shape, *self.batch_shape])).sample()
        x: Tensor = self.decoder(z).sample()
        return x
