"""A model file to start from: copy it to the folder of its family and rename the class.

The test ``tests/test_template.py`` copies it to a package of its own and runs the contract suite on it.
"""

from typing import Annotated, ClassVar

from torch import nn

from densekit.base import Capabilities
from densekit.codecs.schema import Schema
from densekit.distributions.flow import FlowModule
from densekit.neural import NeuralDensity
from densekit.params import Interval
from densekit.transforms.columns import ColumnTransform, Stack
from densekit.transforms.linear import Diagonal, LULinear


class TemplateFlow(NeuralDensity):
    r"""A flow of linear layers, which is a normal distribution with any mean and covariance.

    .. math:: \log p(x) = \log N(Ax + b; 0, I) + \log |\det A|

    with A the product of ``n_transforms`` matrices in LU form and as many diagonal ones
    (`Kingma and Dhariwal 2018 <https://arxiv.org/abs/1807.03039>`_, section 3.2).

    Parameters
    ----------
    n_transforms : int
        Number of layers.

    Notes
    -----
    Events are vectors (D,). The score is exact on continuous columns; discrete entries are dequantized,
    and the score is then a lower bound.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(64, 2))
    >>> flow = TemplateFlow(n_transforms=1, max_steps=5).fit(X)
    >>> flow.sample(3).shape, flow.score_samples(X).shape
    ((3, 2), (64,))
    """

    n_transforms: Annotated[int, Interval(ge=1)] = 2

    _capabilities: ClassVar[Capabilities] = Capabilities(
        density="exact", view="relaxed", modalities=("table", "image"), weights=True
    )

    def _build(self, schema: Schema, context_schema: Schema | None) -> nn.Module:
        layers: list[ColumnTransform] = []
        for _ in range(self.n_transforms):
            layers += [LULinear(schema.n_dims), Diagonal(schema.n_dims)]
        return FlowModule(Stack(layers))
