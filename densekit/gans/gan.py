"""Generative adversarial network."""

from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from densekit.base import Capabilities
from densekit.codecs.schema import Schema
from densekit.distributions.implicit import Implicit
from densekit.nets.mlp import ACTIVATIONS, MLP, join_context
from densekit.neural import NeuralDensity
from densekit.params import Interval, OneOf
from densekit.training import Player


class GAN(NeuralDensity):
    r"""Generative adversarial network (GAN) with the non-saturating loss and the R1 penalty.

    A generator G maps normal noise z of shape (n, ``latent_dim``) to rows. A discriminator
    computes the logit D(x) that a row x is from the data. They minimize in turn

    .. math::
        L_D &= E[\operatorname{softplus}(-D(x)) + \operatorname{softplus}(D(G(z)))]
               + \tfrac{\gamma}{2} E\big[\|\nabla_x D(x)\|^2\big], \\
        L_G &= E[\operatorname{softplus}(-D(G(z)))]

    Without the R1 penalty, whose weight is :math:`\gamma`, training need not converge. The fitted
    model is the running average of the generator. In a discrete column the discriminator sees the
    center of each value's interval rather than dequantized values, whose noise the generator would
    have to reproduce in every column. Generated values are rounded to the interval that contains
    them.

    A GAN has no density, and ``score_samples`` does not exist. No loss indicates when to stop, so
    training always takes all steps and holds out no rows.

    Parameters
    ----------
    latent_dim : int
        Dimension of z.
    hidden_sizes : tuple of int
        Widths of the hidden layers of the generator and of the discriminator.
    activation : str
        One of `densekit.nets.mlp.ACTIVATIONS`.
    r1 : float
        Weight :math:`\gamma` of the penalty. Larger values stabilize training and blur the
        samples.
    learning_rate : float
        Learning rate of the generator.
    discriminator_learning_rate : float, optional
        Learning rate of the discriminator; None is ``learning_rate``.
    betas : tuple of two float
        Decay rates of Adam for both networks. Momentum makes the two oscillate.

    Notes
    -----
    Without a budget, training takes 3000 steps.

    References
    ----------
    I. Goodfellow et al. Generative Adversarial Networks. NeurIPS 2014.
    https://arxiv.org/abs/1406.2661

    L. Mescheder, A. Geiger and S. Nowozin. Which Training Methods for GANs do actually Converge?
    ICML 2018. https://arxiv.org/abs/1801.04406

    M. Mirza and S. Osindero. Conditional Generative Adversarial Nets. 2014.
    https://arxiv.org/abs/1411.1784

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
        logit = module.discriminate(real, context)
        loss = softplus(-logit) + softplus(module.discriminate(fake, context))
        if self.r1:
            loss = loss + 0.5 * self.r1 * squared_gradient_norm(logit, real)
        return loss

    def _loss(self, module: Any, events: Tensor, context: Tensor | None) -> Tensor:
        return softplus(-module.discriminate(module.draw(len(events), context), context))


class GANModule(nn.Module):
    """Generator and discriminator; a call returns the generator's distribution of events."""

    like: Tensor

    def __init__(
        self, generator: MLP, discriminator: MLP, latent_dim: int, schema: Schema
    ) -> None:
        super().__init__()
        self.schema = schema
        self.generator, self.discriminator = generator, discriminator
        self.register_buffer("like", torch.zeros(latent_dim), persistent=False)

    def center(self, x: Tensor) -> Tensor:
        """Move the discrete entries of relaxed events (n, D) to the centers of their intervals."""
        if not self.schema.quantized.any():
            return x
        return self.schema.relax(self.schema.unrelax(x), torch.full_like(x[:1], 0.5))[0]

    def draw(self, n: int, context: Tensor | None) -> Tensor:
        """Generate n events (n, D), one per row of the context if there is one."""
        return self(context).rsample(() if context is not None else (n,))

    def discriminate(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Logits (n,) of the discriminator, positive where x (n, D) looks like data."""
        logit: Tensor = self.discriminator(join_context(x, context)).squeeze(-1)
        return logit

    def forward(self, context: Tensor | None) -> Implicit:
        """The distribution of generated events given each row of the context."""
        return Implicit(
            lambda z: self.generator(join_context(z, context)),
            self.like,
            torch.Size([self.generator.n_out]),
            torch.Size([]) if context is None else context.shape[:-1],
        )


def squared_gradient_norm(y: Tensor, x: Tensor) -> Tensor:
    r"""Squared norm of a gradient, :math:`\|\nabla_x y\|^2`, for each row of x.

    It is differentiable, so that a loss can contain it.

    Parameters
    ----------
    y : Tensor of shape (n,)
        A function of each row of x.
    x : Tensor of shape (n, D)

    Returns
    -------
    Tensor of shape (n,)
    """
    (gradient,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    return gradient.square().flatten(1).sum(1)
