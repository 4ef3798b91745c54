"""Noise-conditional score network."""

import math
from typing import Annotated, Any, ClassVar, Literal

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from densekit.base import Capabilities
from densekit.codecs.schema import Schema
from densekit.distributions.diffusion import Diffusion, NoiseSchedule
from densekit.distributions.montecarlo import resized
from densekit.nets.noise_conditional import NoiseConditionalMLP
from densekit.neural import NeuralDensity
from densekit.params import Interval, OneOf
from densekit.transforms.whitening import Whitening


class _ScoreModule(nn.Module):
    """The network, the whitening of its inputs, and the probes of its scores."""

    probes: Tensor

    def __init__(self, net: nn.Module, n_dims: int, n_probes: int, schedule: NoiseSchedule):
        super().__init__()
        self.net, self.frame, self.schedule = net, Whitening(n_dims), schedule
        probes = torch.linalg.qr(torch.randn(n_dims, min(n_probes, n_dims)))[0].T
        self.register_buffer("probes", probes.contiguous())

    def score(self, x: Tensor, sigma: Tensor, context: Tensor | None) -> Tensor:
        """Score (n, D) of whitened x (n, D) at noise levels sigma, (n,) or (1,)."""
        variance = 1 + sigma[:, None] ** 2
        output = self.net(x * variance.rsqrt(), sigma, context)
        return output / (sigma[:, None] * variance.sqrt()) - x / variance

    def forward(
        self,
        context: Tensor | None = None,
        schedule: NoiseSchedule | None = None,
        n_probes: int | None = None,
    ) -> Diffusion:
        """Return the distribution of events given each row of the context.

        ``schedule`` and ``n_probes`` replace those of the constructor.
        """
        size = torch.Size([self.probes.shape[1]])
        probes = self.probes if n_probes is None else self._probes_of(n_probes)
        return Diffusion(self.score, probes, size, schedule or self.schedule, context, self.frame)

    def _probes_of(self, n_probes: int) -> Tensor:
        """Orthonormal probes; additional ones complete the stored probes at random."""
        k, n_dims = self.probes.shape

        def draw(n_more: int) -> Tensor:
            known = self.probes.T.double().cpu()
            basis = torch.linalg.qr(torch.cat([known, torch.randn(n_dims, n_more).double()], 1))[0]
            return basis[:, k:].T

        return resized(self.probes, min(n_probes, n_dims), draw)


class NoiseConditionalScore(NeuralDensity):
    r"""Noise-conditional score network (NCSN), which learns the gradient of the log-density at all
    noise levels.

    A network s is trained by denoising score matching,

    .. math:: L = \tfrac12\, E_\sigma\, \sigma^2\, E_{x, \tilde x \sim N(x, \sigma^2 I)}
              \Big\| s(\tilde x, \sigma) + \frac{\tilde x - x}{\sigma^2} \Big\|^2

    which is minimal for :math:`s(x, \sigma) = \nabla \log p_\sigma(x)`, the score of the data with
    added noise. Sampling starts at the largest noise level and follows the scores by Langevin
    dynamics while the level decreases. In training :math:`\log \sigma` is uniform between
    ``sigma_min`` and ``sigma_max``, stratified over the batch. These are the geometric levels of
    the paper, made continuous for the differential equation that computes densities. With the
    weight :math:`\sigma^2` of the paper, :math:`L \log(\sigma_{\max} / \sigma_{\min})` then bounds
    the negative log-likelihood up to a constant (Song, Durkan, Murray and Ermon), so that the
    held-out loss ranks weights like a likelihood.

    The network F predicts the difference between the score and that of a white Gaussian, in the
    scaling of Karras et al. for data of variance one:

    .. math:: s(x, \sigma) = \frac{F(x / \sqrt{1 + \sigma^2}, \sigma)}{\sigma \sqrt{1 + \sigma^2}}
              - \frac{x}{1 + \sigma^2}

    The events x are whitened by the training rows, so that noise is relative to the spread of the
    data in each direction. Otherwise the noise levels that some directions need would hide the
    differences of columns with a correlation of 0.99.

    **What a score is.** An *estimate* of the log-density at level ``sigma_min``, that is, of the
    data with noise of this size, by the probability-flow ODE. Its standard error covers the probes
    of the trace and the grid of the solver (:class:`~densekit.distributions.diffusion.Diffusion`).
    All rows share the probes, so averaging scores does not reduce the error. Densities that vary
    on scales below ``sigma_min`` are smoothed. Samples of the Langevin sampler follow the density
    of the ODE up to discretization.

    Parameters
    ----------
    hidden_sizes : tuple of int
        Widths of the hidden layers of the network.
    dropout : float
        Probability with which training drops a hidden unit. Data of a few hundred rows need it.
    sigma_min : float
        Smallest noise level, in units of the whitened data.
    sigma_max : float
        Largest noise level, in the same units.
    sampler : {"langevin", "ode"}
        Annealed Langevin dynamics, or the reversed ODE, which is faster and samples from the
        density that is scored.
    n_levels : int
        Number of noise levels of the Langevin sampler.
    n_langevin_steps : int
        Number of Langevin steps at each level.
    step_size : float
        Step size divided by sigma squared, which is half of :math:`\epsilon / \sigma_L^2` in the
        paper.
    predictor : bool
        Take a step of the reverse diffusion to each next level, so that Langevin dynamics only
        correct it. Without it each level needs many times the steps.
    n_ode_steps : int
        Number of steps of the ODE solver, rounded up to an even number.
    n_probes : int
        Number of directions along which the trace of the Jacobian is computed. The trace is exact
        if an event has no more entries than this.

    Notes
    -----
    Without a budget, training takes 3000 steps.

    References
    ----------
    Y. Song and S. Ermon. Generative Modeling by Estimating Gradients of the Data Distribution.
    NeurIPS 2019. https://arxiv.org/abs/1907.05600

    Y. Song and S. Ermon. Improved Techniques for Training Score-Based Generative Models. NeurIPS
    2020. https://arxiv.org/abs/2006.09011

    Y. Song et al. Score-Based Generative Modeling through Stochastic Differential Equations. ICLR
    2021. https://arxiv.org/abs/2011.13456

    Y. Song, C. Durkan, I. Murray and S. Ermon. Maximum Likelihood Training of Score-Based
    Diffusion Models. NeurIPS 2021. https://arxiv.org/abs/2101.09258

    T. Karras, M. Aittala, T. Aila and S. Laine. Elucidating the Design Space of Diffusion-Based
    Generative Models. NeurIPS 2022. https://arxiv.org/abs/2206.00364

    P. Vincent. A Connection Between Score Matching and Denoising Autoencoders. Neural Computation,
    2011. https://doi.org/10.1162/NECO_a_00142

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
            # A small held-out set is repeated, so that its loss averages over enough noise levels.
            copies = math.ceil(1024 / rows)
            events = events.repeat(copies, 1)
            context = None if context is None else context.repeat(copies, 1)
        with torch.autocast(events.device.type, enabled=False):
            # The eight bits of bfloat16 would round x by as much as the smallest noise.
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
