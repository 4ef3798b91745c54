"""Diffusion model with a choice of path, prediction and sampler."""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from densekit.distributions.diffusion import Plan
from densekit.distributions.paths import PATHS, Path
from densekit.distributions.predictions import Prediction
from densekit.distributions.samplers import SAMPLERS
from densekit.params import Interval, OneOf
from densekit.score.diffusion_density import DiffusionDensity

PathName = Literal[
    "variance_exploding", "variance_preserving", "sub_variance_preserving", "cosine", "rectified"
]
SamplerName = Literal["euler", "heun", "dpm", "ancestral", "predictor_corrector", "langevin"]


class DiffusionModel(DiffusionDensity):
    r"""Diffusion model: a network that undoes noise, with a choice of path, prediction and sampler.

    A row x with noise :math:`\epsilon` is :math:`x_t = \alpha(t)\, x + \sigma(t)\, \epsilon`. A network
    learns from it, by the squared error, the row, the noise, or the combination of both that is the
    velocity of x_t at constant variance (:mod:`densekit.distributions.predictions`). Each of them gives
    the score :math:`\nabla \log p_t`, and with it the probability-flow ODE, whose solution is the
    density (:class:`~densekit.distributions.diffusion.Diffusion`).

    The defaults are those of Karras et al. (EDM) for whitened data: the variance-exploding path with
    log-normal levels in training, a preconditioned network, which for data of variance one predicts the
    velocity, and Heun's method.

    **What a score is.** An *estimate* of the log-density of the data with the noise of the first time
    of the path (``sigma_min`` on the variance-exploding path), by the ODE. Its standard error covers
    the solver and, for events of more than 64 entries, the probes of the trace. It does not cover what
    the network has not learned.

    **Guidance.** With a context, training hides it from a tenth of the rows. ``guidance=g`` then draws
    with the velocity :math:`v(y, \text{none}) + g\, (v(y, c) - v(y, \text{none}))`, which sharpens the
    condition for g > 1. Such draws have no known density: scoring is a ValueError until ``guidance=1``.

    Parameters
    ----------
    path : str or callable
        "variance_exploding", "variance_preserving", "sub_variance_preserving", "cosine", "rectified", or
        a function without arguments that returns a :class:`~densekit.distributions.paths.Path`.
    sigma_max : float
        Largest noise level of the variance-exploding path, in units of the whitened data.
    prediction : {"velocity", "noise", "data", "score"}
        What the network predicts.
    sampler : {"euler", "heun", "dpm", "ancestral", "predictor_corrector", "langevin"}
        How draws are made. The first three follow the ODE, so that draws have the density that is
        scored up to the steps. "heun" evaluates the network twice in each step, the last two once for
        each predictor and corrector step.
    n_steps : int
        Steps of the sampler.
    guidance : float
        Weight of the condition; 1 has no guidance. Other values need a context.

    Notes
    -----
    Without a budget, training takes 6000 steps.

    References
    ----------
    J. Ho, A. Jain and P. Abbeel. Denoising Diffusion Probabilistic Models. NeurIPS 2020.
    https://arxiv.org/abs/2006.11239

    Y. Song et al. Score-Based Generative Modeling through Stochastic Differential Equations. ICLR
    2021. https://arxiv.org/abs/2011.13456

    T. Karras, M. Aittala, T. Aila and S. Laine. Elucidating the Design Space of Diffusion-Based
    Generative Models. NeurIPS 2022. https://arxiv.org/abs/2206.00364

    J. Ho and T. Salimans. Classifier-Free Diffusion Guidance. 2022. https://arxiv.org/abs/2207.12598

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(5.0, 2.0, size=(200, 1))
    >>> est = DiffusionModel(hidden_sizes=(16,), max_steps=50, random_state=0).fit(X)
    >>> est.sample(3, random_state=0).shape, est.density_kind_
    ((3, 1), 'estimate')
    """

    path: Annotated[PathName | Callable[[], Path], OneOf(*PATHS)] = "variance_exploding"
    sigma_max: Annotated[float, Interval(gt=1)] = 40.0
    prediction: Annotated[Prediction, OneOf("velocity", "noise", "data", "score")] = "velocity"
    sampler: Annotated[SamplerName, OneOf(*SAMPLERS)] = "heun"
    n_steps: Annotated[int, Interval(ge=1)] = 24
    guidance: Annotated[float, Interval(ge=0)] = 1.0

    _at_once: ClassVar[tuple[str, ...]] = ("sampler", "n_steps", "rtol", "n_probes", "guidance")

    def _path(self) -> Path:
        if not isinstance(self.path, str):
            return self.path()
        options = {"sigma_max": self.sigma_max} if self.path == "variance_exploding" else {}
        return PATHS[self.path](**options)

    def _predicts(self) -> Prediction:
        return self.prediction

    def _plan(self) -> Plan:
        return Plan(SAMPLERS[self.sampler], self.n_steps, self.rtol, guidance=self.guidance)

    def _distribution(self, context: Tensor | None) -> Any:
        if self.guidance != 1 and context is None:
            raise ValueError(
                f"guidance={self.guidance:g} weighs the condition of each draw, and this model has no "
                "context: set guidance=1, or fit with context="
            )
        return super()._distribution(context)

    def _training_context(self, module: Any, context: Tensor | None) -> Tensor | None:
        if context is None or not module.training:
            return context
        hidden = torch.rand(len(context), 1, device=context.device) < 0.1
        return torch.where(hidden, torch.nan, context)
