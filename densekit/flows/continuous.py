"""FFJORD: a continuous flow."""

import copy
from typing import Annotated, ClassVar

from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from densekit.base import Capabilities, DensityKind
from densekit.codecs.schema import Schema
from densekit.distributions.flow import FlowDistribution, FlowModule
from densekit.distributions.montecarlo import grown
from densekit.distributions.ode import HutchinsonFlow, HutchinsonModule, random_signs
from densekit.nets.velocity import VelocityNet
from densekit.neural import NeuralDensity
from densekit.params import Interval
from densekit.transforms.ode import ContinuousTransform


class ContinuousFlow(NeuralDensity):
    r"""FFJORD: data become noise along the solution of a differential equation that is learned.

    Grathwohl, Chen, Bettencourt, Sutskever and Duvenaud, FFJORD: Free-form Continuous Dynamics for
    Scalable Reversible Generative Models (2019). A network v is the velocity, free in form since time
    makes it invertible,

    .. math:: y(0) = \operatorname{asinh}(x), \quad \frac{dy}{dt} = v(y, t, c), \quad z = \sinh(y(1))

    .. math:: \log p(x) = \log N(z; 0, I) + \int_0^1 \operatorname{tr} \frac{\partial v}{\partial y}\, dt
              + \sum_d \log \frac{\cosh y_d(1)}{\cosh y_d(0)}

    where asinh, which leaves numbers near zero alone, lets outliers move in proportion and keeps all
    finite. Place and integral go by Runge-Kutta's rule of order four (torchdiffeq), and the gradient
    back through its steps.

    **What a score is.** Up to ``exact_dims`` dimensions the trace is exact, and so is the score but for
    the error of the solver, which is no chance and falls with ``n_steps`` ** -4: on two moons 0.0002
    nats a row, 0.002 at worst among 5000, and a mass of 0.9999. In more dimensions the score is an
    *estimate* (Hutchinson's) by ``n_probes`` fixed probes, with its standard error; all rows share the
    probes, so that the error does not shrink when scores are averaged. With one or two hidden layers
    the exact trace costs the same in any dimension, less than a single probe, and training always
    uses it: raise ``exact_dims`` to have it in scores as well.

    Parameters
    ----------
    hidden_sizes : tuple of int
        Hidden layers of the velocity. With three or more the exact trace costs D times as much.
    n_steps : int
        Steps of the solver while training, at random places so that the network cannot learn their
        errors. Scores and draws take twice as many, of equal length.
    exact_dims : int
        The most dimensions in which the trace is exact.
    n_probes : int
        Probes of the trace beyond.

    Notes
    -----
    Events are vectors (D,), images too. Untrained it is the shrunken Gaussian of a table of fewer
    than 5,000 rows, and else the standard normal. A draw is the inverse of the very map that is
    scored, to rounding, unless the velocity changes too fast for the grid; a greater ``n_steps`` is
    the remedy, as it is of any error of the solver. Integers, codes and pixels are dequantized, and
    an exact score is a lower bound then.

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
        probes = grown(module.probes.T, self.n_probes, lambda k: random_signs(k, n_dims)).T
        return HutchinsonFlow(transform, probes, context, module.frame)

    def _kind_of_scores(self, schema: Schema) -> DensityKind:
        # A parameter may have been set since fit; the module is as it was then.
        built_with = vars(self).get("built_with_", {})
        exact_dims = built_with.get("exact_dims", self.exact_dims)
        return super()._kind_of_scores(schema) if schema.n_dims <= exact_dims else "estimate"
