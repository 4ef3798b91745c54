"""Sylvester flow."""

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
from densekit.transforms.sylvester import SylvesterTransform


class SylvesterFlow(NeuralDensity):
    r"""A Sylvester flow: planar steps, several at a time, in a subspace that is learned.

    Van den Berg, Hasenclever, Tomczak and Welling, Sylvester Normalizing Flows for Variational
    Inference (2018). Data x become standard normal noise in ``n_transforms`` layers, each with M
    orthonormal columns Q, upper triangles R and :math:`\tilde R`, and

    .. math::
        x' = x + Q R \tanh(s), \quad s = \tilde R Q^T x + b, \qquad
        \log p(x) = \log N(z; 0, I)
        + \sum_{\text{layers}} \sum_{i=1}^{M} \log(1 + R_{ii} \tilde R_{ii} \tanh'(s_i))

    The paper's map goes from noise to data, for posteriors that are only sampled. Here it goes from data
    to noise: the score, and so training, is the formula, and sampling undoes each layer in the
    subspace, one increasing equation in one number after another, M in all (to the last digits of a
    float), so that both are exact. :math:`R_{ii} \tilde R_{ii} > -0.95` for whatever is learned,
    which is the condition of theorem 2 with room for float32.

    Three departures: Q is a product of M Householder reflections for any M up to D (the paper has
    them for M = D), and does not depend on the context, whereas R, :math:`\tilde R` and b do; and a
    matrix (LU) comes before the first layer, a scale and a shift per feature follow each one, which
    a step of tanh cannot make.

    Parameters
    ----------
    n_transforms : int
        Number of layers.
    n_units : int
        M, the steps of a layer; no more than there are features are taken.
    hidden_sizes : tuple of int
        Hidden layers of the network, one per layer, that gives R, :math:`\tilde R` and b where there
        is a context; without one they are learned, and there are no networks.
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
    >>> flow = SylvesterFlow(n_transforms=4, max_steps=5).fit(X)
    >>> flow.sample(3).shape, flow.score_samples(X).shape
    ((3, 2), (64,))
    """

    n_transforms: Annotated[int, Interval(ge=1)] = 16
    n_units: Annotated[int, Interval(ge=1)] = 8
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
        net = (self.hidden_sizes, n_context, self.activation)
        layers: list[ColumnTransform] = [LULinear(D)]
        for _ in range(self.n_transforms):
            layers += [SylvesterTransform(D, min(self.n_units, D), *net), Diagonal(D)]
        return FlowModule(Stack(layers))
