"""Noise-conditional score networks."""

import math
from typing import Annotated, Any, ClassVar, Literal

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from densekit.base import Capabilities
from densekit.codecs.schema import Schema
from densekit.distributions.diffusion import Diffusion, NoiseSchedule
from densekit.distributions.montecarlo import grown
from densekit.nets.noise_conditional import NoiseConditionalMLP
from densekit.neural import NeuralDensity
from densekit.params import Interval, OneOf
from densekit.transforms.whitening import Whitening


class _ScoreModule(nn.Module):
    """The network, the frame it works in and the probes that score it."""

    probes: Tensor

    def __init__(self, net: nn.Module, n_dims: int, n_probes: int, schedule: NoiseSchedule):
        super().__init__()
        self.net, self.frame, self.schedule = net, Whitening(n_dims), schedule
        frame = torch.linalg.qr(torch.randn(n_dims, min(n_probes, n_dims)))[0].T
        self.register_buffer("probes", frame.contiguous())

    def score(self, x: Tensor, sigma: Tensor, context: Tensor | None) -> Tensor:
        """x (n, D) in the frame, sigma (n,) or (1,) to scores (n, D)."""
        variance = 1 + sigma[:, None] ** 2
        f = self.net(x * variance.rsqrt(), sigma, context)
        return f / (sigma[:, None] * variance.sqrt()) - x / variance

    def forward(
        self,
        context: Tensor | None = None,
        schedule: NoiseSchedule | None = None,
        n_probes: int | None = None,
    ) -> Diffusion:
        """The distribution of events (given each row of context), by the schedule and the number of
        probes that it was built with unless others are given."""
        size = torch.Size([self.probes.shape[1]])
        probes = self.probes if n_probes is None else self._frame_of(n_probes)
        return Diffusion(self.score, probes, size, schedule or self.schedule, context, self.frame)

    def _frame_of(self, n_probes: int) -> Tensor:
        """Orthonormal rows; more than there are complete the frame at random."""
        k, n_dims = self.probes.shape

        def draw(more: int) -> Tensor:
            known = self.probes.T.double().cpu()
            frame = torch.linalg.qr(torch.cat([known, torch.randn(n_dims, more).double()], 1))[0]
            return frame[:, k:].T

        return grown(self.probes, min(n_probes, n_dims), draw)


class NoiseConditionalScore(NeuralDensity):
    r"""A network that knows the gradient of the log-density at every level of noise.

    .. math:: L = \tfrac12\, E_\sigma\, \sigma^2\, E_{x, \tilde x \sim N(x, \sigma^2 I)}
              \Big\| s(\tilde x, \sigma) + \frac{\tilde x - x}{\sigma^2} \Big\|^2

    is least where :math:`s(x, \sigma) = \nabla \log p_\sigma(x)`, the score of the data with noise
    (denoising score matching, Vincent 2011). Draws start at the greatest level and follow the scores
    by Langevin dynamics while the level falls. :math:`\log \sigma` is uniform (stratified over the
    batch) between ``sigma_min`` and ``sigma_max``: the geometric levels of the paper, made
    continuous for the differential equation behind the score. With them the paper's weight
    :math:`\sigma^2` is the one under which :math:`L \log(\sigma_{\max} / \sigma_{\min})` bounds the
    negative log-likelihood up to a constant (Song, Durkan, Murray & Ermon 2021), so the held-out
    loss ranks weights as a likelihood would.

    The network F predicts the part of the score that a white Gaussian does not explain (the scaling
    of Karras et al. 2022, for data of variance one):

    .. math:: s(x, \sigma) = \frac{F(x / \sqrt{1 + \sigma^2}, \sigma)}{\sigma \sqrt{1 + \sigma^2}}
              - \frac{x}{1 + \sigma^2}

    and x is whitened by the training rows, so that noise is measured by the data's own spread in each
    direction: without it columns that correlate at 0.99 are drowned at levels that others need.

    **What a score is.** An *estimate* of the log-density at level ``sigma_min``, that is of the data
    plus noise of that share of their spread, by the probability-flow ODE (Song et al. 2021). Its
    standard error covers the probes of the trace and the grid of the solver
    (:class:`~densekit.distributions.diffusion.Diffusion`); all rows share the probes, so it does not
    shrink when scores are averaged. Density that is not smooth at ``sigma_min`` is smoothed, and draws
    of the Langevin sampler agree with the ODE's density only up to discretization.

    Parameters
    ----------
    hidden_sizes : tuple of int
        Widths of the layers of the network.
    dropout : float
        Probability with which a hidden unit is left out while training. Hundreds of rows need it.
    sigma_min : float
        Least noise level, in units of the whitened data.
    sigma_max : float
        Greatest noise level, in the same units.
    sampler : {"langevin", "ode"}
        Annealed Langevin dynamics, or the ODE backwards: faster, and from the very density that is
        scored.
    n_levels : int
        Levels of the Langevin sampler.
    n_langevin_steps : int
        Its steps at each level.
    step_size : float
        Their size over sigma squared: half the :math:`\epsilon / \sigma_L^2` of the paper.
    predictor : bool
        Whether a fall to the next level first removes noise by the reverse of the diffusion, so that
        Langevin dynamics only corrects (Song et al. 2021). Without it a level takes many times the
        steps.
    n_ode_steps : int
        Steps of the ODE solver; even.
    n_probes : int
        Directions along which the trace of the score's Jacobian is taken. Where an event has no
        more entries than this the trace is exact.
    max_steps : int, optional
        None takes 3000 steps, unless ``max_epochs`` or ``max_time`` is given.

    References
    ----------
    Song & Ermon 2019, "Generative modeling by estimating gradients of the data distribution"; 2020,
    "Improved techniques for training score-based generative models" (EMA, levels, last denoising).

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(5.0, 2.0, size=(200, 1))
    >>> est = NoiseConditionalScore(hidden_sizes=(16,), max_steps=50, random_state=0).fit(X)
    >>> est.sample(3, random_state=0).shape, est.density_kind_
    ((3, 1), 'estimate')
    """

    hidden_sizes: Annotated[tuple[int, ...], Interval(ge=1)] = (128, 128, 128)
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.1
    sigma_min: Annotated[float, Interval(gt=0, lt=1)] = 0.01
    sigma_max: Annotated[float, Interval(gt=1)] = 20.0
    sampler: Annotated[Literal["langevin", "ode"], OneOf("langevin", "ode")] = "langevin"
    n_levels: Annotated[int, Interval(ge=2)] = 48
    n_langevin_steps: Annotated[int, Interval(ge=1)] = 2
    step_size: Annotated[float, Interval(gt=0, lt=1)] = 0.3
    predictor: bool = True
    n_ode_steps: Annotated[int, Interval(ge=4)] = 24
    n_probes: Annotated[int, Interval(ge=2)] = 16
    learning_rate: Annotated[float, Interval(gt=0)] = 4e-3
    ema_decay: Annotated[float, Interval(ge=0, lt=1)] = 0.995
    dequantization_draws: Annotated[int, Interval(ge=2)] = 4

    _default_steps: ClassVar[int] = 3000
    _at_once: ClassVar[tuple[str, ...]] = (
        "sampler",
        "n_levels",
        "n_langevin_steps",
        "step_size",
        "predictor",
        "n_ode_steps",
        "n_probes",
    )
    _capabilities: ClassVar[Capabilities] = Capabilities(
        density="estimate",
        view="relaxed",
        modalities=("table", "image"),
        context="features",
        flat=True,
        sample_batch=1024,
        weights=True,
    )

    def _schedule(self) -> NoiseSchedule:
        return NoiseSchedule(
            sigma_min=self.sigma_min,
            sigma_max=self.sigma_max,
            n_levels=self.n_levels,
            n_langevin_steps=self.n_langevin_steps,
            step_size=self.step_size,
            predictor=self.predictor,
            n_ode_steps=2 * math.ceil(self.n_ode_steps / 2),
            sampler=self.sampler,
        )

    def _build(self, schema: Schema, context_schema: Schema | None) -> nn.Module:
        n_context = 0 if context_schema is None else context_schema.n_features
        net = NoiseConditionalMLP(schema.n_dims, self.hidden_sizes, n_context, self.dropout)
        return _ScoreModule(net, schema.n_dims, self.n_probes, self._schedule())

    def _distribution(self, context: Tensor | None) -> TorchDistribution:
        return self.module_(context, self._schedule(), self.n_probes)

    def _begin_as(
        self, module: Any, rows: Tensor, context: Tensor | None, weights: Tensor | None
    ) -> None:
        module.frame.fit(rows, weights=weights)

    def _loss(self, module: Any, events: Tensor, context: Tensor | None) -> Tensor:
        assert isinstance(module, _ScoreModule)
        rows = len(events)
        if not module.training:
            # A few held-out rows meet many levels, so that their loss is worth comparing.
            copies = math.ceil(1024 / rows)
            events = events.repeat(copies, 1)
            context = None if context is None else context.repeat(copies, 1)
        with torch.autocast(events.device.type, enabled=False):
            # Eight bits of x would be as coarse as the least noise.
            x = module.frame(events)
        n = len(x)
        u = (torch.arange(n, device=x.device, dtype=x.dtype) + torch.rand_like(x[:, 0])) / n
        sigma = (
            self.sigma_min
            * (self.sigma_max / self.sigma_min) ** u[torch.randperm(n, device=x.device)]
        )
        noise = torch.randn_like(x)
        score = module.score(x + sigma[:, None] * noise, sigma, context)
        loss = 0.5 * (sigma[:, None] * score + noise).square().sum(1)
        return loss if n == rows else loss.view(-1, rows).mean(0)
