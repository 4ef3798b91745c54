"""The generative adversarial network."""

from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from densekit.base import Capabilities
from densekit.codecs.schema import Schema
from densekit.distributions.implicit import Implicit
from densekit.nets.mlp import ACTIVATIONS, MLP, beside
from densekit.neural import NeuralDensity
from densekit.params import Interval, OneOf
from densekit.training import Player


class GAN(NeuralDensity):
    r"""Generative adversarial network: a generator that a discriminator cannot tell from the data.

    With z standard normal (n, ``latent_dim``), rows x (n, D) and the discriminator's logit D(x), the
    discriminator and the generator minimize in turn

    .. math::
        L_D &= E[\operatorname{softplus}(-D(x)) + \operatorname{softplus}(D(G(z)))]
               + \tfrac{\gamma}{2} E\big[\|\nabla_x D(x)\|^2\big], \\
        L_G &= E[\operatorname{softplus}(-D(G(z)))],

    the non-saturating loss with the R1 penalty, without which the game need not converge. What is
    kept is the running average of the generator. Of a discrete column the discriminator sees the middle
    of each value's interval, without the noise of dequantization, which a generator would have to
    imitate in every column; what the generator draws is rounded to the interval it falls in.

    There is no density: ``score_samples`` does not exist. No loss tells when to stop either, so that
    a fit makes all its steps, and nothing is held out.

    Parameters
    ----------
    latent_dim : int
        Width of z.
    hidden_sizes : tuple of int
        Hidden layers of the generator and of the discriminator.
    activation : str
        See `densekit.nets.mlp.ACTIVATIONS`.
    r1 : float
        gamma. More steadies the game and blurs the draws.
    learning_rate : float
        The generator's.
    discriminator_learning_rate : float, optional
        The discriminator's; None takes ``learning_rate``.
    betas : tuple of two float
        Adam's decay rates, for both: momentum makes the two go round in circles.
    max_steps : int, optional
        None takes 3000 steps, unless ``max_epochs`` or ``max_time`` is given.

    References
    ----------
    Goodfellow et al. 2014, "Generative adversarial nets". Mescheder, Geiger & Nowozin 2018, "Which
    training methods for GANs do actually converge?" Mirza & Osindero 2014 (conditional).

    Examples
    --------
    >>> import numpy as np
    >>> from densekit import GAN
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> est = GAN(hidden_sizes=(8,), max_steps=10, random_state=0).fit(X)
    >>> est.sample(3).shape, est.density_kind_, hasattr(est, "score_samples")
    ((3, 2), 'none', False)
    """

    latent_dim: Annotated[int, Interval(ge=1)] = 16
    hidden_sizes: Annotated[tuple[int, ...], Interval(ge=1)] = (128, 128, 128)
    activation: Annotated[str, OneOf(*sorted(ACTIVATIONS))] = "leaky_relu"
    r1: Annotated[float, Interval(ge=0)] = 1.0
    discriminator_learning_rate: Annotated[float, Interval(gt=0)] | None = None
    betas: Annotated[tuple[float, ...], Interval(ge=0, lt=1)] = (0.0, 0.99)
    ema_decay: Annotated[float, Interval(ge=0, lt=1)] = 0.995
    validation_fraction: Annotated[float, Interval(ge=0, lt=1)] = 0.0

    _default_steps: ClassVar[int] = 3000
    _capabilities: ClassVar[Capabilities] = Capabilities(
        density="none",
        view="relaxed",
        modalities=("table", "image"),
        context="features",
        weights=True,
    )

    def _build(self, schema: Schema, context_schema: Schema | None) -> nn.Module:
        n_context = 0 if context_schema is None else context_schema.n_features
        return GANModule(
            MLP(self.latent_dim + n_context, self.hidden_sizes, schema.n_dims, self.activation),
            MLP(schema.n_dims + n_context, self.hidden_sizes, 1, self.activation),
            self.latent_dim,
            schema,
        )

    def _players(self, module: Any) -> list[Player]:
        if len(self.betas) != 2:
            raise ValueError(
                f"GAN(betas={self.betas!r}): betas must be two numbers, such as (0.0, 0.99)"
            )
        betas = (float(self.betas[0]), float(self.betas[1]))
        return [
            Player(
                "discriminator",
                list(module.discriminator.parameters()),
                self._discriminator_loss,
                self.discriminator_learning_rate,
                betas,
            ),
            Player("generator", list(module.generator.parameters()), self._loss, betas=betas),
        ]

    def _discriminator_loss(self, module: Any, events: Tensor, context: Tensor | None) -> Tensor:
        with torch.no_grad():
            fake = module.draw(len(events), context)
        real = module.center(events.detach()).requires_grad_()
        logit = module.judge(real, context)
        loss = softplus(-logit) + softplus(module.judge(fake, context))
        if self.r1:
            loss = loss + 0.5 * self.r1 * squared_slope(logit, real)
        return loss

    def _loss(self, module: Any, events: Tensor, context: Tensor | None) -> Tensor:
        return softplus(-module.judge(module.draw(len(events), context), context))


class GANModule(nn.Module):
    """Generator and discriminator; a call gives the generator's distribution over events."""

    like: Tensor

    def __init__(
        self, generator: MLP, discriminator: MLP, latent_dim: int, schema: Schema
    ) -> None:
        super().__init__()
        self.schema = schema
        self.generator, self.discriminator = generator, discriminator
        self.register_buffer("like", torch.zeros(latent_dim), persistent=False)

    def center(self, x: Tensor) -> Tensor:
        """Relaxed events (n, D) with discrete entries moved to the middle of their intervals."""
        if not self.schema.quantized.any():
            return x
        return self.schema.relax(self.schema.unrelax(x), torch.full_like(x[:1], 0.5))[0]

    def draw(self, n: int, context: Tensor | None) -> Tensor:
        """n events (n, D), one for each row of the context where there is one."""
        return self(context).rsample(() if context is not None else (n,))

    def judge(self, x: Tensor, context: Tensor | None) -> Tensor:
        """The discriminator's logits (n,): positive where x (n, D) looks like data."""
        logit: Tensor = self.discriminator(beside(x, context)).squeeze(-1)
        return logit

    def forward(self, context: Tensor | None) -> Implicit:
        """What the generator draws, given each row of the context."""
        return Implicit(
            lambda z: self.generator(beside(z, context)),
            self.like,
            torch.Size([self.generator.n_out]),
            torch.Size([]) if context is None else context.shape[:-1],
        )


def squared_slope(y: Tensor, x: Tensor) -> Tensor:
    r"""The squared norm :math:`\|\nabla_x y\|^2`, (n,), of a function y (n,) of each row of x (n, D).

    Differentiable once more, so that it can be part of a loss.
    """
    (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    return slope.square().flatten(1).sum(1)
