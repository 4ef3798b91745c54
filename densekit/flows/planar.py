"""Planar flow."""

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
from densekit.transforms.planar import PlanarTransform


class PlanarFlow(NeuralDensity):
    r"""A planar flow: many steps, each along one direction and across one plane.

    Rezende and Mohamed, Variational Inference with Normalizing Flows (2015). Data x become standard
    normal noise in ``n_transforms`` layers, each with a direction :math:`\hat u`, a plane (w, b) and

    .. math::
        x' = x + \hat u \tanh(w^T x + b), \qquad
        \log p(x) = \log N(z; 0, I) + \sum_{\text{layers}} \log(1 + w^T \hat u \tanh'(w^T x + b))

    The paper's map goes from noise to data, for posteriors that are only sampled. Here it goes from data
    to noise: the score, and so training, is the formula, and sampling undoes each layer by solving
    one increasing equation in one number (to the last digits of a float), so that both are exact.
    :math:`w^T \hat u > -0.95` for whatever is learned, which is the condition of appendix A.1 with room
    for float32.

    Two departures: a matrix (LU) comes before the first layer, and a scale and a shift per feature
    follow each one, which a step of tanh cannot make.

    Parameters
    ----------
    n_transforms : int
        Number of layers. One layer can do little; 32 are as good as a few of a coupling flow.
    hidden_sizes : tuple of int
        Hidden layers of the network, one per layer, that gives w, u and b where there is a context;
        without one they are learned, and there are no networks.
    activation : str
        Activation of the networks.

    Notes
    -----
    Events are vectors (D,), images too. Untrained it is the shrunken Gaussian of a table of fewer
    than 5,000 rows, and else the standard normal. On continuous columns the score is exact;
    integers, codes and pixels are dequantized, and it is a lower bound. With a context it models
    p(x given context).

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(64, 2))
    >>> flow = PlanarFlow(n_transforms=4, max_steps=5).fit(X)
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
            step = PlanarTransform(D, self.hidden_sizes, n_context, self.activation)
            layers += [step, Diagonal(D)]
        return FlowModule(Stack(layers))
