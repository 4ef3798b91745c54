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
    r"""A neural autoregressive flow: each feature passes through a learned monotone function.

    A network computes the parameters :math:`\theta_d` of the function of feature d from the
    features before it and from the context c. Following Wehenkel and Louppe, the monotone function
    is the integral of a positive function g. In each of the ``n_transforms`` layers

    .. math::
        z_d = \int^{x_d} g(y;\ \theta_d(x_{<d}, c))\, dy, \qquad
        g = \sum_k v_k\, \pi_k > 0, \qquad
        \log p(x) = \log N(z; 0, I) + \sum_{\text{layers}} \sum_d \log g(x_d)

    The windows :math:`\pi_k` are smooth and sum to one, and their integral has a closed form
    (:mod:`densekit.transforms.monotone`). The order of the features is reversed from layer to
    layer. Sampling computes the features one after another: together this costs one pass of the
    network, plus a bracketed root per feature.

    Parameters
    ----------
    n_transforms : int
        Number of layers.
    n_bins : int
        Number of windows of each function between its tails. The function has 2 ``n_bins`` + 5
        parameters.
    hidden_sizes : tuple of int
        Widths of the hidden layers of each layer's network.
    activation : str
        Activation of the networks.

    Notes
    -----
    Events are vectors of shape (D,); images are flattened. The flow starts as the shrunken
    Gaussian of the rows if a table has fewer than 5,000 of them, and as the standard normal
    otherwise. Scores are exact on continuous columns. Integers, categories and pixels are
    dequantized, and their score is a lower bound. Unlike the density of a spline flow, the density
    is smooth; its tails are normal with learned widths.

    References
    ----------
    C.-W. Huang, D. Krueger, A. Lacoste and A. Courville. Neural Autoregressive Flows. ICML 2018.
    https://arxiv.org/abs/1804.00779

    A. Wehenkel and G. Louppe. Unconstrained Monotonic Neural Networks. NeurIPS 2019.
    https://arxiv.org/abs/1908.05164

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
