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
    """A flow whose draws have the noise of training taken off."""

    def __init__(self, transform: ColumnTransform, noise_std: float) -> None:
        super().__init__(transform)
        self.noise_std = noise_std

    def forward(self, context: Tensor | None = None) -> Any:
        """Event shape (D,), batch shape () or (n,)."""
        return Denoised(super().forward(context), self.noise_std)


class TarFlow(NeuralDensity):
    r"""TarFlow: layers that scale and shift each patch or column as a transformer of those before says.

    Zhai, Zhang, Nakkiran, Berthelot, Gu, Zheng, Chen, Bautista, Jaitly and Susskind, Normalizing
    Flows are Capable Generative Models (2024). A row is cut into tokens :math:`x_1 \dots x_T`, the
    patches of an image or the columns of a table, and in each of ``n_transforms`` layers

    .. math:: z_t = x_t \odot e^{a_t} + b_t, \qquad
              (a_t, b_t) = \text{transformer}(x_{<t}, c), \qquad
              \log p(x) = \log N(z; 0, I) + \sum_{\text{layers}} \sum_t \sum_p a_{tp}

    with :math:`|a| < 1` and the order of the tokens reversed from layer to layer. A scale and a
    shift per entry follow each layer: learned constants, so that an entry may be scaled more.

    **What the score is.** With ``noise_std=0`` (the default) it is the log-density of the data:
    exact on continuous columns, a lower bound on integers, codes and pixels, whose dequantization is
    the uniform noise that they are trained with. With ``noise_std`` :math:`= \sigma > 0`, as the
    paper trains for the looks of its samples, the flow learns the law of
    :math:`x + \sigma \epsilon`, :math:`\epsilon \sim N(0, I)`, and scores data with it: what
    ``score_samples`` returns is the log-density of that *noisy* law at the row given (a density like
    any other, and blurred), and ``sample`` draws from it, noise included. The units of
    :math:`\sigma` are standard deviations of each column, or of the dequantized pixels.

    ``denoise=True`` moves each draw y to :math:`y + \sigma^2 \nabla_y \log p(y)`, what it was made of
    on average. Draws and scores are then of different laws, the scores still those of the noisy one,
    and ``density_kind_`` is ``"estimate"``, of a standard error that is not known: NaN.

    Parameters
    ----------
    patch_size : int
        Images: height and width of a patch, all channels in it. Where it does not divide a side of
        the image, or is more than half of it, the largest smaller size that does (1 for a prime
        number of pixels: as many tokens, and slow). Tables have a token for each column.
    n_transforms : int
        Number of layers; two or more for the entries of one patch to depend on each other.
    width : int
        Width of each layer's transformer, a multiple of ``2 * n_heads``.
    n_layers : int
        Blocks of each transformer.
    n_heads : int
        Heads of each block.
    noise_std : float
        Standard deviation of the Gaussian noise that is added to rows in training.
    denoise : bool
        Take the noise off draws; it needs ``noise_std`` > 0.

    Notes
    -----
    Events are vectors (D,), images too. Untrained it is the shrunken Gaussian of a table of fewer
    than 5,000 rows, and else the standard normal. Sampling finds one token of all rows after
    another, with keys and values of those before in a cache, (n, n_heads, T, width / n_heads) per
    block. One column can only be scaled and shifted, by the context if there is one: a normal
    density.

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
                "denoise=True with noise_std=0.0: there is no noise to take off; train with some, "
                "as in noise_std=0.05, or set denoise=False"
            )
        n_context = 0 if context_schema is None else context_schema.n_features
        # Events are vectors; the codec's own schema knows the shape of the image.
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
        # As it was fitted: the hyper-parameter may have been set anew since.
        denoised = vars(self).get("built_with_", {}).get("denoise", self.denoise)
        return "estimate" if denoised else super()._kind_of_scores(schema)
