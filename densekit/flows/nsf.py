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

_MAX_MIXED_FEATURES = 100
"""The largest number of features that a learned matrix mixes by default (``linear=None``)."""


class NeuralSplineFlow(NeuralDensity):
    r"""A neural spline flow: layers of rational-quadratic splines with learned knots.

    In each of the ``n_transforms`` layers every feature passes through a monotone spline f. A
    network computes the knots :math:`\theta` from other features and from the context c, either
    from all features before it or, with ``coupling=True``, from the other half of the features:

    .. math::
        z_d = f(x_d;\ \theta_d(x_{<d}, c)) \quad\text{(autoregressive)}, \qquad
        z_B = f(x_B;\ \theta(x_A, c)) \quad\text{(coupling)}

    .. math:: \log p(x) = \log N(z; 0, I) + \sum_{\text{layers}} \sum_d \log f'(x_d)

    The order of the features is reversed, or the halves A and B are exchanged, from layer to
    layer.

    A column with ``support=("circle", low, high)`` is an angle: ``low`` and ``high`` are the same
    point. Its splines are circular (:class:`~densekit.transforms.circular.CircularSpline`), and
    networks read its cosine and sine, so that the density and its slope are continuous at this
    point, in the angle and in every feature that depends on it.

    Parameters
    ----------
    n_transforms : int
        Number of layers.
    n_bins : int
        Number of bins of each spline, which has 3 ``n_bins`` - 1 parameters.
    hidden_sizes : tuple of int
        Widths of the hidden layers of each layer's network.
    coupling : bool
        Use coupling layers. Sampling is then as fast as scoring; the density per layer is slightly
        worse.
    tail_bound : float
        The splines act on [-tail_bound, tail_bound], in standard deviations of the data; outside a
        layer is the identity.
    linear : bool, optional
        Mix the features by a learned matrix (:class:`~densekit.transforms.linear.LULinear`) before
        each layer, as the paper does for tables. Angles are not mixed. None mixes up to 100
        features: the effect of an optimizer step on a matrix grows with the number of features,
        and for the 784 pixels of an image it is too large at the default learning rate.
    activation : str
        Activation of the networks. Hidden layers of equal width have residual connections.
    dropout : float
        Probability with which training drops a hidden unit.

    Notes
    -----
    Events are vectors of shape (D,); images are flattened. The flow starts as the shrunken
    Gaussian of the rows if a table has fewer than 5,000 of them, and as the standard normal
    otherwise. Scores are exact on continuous columns. Integers, categories and pixels are
    dequantized, and their score is a lower bound. With a context the model is the conditional
    density p(x | context). With one column and no context the knots are learned constants.

    References
    ----------
    C. Durkan, A. Bekasov, I. Murray and G. Papamakarios. Neural Spline Flows. NeurIPS 2019.
    https://arxiv.org/abs/1906.04032

    D. J. Rezende et al. Normalizing Flows on Tori and Spheres. ICML 2020.
    https://arxiv.org/abs/2002.02428

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
            if D <= _MAX_MIXED_FEATURES if self.linear is None else self.linear:
                layers.append(LULinear(D, tuple(angles)))
            layers.append(self._layer(i, D, n_context, tuple(angles)))
        if angles:
            angles_to_normal = ToCircle(D, dict.fromkeys(angles, (0.0, 1.0)))
            layers = [ToCircle(D, angles), *layers, Inverse(angles_to_normal)]
        return FlowModule(Stack(layers))

    def _layer(
        self, i: int, n_features: int, n_context: int, angles: tuple[int, ...]
    ) -> ColumnTransform:
        element: Element = SplineElement(self.n_bins, self.tail_bound)
        if angles:
            # At the start the layers close their circles at evenly spaced points, none of them at the
            # point where the data's interval closes.
            circle = CircularSpline(self.n_bins, (2 * i + 1) / self.n_transforms)
            element = Mixed([circle if d in angles else element for d in range(n_features)])
        spline_and_sizes = (element, self.hidden_sizes, n_context)
        network_options = (self.activation, self.dropout, angles)
        if self.coupling:
            return CouplingTransform(
                binary_split(n_features, i), *spline_and_sizes, *network_options
            )
        return AutoregressiveTransform(n_features, *spline_and_sizes, i % 2 == 1, *network_options)
