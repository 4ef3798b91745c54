"""Neural autoregressive flow."""

from typing import Annotated, ClassVar

from torch import nn

from densekit.base import Capabilities
from densekit.codecs.schema import Schema
from densekit.distributions.flow import FlowModule
from densekit.nets.mlp import ACTIVATIONS
from densekit.neural import NeuralDensity
from densekit.params import Interval, OneOf
from densekit.transforms.autoregressive import AutoregressiveTransform
from densekit.transforms.columns import Stack
from densekit.transforms.monotone import MonotoneElement


class NeuralAutoregressiveFlow(NeuralDensity):
    r"""A neural autoregressive flow: each feature through a small monotone network, whose weights
    another network computes from the features before it.

    Huang, Krueger, Lacoste and Courville, Neural Autoregressive Flows (2018), in the form that
    integrates a positive function (Wehenkel and Louppe, Unconstrained Monotonic Neural Networks,
    2019). Data x become standard normal noise z in ``n_transforms`` layers, in each of which

    .. math::
        z_d = \int^{x_d} g(y;\ \theta_d(x_{<d}, c))\, dy, \qquad
        g = \sum_k v_k\, \pi_k > 0, \qquad
        \log p(x) = \log N(z; 0, I) + \sum_{\text{layers}} \sum_d \log g(x_d)

    with smooth windows :math:`\pi_k` that sum to one, so that the integral is a formula
    (:mod:`densekit.transforms.monotone` says why). The order of the features is reversed from layer to
    layer. Samples are found feature by feature: one pass of the network in all, and a bracketed
    root for each number.

    Parameters
    ----------
    n_transforms : int
        Number of layers.
    n_bins : int
        Windows of each function between its tails; it has 2 ``n_bins`` + 5 parameters.
    hidden_sizes : tuple of int
        Hidden layers of each layer's network.
    activation : str
        Activation of the networks.

    Notes
    -----
    Events are vectors (D,), images too. Untrained it is the shrunken Gaussian of a table of fewer
    than 5,000 rows, and else the standard normal. On continuous columns the score is exact;
    integers, codes and pixels are dequantized, and it is a lower bound. The density is smooth,
    unlike a spline's, and its tails are normal with learned widths.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(64, 2))
    >>> flow = NeuralAutoregressiveFlow(n_transforms=2, hidden_sizes=(8,), max_steps=5).fit(X)
    >>> flow.sample(3).shape, flow.score_samples(X).shape
    ((3, 2), (64,))
    """

    n_transforms: Annotated[int, Interval(ge=1)] = 4
    n_bins: Annotated[int, Interval(ge=1)] = 12
    hidden_sizes: Annotated[tuple[int, ...], Interval(ge=1)] = (128, 128)
    activation: Annotated[str, OneOf(*sorted(ACTIVATIONS))] = "silu"
    learning_rate: Annotated[float, Interval(gt=0)] = 3e-3
    weight_decay: Annotated[float, Interval(ge=0)] = 0.1

    _capabilities: ClassVar[Capabilities] = Capabilities(
        density="exact",
        view="relaxed",
        modalities=("table", "image"),
        context="features",
        weights=True,
    )

    def _build(self, schema: Schema, context_schema: Schema | None) -> nn.Module:
        n_context = 0 if context_schema is None else context_schema.n_features
        return FlowModule(
            Stack(
                AutoregressiveTransform(
                    schema.n_dims,
                    MonotoneElement(self.n_bins),
                    self.hidden_sizes,
                    n_context,
                    i % 2 == 1,
                    self.activation,
                )
                for i in range(self.n_transforms)
            )
        )
