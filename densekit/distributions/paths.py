r"""Noise paths: how the rows of the data turn into noise as time goes from 0 to 1.

A path mixes a row x with standard normal noise,

.. math:: x_t = \alpha(t)\, x + \sigma(t)\, \epsilon, \qquad 0 \le t \le 1.

Two paths with the same noise-to-signal ratio :math:`\rho = \sigma / \alpha` differ by a scale only.
All solvers therefore work in one coordinate system, in which data of variance one keep this variance:

.. math:: y = \frac{x_t}{\sqrt{\alpha^2 + \sigma^2}} = \cos\theta\, x + \sin\theta\, \epsilon,
          \qquad \theta = \arctan \rho.

References
----------
J. Song, C. Meng and S. Ermon. Denoising Diffusion Implicit Models. ICLR 2021.
https://arxiv.org/abs/2010.02502

C. Lu and Y. Song. Simplifying, Stabilizing and Scaling Continuous-Time Consistency Models. ICLR 2025.
https://arxiv.org/abs/2410.11081
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

_NOISE_ENOUGH = 4.0
"""Least noise-to-signal ratio at the end of a path: white data then differ from noise by a correlation
of 0.24."""


class Path(ABC):
    """A noise path. Abstract: a path says what alpha and sigma are, and inverts their ratio.

    ``start`` is the first time of training and of the solvers. The solvers' own time w, which the
    network sees too, runs from 0 to 1 like t. It is proportional to the logarithm of the
    noise-to-signal ratio where both ends of the ratio are finite and positive, and t otherwise.
    """

    start: float = 0.0
    logarithmic: bool = True

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Factor of the data at times t."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Standard deviation of the noise at times t."""

    @abstractmethod
    def time(self, ratio: Tensor) -> Tensor:
        """Times at which sigma / alpha is ``ratio``."""

    @property
    def ends(self) -> tuple[float, float]:
        """Noise-to-signal ratios at the first and the last time."""
        t = torch.tensor([self.start, 1.0], dtype=torch.float64)
        first, last = (self.sigma(t) / self.alpha(t)).tolist()
        return first, last

    def check(self) -> None:
        """Raise ValueError unless the path ends in noise and begins with less of it.

        Examples
        --------
        >>> VarianceExploding(sigma_max=2.0).check()
        Traceback (most recent call last):
        ValueError: VarianceExploding(sigma_min=0.004, sigma_max=2.0, ...) does not reach noise: ...
        """
        first, last = self.ends
        if not last >= _NOISE_ENOUGH:
            raise ValueError(
                f"{self} does not reach noise: at time 1 the ratio of noise to signal is {last:.3g}, "
                f"and draws start from noise alone; it must be at least {_NOISE_ENOUGH:g}"
            )
        if not 0 <= first < 0.5:
            raise ValueError(
                f"{self} does not begin with the data: at time {self.start:g} the ratio of noise to "
                f"signal is {first:.3g}, and must be less than 0.5"
            )

    def angle(self, w: Tensor) -> Tensor:
        """Angle theta at solver times w."""
        if self.logarithmic:
            first, last = self.ends
            return torch.atan(first * (last / first) ** w)
        return torch.atan2(self.sigma(w), self.alpha(w))

    def rate(self, w: Tensor) -> Tensor:
        """Derivative of the angle with respect to the solver time."""
        if self.logarithmic:
            first, last = self.ends
            ratio = first * (last / first) ** w
            return ratio / (1 + ratio**2) * math.log(last / first)
        return self._rate(w)

    def _rate(self, t: Tensor) -> Tensor:
        raise NotImplementedError

    def solver_time(self, t: Tensor) -> Tensor:
        """Solver times of times t."""
        if not self.logarithmic:
            return t
        first, last = self.ends
        return (self.sigma(t) / self.alpha(t) / first).log() / math.log(last / first)

    def training_times(self, u: Tensor) -> Tensor:
        """Solver times of training from uniform numbers u: uniform in t, unless a path differs."""
        return self.solver_time(self.start + (1 - self.start) * u)

    def sampling_times(self, n_steps: int) -> Tensor:
        """Solver times of a sampler, (n_steps + 1,), from 1 to 0: uniform in t, unless a path differs."""
        t = torch.linspace(1, self.start, n_steps + 1, dtype=torch.float64)
        return self.solver_time(t).clamp(0, 1)


@dataclass(frozen=True)
class VarianceExploding(Path):
    r"""The path :math:`x_t = x + \sigma(t)\, \epsilon` with geometric levels.

    .. math:: \sigma(t) = \sigma_{\min} (\sigma_{\max} / \sigma_{\min})^t

    Training draws :math:`\ln \sigma` from a normal distribution with mean ``focus`` and standard
    deviation ``width`` (Karras et al. 2022), or uniformly if ``width`` is None (Song and Ermon 2019).
    Samplers place their steps uniformly in :math:`\sigma^{1/7}`.

    References
    ----------
    Y. Song and S. Ermon. Generative Modeling by Estimating Gradients of the Data Distribution. NeurIPS
    2019. https://arxiv.org/abs/1907.05600

    T. Karras, M. Aittala, T. Aila and S. Laine. Elucidating the Design Space of Diffusion-Based
    Generative Models. NeurIPS 2022. https://arxiv.org/abs/2206.00364

    Examples
    --------
    >>> path = VarianceExploding(0.01, 100.0)
    >>> path.sigma(torch.tensor([0.0, 0.5, 1.0])).tolist()
    [0.009999999776482582, 1.0, 100.0]
    """

    sigma_min: float = 0.004
    sigma_max: float = 40.0
    focus: float = -1.4
    width: float | None = 1.4

    def alpha(self, t: Tensor) -> Tensor:
        """One."""
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        """Geometric levels."""
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t

    def time(self, ratio: Tensor) -> Tensor:
        """Times of levels."""
        return (ratio / self.sigma_min).log() / math.log(self.sigma_max / self.sigma_min)

    def training_times(self, u: Tensor) -> Tensor:
        """Solver times whose levels are log-normal, or uniform without a ``width``."""
        if self.width is None:
            return u
        normal = torch.special.ndtri(u.clamp(1e-6, 1 - 1e-6))
        return self.time((self.focus + self.width * normal).exp()).clamp(0, 1)

    def sampling_times(self, n_steps: int) -> Tensor:
        """Solver times that are uniform in the seventh root of sigma."""
        ends = self.sigma_max ** (1 / 7), self.sigma_min ** (1 / 7)
        return self.time(torch.linspace(*ends, n_steps + 1, dtype=torch.float64) ** 7).clamp(0, 1)


@dataclass(frozen=True)
class VariancePreserving(Path):
    r"""The path of denoising diffusion (DDPM) in continuous time, with a linear rate of noise.

    .. math:: \alpha(t) = \exp\Big(-\tfrac14 t^2 (\beta_1 - \beta_0) - \tfrac12 t \beta_0\Big), \qquad
              \sigma(t) = \sqrt{1 - \alpha(t)^2}

    References
    ----------
    J. Ho, A. Jain and P. Abbeel. Denoising Diffusion Probabilistic Models. NeurIPS 2020.
    https://arxiv.org/abs/2006.11239

    Y. Song et al. Score-Based Generative Modeling through Stochastic Differential Equations. ICLR
    2021. https://arxiv.org/abs/2011.13456

    Examples
    --------
    >>> path = VariancePreserving()
    >>> t = torch.tensor([0.2, 0.9], dtype=torch.float64)
    >>> bool(torch.allclose(path.time(path.sigma(t) / path.alpha(t)), t))
    True
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    start: float = 1e-3

    def alpha(self, t: Tensor) -> Tensor:
        """Exponential of minus half of the integral of the rate."""
        return (-0.25 * t**2 * (self.beta_max - self.beta_min) - 0.5 * t * self.beta_min).exp()

    def sigma(self, t: Tensor) -> Tensor:
        """The root of one minus alpha squared."""
        integral = 0.5 * t**2 * (self.beta_max - self.beta_min) + t * self.beta_min
        return (-torch.expm1(-integral)).sqrt()

    def time(self, ratio: Tensor) -> Tensor:
        """Times from the ratio: alpha is one over the root of one plus its square."""
        return self._time_of_alpha(0.5 * torch.log1p(ratio**2))

    def _time_of_alpha(self, minus_log: Tensor) -> Tensor:
        """The positive root of a quadratic equation for -log alpha."""
        a, b = 0.25 * (self.beta_max - self.beta_min), 0.5 * self.beta_min
        return 2 * minus_log / (b + (b**2 + 4 * a * minus_log).sqrt())


@dataclass(frozen=True)
class SubVariancePreserving(VariancePreserving):
    r"""The variance-preserving path with less noise, :math:`\sigma(t) = 1 - \alpha(t)^2`.

    References
    ----------
    Y. Song et al. Score-Based Generative Modeling through Stochastic Differential Equations. ICLR
    2021, section 3.4. https://arxiv.org/abs/2011.13456

    Examples
    --------
    >>> path, t = SubVariancePreserving(), torch.tensor([0.2, 0.9], dtype=torch.float64)
    >>> bool(torch.allclose(path.time(path.sigma(t) / path.alpha(t)), t))
    True
    """

    start: float = 1e-2

    def sigma(self, t: Tensor) -> Tensor:
        """One minus alpha squared."""
        integral = 0.5 * t**2 * (self.beta_max - self.beta_min) + t * self.beta_min
        return -torch.expm1(-integral)

    def time(self, ratio: Tensor) -> Tensor:
        """Times from the ratio: alpha solves alpha^2 + ratio alpha = 1."""
        alpha = 2 / (ratio + (ratio**2 + 4).sqrt())
        return self._time_of_alpha(-alpha.log())


@dataclass(frozen=True)
class Cosine(Path):
    r"""The path :math:`\alpha = \cos(\pi t / 2)`, :math:`\sigma = \sin(\pi t / 2)`.

    References
    ----------
    A. Nichol and P. Dhariwal. Improved Denoising Diffusion Probabilistic Models. ICML 2021.
    https://arxiv.org/abs/2102.09672

    T. Salimans and J. Ho. Progressive Distillation for Fast Sampling of Diffusion Models. ICLR 2022.
    https://arxiv.org/abs/2202.00512
    """

    start: float = 0.0
    logarithmic: bool = False

    def alpha(self, t: Tensor) -> Tensor:
        """The cosine of the angle."""
        return (0.5 * math.pi * t).cos().clamp_min(0)

    def sigma(self, t: Tensor) -> Tensor:
        """The sine of the angle."""
        return (0.5 * math.pi * t).sin()

    def time(self, ratio: Tensor) -> Tensor:
        """The angle in units of a right angle."""
        return ratio.atan() * 2 / math.pi

    def _rate(self, t: Tensor) -> Tensor:
        return torch.full_like(t, 0.5 * math.pi)


@dataclass(frozen=True)
class Rectified(Path):
    r"""The straight path :math:`x_t = (1 - t)\, x + t\, \epsilon` of flow matching.

    References
    ----------
    Y. Lipman, R. T. Q. Chen, H. Ben-Hamu, M. Nickel and M. Le. Flow Matching for Generative Modeling.
    ICLR 2023. https://arxiv.org/abs/2210.02747

    X. Liu, C. Gong and Q. Liu. Flow Straight and Fast: Learning to Generate and Transfer Data with
    Rectified Flow. ICLR 2023. https://arxiv.org/abs/2209.03003
    """

    start: float = 0.0
    logarithmic: bool = False

    def alpha(self, t: Tensor) -> Tensor:
        """One minus t."""
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        """The time t."""
        return t

    def time(self, ratio: Tensor) -> Tensor:
        """The ratio over one plus it."""
        return ratio / (1 + ratio)

    def _rate(self, t: Tensor) -> Tensor:
        return 1 / (t**2 + (1 - t) ** 2)


PATHS = {
    "variance_exploding": VarianceExploding,
    "variance_preserving": VariancePreserving,
    "sub_variance_preserving": SubVariancePreserving,
    "cosine": Cosine,
    "rectified": Rectified,
}
"""Paths by name."""
