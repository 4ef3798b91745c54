"""TarFlow: a transformer autoregressive flow."""

from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from densekit.base import Capabilities, DensityKind
from densekit.codecs.schema import Schema
from densekit.distributions.denoised import Denoised
from densekit.distributions.flow import FlowModule
from densekit.neural import NeuralDensity
from densekit.params import Interval
from densekit.transforms.affine import AffineElement
from densekit.transforms.columns import ColumnTransform, Stack
from densekit.transforms.linear import Diagonal
from densekit.transforms.tokens import TokenTransform, patches


class _DenoisedFlow(FlowModule):
    """A flow whose samples have the noise of training removed."""

    def __init__(self, transform: ColumnTransform, noise_std: float) -> None:
        super().__init__(transform)
        self.noise_std = noise_std

    def forward(self, context: Tensor | None = None) -> Any:
        """Return the distribution: event shape (D,), batch shape () or (n,)."""
        return Denoised(super().forward(context), self.noise_std)


class TarFlow(NeuralDensity):
    r"""TarFlow, a flow whose layers scale and shift each token by what a causal transformer computes.

    A row is a sequence of tokens :math:`x_1 \dots x_T`: the patches of an image or the columns of
    a table. Each of the ``n_transforms`` layers transforms token t given the tokens before it,

    .. math:: z_t = x_t \odot e^{a_t} + b_t, \qquad
              (a_t, b_t) = \text{transformer}(x_{<t}, c), \qquad
              \log p(x) = \log N(z; 0, I) + \sum_{\text{layers}} \sum_t \sum_p a_{tp}

    The log-scale is bounded, :math:`|a| < 1`, and the order of the tokens is reversed from layer
    to layer. A learned scale and shift per entry follow each layer, so that an entry can be scaled
    by more.

    **What the score is.** With ``noise_std=0``, the default, it is the log-density of the data:
    exact on continuous columns, a lower bound on integers, categories and pixels, which are
    dequantized by uniform noise. With ``noise_std`` :math:`= \sigma > 0`, which the paper uses for
    the quality of its samples, the flow learns the density of :math:`x + \sigma \epsilon`,
    :math:`\epsilon \sim N(0, I)`. Then ``score_samples`` returns the log-density of that *noisy*
    distribution at the given rows, and ``sample`` draws from it, noise included. The unit of
    :math:`\sigma` is the standard deviation of each column, or of the dequantized pixels.

    ``denoise=True`` replaces each sample y by :math:`y + \sigma^2 \nabla_y \log p(y)`, the
    expected clean row given y. Samples and scores then belong to different distributions: scores
    are still those of the noisy one. Therefore ``density_kind_`` is ``"estimate"``, and the
    standard error is unknown (NaN).

    Parameters
    ----------
    patch_size : int
        Height and width of an image's patches; a patch holds all channels. If it does not divide a
        side, or exceeds half of it, the largest smaller size that does divide it is used. For a
        prime number of pixels that is 1, which makes many tokens and is slow. In tables each
        column is a token.
    n_transforms : int
        Number of layers. Entries of the same patch depend on each other only with two or more.
    width : int
        Width of each layer's transformer, a multiple of ``2 * n_heads``.
    n_layers : int
        Number of blocks of each transformer.
    n_heads : int
        Number of attention heads of each block.
    noise_std : float
        Standard deviation of the Gaussian noise that training adds to rows.
    denoise : bool
        Remove the noise from samples; requires ``noise_std`` > 0.

    Notes
    -----
    Events are vectors of shape (D,); images are flattened. The flow starts as the shrunken
    Gaussian of the rows if a table has fewer than 5,000 of them, and as the standard normal
    otherwise. Sampling computes one token of all rows after another; a cache of shape (n, n_heads,
    T, width / n_heads) per block holds the keys and values of the tokens before. With a single
    column the density is normal, with a mean and a variance that depend on the context.

    References
    ----------
    S. Zhai, R. Zhang, P. Nakkiran, D. Berthelot, J. Gu, H. Zheng, T. Chen, M. A. Bautista, N.
    Jaitly and J. Susskind. Normalizing Flows are Capable Generative Models. ICML 2025.
    https://arxiv.org/abs/2412.06329

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).integers(0, 256, size=(64, 6, 6)).astype(np.uint8)
    >>> flow = TarFlow(patch_size=3, n_transforms=2, width=8, n_heads=2, max_steps=5).fit(X)
    >>> flow.sample(3).shape, flow.score_samples(X).shape
    ((3, 6, 6), (64,))
    """

    patch_size: Annotated[int, Interval(ge=1)] = 4
    n_transforms: Annotated[int, Interval(ge=1)] = 8
    width: Annotated[int, Interval(ge=4)] = 32
    n_layers: Annotated[int, Interval(ge=1)] = 1
    n_heads: Annotated[int, Interval(ge=1)] = 2
    noise_std: Annotated[float, Interval(ge=0)] = 0.0
    denoise: bool = False
    learning_rate: Annotated[float, Interval(gt=0)] = 3e-3
    weight_decay: Annotated[float, Interval(ge=0)] = 0.1

    _capabilities: ClassVar[Capabilities] = Capabilities(
        density="exact",
        view="relaxed",
        modalities=("table", "image"),
        context="features",
        sample_batch=512,
        weights=True,
    )

    def _build(self, schema: Schema, context_schema: Schema | None) -> nn.Module:
        if self.denoise and not self.noise_std:
            raise ValueError(
                "denoise=True requires noise_std > 0, got noise_std=0.0: set noise_std=0.05, for "
                "example, or denoise=False"
            )
        n_context = 0 if context_schema is None else context_schema.n_features
        # The schema of the model has flat events; the codec's schema still has the shape of the image.
        tokens = patches(self.codec_.schema.event_shape, self.patch_size)
        net = (self.width, self.n_layers, self.n_heads, n_context)
        layers: list[ColumnTransform] = []
        for i in range(self.n_transforms):
            order = tokens.flip(0) if i % 2 else tokens
            layers += [TokenTransform(order, AffineElement(), *net), Diagonal(schema.n_dims)]
        if self.denoise:
            return _DenoisedFlow(Stack(layers), self.noise_std)
        return FlowModule(Stack(layers))

    def _begin_as(
        self, module: nn.Module, rows: Tensor, context: Tensor | None, weights: Tensor | None
    ) -> None:
        rows = rows + self.noise_std * torch.randn_like(rows)
        super()._begin_as(module, rows, context, weights)

    def _loss(self, module: nn.Module, events: Tensor, context: Tensor | None) -> Tensor:
        if self.noise_std:
            events = events + self.noise_std * torch.randn_like(events)
        return super()._loss(module, events, context)

    def _kind_of_scores(self, schema: Schema) -> DensityKind:
        # set_params may have changed the parameter since fit; the module still has the value of fit.
        denoised = vars(self).get("built_with_", {}).get("denoise", self.denoise)
        return "estimate" if denoised else super()._kind_of_scores(schema)
