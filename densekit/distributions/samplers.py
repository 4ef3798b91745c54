r"""Samplers: from noise to data along a grid of times, given the velocity of a diffusion.

All take rows of standard normal noise y at the end of a path, a function v(y, w) for the velocity
(:mod:`densekit.distributions.predictions`), and a grid of solver times that falls from 1 to 0. They
return y at time 0. With the posterior means :math:`\hat x` and :math:`\hat\epsilon` at y, a step to the
angle :math:`\theta'` without new noise is

.. math:: y' = \cos\theta'\, \hat x + \sin\theta'\, \hat\epsilon
             = \cos(\theta' - \theta)\, y + \sin(\theta' - \theta)\, v,

which is the Euler step of the probability-flow ODE in the coordinates of every Gaussian path (DDIM).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from densekit.distributions.paths import Path

Velocity = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Grid:
    """Times at which a sampler evaluates the network.

    Parameters
    ----------
    times : Tensor of shape (n + 1,)
        Solver times from 1 to 0.
    angles : Tensor of shape (n + 1,)
        Their angles.
    """

    times: Tensor
    angles: Tensor

    @classmethod
    def of(cls, path: Path, n_steps: int, like: Tensor) -> "Grid":
        """The grid of a path with the dtype and device of a tensor.

        Examples
        --------
        >>> from densekit.distributions.paths import Cosine
        >>> Grid.of(Cosine(), 2, torch.zeros(1)).times.tolist()
        [1.0, 0.5, 0.0]
        """
        times = path.sampling_times(n_steps)
        return cls(times.to(like), path.angle(times).to(like))

    @property
    def n_steps(self) -> int:
        """Number of steps."""
        return len(self.times) - 1


def _rotate(y: Tensor, v: Tensor, step: Tensor) -> Tensor:
    return step.cos() * y + step.sin() * v


def euler(v: Velocity, y: Tensor, grid: Grid) -> Tensor:
    """Euler steps (DDIM), one evaluation each.

    J. Song, C. Meng and S. Ermon. Denoising Diffusion Implicit Models. ICLR 2021.
    https://arxiv.org/abs/2010.02502
    """
    for i in range(grid.n_steps):
        y = _rotate(y, v(y, grid.times[i]), grid.angles[i + 1] - grid.angles[i])
    return y


def heun(v: Velocity, y: Tensor, grid: Grid) -> Tensor:
    """Heun's steps: an Euler step, whose velocity is averaged with that at its end. Two evaluations.

    T. Karras, M. Aittala, T. Aila and S. Laine. Elucidating the Design Space of Diffusion-Based
    Generative Models. NeurIPS 2022. https://arxiv.org/abs/2206.00364
    """
    for i in range(grid.n_steps):
        step = grid.angles[i + 1] - grid.angles[i]
        first = v(y, grid.times[i])
        end = _rotate(y, first, step)
        # The velocity of a fixed pair of row and noise turns with the angle: it is turned back.
        second = _rotate(v(end, grid.times[i + 1]), end, step)
        y = _rotate(y, (first + second) / 2, step)
    return y


def dpm_solver(v: Velocity, y: Tensor, grid: Grid) -> Tensor:
    r"""DPM-Solver++(2M): steps of order two from the posterior means of two times, one evaluation each.

    With :math:`\lambda = \log(\cos\theta / \sin\theta)`, h its step and r the ratio of the step before
    to this one,

    .. math:: y' = \frac{\sin\theta'}{\sin\theta}\, y + \cos\theta'\, (1 - e^{-h})\, \bar x, \qquad
              \bar x = \hat x_i + \frac{1}{2 r} (\hat x_i - \hat x_{i - 1}).

    The first and the last step are of order one.

    C. Lu et al. DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models. 2022.
    https://arxiv.org/abs/2211.01095
    """
    cos, sin = grid.angles.cos(), grid.angles.sin()
    noise_to_signal = torch.log(sin.clamp_min(1e-12)) - torch.log(cos.clamp_min(1e-12))
    before = None
    for i in range(grid.n_steps):
        mean = cos[i] * y - sin[i] * v(y, grid.times[i])
        used = mean
        if before is not None and i < grid.n_steps - 1:
            last, now = noise_to_signal[i - 1 : i + 1].diff(), noise_to_signal[i : i + 2].diff()
            used = mean + 0.5 * now / last * (mean - before)
        keep = sin[i + 1] / sin[i]
        y = keep * y + (cos[i + 1] - cos[i] * keep) * used
        before = mean
    return y


def ancestral(v: Velocity, y: Tensor, grid: Grid) -> Tensor:
    r"""Draws of each step from the posterior given the mean of the data, one evaluation each.

    In the scale of the data, :math:`u = y / \cos\theta` with :math:`\rho = \tan\theta`,

    .. math:: u' \sim N\Big(\hat x + \frac{\rho'^2}{\rho^2} (u - \hat x),\;
              \frac{\rho'^2 (\rho^2 - \rho'^2)}{\rho^2} I\Big).

    J. Ho, A. Jain and P. Abbeel. Denoising Diffusion Probabilistic Models. NeurIPS 2020.
    https://arxiv.org/abs/2006.11239
    """
    cos, sin = grid.angles.cos(), grid.angles.sin()
    for i in range(grid.n_steps):
        velocity = v(y, grid.times[i])
        mean, noise = cos[i] * y - sin[i] * velocity, sin[i] * y + cos[i] * velocity
        # tan' / tan, written so that a right angle needs no limit.
        ratio = sin[i + 1] * cos[i] / (cos[i + 1] * sin[i])
        fresh = sin[i + 1] * (1 - ratio**2).clamp_min(0).sqrt()
        y = cos[i + 1] * mean + sin[i + 1] * ratio * noise + fresh * torch.randn_like(y)
    return y


@dataclass(frozen=True)
class Langevin:
    r"""Annealed Langevin dynamics: steps along the score at levels that fall.

    In the scale of the data, :math:`u = y / \cos\theta` with the noise level :math:`\rho`,

    .. math:: u \leftarrow u + \eta \rho^2 s(u, \rho) + \sqrt{2 \eta}\, \rho\, \epsilon.

    At the end each row is replaced by the mean of the data given it.

    Parameters
    ----------
    n_corrections : int
        Steps at each level.
    step_size : float
        :math:`\eta`, half of :math:`\epsilon / \sigma_L^2` in the paper.
    predictor : bool
        Take a step of the reverse diffusion to each next level, so that Langevin dynamics only correct
        it (Song et al. 2021). Without it each level has to remove the additional noise of the level
        before, which takes many times the steps.

    References
    ----------
    Y. Song and S. Ermon. Improved Techniques for Training Score-Based Generative Models. NeurIPS 2020.
    https://arxiv.org/abs/2006.09011

    Y. Song et al. Score-Based Generative Modeling through Stochastic Differential Equations. ICLR
    2021. https://arxiv.org/abs/2011.13456
    """

    n_corrections: int = 2
    step_size: float = 0.3
    predictor: bool = True

    def __call__(self, v: Velocity, y: Tensor, grid: Grid) -> Tensor:
        """Run over the times of a grid, all of which need a finite noise level."""
        cos, level = grid.angles.cos(), grid.angles.tan()
        finite = [i for i in range(len(level)) if 0 < level[i] < 1e4]
        u = y / cos[finite[0]]

        def noise_at(i: int) -> Tensor:
            """The mean of the noise given u, which is minus the score times the level."""
            at = cos[i] * u
            return grid.angles[i].sin() * at + cos[i] * v(at, grid.times[i])

        for j, i in enumerate(finite):
            if j and self.predictor:
                above = finite[j - 1]
                fall = level[above] ** 2 - level[i] ** 2
                # Ho et al. (2020) give two variances of this step: fall for data much wider than the
                # noise, fall (rho / above)^2 for data much narrower. This is their geometric mean.
                spread = (fall * level[i] / level[above]).sqrt()
                u = u - fall / level[above] * noise_at(above) + spread * torch.randn_like(u)
            for _ in range(self.n_corrections):
                spread = math.sqrt(2 * self.step_size) * level[i]
                drift = self.step_size * level[i] * noise_at(i)
                u = u - drift + spread * torch.randn_like(u)
        last = finite[-1]
        return cos[last] * (u - level[last] * noise_at(last))


SAMPLERS: dict[str, Callable[[Velocity, Tensor, Grid], Tensor]] = {
    "euler": euler,
    "heun": heun,
    "dpm": dpm_solver,
    "ancestral": ancestral,
    "predictor_corrector": Langevin(n_corrections=1),
    "langevin": Langevin(n_corrections=20, predictor=False),
}
"""Samplers by name."""
