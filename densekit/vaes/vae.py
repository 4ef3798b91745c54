"""Variational autoencoder."""

import math
from typing import Annotated, Any, ClassVar

import pyro
import torch
from pyro.distributions import Independent, Normal, TorchDistribution
from torch import Tensor, nn
from torch.nn.functional import softplus

from densekit import codecs
from densekit.base import Capabilities
from densekit.codecs.schema import Schema
from densekit.distributions.heads import Typed, TypedHead
from densekit.distributions.latent import LatentVariable
from densekit.distributions.montecarlo import resized
from densekit.nets.mlp import ACTIVATIONS, MLP, join_context
from densekit.neural import NeuralDensity
from densekit.params import Interval, OneOf


class VAE(NeuralDensity):
    r"""Variational autoencoder (VAE).

    A decoder network maps normal noise to the parameters of each column's distribution, and an
    encoder network approximates the posterior of the noise given a row:

    .. math::
        z \sim N(0, I), \qquad x \mid z \sim \prod_j p_j(x_j; \mathrm{decoder}(z)), \qquad
        q(z \mid x) = N(\mu(x), \operatorname{diag} \sigma^2(x))

    for typed events x of shape (n, D) and latent z of shape (n, ``latent_dim``). Each column has
    the distribution of its type (`densekit.distributions.heads`): Student's t for floats, a
    discretized logistic for integers, pixels and ordinals, probabilities for categories. Training
    maximizes the importance-weighted bound

    .. math::
        E_q\Big[\log \frac{1}{K} \sum_{i=1}^K p(x \mid z_i)
        \Big(\frac{p(z_i)}{q(z_i \mid x)}\Big)^\beta\Big], \qquad z_i \sim q(z \mid x)

    With K = 1 it is the evidence lower bound :math:`E_q[\log p(x \mid z)] - \beta \, KL(q \,\|\,
    p)` of Kingma and Welling. A score is the same bound with beta = 1 and more draws. Its
    expectation is below log p(x) and approaches it with more draws, and it has a standard error.
    The draws of scores are fixed in ``fit`` and shared by all rows.

    Parameters
    ----------
    latent_dim : int, optional
        Dimension of z; None is twice the number of columns, at most 16. Dimensions that the data
        do not need return to the prior.
    hidden_sizes : tuple of int
        Widths of the encoder's hidden layers; the decoder has them in reverse.
    activation : str
        One of `densekit.nets.mlp.ACTIVATIONS`.
    beta : float
        Weight of the prior in training; scores always use 1.
    n_importance : int
        K for scores. Scoring takes K passes of the decoder.
    n_importance_fit : int
        K for training. With K = 1 the true posterior is pulled toward a normal, which on data with
        few columns often leaves z unused.
    min_scale : float
        Smallest scale of a column given z, in standard deviations of the column. It bounds the
        likelihood on a column that repeats its values.

    References
    ----------
    D. P. Kingma and M. Welling. Auto-Encoding Variational Bayes. ICLR 2014.
    https://arxiv.org/abs/1312.6114

    Y. Burda, R. Grosse and R. Salakhutdinov. Importance Weighted Autoencoders. ICLR 2016.
    https://arxiv.org/abs/1509.00519

    I. Higgins et al. beta-VAE: Learning Basic Visual Concepts with a Constrained Variational
    Framework. ICLR 2017. https://openreview.net/forum?id=Sy2fzU9gl

    K. Sohn, H. Lee and X. Yan. Learning Structured Output Representation using Deep Conditional
    Generative Models. NeurIPS 2015 (with a context).
    https://papers.nips.cc/paper/2015/hash/8d55a249e6baa5c06772297520da2051-Abstract.html

    Examples
    --------
    >>> import numpy as np
    >>> from densekit import VAE
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> est = VAE(latent_dim=1, hidden_sizes=(8,), max_steps=20, random_state=0).fit(X)
    >>> est.sample(3).shape, est.density_kind_
    ((3, 2), 'lower_bound')
    """

    latent_dim: Annotated[int, Interval(ge=1)] | None = None
    hidden_sizes: Annotated[tuple[int, ...], Interval(ge=1)] = (128, 128)
    activation: Annotated[str, OneOf(*sorted(ACTIVATIONS))] = "silu"
    beta: Annotated[float, Interval(ge=0)] = 1.0
    n_importance: Annotated[int, Interval(ge=2)] = 64
    n_importance_fit: Annotated[int, Interval(ge=1)] = 8
    min_scale: Annotated[float, Interval(gt=0)] = 0.01
    learning_rate: Annotated[float, Interval(gt=0)] = 2e-3

    _at_once: ClassVar[tuple[str, ...]] = ("n_importance",)
    _capabilities: ClassVar[Capabilities] = Capabilities(
        density="lower_bound",
        view="typed",
        modalities=("table", "image"),
        context="features",
        weights=True,
    )

    def model(self, X: Any = None, context: Any = None) -> Tensor:
        """The generative process as a Pyro program with sites ``z`` and ``x``.

        Rows X are observed, and the Jacobian of the codec is a factor. Therefore
        ``Trace_ELBO().loss(est.model, est.guide, X)`` is minus the bound on the log-density of X
        in the units of X. The weights are constants of the program; it does not use the parameter
        store.

        Parameters
        ----------
        X : like X of ``fit``, optional
            Observed rows. Without them one event is drawn, or one per row of ``context``.
        context : like the context of ``fit``, optional
            Pass it by position under Pyro's handlers, which have an argument of this name
            themselves.

        Returns
        -------
        Tensor of shape (n, D)
            The value of site ``x``: the events of X, or those drawn.
        """
        events, ladj, given = self._observed(X, context)
        rows = events if events is not None else given
        with pyro.plate("rows", 1 if rows is None else len(rows)):
            z = pyro.sample("z", self.module_.prior)
            if ladj is not None:
                pyro.factor("log_jacobian", ladj)
            x: Tensor = pyro.sample("x", self.module_.decode(z, given), obs=events)
        return x

    def guide(self, X: Any, context: Any = None) -> Tensor:
        """The encoder as a Pyro program with the site ``z``, given rows X.

        Parameters
        ----------
        X : like X of ``fit``
            Observed rows.
        context : like the context of ``fit``, optional

        Returns
        -------
        Tensor of shape (n, latent_dim)
            The value of site ``z``.

        Raises
        ------
        ValueError
            If X is None.
        """
        events, _, given = self._observed(X, context)
        if events is None:
            raise ValueError("guide(X=None): the guide is q(z | X) and requires rows X")
        with pyro.plate("rows", len(events)):
            z: Tensor = pyro.sample(
                "z", Independent(Normal(*self.module_.encode(events, given)), 1)
            )
        return z

    def _observed(
        self, X: Any, context: Any
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        self._check_fitted()
        if X is None:
            return None, None, self._context_of_draws(context)
        X, context = self._check_rows(X, context, reset=False)
        typed, ladj = self.codec_.encode(X)
        given = self._encode_context(context, codecs.n_rows(X))
        events = self._events(typed)
        return events, ladj.to(events.device, events.dtype), given

    def _build(self, schema: Schema, context_schema: Schema | None) -> nn.Module:
        n_context = 0 if context_schema is None else context_schema.n_features
        head = TypedHead(
            schema.cardinality,
            schema.ordered,
            schema.width,
            schema.shift,
            schema.spread,
            pairs=schema.pairs,
            min_scale=self.min_scale,
        )
        sizes, latent = self.hidden_sizes, self.latent_dim or min(16, 2 * schema.n_dims)
        encoder = MLP(_n_inputs(schema) + n_context, sizes, 2 * latent, self.activation)
        decoder = MLP(latent + n_context, sizes[::-1], head.n_parameters, self.activation)
        return VAEModule(schema, encoder, decoder, head, torch.randn(self.n_importance, latent))

    def _distribution(self, context: Tensor | None) -> TorchDistribution:
        return self.module_(context, self.n_importance)

    def _loss(self, module: Any, events: Tensor, context: Tensor | None) -> Tensor:
        loc, scale = module.encode(events, context)
        noise = torch.randn(
            self.n_importance_fit, *scale.shape, dtype=loc.dtype, device=loc.device
        )
        z = loc + scale * noise
        fit = module.decode(z, context).log_prob(events)
        if self.n_importance_fit == 1:
            divergence = (0.5 * (loc**2 + scale**2 - 1) - scale.log()).sum(-1)
            loss: Tensor = self.beta * divergence - fit[0]
            return loss
        log_prior_to_guide = (0.5 * (noise**2 - z**2) + scale.log()).sum(-1)
        log_w = fit + self.beta * log_prior_to_guide
        return math.log(len(log_w)) - log_w.logsumexp(0)


class VAEModule(nn.Module):
    """Encoder, decoder and head, with the noise (K, latent_dim) of the scores."""

    noise: Tensor

    def __init__(
        self, schema: Schema, encoder: MLP, decoder: MLP, head: TypedHead, noise: Tensor
    ) -> None:
        super().__init__()
        self.schema, self.encoder, self.decoder, self.head = schema, encoder, decoder, head
        self.register_buffer("noise", noise)

    @property
    def prior(self) -> Independent:
        """The prior p(z), on the device of the module."""
        zero = torch.zeros_like(self.noise[0])
        return Independent(Normal(zero, torch.ones_like(zero), validate_args=False), 1)

    def encode(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z | x), each (..., latent_dim), for x of shape (..., D)."""
        inputs = _inputs(self.schema, x.reshape(-1, x.shape[-1]))
        inputs = inputs.reshape(*x.shape[:-1], inputs.shape[-1])
        loc, raw = self.encoder(join_context(inputs, context)).chunk(2, -1)
        return loc, 1e-4 + softplus(raw)

    def decode(self, z: Tensor, context: Tensor | None) -> Typed:
        """The distribution p(x | z), batch shape (...), for z of shape (..., latent_dim)."""
        decoded: Typed = self.head(self.decoder(join_context(z, context)))
        return decoded

    def forward(self, context: Tensor | None, n_importance: int | None = None) -> LatentVariable:
        """The distribution p(x | context); ``n_importance`` changes the number of draws of its
        scores.
        """
        noise, k = self.noise, n_importance
        if k is not None:
            noise = resized(noise, k, lambda more: torch.randn(more, noise.shape[1]))
        return LatentVariable(
            self.prior,
            lambda z: self.decode(z, context),
            lambda x: self.encode(x, context),
            noise,
            torch.Size(self.schema.event_shape),
            torch.Size([]) if context is None else context.shape[:-1],
        )


def _all_ordered(schema: Schema) -> bool:
    return bool((schema.ordered & (schema.cardinality > 2)).all())


def _n_inputs(schema: Schema) -> int:
    return schema.n_dims if _all_ordered(schema) else schema.n_features


def _inputs(schema: Schema, x: Tensor) -> Tensor:
    """Inputs of the encoder.

    For images these are the standardized centers of the codes' bins. One-hot features or raw
    levels would give images that use few gray levels almost no variance.
    """
    if _all_ordered(schema):
        return schema.relax(x, torch.full_like(x[:1], 0.5))[0]
    return schema.features(x)
