"""FFJORD, a continuous normalizing flow."""

import copy
from typing import Annotated, ClassVar

from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from densekit.base import Capabilities, DensityKind
from densekit.codecs.schema import Schema
from densekit.distributions.flow import FlowDistribution, FlowModule
from densekit.distributions.montecarlo import resized
from densekit.distributions.ode import HutchinsonFlow, HutchinsonModule, random_signs
from densekit.nets.velocity import VelocityNet
from densekit.neural import NeuralDensity
from densekit.params import Interval
from densekit.transforms.ode import ContinuousTransform


class ContinuousFlow(NeuralDensity):
    r"""FFJORD, a continuous flow that maps data to noise by a learned differential equation.

    A network v gives the velocity of a row at time t. The solution is invertible because time can
    run backward, so the network needs no particular form:

    .. math:: y(0) = \operatorname{asinh}(x), \quad \frac{dy}{dt} = v(y, t, c), \quad z = \sinh(y(1))

    .. math:: \log p(x) = \log N(z; 0, I) + \int_0^1 \operatorname{tr} \frac{\partial v}{\partial y}\, dt
              + \sum_d \log \frac{\cosh y_d(1)}{\cosh y_d(0)}

    The function asinh barely changes values near zero. It compresses outliers, so that a bounded
    velocity can move them and everything stays finite. A Runge-Kutta method of order four
    (torchdiffeq) solves for y and for the integral, and gradients are those of its steps.

    **What the score is.** Up to ``exact_dims`` dimensions the trace is exact. The only error is
    then that of the solver, which is deterministic and falls as ``n_steps`` ** -4. On two moons it
    is 0.0002 nats per row on average and 0.002 at most among 5,000 rows, and the density
    integrates to 0.9999. In more dimensions the score is an *estimate*: Hutchinson's estimator
    with ``n_probes`` fixed probes, which comes with a standard error. All rows share the probes,
    so averaging scores does not reduce the error. If the velocity has one or two hidden layers,
    the exact trace costs less than a single probe in any dimension; training always uses it then,
    and a larger ``exact_dims`` makes the scores exact too.

    Parameters
    ----------
    hidden_sizes : tuple of int
        Widths of the hidden layers of the velocity network. With three or more layers the exact
        trace costs D times as much.
    n_steps : int
        Number of solver steps in training. The step times are random, so that the network cannot
        exploit the solver's errors. Scoring and sampling take twice as many steps, of equal
        length.
    exact_dims : int
        Largest number of dimensions for which scores use the exact trace.
    n_probes : int
        Number of probes of the trace in more dimensions.

    Notes
    -----
    Events are vectors of shape (D,); images are flattened. The flow starts as the shrunken
    Gaussian of the rows if a table has fewer than 5,000 of them, and as the standard normal
    otherwise. Sampling inverts the same discretized map that is scored, up to rounding, unless the
    velocity changes too fast for the step; a larger ``n_steps`` reduces this and every other error
    of the solver. Integers, categories and pixels are dequantized, and a score with the exact
    trace is then a lower bound.

    References
    ----------
    W. Grathwohl, R. T. Q. Chen, J. Bettencourt, I. Sutskever and D. Duvenaud. FFJORD: Free-form
    Continuous Dynamics for Scalable Reversible Generative Models. ICLR 2019.
    https://arxiv.org/abs/1810.01367

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(64, 2))
    >>> flow = ContinuousFlow(hidden_sizes=(8, 8), n_steps=4, max_steps=5).fit(X)
    >>> flow.sample(3).shape, flow.score_samples(X).shape, flow.density_kind_
    ((3, 2), (64,), 'exact')
    """

    hidden_sizes: Annotated[tuple[int, ...], Interval(ge=1)] = (64, 64)
    n_steps: Annotated[int, Interval(ge=1)] = 8
    exact_dims: Annotated[int, Interval(ge=0)] = 64
    n_probes: Annotated[int, Interval(ge=2)] = 16
    learning_rate: Annotated[float, Interval(gt=0)] = 5e-3

    _at_once: ClassVar[tuple[str, ...]] = ("n_steps", "n_probes")
    _capabilities: ClassVar[Capabilities] = Capabilities(
        density="exact",
        view="relaxed",
        modalities=("table", "image"),
        context="features",
        weights=True,
    )

    def _build(self, schema: Schema, context_schema: Schema | None) -> nn.Module:
        n_context = 0 if context_schema is None else context_schema.n_features
        velocity = VelocityNet(schema.n_dims, self.hidden_sizes, n_context)
        transform = ContinuousTransform(velocity, schema.n_dims, n_context, self.n_steps)
        if schema.n_dims <= self.exact_dims:
            return FlowModule(transform)
        return HutchinsonModule(transform, self.n_probes)

    def _distribution(self, context: Tensor | None) -> TorchDistribution:
        module = self.module_
        transform = copy.copy(module.transform)
        transform.n_steps = self.n_steps
        if not isinstance(module, HutchinsonModule):
            return FlowDistribution(transform, context, frame=module.frame)
        n_dims = transform.n_features
        probes = resized(module.probes.T, self.n_probes, lambda k: random_signs(k, n_dims)).T
        return HutchinsonFlow(transform, probes, context, module.frame)

    def _kind_of_scores(self, schema: Schema) -> DensityKind:
        # set_params may have changed the parameter since fit; the module still has the value of fit.
        built_with = vars(self).get("built_with_", {})
        exact_dims = built_with.get("exact_dims", self.exact_dims)
        return super()._kind_of_scores(schema) if schema.n_dims <= exact_dims else "estimate"
