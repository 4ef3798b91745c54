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
    r"""A Sylvester flow: layers that each apply several planar steps in a learned subspace.

    Each of the ``n_transforms`` layers has a matrix Q with M orthonormal columns and upper
    triangular matrices R and :math:`\tilde R`:

    .. math::
        x' = x + Q R \tanh(s), \quad s = \tilde R Q^T x + b, \qquad
        \log p(x) = \log N(z; 0, I)
        + \sum_{\text{layers}} \sum_{i=1}^{M} \log(1 + R_{ii} \tilde R_{ii} \tanh'(s_i))

    The paper maps noise to data, because a variational posterior is only sampled. Here the layers
    map data to noise, so that scoring and training evaluate the formula. Sampling inverts each
    layer inside the subspace: it solves M monotone scalar equations, one after another, to the
    precision of floats. Scores and samples are both exact. The constraint :math:`R_{ii} \tilde
    R_{ii} > -0.95` keeps each layer invertible; it is the condition of theorem 2 with a margin for
    float32.

    The model departs from the paper in three ways. Q is a product of M Householder reflections for
    every M up to D, where the paper uses reflections for M = D only. Q does not depend on the
    context; R, :math:`\tilde R` and b do. And a learned matrix (LU) comes before the first layer
    and a learned scale and shift per feature follow each layer; a step of tanh can express
    neither.

    Parameters
    ----------
    n_transforms : int
        Number of layers.
    n_units : int
        The dimension M of each layer's subspace, at most the number of features; larger values are
        reduced to it.
    hidden_sizes : tuple of int
        Widths of the hidden layers of the network, one per layer, that computes R, :math:`\tilde
        R` and b from the context. Without a context they are learned directly and there are no
        networks.
    activation : str
        Activation of the networks.

    Notes
    -----
    Events are vectors of shape (D,); images are flattened. The flow starts as the shrunken
    Gaussian of the rows if a table has fewer than 5,000 of them, and as the standard normal
    otherwise. Scores are exact on continuous columns. Integers, categories and pixels are
    dequantized, and their score is a lower bound. With a context the model is the conditional
    density p(x | context).

    References
    ----------
    R. van den Berg, L. Hasenclever, J. M. Tomczak and M. Welling. Sylvester Normalizing Flows for
    Variational Inference. UAI 2018. https://arxiv.org/abs/1803.05649

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
