"""Radial flow."""

from typing import Annotated, ClassVar

from torch import nn

from densekit.base import Capabilities
from densekit.codecs.schema import Schema
from densekit.distributions.flow import FlowModule
from densekit.nets.mlp import ACTIVATIONS
from densekit.neural import NeuralDensity
from densekit.params import Interval, OneOf
from densekit.transforms.columns import ColumnTransform, Stack
from densekit.transforms.linear import Diagonal, LULinear
from densekit.transforms.radial import RadialTransform


class RadialFlow(NeuralDensity):
    r"""A radial flow: many contractions and expansions, each around one point.

    Rezende and Mohamed, Variational Inference with Normalizing Flows (2015). Data x become standard
    normal noise in ``n_transforms`` layers, each with a point :math:`x_0`, a width
    :math:`\alpha > 0` and a strength :math:`\beta > -\alpha`,

    .. math::
        x' = x + \frac{\beta}{\alpha + r} (x - x_0), \quad r = \|x - x_0\|, \qquad
        \log p(x) = \log N(z; 0, I) + \sum_{\text{layers}} \log\left|\frac{dx'}{dx}\right|

    The paper's map goes from noise to data, for posteriors that are only sampled. Here it goes from data
    to noise, which makes scores and training the cheaper way; the other way is exact too: along each
    ray the radius solves a quadratic equation. :math:`\beta > -0.95 \alpha` for whatever is learned,
    which is the condition of appendix A.2 with room for float32.

    Two departures: a matrix (LU) comes before the first layer, and a scale and a shift per feature
    follow each one, which make ellipses of the spheres.

    Parameters
    ----------
    n_transforms : int
        Number of layers. One layer can do little: it moves density to or from one point.
    hidden_sizes : tuple of int
        Hidden layers of the network, one per layer, that gives :math:`x_0, \alpha` and
        :math:`\beta` where there is a context; without one they are learned, and there are no networks.
    activation : str
        Activation of the networks.

    Notes
    -----
    Events are vectors (D,), images too. Untrained it is the shrunken Gaussian of a table of fewer
    than 5,000 rows, and else the standard normal. On continuous columns the score is exact;
    integers, codes and pixels are dequantized, and it is a lower bound. With a context it models
    p(x given context). It is the weakest of the flows here: for density per second take
    :class:`~densekit.flows.planar.PlanarFlow` or a flow with networks.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(64, 2))
    >>> flow = RadialFlow(n_transforms=4, max_steps=5).fit(X)
    >>> flow.sample(3).shape, flow.score_samples(X).shape
    ((3, 2), (64,))
    """

    n_transforms: Annotated[int, Interval(ge=1)] = 32
    hidden_sizes: Annotated[tuple[int, ...], Interval(ge=1)] = (64, 64)
    activation: Annotated[str, OneOf(*sorted(ACTIVATIONS))] = "silu"
    learning_rate: Annotated[float, Interval(gt=0)] = 1e-2

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
        layers: list[ColumnTransform] = [LULinear(D)]
        for _ in range(self.n_transforms):
            around = RadialTransform(D, self.hidden_sizes, n_context, self.activation)
            layers += [around, Diagonal(D)]
        return FlowModule(Stack(layers))
