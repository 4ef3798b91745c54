r"""Distributions given by a velocity under noise: draws by a sampler, densities by an ODE.

Let :math:`y = \cos\theta\, x + \sin\theta\, \epsilon` be a row with noise
(:mod:`densekit.distributions.paths`) and :math:`v(y, \theta) = E[\cos\theta\, \epsilon - \sin\theta\, x
\mid y]`. The probability-flow ODE

.. math:: \frac{dy}{d\theta} = v(y, \theta)

transports the density at one angle to that at every other. The velocity is zero for white Gaussian data.
The change of variables gives the log-density of the data with the noise of the smallest angle
:math:`\theta_0`,

.. math:: \log p(x) = \log N(y_1; 0, I)
          + \int_{\theta_0}^{\theta_1} \mathrm{tr} \frac{\partial v}{\partial y}\, d\theta
          + D \log \cos\theta_0, \qquad y_0 = \cos\theta_0\, x.

References
----------
Y. Song et al. Score-Based Generative Modeling through Stochastic Differential Equations. ICLR 2021.
https://arxiv.org/abs/2011.13456
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import constraints

from densekit.distributions.montecarlo import MonteCarloDistribution, resized
from densekit.distributions.paths import Path, VarianceExploding
from densekit.distributions.predictions import Prediction, velocity
from densekit.distributions.samplers import SAMPLERS, Grid
from densekit.transforms.whitening import Whitening

_MAX_NETWORK_ROWS = 1 << 13
"""Largest number of rows times tangents that the network evaluates at once when scoring."""
_FIRST_STEPS = 8
"""Solver steps of the first of at least three scores of a row."""


@dataclass(frozen=True)
class Plan:
    """How a diffusion is drawn from and scored.

    Parameters
    ----------
    sampler : callable
        One of :data:`~densekit.distributions.samplers.SAMPLERS`.
    n_steps : int
        Steps of the sampler.
    rtol : float
        Tolerance of a score, in nats per nat. The steps of a row are doubled until its error is at most
        ``rtol * max(1, abs(score))``.
    max_doublings : int
        How often the steps are doubled at most, beginning with 8.
    guidance : float
        Weight of the condition in classifier-free guidance; 1 has none.
    """

    sampler: Callable[..., Tensor] = field(default=SAMPLERS["heun"])
    n_steps: int = 32
    rtol: float = 1e-3
    max_doublings: int = 5
    guidance: float = 1.0


class Diffusion(MonteCarloDistribution):
    r"""The distribution of a diffusion with a given velocity.

    ``log_prob`` solves the ODE by the classical Runge-Kutta method on a grid of equal steps in solver
    time, and integrates the trace by Simpson's rule, both of order four. The steps of each row are
    doubled until its own error meets the tolerance: an adaptive solver would choose its steps for the
    worst row of a batch, and a row's score would depend on the other rows. The trace is
    :math:`D / k \sum_i q_i^\top (\partial v / \partial y) q_i` with k orthonormal probes :math:`q_i`,
    which is unbiased for random probes (Hutchinson 1989) and exact for k = D.

    The standard error has two parts. That of the solver is extrapolated from the last two changes
    :math:`\Delta_{m - 1}, \Delta_m` of the score: it is :math:`q\, |\Delta_m|` with :math:`q =
    |\Delta_m / \Delta_{m - 1}|` between 1/10 and 1/2, and at least :math:`|\Delta_{m - 1}| / 2000`. (A
    method of order four has q = 1/16 when its steps are short.) That of the probes is the error of k draws
    without replacement from the D directions of a basis, :math:`D\, s_q \sqrt{(1 - k / D) / k}`, zero
    for k = D. The standard error does not include the error of the velocity, which a network learned.

    Parameters
    ----------
    flow : callable
        From y (n, \*event_shape), solver times (1,) and context (n, n_context) or None to velocities
        like y. Rows must be independent of each other.
    path : Path
    probes : Tensor of shape (k, D)
        Orthonormal rows, k at most D, shared by all rows and all calls.
    event_shape : torch.Size
    plan : Plan
    context : Tensor, optional
        (\*batch_shape, n_context).
    frame : Whitening, optional
        Whitening of events, to the coordinates of the noise.

    Raises
    ------
    ValueError
        From ``log_prob``, if the ODE of a finite row diverges; the message names the time.

    Examples
    --------
    The velocity of white Gaussian data is zero, and the density is that of x plus noise.

    >>> d = Diffusion(lambda y, w, _: 0 * y, VarianceExploding(), torch.eye(2), torch.Size([2]))
    >>> logp, error = d.log_prob_and_error(torch.zeros(2))
    >>> round(logp.item(), 3)
    -1.838
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        flow: Callable[[Tensor, Tensor, Tensor | None], Tensor],
        path: Path,
        probes: Tensor,
        event_shape: torch.Size,
        plan: Plan = Plan(),
        context: Tensor | None = None,
        frame: Whitening | None = None,
        batch_shape: torch.Size | None = None,
    ) -> None:
        self.flow, self.path, self.probes, self.plan = flow, path, probes, plan
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
        given = (self.flow, self.path, self.probes, self.event_shape, self.plan)
        return Diffusion(*given, context, self.frame, batch_shape)

    # Scores.

    def log_prob_and_error(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Log-density at the smallest angle, and its standard error."""
        if self.plan.guidance != 1:
            raise ValueError(
                f"guidance={self.plan.guidance:g} changes the draws in a way that has no known density: "
                "set guidance=1 to score"
            )
        lead = value.shape[: value.ndim - len(self.event_shape)]
        shape = torch.broadcast_shapes(lead, self.batch_shape)
        rows = value.expand(*shape, *self.event_shape).reshape(-1, *self.event_shape)
        context = self._contexts(shape)
        step = max(1, _MAX_NETWORK_ROWS // (1 + len(self.probes)))
        parts = [
            self._score(rows[i : i + step], None if context is None else context[i : i + step])
            for i in range(0, len(rows), step)
        ]
        if not parts:
            return value.new_zeros(shape), value.new_zeros(shape)
        logp, error = (torch.cat(p).reshape(shape) for p in zip(*parts, strict=True))
        return logp, error

    def _score(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        inside = x.isfinite().flatten(1).all(1)
        x = torch.where(inside.reshape(-1, *(1,) * (x.ndim - 1)), x, 0.0)
        x = x if self.frame is None else self.frame(x)
        logp, error = self._refined(x, context)
        d = self.probes.shape[1]
        constant = d * math.log(math.cos(math.atan(self.path.ends[0])))
        constant = constant - 0.5 * d * math.log(2 * math.pi)
        logp = logp + constant + (0 if self.frame is None else self.frame.log_det)
        return torch.where(inside, logp, -torch.inf), torch.where(inside, error, 0.0)

    def _refined(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Scores of rows, less the constant, with as many steps as each row needs."""
        plan, n = self.plan, 2 * _FIRST_STEPS
        coarse, _ = self._integrate(x, context, _FIRST_STEPS)
        logp, spread = self._integrate(x, context, n)
        change = (logp - coarse).abs().detach()
        error = change / 4
        rows = torch.arange(len(x), device=x.device)
        for _ in range(2, plan.max_doublings + 1):
            n *= 2
            part = x[rows], None if context is None else context[rows]
            fine, spread_of_part = self._integrate(*part, n)
            moved = (fine - logp[rows]).abs().detach()
            # Two scores may agree by chance, so that the change before counts a little as well.
            gain = (moved / change[rows].clamp_min(1e-30)).clamp(0.1, 0.5)
            left = torch.maximum(moved * gain, change[rows] / 2000)
            logp, change = logp.index_put((rows,), fine), change.index_put((rows,), moved)
            error = error.index_put((rows,), left)
            spread = spread.index_put((rows,), spread_of_part)
            rows = rows[left > plan.rtol * logp[rows].detach().abs().clamp_min(1)]
            if not len(rows):
                break
        n_terms = x.flatten(1).square().sum(1) + self.probes.shape[1]
        rounding = 4 * torch.finfo(x.dtype).eps * n_terms.detach()
        return logp, torch.hypot(error + rounding, spread)

    def _integrate(
        self, x: Tensor, context: Tensor | None, n_steps: int
    ) -> tuple[Tensor, Tensor]:
        """The score less its constant, and the part of its error that comes from the probes, (n,)."""
        d, k = self.probes.shape[1], len(self.probes)
        w = torch.linspace(0, 1, n_steps + 1, dtype=x.dtype, device=x.device)
        h = 1.0 / n_steps
        y = math.cos(math.atan(self.path.ends[0])) * x
        slope, trace = self._rate_and_traces(y, w[0], context)
        total = trace
        for i in range(n_steps):
            y = self._step(y, w[i], h, context, slope)
            slope, trace = self._rate_and_traces(y, w[i + 1], context)
            weight = 1 if i == n_steps - 1 else 4 if i % 2 == 0 else 2
            total = total + weight * trace
        if not y.isfinite().all() or not total.isfinite().all():
            raise ValueError(
                f"the ODE of a density diverges between times 0 and 1 with {n_steps} steps (rtol="
                f"{self.plan.rtol:g}): the network is not trained, or the row lies too far from the data"
            )
        traces = total * h / 3
        logp = d * traces.mean(1) - 0.5 * y.square().flatten(1).sum(1)
        if k == d:
            return logp, torch.zeros_like(logp)
        return logp, d * math.sqrt((1 - k / d) / k) * traces.std(1)

    def _rate(self, y: Tensor, w: Tensor, context: Tensor | None) -> Tensor:
        return self.path.rate(w) * self.flow(y, w.reshape(1), context)

    def _rate_and_traces(
        self, y: Tensor, w: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        r"""The velocity (n, \*event_shape) in solver time, and q' (dv/dy) q for each probe, (n, k)."""

        def along(q: Tensor) -> tuple[Tensor, Tensor]:
            v, change = torch.func.jvp(  # type: ignore[misc]
                lambda y: self._rate(y, w, context), (y,), (q.expand_as(y),)
            )
            return v, (change * q).flatten(1).sum(1)

        probes = self.probes.reshape(-1, *self.event_shape)
        # The velocity does not depend on the probe, so vmap computes it once.
        both = torch.func.vmap(along, out_dims=(None, 1))(probes)  # type: ignore[arg-type]
        v, traces = both
        return v, traces

    def _step(
        self, y: Tensor, w: Tensor, h: float, context: Tensor | None, slope: Tensor
    ) -> Tensor:
        """One step of the classical Runge-Kutta method from y, where the velocity is ``slope``."""
        b = self._rate(y + h / 2 * slope, w + h / 2, context)
        c = self._rate(y + h / 2 * b, w + h / 2, context)
        d = self._rate(y + h * c, w + h, context)
        return y + h / 6 * (slope + 2 * b + 2 * c + d)

    # Samples.

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        r"""Samples (\*sample_shape, \*batch_shape, \*event_shape)."""
        shape = torch.Size([*sample_shape, *self.batch_shape])
        context, like = self._contexts(shape), self.probes
        y = torch.randn(
            shape.numel(), *self.event_shape, dtype=like.dtype, device=like.device
        )

        def flow(y: Tensor, w: Tensor) -> Tensor:
            return self.flow(y, w.reshape(1), context)

        y = self.plan.sampler(flow, y, Grid.of(self.path, self.plan.n_steps, like))
        x = y / math.cos(math.atan(self.path.ends[0]))
        x = x if self.frame is None else self.frame.inverse(x)
        return x.reshape(*shape, *self.event_shape)

    def _contexts(self, shape: torch.Size) -> Tensor | None:
        """One context per row of a flattened batch of this shape, (n, n_context)."""
        if self.context is None:
            return None
        width = self.context.shape[-1]
        return self.context.expand(*shape, width).reshape(shape.numel(), width)


class DiffusionModule(nn.Module):
    r"""A network, what it predicts, the whitening of its rows, and the probes of the scores.

    Parameters
    ----------
    net : nn.Module
        From y (n, \*event_shape), times (n,) or (1,) from 0 (data) to 1 (noise), and context (n,
        n_context) or None to an output like y.
    path : Path
    prediction : {"velocity", "noise", "data", "score"}
    event_shape : torch.Size
    n_probes : int
        Probes of the trace of an event with more than ``exact_dims`` entries.
    exact_dims : int
        Entries of an event up to which the trace is exact.
    whiten : bool
        Whether rows are whitened by :class:`~densekit.transforms.whitening.Whitening`. Images are not.
    """

    probes: Tensor
    prediction: Prediction

    def __init__(
        self,
        net: nn.Module,
        path: Path,
        prediction: Prediction,
        event_shape: torch.Size,
        n_probes: int,
        exact_dims: int = 64,
        whiten: bool = True,
    ) -> None:
        super().__init__()
        self.net, self.path, self.prediction = net, path, prediction
        self.event_shape, n_dims = event_shape, event_shape.numel()
        self.frame = Whitening(n_dims) if whiten else None
        k = n_dims if n_dims <= exact_dims else min(n_probes, n_dims)
        probes = torch.linalg.qr(torch.randn(n_dims, k))[0].T
        self.register_buffer("probes", probes.contiguous())

    def flow(self, y: Tensor, w: Tensor, context: Tensor | None) -> Tensor:
        """The velocity at y (n, \\*event_shape) and solver times w, (n,) or (1,)."""
        output = self.net(y, w, context)
        if self.prediction == "velocity":
            return output
        angle = self.path.angle(w).reshape(-1, *(1,) * (y.ndim - 1))
        return velocity(self.prediction, output, y, angle.cos(), angle.sin())

    def forward(self, context: Tensor | None = None, plan: Plan = Plan()) -> Diffusion:
        """Return the distribution of events given each row of the context."""
        flow = self.flow
        if plan.guidance != 1:

            def flow(y: Tensor, w: Tensor, context: Tensor | None) -> Tensor:
                return self._guided(y, w, context, plan.guidance)

        given = (flow, self.path, self.probes, self.event_shape, plan)
        return Diffusion(*given, context, self.frame)

    def _guided(self, y: Tensor, w: Tensor, context: Tensor | None, weight: float) -> Tensor:
        with_context, without = self.flow(y, w, context), self.flow(y, w, None)
        return without + weight * (with_context - without)

    def with_probes(self, n_probes: int) -> Tensor:
        """Orthonormal probes; additional ones complete the stored probes at random."""
        k, n_dims = self.probes.shape

        def draw(n_more: int) -> Tensor:
            known = self.probes.T.double().cpu()
            basis = torch.linalg.qr(torch.cat([known, torch.randn(n_dims, n_more).double()], 1))[0]
            return basis[:, k:].T

        return resized(self.probes, min(n_probes, n_dims), draw)
