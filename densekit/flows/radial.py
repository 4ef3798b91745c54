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
    r"""A radial flow: layers that each contract or expand the data around one learned point.

    Each of the ``n_transforms`` layers has a point :math:`x_0`, a width :math:`\alpha > 0` and a
    strength :math:`\beta > -\alpha`:

    .. math::
        x' = x + \frac{\beta}{\alpha + r} (x - x_0), \quad r = \|x - x_0\|, \qquad
        \log p(x) = \log N(z; 0, I) + \sum_{\text{layers}} \log\left|\frac{dx'}{dx}\right|

    The paper maps noise to data, because a variational posterior is only sampled. Here the layers
    map data to noise, which makes scoring and training the cheaper direction. Sampling is exact as
    well: along each ray from :math:`x_0` the radius solves a quadratic equation. The constraint
    :math:`\beta > -0.95 \alpha` keeps each layer invertible; it is the condition of appendix A.2
    with a margin for float32.

    The model departs from the paper in two ways. A learned matrix (LU) comes before the first
    layer, and a learned scale and shift per feature follow each layer, which turn the spheres into
    ellipsoids.

    Parameters
    ----------
    n_transforms : int
        Number of layers. A single layer is weak: it moves density toward or away from one point.
    hidden_sizes : tuple of int
        Widths of the hidden layers of the network, one per layer, that computes :math:`x_0,
        \alpha` and :math:`\beta` from the context. Without a context they are learned directly and
        there are no networks.
    activation : str
        Activation of the networks.

    Notes
    -----
    Events are vectors of shape (D,); images are flattened. The flow starts as the shrunken
    Gaussian of the rows if a table has fewer than 5,000 of them, and as the standard normal
    otherwise. Scores are exact on continuous columns. Integers, categories and pixels are
    dequantized, and their score is a lower bound. With a context the model is the conditional
    density p(x | context). It is the weakest flow of this package:
    :class:`~densekit.flows.planar.PlanarFlow` or any flow with networks reaches a better density
    in the same time.

    References
    ----------
    D. J. Rezende and S. Mohamed. Variational Inference with Normalizing Flows. ICML 2015.
    https://arxiv.org/abs/1505.05770

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
            layer = RadialTransform(D, self.hidden_sizes, n_context, self.activation)
            layers += [layer, Diagonal(D)]
        return FlowModule(Stack(layers))
