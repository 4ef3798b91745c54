"""Glow: a flow of images."""

import math
from typing import Annotated, ClassVar

from torch import nn

from densekit.base import Capabilities
from densekit.codecs.schema import Schema
from densekit.distributions.flow import FlowModule
from densekit.nets.mlp import ACTIVATIONS
from densekit.neural import NeuralDensity
from densekit.params import Interval, OneOf
from densekit.transforms.affine import AffineElement
from densekit.transforms.columns import ColumnTransform, Element, Stack
from densekit.transforms.convolutional import ConvCoupling
from densekit.transforms.linear import Diagonal, LULinear, Reverse
from densekit.transforms.part import Part
from densekit.transforms.pixelwise import Pixelwise
from densekit.transforms.spline import SplineElement
from densekit.transforms.squeeze import Squeeze, block


class Glow(NeuralDensity):
    r"""Glow, a multi-scale flow of images with convolutional coupling layers.

    Each of the ``n_levels`` levels first turns blocks of 2 x 2 pixels into channels (squeeze). It
    then takes ``n_transforms`` steps, which act at each pixel ij as

    .. math::
        y_{ij} = W (e^{s} \odot x_{ij} + b), \qquad
        z_A = y_A, \qquad z_B = f(y_B;\ \theta(y_A, c)), \qquad
        \log\left|\frac{dz}{dx}\right| = H W \Big(\log|\det W| + \sum s\Big)
        + \sum_B \log f'(y_B)

    A step has three parts: a scale and a shift per channel (actnorm); an invertible matrix W = L U
    P, the 1 x 1 convolution, where P reverses the channels; and a coupling layer, whose
    convolutional network reads one half A of the channels and transforms the other half B. The
    function f is affine (``"affine"``) or a rational-quadratic spline (``"spline"``). After every
    level but the last, half of the channels leave the flow (split): given the other half they are
    normal, with a mean and a scale from a network.

    Parameters
    ----------
    n_levels : int
        Number of scales: 2 levels see 28 x 28 pixels as 14 x 14 and then as 7 x 7. The number is
        reduced where a squeeze would need blocks of more than four pixels. Sides may be odd: where
        both are, a squeeze takes blocks as long as the smallest divisor of one side. Nothing is
        padded.
    n_transforms : int
        Number of steps of each level.
    coupling : {"affine", "spline"}
        The function f. A step with splines costs more and learns more, above all for pixels that
        are black or white.
    hidden_sizes : tuple of int
        Channels of the hidden layers of each network, whose convolutions are 3 x 3, 1 x 1, ..., 3
        x 3.
    n_bins : int
        Number of bins of each spline.
    tail_bound : float
        The splines act on [-tail_bound, tail_bound], in standard deviations of the data; outside
        they are the identity.
    activation : str
        Activation of the networks.

    Notes
    -----
    Events are images of shape (C, H, W); the model refuses tables. Before training it is the
    standard normal of the reordered pixels. Scores are exact on float pixels. Integer pixels are
    dequantized, and their score is a lower bound. The paper sets actnorm from the first batch;
    here it is learned from the identity, because events are standardized already and because
    scores, checkpoints and distributed training then need no state besides the weights.

    The defaults suit a CPU. The paper's CIFAR-10 flow is ``Glow(coupling="affine", n_levels=3,
    n_transforms=32, hidden_sizes=(512, 512), learning_rate=1e-3, weight_decay=0.0)``; it has 44
    million weights and needs a GPU.

    References
    ----------
    D. P. Kingma and P. Dhariwal. Glow: Generative Flow with Invertible 1x1 Convolutions. NeurIPS
    2018. https://arxiv.org/abs/1807.03039

    C. Durkan, A. Bekasov, I. Murray and G. Papamakarios. Neural Spline Flows. NeurIPS 2019.
    https://arxiv.org/abs/1906.04032

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).integers(0, 256, (64, 4, 4), dtype=np.uint8)
    >>> flow = Glow(n_transforms=2, hidden_sizes=(8,), max_steps=5).fit(X)
    >>> flow.sample(3).shape, flow.score_samples(X).shape
    ((3, 4, 4), (64,))
    """

    n_levels: Annotated[int, Interval(ge=1)] = 2
    n_transforms: Annotated[int, Interval(ge=1)] = 4
    coupling: Annotated[str, OneOf("affine", "spline")] = "spline"
    hidden_sizes: Annotated[tuple[int, ...], Interval(ge=1)] = (32, 32)
    n_bins: Annotated[int, Interval(ge=2, le=500)] = 4
    tail_bound: Annotated[float, Interval(gt=0)] = 5.0
    activation: Annotated[str, OneOf(*sorted(ACTIVATIONS))] = "relu"
    batch_size: Annotated[int, Interval(ge=1)] = 128
    learning_rate: Annotated[float, Interval(gt=0)] = 3e-3

    _capabilities: ClassVar[Capabilities] = Capabilities(
        density="exact",
        view="relaxed",
        modalities=("image",),
        context="features",
        flat=False,
        weights=True,
    )

    def _build(self, schema: Schema, context_schema: Schema | None) -> nn.Module:
        n_context = 0 if context_schema is None else context_schema.n_features
        channels, height, width = schema.event_shape
        flow = self._level((channels, height, width), n_context, self.n_levels)
        return FlowModule(flow, schema.event_shape)

    def _level(self, shape: tuple[int, int, int], n_context: int, n_levels: int) -> Stack:
        squeeze = Squeeze(shape)
        shape = channels, height, width = squeeze.noise_shape
        n_pixels = height * width
        element: Element = AffineElement()
        if self.coupling == "spline":
            element = SplineElement(self.n_bins, self.tail_bound)
        net = (self.hidden_sizes, n_context, self.activation)
        layers: list[ColumnTransform] = [squeeze]
        for _ in range(self.n_transforms):
            mix = Stack([Diagonal(channels), Reverse(channels), LULinear(channels)])
            layers += [Pixelwise(mix, n_pixels), ConvCoupling(shape, element, *net)]
        if n_levels > 1 and 1 < math.prod(block(height, width)) <= 4:
            inner = self._level((channels // 2, height, width), n_context, n_levels - 1)
            layers += [ConvCoupling(shape, AffineElement(), *net), Part(inner, math.prod(shape))]
        return Stack(layers)
