"""An autoregressive transformer over the pixels of an image."""

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
    """A decoder as a :class:`~densekit.distributions.pixels.PixelModel`, with one token per channel
    of a pixel.
    """

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
            # Neighboring levels start with similar embeddings, because a small training set does not
            # show every one of 256 levels often enough to learn its embedding alone.
            t = torch.linspace(-1, 1, levels)[:, None]
            frequencies = torch.randn(width) * 2
            wave = torch.sin(t * frequencies + 2 * torch.pi * torch.rand(width))
            embed.weight.data.copy_(0.1 * wave)
        sides = [*event_shape[1:], event_shape[0]]
        self.place = nn.ParameterList(
            nn.Parameter(0.06 * torch.randn(*(n if k == i else 1 for k in range(3)), width))
            for i, n in enumerate(sides)
        )
        self.context = uniform_weight(width, n_context, n_context)

    def forward(self, context: Tensor | None = None) -> RasterImage:
        """Return the distribution: event shape (C, H, W), batch shape () or (n,)."""
        return RasterImage(self, context)

    def log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        tokens = x.permute(0, 2, 3, 1).flatten(1)
        n, T = tokens.shape
        h = nn.functional.pad(
            self._embed(tokens[:, :-1]), (0, 0, 1, 0)
        ) + self._position_embedding(context)
        hidden, _ = self.run(h.flatten(0, 1), Layout.full(n, T, x.device))
        return self.head.log_prob(hidden, tokens.reshape(-1, 1)).view(n, T).sum(1)

    def draw(self, n: int, context: Tensor | None) -> Tensor:
        C, H, W = self.event_shape
        base, T = self._position_embedding(context).expand(n, -1, -1), C * H * W
        cache = self.begin(n, T)
        drawn: list[Tensor] = []
        for t in range(T):
            h = base[:, t] + self._embed(drawn[-1])[:, 0] if drawn else base[:, t]
            drawn.append(self.head.sample(self.advance(h, cache)))
        return torch.cat(drawn, 1).view(n, H, W, C).permute(0, 3, 1, 2).contiguous()

    def _embed(self, tokens: Tensor) -> Tensor:
        """Embed tokens (n, T) as (n, T, width). An illegal level is clamped here and gets -inf from
        the head.
        """
        if self.levels:
            return self.embed(tokens.clamp(0, self.levels - 1).long())
        return self.embed(squash(tokens)[..., None])

    def _position_embedding(self, context: Tensor | None) -> Tensor:
        """The embedding of each position and of the context, (n or 1, T, width)."""
        row, column, channel = self.place
        place = (row + column + channel).flatten(0, 2)[None]
        return place if context is None else place + (squash(context) @ self.context.t())[:, None]


class ImageTransformer(NeuralDensity):
    r"""An autoregressive transformer over the pixels of an image in raster order.

    The tokens are the numbers of the image: rows from top to bottom, pixels from left to right,
    the channels of a pixel one after another. A causal transformer models each token given those
    before it:

    .. math:: \log P(x) = \sum_{t=1}^{T} \log P(x_t \mid h_t), \qquad
              h_t = \text{transformer}(x_{<t}, c), \qquad T = H\, W\, C

    The input of a token is an embedding of its level plus learned vectors for its row, column and
    channel; attention also uses rotary positions along the raster. The output is a softmax if
    there are few levels and a mixture of logistics if there are many
    (:mod:`densekit.distributions.pixels`).

    ``score_samples`` is exact, in nats: the log-probability of integer and boolean images, and the
    log-density of float images.

    Parameters
    ----------
    width : int
        Width of the residual stream, a multiple of ``2 * n_heads``.
    n_layers : int
        Number of transformer blocks.
    n_heads : int
        Number of attention heads of each block.
    dropout : float
        Probability with which training drops an entry of a block's output.
    likelihood : {"auto", "categorical", "logistic"}
        Distribution of a token. "auto" uses "categorical" for up to 32 levels.
    n_components : int
        Number of components of the mixture of logistics.

    Notes
    -----
    Without a budget, training takes 3000 steps. The cost of attention grows with the square of T =
    H W C, which is 784 for 28 x 28 gray pixels and 3,072 for 32 x 32 color pixels, so the model
    suits small images. Sampling n images computes one token per step; it caches keys and values, 2
    n T ``width`` numbers per layer.

    References
    ----------
    N. Parmar, A. Vaswani, J. Uszkoreit, L. Kaiser, N. Shazeer, A. Ku and D. Tran. Image
    Transformer. ICML 2018. https://arxiv.org/abs/1802.05751

    M. Chen et al. Generative Pretraining from Pixels. ICML 2020.
    https://proceedings.mlr.press/v119/chen20s.html

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
