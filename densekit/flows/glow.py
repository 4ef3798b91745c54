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
    n_levels: Annotated[int, Interval(ge=1)] = 2
    n_transforms: Annotated[int, Interval(ge=1)] = 8
    coupling: Annotated[str, OneOf("affine", "spline")] = "affine"
    hidden_sizes: Annotated[tuple[int, ...], Interval(ge=1)] = (64, 64)
    n_bins: Annotated[int, Interval(ge=2, le=500)] = 4
    tail_bound: Annotated[float, Interval(gt=0)] = 5.0
    activation: Annotated[str, OneOf(*sorted(ACTIVATIONS))] = "relu"
    batch_size: Annotated[int, Interval(ge=1)] = 128
    learning_rate: Annotated[float, Interval(gt=0)] = 3e-3

    _capabilities: ClassVar[Capabilities] = Capabilities(
        density="exact", view="relaxed", modalities=("image",), context="features", flat=False
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
