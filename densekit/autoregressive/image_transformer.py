"""A transformer over the pixels of an image in raster order."""

from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from densekit.base import Capabilities
from densekit.codecs.schema import Schema
from densekit.distributions.pixels import (
    CategoricalPixels,
    LogisticPixels,
    RasterImage,
    pixel_head,
)
from densekit.nets.residual import squash, uniform_weight
from densekit.nets.transformer import Decoder, Layout
from densekit.neural import NeuralDensity
from densekit.params import Interval, OneOf


class _PixelTransformer(Decoder):
    """The decoder as a :class:`~densekit.distributions.pixels.PixelModel`: a token per number."""

    def __init__(
        self,
        event_shape: tuple[int, ...],
        levels: int,
        head: CategoricalPixels | LogisticPixels,
        width: int,
        n_layers: int,
        n_heads: int,
        dropout: float,
        n_context: int,
    ) -> None:
        embed = nn.Embedding(levels, width) if levels else nn.Linear(1, width, bias=False)
        super().__init__(embed, width, n_layers, n_heads, dropout)
        self.event_shape, self.levels, self.head = torch.Size(event_shape), levels, head
        if levels > 2:
            # Neighboring levels begin alike, as 100 images do not say of all 256 what they are.
            t = torch.linspace(-1, 1, levels)[:, None]
            turns = torch.randn(width) * 2
            wave = torch.sin(t * turns + 2 * torch.pi * torch.rand(width))
            embed.weight.data.copy_(0.1 * wave)
        sides = [*event_shape[1:], event_shape[0]]
        self.place = nn.ParameterList(
            nn.Parameter(0.06 * torch.randn(*(n if k == i else 1 for k in range(3)), width))
            for i, n in enumerate(sides)
        )
        self.context = uniform_weight(width, n_context, n_context)

    def forward(self, context: Tensor | None = None) -> RasterImage:
        """Event shape (C, H, W), batch shape () or (n,)."""
        return RasterImage(self, context)

    def log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        tokens = x.permute(0, 2, 3, 1).flatten(1)
        n, T = tokens.shape
        h = nn.functional.pad(self._embed(tokens[:, :-1]), (0, 0, 1, 0)) + self._base(context)
        hidden, _ = self.read(h.flatten(0, 1), Layout.full(n, T, x.device))
        return self.head.log_prob(hidden, tokens.reshape(-1, 1)).view(n, T).sum(1)

    def draw(self, n: int, context: Tensor | None) -> Tensor:
        C, H, W = self.event_shape
        base, T = self._base(context).expand(n, -1, -1), C * H * W
        cache = self.begin(n, T)
        drawn: list[Tensor] = []
        for t in range(T):
            h = base[:, t] + self._embed(drawn[-1])[:, 0] if drawn else base[:, t]
            drawn.append(self.head.sample(self.advance(h, cache)))
        return torch.cat(drawn, 1).view(n, H, W, C).permute(0, 3, 1, 2).contiguous()

    def _embed(self, tokens: Tensor) -> Tensor:
        """(n, T) to (n, T, width); what is no level is read as one and refused by the head."""
        if self.levels:
            return self.embed(tokens.clamp(0, self.levels - 1).long())
        return self.embed(squash(tokens)[..., None])

    def _base(self, context: Tensor | None) -> Tensor:
        """What is known of each place beforehand, (n or 1, T, width)."""
        row, column, channel = self.place
        place = (row + column + channel).flatten(0, 2)[None]
        return place if context is None else place + (squash(context) @ self.context.t())[:, None]


class ImageTransformer(NeuralDensity):
    r"""A decoder-only transformer whose tokens are the numbers of an image in raster order.

    .. math:: \log P(x) = \sum_{t=1}^{T} \log P(x_t \mid h_t), \qquad
              h_t = \text{transformer}(x_{<t}, c), \qquad T = H\, W\, C

    Rows from the top, pixels from the left, channels of a pixel one after another (Parmar et al.,
    Image transformer, 2018; Chen et al., Generative pretraining from pixels, 2020). A token is the
    level of a channel of a pixel. It is read by an embedding to which learned vectors of its row, its
    column and its channel are added, next to the rotary positions along the raster; what follows is
    a softmax over few levels or a mixture of logistics over many (:mod:`densekit.distributions.pixels`).

    ``score_samples`` is exact: the log-mass of images of integers and booleans, the log-density of
    images of floats, in nats.

    **What it costs.** There are T = H W C tokens, 784 for 28 x 28 gray pixels and 3,072 for 32 x 32 in
    colors, and attention takes time with their square: for images of modest size. Drawing n images
    keeps keys and values, 2 n T ``width`` numbers per layer, and reads one token per step.

    Parameters
    ----------
    width : int
        Width of the residual stream, a multiple of ``2 * n_heads``.
    n_layers : int
        Blocks.
    n_heads : int
        Heads of each block.
    dropout : float
        Probability that an entry of what a block adds is dropped in training.
    likelihood : {"auto", "categorical", "logistic"}
        Law of a token; "auto" takes "categorical" up to 32 levels. Two levels have one logit.
    n_components : int
        M, of the mixture of logistics.
    max_steps : int, optional
        None takes 3000 steps, unless ``max_epochs`` or ``max_time`` is given.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).integers(0, 4, (64, 3, 3), dtype=np.uint8)
    >>> model = ImageTransformer(width=8, n_layers=1, n_heads=2, support=("interval", 0, 3), max_steps=5)
    >>> model.fit(X).sample(3).shape, model.score_samples(X).shape
    ((3, 3, 3), (64,))
    """

    width: Annotated[int, Interval(ge=4)] = 64
    n_layers: Annotated[int, Interval(ge=1)] = 4
    n_heads: Annotated[int, Interval(ge=1)] = 4
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    likelihood: Annotated[str, OneOf("auto", "categorical", "logistic")] = "auto"
    n_components: Annotated[int, Interval(ge=1)] = 10
    batch_size: Annotated[int, Interval(ge=1)] = 32
    learning_rate: Annotated[float, Interval(gt=0)] = 3e-3
    weight_decay: Annotated[float, Interval(ge=0)] = 0.1

    _default_steps: ClassVar[int] = 3000
    _capabilities: ClassVar[Capabilities] = Capabilities(
        density="exact",
        view="typed",
        modalities=("image",),
        context="features",
        flat=False,
        weights=True,
    )

    def _build(self, schema: Schema, context_schema: Schema | None) -> nn.Module:
        n_context = 0 if context_schema is None else context_schema.n_features
        levels = int(schema.cardinality[0])
        head = pixel_head(self.likelihood, self.width, 1, levels, self.n_components)
        net = (self.width, self.n_layers, self.n_heads, self.dropout, n_context)
        return _PixelTransformer(schema.event_shape, levels, head, *net)
