"""Masked and inverse autoregressive flow."""

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
    r"""A masked autoregressive flow: each feature scaled and shifted as the features before it say.

    Papamakarios, Pavlakou and Murray, Masked Autoregressive Flow for Density Estimation (2017). With
    ``direction="density"`` a layer takes data x to noise z in one pass of its network,

    .. math:: z_d = x_d\, e^{a_d(x_{<d}, c)} + b_d(x_{<d}, c), \qquad
              \log p(x) = \log N(z; 0, I) + \sum_{\text{layers}} \sum_d a_d

    and with ``direction="sample"`` noise to data in one pass, x and z exchanged: the inverse
    autoregressive flow of Kingma, Salimans, Jozefowicz, Chen, Sutskever and Welling (2016). The other
    way finds one feature after another. :math:`|a| < 1`; the order of the features is reversed from
    layer to layer, and a scale and a shift per feature follow each, in the place of the paper's batch
    normalization: learned, and the same in training and in scoring.

    Parameters
    ----------
    n_transforms : int
        Number of layers.
    hidden_sizes : tuple of int
        Hidden layers of each layer's network.
    direction : {"density", "sample"}
        Which way is one pass. ``"density"`` is for learning and scoring. ``"sample"`` draws at once and
        learns slowly, since every step finds the noise of its rows feature by feature: it is for
        :func:`densekit.distill`, which trains it on its own draws.
    activation : str
        Activation of the networks.

    Notes
    -----
    Events are vectors (D,), images too. Untrained it is the shrunken Gaussian of a table of fewer
    than 5,000 rows, and else the standard normal. On continuous columns the score is exact;
    integers, codes and pixels are dequantized, and it is a lower bound. Each conditional of one
    layer is normal: several layers, or splines (:class:`~densekit.NeuralSplineFlow`), make it
    anything else. One column can only be scaled and shifted, by the context if there is one.

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
