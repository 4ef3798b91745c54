"""PixelCNN: images pixel by pixel, by convolutions that see the pixels before."""

from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from densekit.base import Capabilities
from densekit.codecs.schema import Schema
from densekit.distributions.pixels import PixelHead, RasterImage, pixel_head
from densekit.nets.pixel import PixelNet
from densekit.neural import NeuralDensity
from densekit.params import Interval, OneOf


class _PixelCNN(nn.Module):
    """Net and head as a :class:`~densekit.distributions.pixels.PixelModel`."""

    def __init__(self, net: PixelNet, head: PixelHead, channels: int, levels: int) -> None:
        super().__init__()
        self.net, self.head, self.levels = net, head, levels
        self.event_shape = torch.Size([channels, *net.size])

    def forward(self, context: Tensor | None = None) -> RasterImage:
        """Event shape (C, H, W), batch shape () or (n,)."""
        return RasterImage(self, context)

    def log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        features = self.net(self._read(x), context).permute(0, 2, 3, 1)
        pixels = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
        logp: Tensor = self.head.log_prob(features.flatten(0, 2), pixels)
        return logp.view(features.shape[:3]).sum((1, 2))

    def draw(self, n: int, context: Tensor | None) -> Tensor:
        drawn: list[Tensor] = []

        def pixel(features: Tensor) -> Tensor:
            drawn.append(self.head.sample(features))
            return self._read(drawn[-1])

        self.net.draw(pixel, n, context)
        return torch.stack(drawn, 2).view(n, *self.event_shape)

    def _read(self, x: Tensor) -> Tensor:
        """Pixels as the network reads them: levels from -1 to 1."""
        return 2 * x / (self.levels - 1) - 1 if self.levels else x


class PixelCNN(NeuralDensity):
    r"""PixelCNN: the law of each pixel given those above it and to its left.

    .. math:: \log P(x) = \sum_{i, j} \log P(x_{ij} \mid x_{<ij}, c), \qquad
              x_{<ij} = \{x_{kl} : k < i \text{ or } k = i, l < j\}

    The gated PixelCNN of van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves and Kavukcuoglu,
    Conditional image generation with PixelCNN decoders (2016): a vertical stack of convolutions over
    the rows above and a horizontal one along the row, so that none of the pixels before is hidden.
    Pixels of few levels have a softmax (two levels: a Bernoulli variable); those of many, and floats,
    the mixture of logistics of Salimans, Karpathy, Chen and Kingma, PixelCNN++ (2017), in which green
    reads red, and blue both (:mod:`densekit.distributions.pixels`).

    ``score_samples`` is exact: the log-mass of images of integers and booleans (nothing is
    dequantized), the log-density of images of floats, in nats.

    Parameters
    ----------
    width : int
        Features per pixel in each of the two stacks.
    n_layers : int
        Layers; with filters spread by 1, 2, 4, 1, ... pixels three of them see 10 rows up and six 17.
    likelihood : {"auto", "categorical", "logistic"}
        Law of a channel; "auto" takes "categorical" up to 32 levels. Two levels have one logit.
    n_components : int
        M, of the mixture of logistics.
    max_steps : int, optional
        None takes 3000 steps, unless ``max_epochs`` or ``max_time`` is given.

    Notes
    -----
    Images of any size, gray or in colors; events are (C, H, W). A draw costs about one pass per
    image, not one per pixel: each layer computes the numbers of the new pixel from rows it has kept
    (Ramachandran et al. 2017). The defaults are for a CPU. Rows and columns have a learned vector, so
    that it matters where in the picture a pixel lies.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).integers(0, 256, (64, 4, 4), dtype=np.uint8)
    >>> model = PixelCNN(width=8, n_layers=1, max_steps=5).fit(X)
    >>> model.sample(3).shape, model.score_samples(X).shape
    ((3, 4, 4), (64,))
    >>> model.density_kind_
    'exact'
    """

    width: Annotated[int, Interval(ge=1)] = 32
    n_layers: Annotated[int, Interval(ge=1)] = 6
    likelihood: Annotated[str, OneOf("auto", "categorical", "logistic")] = "auto"
    n_components: Annotated[int, Interval(ge=1)] = 10
    batch_size: Annotated[int, Interval(ge=1)] = 32
    learning_rate: Annotated[float, Interval(gt=0)] = 3e-3

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
        channels, height, width = schema.event_shape
        levels = int(schema.cardinality[0])
        net = PixelNet(channels, (height, width), self.width, self.n_layers, n_context)
        head = pixel_head(self.likelihood, self.width, channels, levels, self.n_components)
        return _PixelCNN(net, head, channels, levels)
