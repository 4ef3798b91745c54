r"""Diffusions given by their scores, sampled by Langevin dynamics and scored by an ODE.

Let :math:`p_\sigma` be the density of x plus noise :math:`N(0, \sigma^2 I)`, with the score
:math:`s(x, \sigma) = \nabla_x \log p_\sigma(x)`. The ordinary differential equation

.. math:: \frac{dx}{d\sigma} = -\sigma\, s(x, \sigma)

transports :math:`p_\sigma` to every other level. In terms of :math:`y = x / \sqrt{1 + \sigma^2}`
and :math:`t = \log \sigma` it is

.. math:: \frac{dy}{dt} = v(y, t) = -\frac{\sigma^2}{\sqrt{1 + \sigma^2}}
          \Big( s(x, \sigma) + \frac{x}{1 + \sigma^2} \Big).

The velocity v is zero for white Gaussian data. The change of variables gives the log-density

.. math:: \log p_{\sigma_{\min}}(x) = \log N(y_T; 0, I)
          + \int \mathrm{tr} \frac{\partial v}{\partial y}\, dt - \frac{D}{2} \log(1 + \sigma_{\min}^2).

References
----------
Y. Song and S. Ermon. Generative Modeling by Estimating Gradients of the Data Distribution. NeurIPS
2019. https://arxiv.org/abs/1907.05600

Y. Song et al. Score-Based Generative Modeling through Stochastic Differential Equations. ICLR
2021. https://arxiv.org/abs/2011.13456
"""

import functools
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.distributions import constraints

from densekit.distributions.montecarlo import MonteCarloDistribution
from densekit.transforms.whitening import Whitening

Score = Callable[[Tensor, Tensor, Tensor | None], Tensor]

_MAX_NETWORK_ROWS = 1 << 13
"""Largest number of rows times tangents that the network evaluates at once when scoring."""


@dataclass(frozen=True)
class NoiseSchedule:
    r"""Noise levels, and the steps of the samplers and the solver.

    Parameters
    ----------
    sigma_min, sigma_max : float
        Smallest and largest noise level, for data that are approximately white with variance one.
    n_levels, n_langevin_steps, step_size
        Annealed Langevin dynamics: number of geometric levels, steps per level, and the step size
        eta in :math:`x \leftarrow x + \eta \sigma^2 s + \sqrt{2 \eta}\, \sigma\, \epsilon`.
    predictor : bool
        Take a step of the reverse diffusion to each next level, so that Langevin dynamics only
        correct it (Song et al. 2021). Without it each level has to remove the additional noise of
        the level before, which takes many times the steps.
    n_ode_steps : int
        Number of ODE steps, equal in log sigma; even.
    sampler : {"langevin", "ode"}
        Algorithm of ``sample``.
    """

    sigma_min: float = 0.01
    sigma_max: float = 20.0
    n_levels: int = 48
    n_langevin_steps: int = 2
    step_size: float = 0.3
    predictor: bool = True
    n_ode_steps: int = 24
    sampler: Literal["langevin", "ode"] = "langevin"


class Diffusion(MonteCarloDistribution):
    r"""The distribution with given scores under noise.

    ``log_prob`` solves the ODE by the classical Runge-Kutta method on a fixed grid in log sigma
    and integrates the trace by the trapezoidal rule. An adaptive solver would choose its steps for
    the worst row of a batch, and a row's score would depend on the other rows. The trace is
    :math:`D / k \sum_i q_i^\top (\partial v / \partial y) q_i` with k orthonormal probes
    :math:`q_i`, which is unbiased for random probes (Hutchinson 1989) and exact for k = D.

    The standard error has two parts. That of the probes is the error of k draws without
    replacement from the D directions of a basis, :math:`D\, s_q \sqrt{(1 - k / D) / k}`, zero for
    k = D. That of the grid is a third of the change when every other node is left out
    (Richardson), because the Runge-Kutta method has order four and its error is smaller than that
    of the trapezoidal rule. The standard error does not include the error of the given scores.

    Parameters
    ----------
    score : callable
        From x (n, \*event_shape), sigma (1,) and context (n, n_context) or None to scores like x.
        Rows must be independent of each other.
    probes : Tensor of shape (k, D)
        Orthonormal rows, k at most D, shared by all rows and all calls.
    event_shape : torch.Size
    schedule : NoiseSchedule
    context : Tensor, optional
        (\*batch_shape, n_context).
    frame : Whitening, optional
        Whitening of events, to the coordinates of the noise and the scores.

    Examples
    --------
    The score of a Gaussian is -x / (1 + sigma^2). The density is that of x plus noise.

    >>> d = Diffusion(lambda x, sigma, _: -x / (1 + sigma**2), torch.eye(2), torch.Size([2]))
    >>> logp, error = d.log_prob_and_error(torch.zeros(2))
    >>> round(logp.item(), 3)
    -1.838
    """

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(
        self,
        score: Score,
        probes: Tensor,
        event_shape: torch.Size,
        schedule: NoiseSchedule = NoiseSchedule(),
        context: Tensor | None = None,
        frame: Whitening | None = None,
        batch_shape: torch.Size | None = None,
    ) -> None:
        self.score, self.probes, self.schedule = score, probes, schedule
        self.context, self.frame = context, frame
        if batch_shape is None:
            batch_shape = torch.Size() if context is None else context.shape[:-1]
        super().__init__(batch_shape, event_shape, validate_args=False)

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> constraints.Constraint:
        """All real events."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> "Diffusion":
        """The distribution with its batch shape expanded."""
        batch_shape, context = torch.Size(batch_shape), self.context
        if context is not None:
            context = context.expand(*batch_shape, context.shape[-1])
        return Diffusion(
            self.score,
            self.probes,
            self.event_shape,
            self.schedule,
            context,
            self.frame,
            batch_shape,
        )

    # Scores.

    def log_prob_and_error(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Log-density at the smallest noise level, and its standard error."""
        lead = value.shape[: value.ndim - len(self.event_shape)]
        shape = torch.broadcast_shapes(lead, self.batch_shape)
        rows = value.expand(*shape, *self.event_shape).reshape(-1, *self.event_shape)
        context = self._contexts(shape)
        step = max(1, _MAX_NETWORK_ROWS // (1 + len(self.probes)))
        parts = [
            self._integrate(rows[i : i + step], None if context is None else context[i : i + step])
            for i in range(0, len(rows), step)
        ]
        if not parts:
            return value.new_zeros(shape), value.new_zeros(shape)
        logp, error = (torch.cat(p).reshape(shape) for p in zip(*parts, strict=True))
        return logp, error

    def _integrate(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        schedule, d, k = self.schedule, self.probes.shape[1], len(self.probes)
        inside = x.isfinite().flatten(1).all(1)
        x = torch.where(inside.reshape(-1, *(1,) * (x.ndim - 1)), x, 0.0)
        t, h = _grid(schedule, x)
        x = x if self.frame is None else self.frame(x)
        y = x / math.sqrt(1 + schedule.sigma_min**2)
        slope, trace = self._velocity_and_traces(y, t[0], context)
        traces = [trace]
        for i in range(schedule.n_ode_steps):
            y = self._step(y, t[i], h, context, slope)
            slope, trace = self._velocity_and_traces(y, t[i + 1], context)
            traces.append(trace)
        fine, coarse = _trapezoid(traces, h), _trapezoid(traces[::2], 2 * h)
        logp = -0.5 * y.square().flatten(1).sum(1) + d * fine.mean(1)
        logp = logp - 0.5 * d * (math.log(2 * math.pi) + math.log1p(schedule.sigma_min**2))
        logp = logp if self.frame is None else logp + self.frame.log_det
        error = d / 3 * (fine - coarse).mean(1).abs()
        if k < d:
            error = torch.hypot(error, d * math.sqrt((1 - k / d) / k) * fine.std(1))
        return torch.where(inside, logp, -torch.inf), torch.where(inside, error, 0.0)

    def _velocity(self, y: Tensor, t: Tensor, context: Tensor | None) -> Tensor:
        sigma = t.exp()
        a = (1 + sigma**2).sqrt()
        return -(sigma**2) / a * (self.score(a * y, sigma.reshape(1), context) + y / a)

    def _velocity_and_traces(
        self, y: Tensor, t: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        r"""The velocity v (n, \*event_shape) and q' (dv/dy) q for each probe, (n, k)."""
        _load_forward_mode()

        def along(q: Tensor) -> tuple[Tensor, Tensor]:
            v, change = torch.func.jvp(  # type: ignore[misc]
                lambda y: self._velocity(y, t, context), (y,), (q.expand_as(y),)
            )
            return v, (change * q).flatten(1).sum(1)

        probes = self.probes.reshape(-1, *self.event_shape)
        # The velocity does not depend on the probe, so vmap computes it once.
        both = torch.func.vmap(along, out_dims=(None, 1))(probes)  # type: ignore[arg-type]
        v, traces = both
        return v, traces

    def _step(
        self, y: Tensor, t: Tensor, h: Tensor, context: Tensor | None, slope: Tensor | None = None
    ) -> Tensor:
        """One step of the classical Runge-Kutta method; ``slope`` is the velocity at y, if known."""
        a = self._velocity(y, t, context) if slope is None else slope
        b = self._velocity(y + h / 2 * a, t + h / 2, context)
        c = self._velocity(y + h / 2 * b, t + h / 2, context)
        d = self._velocity(y + h * c, t + h, context)
        return y + h / 6 * (a + 2 * b + 2 * c + d)

    # Samples.

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        r"""Samples (\*sample_shape, \*batch_shape, \*event_shape)."""
        shape = torch.Size([*sample_shape, *self.batch_shape])
        context = self._contexts(shape)
        noise = torch.randn(
            shape.numel(), *self.event_shape, dtype=self.probes.dtype, device=self.probes.device
        )
        draw = self._langevin if self.schedule.sampler == "langevin" else self._solve_backward
        x = draw(noise, context)
        x = x if self.frame is None else self.frame.inverse(x)
        return x.reshape(*shape, *self.event_shape)

    def _langevin(self, noise: Tensor, context: Tensor | None) -> Tensor:
        """Annealed Langevin dynamics, and a last step to the mean of x given what is left of the
        noise (Song & Ermon 2020, after Jolicoeur-Martineau et al.)."""
        plan = self.schedule
        x = math.sqrt(1 + plan.sigma_max**2) * noise
        ends = math.log(plan.sigma_max), math.log(plan.sigma_min)
        levels = torch.linspace(*ends, plan.n_levels, dtype=x.dtype, device=x.device).exp()

        def move(x: Tensor, sigma: Tensor, drift: Tensor, variance: Tensor) -> Tensor:
            s = self.score(x, sigma.reshape(1), context)
            return x + drift * s + variance.sqrt() * torch.randn_like(x)

        for above, sigma in zip([None, *levels], levels, strict=False):
            if above is not None and plan.predictor:
                fall = above**2 - sigma**2
                # Ho et al. (2020) give two variances of this step: fall for data much wider than the
                # noise, fall (sigma / above)^2 for data much narrower. This is their geometric mean.
                x = move(x, above, fall, fall * sigma / above)
            drift = plan.step_size * sigma**2
            for _ in range(plan.n_langevin_steps):
                x = move(x, sigma, drift, 2 * drift)
        return x + sigma**2 * self.score(x, sigma.reshape(1), context)

    def _solve_backward(self, y: Tensor, context: Tensor | None) -> Tensor:
        """Solve the ODE from the largest noise level to the smallest."""
        t, h = _grid(self.schedule, y)
        for i in range(self.schedule.n_ode_steps, 0, -1):
            y = self._step(y, t[i], -h, context)
        return math.sqrt(1 + self.schedule.sigma_min**2) * y

    def _contexts(self, shape: torch.Size) -> Tensor | None:
        """One context per row of a flattened batch of this shape, (n, n_context)."""
        if self.context is None:
            return None
        width = self.context.shape[-1]
        return self.context.expand(*shape, width).reshape(shape.numel(), width)


@functools.cache
def _load_forward_mode() -> None:
    """Take a first derivative in forward mode, for which torch imports a module that calls its own
    deprecated ``torch.jit.script``; the user can do nothing about that warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit.script", DeprecationWarning)
        torch.func.jvp(torch.sin, (torch.zeros(1),), (torch.ones(1),))


def _grid(plan: NoiseSchedule, like: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes of log sigma in ascending order, and their distance."""
    ends = math.log(plan.sigma_min), math.log(plan.sigma_max)
    t = torch.linspace(*ends, plan.n_ode_steps + 1, dtype=like.dtype, device=like.device)
    return t, (t[-1] - t[0]) / plan.n_ode_steps


def _trapezoid(values: list[Tensor], h: Tensor) -> Tensor:
    return h * (torch.stack(values[1:-1]).sum(0) + (values[0] + values[-1]) / 2)
