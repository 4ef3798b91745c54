"""Masked autoregressive flow and inverse autoregressive flow."""

from typing import Annotated, ClassVar

from torch import nn

from densekit.base import Capabilities
from densekit.codecs.schema import Schema
from densekit.distributions.flow import FlowModule
from densekit.nets.mlp import ACTIVATIONS
from densekit.neural import NeuralDensity
from densekit.params import Interval, OneOf
from densekit.transforms.affine import AffineElement
from densekit.transforms.autoregressive import AutoregressiveTransform
from densekit.transforms.columns import ColumnTransform, Inverse, Stack
from densekit.transforms.linear import Diagonal


class MaskedAutoregressiveFlow(NeuralDensity):
    r"""A masked autoregressive flow: layers that scale and shift each feature given those before it.

    With ``direction="density"`` a layer maps data x to noise z in one pass of its network,

    .. math:: z_d = x_d\, e^{a_d(x_{<d}, c)} + b_d(x_{<d}, c), \qquad
              \log p(x) = \log N(z; 0, I) + \sum_{\text{layers}} \sum_d a_d

    and the inverse computes one feature after another. With ``direction="sample"`` x and z change
    places: the network maps noise to data in one pass, which is the inverse autoregressive flow
    (IAF).

    The log-scale is bounded, :math:`|a| < 1`. The order of the features is reversed from layer to
    layer. In place of the paper's batch normalization, a learned scale and shift per feature
    follow each layer; they are the same in training and in scoring.

    Parameters
    ----------
    n_transforms : int
        Number of layers.
    hidden_sizes : tuple of int
        Widths of the hidden layers of each layer's network.
    direction : {"density", "sample"}
        The direction that takes a single pass of the networks. ``"density"`` trains and scores
        fast. ``"sample"`` samples fast and trains slowly, since every training step inverts the
        flow feature by feature; it is meant for :func:`densekit.distill`, which trains on the
        model's own samples.
    activation : str
        Activation of the networks.

    Notes
    -----
    Events are vectors of shape (D,); images are flattened. The flow starts as the shrunken
    Gaussian of the rows if a table has fewer than 5,000 of them, and as the standard normal
    otherwise. Scores are exact on continuous columns. Integers, categories and pixels are
    dequantized, and their score is a lower bound. The conditional densities of a single layer are
    normal; several layers, or the splines of :class:`~densekit.NeuralSplineFlow`, make them more
    flexible. With a single column the density is normal, with a mean and a variance that depend on
    the context.

    References
    ----------
    G. Papamakarios, T. Pavlakou and I. Murray. Masked Autoregressive Flow for Density Estimation.
    NeurIPS 2017. https://arxiv.org/abs/1705.07057

    D. P. Kingma, T. Salimans, R. Jozefowicz, X. Chen, I. Sutskever and M. Welling. Improved
    Variational Inference with Inverse Autoregressive Flow. NeurIPS 2016.
    https://arxiv.org/abs/1606.04934

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(64, 2))
    >>> flow = MaskedAutoregressiveFlow(n_transforms=2, hidden_sizes=(8,), max_steps=5).fit(X)
    >>> flow.sample(3).shape, flow.score_samples(X).shape
    ((3, 2), (64,))
    """

    n_transforms: Annotated[int, Interval(ge=1)] = 8
    hidden_sizes: Annotated[tuple[int, ...], Interval(ge=1)] = (128, 128)
    direction: Annotated[str, OneOf("density", "sample")] = "density"
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
        n_features = schema.n_dims
        n_context = 0 if context_schema is None else context_schema.n_features
        layers: list[ColumnTransform] = []
        for i in range(self.n_transforms):
            net = (self.hidden_sizes, n_context, i % 2 == 1, self.activation)
            layer: ColumnTransform = AutoregressiveTransform(n_features, AffineElement(), *net)
            if self.direction == "sample":
                layer = Inverse(layer)
            layers += [layer, Diagonal(n_features)]
        return FlowModule(Stack(layers))
