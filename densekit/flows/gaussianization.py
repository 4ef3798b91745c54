"""Gaussianization flow."""

from typing import Annotated, ClassVar

from torch import nn

from densekit.base import Capabilities
from densekit.codecs.schema import Schema
from densekit.distributions.flow import FlowModule
from densekit.nets.mlp import ACTIVATIONS
from densekit.neural import NeuralDensity
from densekit.params import Interval, OneOf
from densekit.transforms.columns import ColumnTransform, Stack
from densekit.transforms.elementwise import ElementwiseTransform
from densekit.transforms.gaussianize import GaussianizeElement
from densekit.transforms.linear import Householder


class GaussianizationFlow(NeuralDensity):
    r"""A Gaussianization flow: rotate the data, make each coordinate normal, and again.

    Meng, Song, Song and Ermon, Gaussianization Flows (2020). Data x become standard normal noise z in
    ``n_transforms`` layers, in each of which

    .. math::
        z_d = \Phi^{-1}\Big(\sum_k w_{dk}\, \Phi\Big(\frac{(R x)_d - m_{dk}}{s_{dk}}\Big)\Big),
        \qquad \log p(x) = \log N(z; 0, I) + \sum_{\text{layers}} \sum_d \log\frac{dz_d}{d(R x)_d}

    with a rotation R that is learned as a product of Householder reflections (the first layer has
    none) and kernels that are learned too. The layers' parameters are numbers of their own, not
    outputs of a network, unless there is a context: then weights, locations and scales are what a
    network makes of it.

    Parameters
    ----------
    n_transforms : int
        Number of layers.
    n_components : int
        Kernels of each coordinate in each layer; one makes the layers affine.
    n_reflections : int
        Reflections of each rotation; D of them, which is the most that are taken, make any rotation.
    hidden_sizes : tuple of int
        Hidden layers of each layer's network of the context.
    activation : str
        Activation of the networks.

    Notes
    -----
    Events are vectors (D,), images too. Untrained it is nearly the shrunken Gaussian of a table of
    fewer than 5,000 rows, and else the standard normal. On continuous columns the score is exact;
    integers, codes and pixels are dequantized, and it is a lower bound. The kernels are normal,
    where the paper's are logistic: far out each layer is then affine
    (:mod:`densekit.transforms.gaussianize`). Both ways take each layer once; a draw is found by
    bracketing in each coordinate.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(64, 2))
    >>> flow = GaussianizationFlow(n_transforms=2, n_components=4, max_steps=5).fit(X)
    >>> flow.sample(3).shape, flow.score_samples(X).shape
    ((3, 2), (64,))
    """

    n_transforms: Annotated[int, Interval(ge=1)] = 8
    n_components: Annotated[int, Interval(ge=1)] = 16
    n_reflections: Annotated[int, Interval(ge=1)] = 16
    hidden_sizes: Annotated[tuple[int, ...], Interval(ge=1)] = (64, 64)
    activation: Annotated[str, OneOf(*sorted(ACTIVATIONS))] = "silu"
    learning_rate: Annotated[float, Interval(gt=0)] = 2e-2

    _capabilities: ClassVar[Capabilities] = Capabilities(
        density="exact",
        view="relaxed",
        modalities=("table", "image"),
        context="features",
        weights=True,
    )

    def _build(self, schema: Schema, context_schema: Schema | None) -> nn.Module:
        n_context = 0 if context_schema is None else context_schema.n_features
        D = schema.n_dims
        layers: list[ColumnTransform] = []
        for i in range(self.n_transforms):
            if i and D > 1:
                layers.append(Householder(D, min(D, self.n_reflections)))
            element = GaussianizeElement(self.n_components)
            layers.append(
                ElementwiseTransform(D, element, self.hidden_sizes, n_context, self.activation)
            )
        return FlowModule(Stack(layers))
