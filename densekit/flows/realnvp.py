"""RealNVP: affine coupling."""

from typing import Annotated, ClassVar

from torch import nn

from densekit.base import Capabilities
from densekit.codecs.schema import Schema
from densekit.distributions.flow import FlowModule
from densekit.nets.mlp import ACTIVATIONS
from densekit.neural import NeuralDensity
from densekit.params import Interval, OneOf
from densekit.transforms.affine import AffineElement
from densekit.transforms.columns import ColumnTransform, Stack
from densekit.transforms.coupling import CouplingTransform, binary_split
from densekit.transforms.linear import Diagonal


class RealNVP(NeuralDensity):
    r"""RealNVP: layers that scale and shift one half of the features as the other half says.

    Dinh, Sohl-Dickstein and Bengio, Density estimation using Real NVP (2017). With the features in
    halves A and B, which differ from layer to layer,

    .. math:: z_A = x_A, \qquad z_B = x_B\, e^{a(x_A, c)} + b(x_A, c), \qquad
              \log p(x) = \log N(z; 0, I) + \sum_{\text{layers}} \sum_B a

    and :math:`|a| < 1`. A scale and a shift per feature follow each layer, in the place of the paper's
    batch normalization: learned, and the same in training and in scoring.

    Parameters
    ----------
    n_transforms : int
        Number of layers; 2 log2(D) of them set each pair of features against each other.
    hidden_sizes : tuple of int
        Hidden layers of each layer's network.
    activation : str
        Activation of the networks.

    Notes
    -----
    Events are vectors (D,), images too. Untrained it is the shrunken Gaussian of a table of fewer
    than 5,000 rows, and else the standard normal. On continuous columns the score is exact;
    integers, codes and pixels are dequantized, and it is a lower bound. One column can only be
    scaled and shifted, by the context if there is one: a normal density.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(64, 2))
    >>> flow = RealNVP(n_transforms=2, hidden_sizes=(8,), max_steps=5).fit(X)
    >>> flow.sample(3).shape, flow.score_samples(X).shape
    ((3, 2), (64,))
    """

    n_transforms: Annotated[int, Interval(ge=1)] = 8
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
        layers: list[ColumnTransform] = []
        for i in range(self.n_transforms):
            kept = binary_split(schema.n_dims, i)
            element = AffineElement()
            layers += [
                CouplingTransform(kept, element, self.hidden_sizes, n_context, self.activation),
                Diagonal(schema.n_dims),
            ]
        return FlowModule(Stack(layers))
