"""PixelCNN: an autoregressive convolutional model of images."""

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
    """A network and a head as a :class:`~densekit.distributions.pixels.PixelModel`."""

    def __init__(self, net: PixelNet, head: PixelHead, channels: int, levels: int) -> None:
        super().__init__()
        self.net, self.head, self.levels = net, head, levels
        self.event_shape = torch.Size([channels, *net.size])

    def forward(self, context: Tensor | None = None) -> RasterImage:
        """Return the distribution: event shape (C, H, W), batch shape () or (n,)."""
        return RasterImage(self, context)

    def log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        features = self.net(self._scaled(x), context).permute(0, 2, 3, 1)
        pixels = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
        logp: Tensor = self.head.log_prob(features.flatten(0, 2), pixels)
        return logp.view(features.shape[:3]).sum((1, 2))

    def draw(self, n: int, context: Tensor | None) -> Tensor:
        drawn: list[Tensor] = []

        def pixel(features: Tensor) -> Tensor:
            drawn.append(self.head.sample(features))
            return self._scaled(drawn[-1])

        self.net.draw(pixel, n, context)
        return torch.stack(drawn, 2).view(n, *self.event_shape)

    def _scaled(self, x: Tensor) -> Tensor:
        """Scale levels to [-1, 1], the input range of the network; float pixels stay as they are."""
        return 2 * x / (self.levels - 1) - 1 if self.levels else x


class PixelCNN(NeuralDensity):
    r"""PixelCNN, which models each pixel given the pixels above it and to its left.

    .. math:: \log P(x) = \sum_{i, j} \log P(x_{ij} \mid x_{<ij}, c), \qquad
              x_{<ij} = \{x_{kl} : k < i \text{ or } k = i, l < j\}

    The network is the gated PixelCNN: a vertical stack of convolutions over the rows above and a
    horizontal stack along the row, which together see all pixels before and have no blind spot. A
    pixel with few levels has a softmax, or a Bernoulli distribution if there are two. Pixels with
    many levels and float pixels have the mixture of logistics of PixelCNN++, in which green
    depends on red, and blue on both (:mod:`densekit.distributions.pixels`).

    ``score_samples`` is exact, in nats: the log-probability of integer and boolean images, which
    are not dequantized, and the log-density of float images.

    Parameters
    ----------
    width : int
        Number of features per pixel in each of the two stacks.
    n_layers : int
        Number of layers. Their dilations are 1, 2, 4, 1, ...: three layers see 10 rows up, six see
        17.
    likelihood : {"auto", "categorical", "logistic"}
        Distribution of a channel. "auto" uses "categorical" for up to 32 levels.
    n_components : int
        Number of components of the mixture of logistics.

    Notes
    -----
    Events are images of shape (C, H, W) of any size, gray or color. Without a budget, training
    takes 3000 steps. Sampling an image costs about as much as one pass of the network, because
    each layer computes only the new pixel from cached rows. Learned vectors for the row and the
    column let the distribution of a pixel depend on its position. The defaults suit a CPU.

    References
    ----------
    A. van den Oord, N. Kalchbrenner, O. Vinyals, L. Espeholt, A. Graves and K. Kavukcuoglu.
    Conditional Image Generation with PixelCNN Decoders. NeurIPS 2016.
    https://arxiv.org/abs/1606.05328

    T. Salimans, A. Karpathy, X. Chen and D. P. Kingma. PixelCNN++: Improving the PixelCNN with
    Discretized Logistic Mixture Likelihood and Other Modifications. ICLR 2017.
    https://arxiv.org/abs/1701.05517

    P. Ramachandran et al. Fast Generation for Convolutional Autoregressive Models. 2017.
    https://arxiv.org/abs/1704.06001

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
