"""Noise-conditional score network."""

import math
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from densekit.distributions.diffusion import Plan
from densekit.distributions.paths import Path, VarianceExploding
from densekit.distributions.samplers import SAMPLERS, Langevin
from densekit.nets.noise_conditional import NoiseConditionalMLP
from densekit.params import Interval, OneOf
from densekit.score.diffusion_density import DiffusionDensity


class NoiseConditionalScore(DiffusionDensity):
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

    The network v predicts the difference between the score and that of a white Gaussian, in the
    scaling of Karras et al. for data of variance one:

    .. math:: s(x, \sigma) = -\frac{v(x / \sqrt{1 + \sigma^2}, \sigma)}{\sigma \sqrt{1 + \sigma^2}}
              - \frac{x}{1 + \sigma^2}

    The events x are whitened by the training rows, so that noise is relative to the spread of the
    data in each direction. Otherwise the noise levels that some directions need would hide the
    differences of columns with a correlation of 0.99.

    **What a score is.** An *estimate* of the log-density at level ``sigma_min``, that is, of the
    data with noise of this size, by the probability-flow ODE. Its standard error covers the solver
    and, for events of more than 64 entries, the probes of the trace
    (:class:`~densekit.distributions.diffusion.Diffusion`). All rows share the probes, so averaging
    scores does not reduce the error. Densities that vary on scales below ``sigma_min`` are smoothed.
    Samples of the Langevin sampler follow the density of the ODE up to discretization.

    Parameters
    ----------
    n_fourier : int
        Random directions whose sines and cosines the network sees beside the rows.
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
    step_size : float, optional
        Step size divided by sigma squared, which is half of :math:`\epsilon / \sigma_L^2` in the
        paper. None takes the rule of the second paper (technique 4), by which the variance of a
        Gaussian narrower than the noise is right after the steps of a level; it is meant for
        ``predictor=False``.
    predictor : bool
        Take a step of the reverse diffusion to each next level, so that Langevin dynamics only
        correct it. Without it each level needs many times the steps.
    n_ode_steps : int
        Number of steps of the sampler "ode", by Heun's method.

    Notes
    -----
    Without a budget, training takes 4000 steps.

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
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    n_fourier: Annotated[int, Interval(ge=0)] = 32
    sigma_min: Annotated[float, Interval(gt=0, lt=1)] = 0.01
    sigma_max: Annotated[float, Interval(gt=1)] = 20.0
    sampler: Annotated[Literal["langevin", "ode"], OneOf("langevin", "ode")] = "langevin"
    n_levels: Annotated[int, Interval(ge=2)] = 48
    n_langevin_steps: Annotated[int, Interval(ge=1)] = 2
    step_size: Annotated[float, Interval(gt=0, lt=1)] | None = 0.3
    predictor: bool = True
    n_ode_steps: Annotated[int, Interval(ge=1)] = 24
    learning_rate: Annotated[float, Interval(gt=0)] = 4e-3
    ema_decay: Annotated[float, Interval(ge=0, lt=1)] = 0.995

    _default_steps: ClassVar[int] = 4000
    _at_once: ClassVar[tuple[str, ...]] = (
        "sampler",
        "n_levels",
        "n_langevin_steps",
        "step_size",
        "predictor",
        "n_ode_steps",
        "n_probes",
        "rtol",
    )
    _defaults_of_older_files: ClassVar[dict[str, Any]] = {"n_fourier": 0}

    def _path(self) -> Path:
        return VarianceExploding(self.sigma_min, self.sigma_max, width=None)

    def _plan(self) -> Plan:
        if self.sampler == "ode":
            return Plan(SAMPLERS["heun"], self.n_ode_steps, self.rtol)
        step_size = self.step_size
        if step_size is None:
            step_size = self._step_size()
        langevin = Langevin(self.n_langevin_steps, step_size, self.predictor)
        return Plan(langevin, self.n_levels - 1, self.rtol)

    def _step_size(self) -> float:
        """The step size for which the variance of a narrow Gaussian is right after the steps of each
        level (technique 4 of Song and Ermon 2020)."""
        gamma2 = (self.sigma_max / self.sigma_min) ** (2 / (self.n_levels - 1))
        eta = torch.linspace(1e-4, 0.999, 20_000, dtype=torch.float64)
        kept = (1 - eta) ** (2 * self.n_langevin_steps)
        fixed = 2 * eta / (1 - (1 - eta) ** 2)
        return float(eta[(kept * (gamma2 - fixed) + fixed - 1).abs().argmin()])

    def _network(self, shape: torch.Size, n_context: int) -> nn.Module:
        if self.network is not None:
            return self.network(shape, n_context)
        levels = self.sigma_min, self.sigma_max
        given = (shape.numel(), self.hidden_sizes, n_context, self.dropout, self.n_fourier)
        return NoiseConditionalMLP(*given, levels=levels)

    def _weight(self, path: Path, w: Tensor) -> Tensor | float:
        # The squared error of sigma times the score.
        return path.angle(w).cos() ** 2
