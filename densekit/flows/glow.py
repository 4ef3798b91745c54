"""Glow: flows of images."""

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
    r"""Glow: a flow of images, of convolutional coupling layers on several scales.

    Kingma and Dhariwal, Glow: generative flow with invertible 1 x 1 convolutions (2018). Each of
    ``n_levels`` levels makes blocks of 2 x 2 pixels channels (squeeze) and takes ``n_transforms``
    steps,

    .. math::
        y_{ij} = W (e^{s} \odot x_{ij} + b), \qquad
        z_A = y_A, \qquad z_B = f(y_B;\ \theta(y_A, c)), \qquad
        \log\left|\frac{dz}{dx}\right| = H W \Big(\log|\det W| + \sum s\Big)
        + \sum_B \log f'(y_B)

    at pixels ij: a scale and a shift per channel (actnorm), an invertible matrix W = L U P (the 1 x 1
    convolution; P reverses the channels), and a coupling of the two halves A and B of the channels
    by a convolutional network. f scales and shifts (``"affine"``) or is a rational-quadratic spline
    (``"spline"``: Durkan et al., Neural Spline Flows, 2019). After all levels but the last, half of
    the channels leave, normal given the other half with a mean and a scale from a network (split).

    Parameters
    ----------
    n_levels : int
        Number of scales, 28 x 28 pixels to 14 x 14 and 7 x 7 for instance. Fewer where a squeeze
        would have to take more than four pixels. Sides need not be even: where both are odd a squeeze
        takes as many pixels along one as its smallest divisor says, and none is padded.
    n_transforms : int
        Steps of each level.
    coupling : {"affine", "spline"}
        Splines cost more a step and learn more in it, above all of pixels that are black or white.
    hidden_sizes : tuple of int
        Channels of each network's hidden layers: 3 x 3, 1 x 1, ..., 3 x 3 convolutions.
    n_bins : int
        Bins of each spline.
    tail_bound : float
        The splines act on [-tail_bound, tail_bound], in standard deviations of the data; beyond, they
        are the identity.
    activation : str
        Activation of the networks.

    Notes
    -----
    Events are images (C, H, W); tables are refused. Untrained it is the standard normal, up to the
    order of numbers. On float pixels the score is exact; integers are dequantized, and it is a lower
    bound. Actnorm is learned like all else, and not set by the first batch as in the paper: events come
    standardized, so that it would find nothing to do, and a score, a checkpoint and the processes
    of a fit need no state beside the weights. The defaults are for a CPU. The paper's CIFAR-10 flow is
    ``Glow(coupling="affine", n_levels=3, n_transforms=32, hidden_sizes=(512, 512), learning_rate=1e-3,
    weight_decay=0.0)``, 44 million weights, and wants a GPU.

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
