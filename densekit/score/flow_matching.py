"""Flow matching."""

from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from densekit.distributions.couplings import optimal_pairs
from densekit.distributions.diffusion import Plan
from densekit.distributions.paths import Path, Rectified
from densekit.distributions.samplers import SAMPLERS
from densekit.params import Interval, OneOf
from densekit.score.diffusion_density import DiffusionDensity


class FlowMatching(DiffusionDensity):
    r"""Flow matching: a velocity field that carries noise to data along straight paths.

    With rows x, noise :math:`\epsilon` and a uniform time t, a network learns the direction of the
    straight line between them,

    .. math:: x_t = (1 - t)\, x + t\, \epsilon, \qquad
              L = E \big\| V(x_t, t) - (\epsilon - x) \big\|^2,

    whose minimum is :math:`V(x_t, t) = E[\epsilon - x \mid x_t]`. The ODE :math:`dx_t / dt = V(x_t,
    t)` then carries the normal distribution at t = 1 to the data at t = 0. The network predicts the
    velocity of the same path at constant variance
    (:mod:`densekit.distributions.predictions`), with the weight that makes the loss the one above.

    **What a score is.** An *estimate* of the log-density by the ODE. Its standard error covers the
    solver and, for events of more than 64 entries, the probes of the trace
    (:class:`~densekit.distributions.diffusion.Diffusion`). It does not cover what the network has not
    learned. Samples follow the density that is scored, up to the steps of the sampler.

    Parameters
    ----------
    sampler : {"euler", "heun", "dpm"}
        How draws follow the ODE. "heun" evaluates the network twice in each step.
    n_steps : int
        Steps of the sampler.
    coupling : {"independent", "optimal_transport"}
        Which noise a row is paired with in training: any, or the one of the batch that minimizes the
        mean squared distance, which makes paths straighter. With a context only the former.

    Notes
    -----
    Without a budget, training takes 6000 steps.

    References
    ----------
    Y. Lipman, R. T. Q. Chen, H. Ben-Hamu, M. Nickel and M. Le. Flow Matching for Generative Modeling.
    ICLR 2023. https://arxiv.org/abs/2210.02747

    X. Liu, C. Gong and Q. Liu. Flow Straight and Fast: Learning to Generate and Transfer Data with
    Rectified Flow. ICLR 2023. https://arxiv.org/abs/2209.03003

    A. Tong et al. Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal
    Transport. TMLR 2024. https://arxiv.org/abs/2302.00482

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(5.0, 2.0, size=(200, 1))
    >>> est = FlowMatching(hidden_sizes=(16,), max_steps=50, random_state=0).fit(X)
    >>> est.sample(3, random_state=0).shape, est.density_kind_
    ((3, 1), 'estimate')
    """

    sampler: Annotated[Literal["euler", "heun", "dpm"], OneOf("euler", "heun", "dpm")] = "heun"
    n_steps: Annotated[int, Interval(ge=1)] = 24
    coupling: Annotated[
        Literal["independent", "optimal_transport"], OneOf("independent", "optimal_transport")
    ] = "independent"

    _at_once: ClassVar[tuple[str, ...]] = ("sampler", "n_steps", "rtol", "n_probes")

    def _path(self) -> Path:
        return Rectified()

    def _plan(self) -> Plan:
        return Plan(SAMPLERS[self.sampler], self.n_steps, self.rtol)

    def _weight(self, path: Path, w: Tensor) -> Tensor | float:
        # The error of the direction is that of the velocity at constant variance, divided by
        # alpha^2 + sigma^2, which is one over the rate.
        return path.rate(w)

    def _noise(self, x: Tensor, context: Tensor | None) -> Tensor:
        noise = torch.randn_like(x)
        if self.coupling == "independent":
            return noise
        if context is not None:
            raise ValueError(
                "coupling='optimal_transport' pairs rows with noise whatever their context, and the "
                "density given the context would be wrong: use coupling='independent'"
            )
        return noise[optimal_pairs(x, noise)]
