"""TarFlow: a transformer autoregressive flow."""

from typing import Annotated, ClassVar

import torch
from pyro.distributions import TorchDistribution
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


class TarFlow(NeuralDensity):
    patch_size: Annotated[int, Interval(ge=1)] = 4
    n_transforms: Annotated[int, Interval(ge=1)] = 4
    width: Annotated[int, Interval(ge=4)] = 64
    n_layers: Annotated[int, Interval(ge=1)] = 2
    n_heads: Annotated[int, Interval(ge=1)] = 4
    noise_std: Annotated[float, Interval(ge=0)] = 0.0
    denoise: bool = False
    learning_rate: Annotated[float, Interval(gt=0)] = 2e-3
    weight_decay: Annotated[float, Interval(ge=0)] = 0.1

    _capabilities: ClassVar[Capabilities] = Capabilities(
        density="exact",
        view="relaxed",
        modalities=("table", "image"),
        context="features",
        sample_batch=1024,
    )

    def _build(self, schema: Schema, context_schema: Schema | None) -> nn.Module:
        n_context = 0 if context_schema is None else context_schema.n_features
        # The schema has vectors; the codec's own knows the image.
        tokens = patches(self.codec_.schema.event_shape, self.patch_size)
        layers: list[ColumnTransform] = []
        for i in range(self.n_transforms):
            order = tokens.flip(0) if i % 2 else tokens
            net = (self.width, self.n_layers, self.n_heads, n_context)
            layers += [TokenTransform(order, AffineElement(), *net), Diagonal(schema.n_dims)]
        flow = FlowModule(Stack(layers))
        return flow
    def _loss(self, module, events, context):
        noisy = events + self.noise_std * torch.randn_like(events) if self.noise_std else events
        return super()._loss(module, noisy, context)
