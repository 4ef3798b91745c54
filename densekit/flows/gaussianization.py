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
    r"""A Gaussianization flow: layers that rotate the data and make each coordinate normal.

    Each of the ``n_transforms`` layers applies a learned rotation R and, to each coordinate, the
    normal quantile of a mixture's cumulative distribution function:

    .. math::
        z_d = \Phi^{-1}\Big(\sum_k w_{dk}\, \Phi\Big(\frac{(R x)_d - m_{dk}}{s_{dk}}\Big)\Big),
        \qquad \log p(x) = \log N(z; 0, I) + \sum_{\text{layers}} \sum_d \log\frac{dz_d}{d(R x)_d}

    R is a product of Householder reflections; the first layer has no rotation. Without a context
    the weights w, locations m and scales s are learned directly. With a context a network computes
    them from it.

    Parameters
    ----------
    n_transforms : int
        Number of layers.
    n_components : int
        Number of mixture components of each coordinate in each layer. With one component the
        layers are affine.
    n_reflections : int
        Number of reflections of each rotation, at most D; D reflections can express any rotation.
    hidden_sizes : tuple of int
        Widths of the hidden layers of each layer's network, which only exists with a context.
    activation : str
        Activation of the networks.

    Notes
    -----
    Events are vectors of shape (D,); images are flattened. The flow starts close to the shrunken
    Gaussian of the rows if a table has fewer than 5,000 of them, and to the standard normal
    otherwise. Scores are exact on continuous columns. Integers, categories and pixels are
    dequantized, and their score is a lower bound. The mixture components are normal where the
    paper's are logistic, so that each layer is affine far from the data
    (:mod:`densekit.transforms.gaussianize`). Scoring and sampling both evaluate each layer once;
    sampling inverts each coordinate by bracketing.

    References
    ----------
    C. Meng, Y. Song, J. Song and S. Ermon. Gaussianization Flows. AISTATS 2020.
    https://arxiv.org/abs/2003.01941

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
