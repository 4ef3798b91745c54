"""RealNVP: a flow of affine coupling layers."""

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
    r"""RealNVP, a normalizing flow of affine coupling layers.

    Each layer splits the features into two halves A and B. It keeps A and scales and shifts B by
    amounts that a network computes from A and from the context c; the halves change from layer to
    layer:

    .. math:: z_A = x_A, \qquad z_B = x_B\, e^{a(x_A, c)} + b(x_A, c), \qquad
              \log p(x) = \log N(z; 0, I) + \sum_{\text{layers}} \sum_B a

    The log-scale is bounded, :math:`|a| < 1`. In place of the paper's batch normalization, a
    learned scale and shift per feature follow each layer; they are the same in training and in
    scoring.

    Parameters
    ----------
    n_transforms : int
        Number of layers. About 2 log2(D) layers let every pair of features interact.
    hidden_sizes : tuple of int
        Widths of the hidden layers of each layer's network.
    activation : str
        Activation of the networks.

    Notes
    -----
    Events are vectors of shape (D,); images are flattened. The flow starts as the shrunken
    Gaussian of the rows if a table has fewer than 5,000 of them, and as the standard normal
    otherwise. Scores are exact on continuous columns. Integers, categories and pixels are
    dequantized, and their score is a lower bound. With a single column no layer has another
    feature to depend on: the density is normal, with a mean and a variance that depend on the
    context.

    References
    ----------
    L. Dinh, J. Sohl-Dickstein and S. Bengio. Density estimation using Real NVP. ICLR 2017.
    https://arxiv.org/abs/1605.08803

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
            mask = binary_split(schema.n_dims, i)
            element = AffineElement()
            layers += [
                CouplingTransform(mask, element, self.hidden_sizes, n_context, self.activation),
                Diagonal(schema.n_dims),
            ]
        return FlowModule(Stack(layers))
