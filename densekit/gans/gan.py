"""Generative adversarial network."""

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densekit.base import Capabilities
from densekit.codecs.schema import Schema
from densekit.distributions.implicit import ImplicitDistribution
from densekit.nets.mlp import MLP
from densekit.neural import NeuralDensity
from densekit.params import Interval
from densekit.training import Player


class GAN(NeuralDensity):
    r"""A generator that a discriminator cannot tell from the data (Goodfellow et al. 2014).

    With logit :math:`D(x)` that x is real and draws :math:`G(z)`, z standard normal, the two minimise

    .. math::
        L_D = E_x[\zeta(-D(x))] + E_z[\zeta(D(G(z)))] + \tfrac{\gamma}{2} E_x \|\nabla_x D(x)\|^2,
        \qquad L_G = E_z[\zeta(-D(G(z)))]

    where :math:`\zeta(t) = \log(1 + e^t)`: the non-saturating loss, with the penalty R1 on real rows
    that makes the game converge (Mescheder, Geiger & Nowozin 2018). No loss of either tells which
    weights are best, so the fit goes through all its steps and keeps the running average of the
    generator.

    **What a score is.** There is none: the generator can be drawn from, its density is not known.
    ``score_samples`` and ``score`` do not exist; compare draws instead (``densekit.metrics``).

    Parameters
    ----------
    latent_dim : int
        Entries of z.
    hidden_sizes : tuple of int
        Widths of the hidden layers of both networks.
    r1 : float
        :math:`\gamma`.
    discriminator_learning_rate : float, optional
        The discriminator's own; ``learning_rate`` where None.
    max_steps, learning_rate, ...
        As for every neural model (:class:`~densekit.NeuralDensity`); ``validation_fraction`` is 0,
        since no held-out loss ranks weights.

    References
    ----------
    Goodfellow et al. 2014, "Generative adversarial nets". Mescheder, Geiger & Nowozin 2018, "Which
    training methods for GANs do actually converge?".

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(5.0, 2.0, size=(200, 2))
    >>> gan = GAN(max_steps=20, random_state=0).fit(X)
    >>> gan.sample(3, random_state=0).shape, gan.density_kind_, hasattr(gan, "score_samples")
    ((3, 2), 'none', False)
    """

    latent_dim: Annotated[int, Interval(ge=1)] = 16
    hidden_sizes: Annotated[tuple[int, ...], Interval(ge=1)] = (128, 128)
    r1: Annotated[float, Interval(ge=0)] = 0.5
    discriminator_learning_rate: Annotated[float, Interval(gt=0)] | None = None
    max_steps: Annotated[int, Interval(ge=1)] = 4000
    learning_rate: Annotated[float, Interval(gt=0)] = 1e-3
    ema_decay: Annotated[float, Interval(ge=0, lt=1)] = 0.995
    validation_fraction: Annotated[float, Interval(ge=0, lt=1)] = 0.0

    _capabilities: ClassVar[Capabilities] = Capabilities(
        density="none", view="relaxed", modalities=("table", "image"), context="features"
    )

    def _build(self, schema: Schema, context_schema: Schema | None) -> nn.Module:
        n_context = 0 if context_schema is None else context_schema.n_features
        return _Adversaries(schema.n_dims, n_context, self.latent_dim, self.hidden_sizes)

    def _players(self, module: nn.Module) -> list[Player]:
        rate, betas = self.discriminator_learning_rate, (0.0, 0.99)
        critic = list(module.discriminator.parameters())
        forger = list(module.generator.parameters())
        return [
            Player("discriminator", critic, self._discriminator_loss, rate, betas),
            Player("generator", forger, self._loss, None, betas),
        ]

    def _loss(self, module: nn.Module, events: Tensor, context: Tensor | None) -> Tensor:
        return F.softplus(-module.logit(module.draw(len(events), context), context)).mean()

    def _discriminator_loss(
        self, module: nn.Module, events: Tensor, context: Tensor | None
    ) -> Tensor:
        with torch.no_grad():
            fake = module.draw(len(events), context)
        # R1 is taken on the rows that the loss sees; its gradient needs the events' own.
        real = events.detach().requires_grad_(self.r1 > 0)
        logit = module.logit(real, context)
        loss = F.softplus(-logit).mean() + F.softplus(module.logit(fake, context)).mean()
        if self.r1 == 0:
            return loss
        (slope,) = torch.autograd.grad(logit.sum(), real, create_graph=True)
        return loss + 0.5 * self.r1 * slope.square().sum(1).mean()


class _Adversaries(nn.Module):
    """Generator and discriminator; called with the context it gives the generator's distribution."""

    def __init__(
        self, n_features: int, n_context: int, latent_dim: int, hidden_sizes: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.latent_dim, self.n_features = latent_dim, n_features
        width = (*hidden_sizes,)
        self.generator = MLP(latent_dim + n_context, width, n_features, "leaky_relu")
        self.discriminator = MLP(n_features + n_context, width, 1, "leaky_relu")

    def forward(self, context: Tensor | None = None) -> ImplicitDistribution:
        """The generator's law: event shape (D,), batch shape () or (n,)."""
        return ImplicitDistribution(self.generator, self.latent_dim, self.n_features, context)

    def draw(self, n: int, context: Tensor | None) -> Tensor:
        """One draw per context, or n draws: (n, D)."""
        return self(context).rsample((n,) if context is None else ())

    def logit(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Log-odds that x is real, (n,)."""
        return self.discriminator(x if context is None else torch.cat([x, context], 1)).squeeze(1)
