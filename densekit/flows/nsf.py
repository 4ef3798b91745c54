"""Neural spline flow."""

from typing import Annotated, Any, ClassVar

from torch import nn

from densekit.base import Capabilities
from densekit.codecs.schema import Schema
from densekit.distributions.flow import FlowModule
from densekit.nets.mlp import ACTIVATIONS
from densekit.neural import NeuralDensity
from densekit.params import Interval, OneOf
from densekit.transforms.autoregressive import AutoregressiveTransform
from densekit.transforms.circular import CircularSpline, ToCircle
from densekit.transforms.columns import ColumnTransform, Element, Inverse, Stack
from densekit.transforms.coupling import CouplingTransform, binary_split
from densekit.transforms.linear import LULinear
from densekit.transforms.mixed import Mixed
from densekit.transforms.spline import SplineElement

_MOST_MIXED = 100
"""Features that a matrix mixes where ``linear`` is None."""


class NeuralSplineFlow(NeuralDensity):
    r"""A neural spline flow: layers of rational-quadratic splines, each set by a network.

    Durkan, Bekasov, Murray and Papamakarios, Neural Spline Flows (2019). Data x become standard
    normal noise z in ``n_transforms`` layers; in each, feature d goes through a monotone spline whose
    knots are computed from other features,

    .. math::
        z_d = f(x_d;\ \theta_d(x_{<d}, c)) \quad\text{(autoregressive)}, \qquad
        z_B = f(x_B;\ \theta(x_A, c)) \quad\text{(coupling)}

    .. math:: \log p(x) = \log N(z; 0, I) + \sum_{\text{layers}} \sum_d \log f'(x_d)

    with the order of the features reversed from layer to layer, or the halves A and B exchanged.

    A column with ``support=("circle", low, high)`` is an angle, high and low one point (Rezende et
    al., Normalizing Flows on Tori and Spheres, 2020): its splines run round the circle
    (:class:`~densekit.transforms.circular.CircularSpline`), networks read its cosine and sine, and the
    density and its slope go on over the seam, in it and in all that depends on it.

    Parameters
    ----------
    n_transforms : int
        Number of layers.
    n_bins : int
        Bins of each spline, which has 3 ``n_bins`` - 1 parameters.
    hidden_sizes : tuple of int
        Hidden layers of each layer's network.
    coupling : bool
        Coupling layers: sampling is as fast as scoring, for somewhat less density per layer.
    tail_bound : float
        The splines act on [-tail_bound, tail_bound], in standard deviations of the data; beyond, a
        layer is the identity.
    linear : bool, optional
        A learned matrix (:class:`~densekit.transforms.linear.LULinear`) before each layer, which mixes
        the features, as the paper's tables have it; angles are left out of it. None does so for 100
        features at most: the steps of a matrix grow with their number, and those of 784 pixels
        were too long at the default learning rate.
    activation : str
        Activation of the networks, whose layers of equal width are joined by residual sums.
    dropout : float
        Probability with which a hidden unit is left out while training.

    Notes
    -----
    Events are vectors (D,), images too; batches are turned to (D, n) once for all layers. Untrained
    it is the shrunken Gaussian of a table of fewer than 5,000 rows, and else the standard normal.
    On continuous columns the score is exact; integers, codes and pixels are dequantized, and it is
    a lower bound. With a context it models p(x given context), and with one column and no context
    its layers are splines without a network's input.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(64, 2))
    >>> flow = NeuralSplineFlow(n_transforms=2, hidden_sizes=(8,), max_steps=5).fit(X)
    >>> flow.sample(3).shape, flow.score_samples(X).shape
    ((3, 2), (64,))
    """

    n_transforms: Annotated[int, Interval(ge=1)] = 5
    n_bins: Annotated[int, Interval(ge=2, le=500)] = 8
    hidden_sizes: Annotated[tuple[int, ...], Interval(ge=1)] = (128, 128)
    coupling: bool = False
    tail_bound: Annotated[float, Interval(gt=0)] = 5.0
    linear: bool | None = None
    activation: Annotated[str, OneOf(*sorted(ACTIVATIONS))] = "silu"
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    learning_rate: Annotated[float, Interval(gt=0)] = 3e-3
    weight_decay: Annotated[float, Interval(ge=0)] = 0.1

    _defaults_of_older_files: ClassVar[dict[str, Any]] = {"linear": False}
    _capabilities: ClassVar[Capabilities] = Capabilities(
        density="exact",
        view="relaxed",
        modalities=("table", "image"),
        context="features",
        weights=True,
    )

    def _build(self, schema: Schema, context_schema: Schema | None) -> nn.Module:
        n_context = 0 if context_schema is None else context_schema.n_features
        D, angles = schema.n_dims, {j: (c.loc, c.scale) for j, c in schema.circles.items()}
        layers: list[ColumnTransform] = []
        for i in range(self.n_transforms):
            if D <= _MOST_MIXED if self.linear is None else self.linear:
                layers.append(LULinear(D, tuple(angles)))
            layers.append(self._layer(i, D, n_context, tuple(angles)))
        if angles:
            normal = ToCircle(D, dict.fromkeys(angles, (0.0, 1.0)))
            layers = [ToCircle(D, angles), *layers, Inverse(normal)]
        return FlowModule(Stack(layers))

    def _layer(
        self, i: int, n_features: int, n_context: int, angles: tuple[int, ...]
    ) -> ColumnTransform:
        element: Element = SplineElement(self.n_bins, self.tail_bound)
        if angles:
            # Where each layer joins its ends at the start: evenly round, none on the seam of the data.
            circle = CircularSpline(self.n_bins, (2 * i + 1) / self.n_transforms)
            element = Mixed([circle if d in angles else element for d in range(n_features)])
        net = (element, self.hidden_sizes, n_context)
        rest = (self.activation, self.dropout, angles)
        if self.coupling:
            return CouplingTransform(binary_split(n_features, i), *net, *rest)
        return AutoregressiveTransform(n_features, *net, i % 2 == 1, *rest)
