"""Two-dimensional distributions with known density and entropy."""

import functools
import math
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from sklearn.utils import check_random_state

from densekit.datasets.base import Truth

__all__ = [
    "Banana",
    "Checkerboard",
    "EightGaussians",
    "GaussianGrid",
    "Pinwheel",
]

_LOG_2PI = math.log(2 * math.pi)


class Checkerboard(Truth):
    r"""Uniform on the eight black cells of a 4 by 4 board over :math:`[-2, 2)^2`.

    .. math::  p(x) = 1/8 \text{ where } \lfloor x_1 \rfloor + \lfloor x_2 \rfloor
               \text{ is even and } -2 \le x_1, x_2 < 2, \quad H = \log 8.

    Examples
    --------
    >>> Checkerboard().log_prob([[0.5, 0.5], [0.5, 1.5]]).round(4).tolist()
    [-2.0794, -inf]
    """

    n_dims = 2

    def log_prob(self, X: Any) -> np.ndarray:
        """Log-density in nats, (n,), for rows (n, 2); -inf on white cells and outside the board."""
        rows = self._rows(X)
        on_board = ((rows >= -2) & (rows < 2)).all(1)
        black = np.floor(rows).sum(1) % 2 == 0
        return np.where(on_board & black, -math.log(8), -math.inf)

    def sample(self, n_samples: int = 1, *, random_state: Any = None) -> np.ndarray:
        """Independent rows, (n_samples, 2)."""
        rng = check_random_state(random_state)
        row = rng.randint(4, size=n_samples)
        column = 2 * rng.randint(2, size=n_samples) + row % 2
        corner = np.stack([row, column], 1) - 2.0
        return corner + rng.uniform(size=(n_samples, 2))

    @property
    def entropy(self) -> float:
        """Differential entropy, log 8 nats."""
        return math.log(8)


class EightGaussians(Truth):
    r"""Eight round Gaussians with equal weights on a circle.

    .. math::  p(x) = \frac18 \sum_{k=0}^{7} N\!\left(x \mid
               r\,(\cos\tfrac{k\pi}{4}, \sin\tfrac{k\pi}{4}), \sigma^2 I\right).

    The defaults, :math:`r = 4 / \sqrt 2` and :math:`\sigma = 0.5 / \sqrt 2`, are those of the FFJORD
    paper. Papers on GANs use radius 2 and noise 0.02.

    Parameters
    ----------
    radius : float
        Radius :math:`r` of the circle, positive.
    noise : float
        The standard deviation :math:`\sigma`, positive.

    Raises
    ------
    ValueError
        ``radius`` or ``noise`` is not positive.

    References
    ----------
    Grathwohl et al. (2019), *FFJORD: Free-form continuous dynamics for scalable reversible generative
    models*, https://arxiv.org/abs/1810.01367

    Metz et al. (2017), *Unrolled generative adversarial networks*, https://arxiv.org/abs/1611.02163

    Examples
    --------
    Well-separated components add log 8 to the entropy of one of them:

    >>> gan = EightGaussians(radius=2.0, noise=0.02)
    >>> bool(np.isclose(gan.entropy, np.log(8) + np.log(2 * np.pi * np.e * 0.02**2)))
    True
    """

    n_dims = 2

    def __init__(self, radius: float = 4 / math.sqrt(2), noise: float = 0.5 / math.sqrt(2)):
        _require_positive(radius=radius, noise=noise)
        self.radius, self.noise = radius, noise

    @property
    def _centers(self) -> np.ndarray:
        angle = np.arange(8) * math.pi / 4
        return self.radius * np.stack([np.cos(angle), np.sin(angle)], 1)

    def log_prob(self, X: Any) -> np.ndarray:
        """Log-density in nats, (n,), for rows (n, 2)."""
        square = cdist(self._rows(X), self._centers, "sqeuclidean")
        constant = math.log(8) + _LOG_2PI + 2 * math.log(self.noise)
        return logsumexp(-square / (2 * self.noise**2), axis=1) - constant

    def sample(self, n_samples: int = 1, *, random_state: Any = None) -> np.ndarray:
        """Independent rows, (n_samples, 2)."""
        rng = check_random_state(random_state)
        center = self._centers[rng.randint(8, size=n_samples)]
        return center + self.noise * rng.normal(size=(n_samples, 2))

    @functools.cached_property
    def entropy(self) -> float:
        """Differential entropy in nats, by the trapezoidal rule, which is spectrally accurate here.

        The eight components contribute equally, so the rule needs to integrate over one only.
        """
        z, mass = _standard_normal_grid()
        return float(-(mass * self.log_prob(self._centers[0] + self.noise * z)).sum())


class GaussianGrid(Truth):
    r"""A 5 by 5 grid of round Gaussians with equal weights.

    .. math::  p(x) = \prod_{d=1}^{2} \frac15 \sum_{k=-2}^{2} N(x_d \mid k\,a, \sigma^2).

    The coordinates are independent. The defaults, spacing 2 and noise 0.05, are a common test of how
    many modes a GAN finds.

    Parameters
    ----------
    spacing : float
        Distance :math:`a` of neighboring centers, positive.
    noise : float
        The standard deviation :math:`\sigma`, positive.

    Raises
    ------
    ValueError
        ``spacing`` or ``noise`` is not positive.

    References
    ----------
    Lin et al. (2018), *PacGAN: The power of two samples in generative adversarial networks*,
    https://arxiv.org/abs/1712.04086

    Examples
    --------
    Well-separated components add log 25 to the entropy of one of them:

    >>> grid = GaussianGrid()
    >>> bool(np.isclose(grid.entropy, np.log(25) + np.log(2 * np.pi * np.e * 0.05**2)))
    True
    """

    n_dims = 2

    def __init__(self, spacing: float = 2.0, noise: float = 0.05):
        _require_positive(spacing=spacing, noise=noise)
        self.spacing, self.noise = spacing, noise

    @property
    def _centers(self) -> np.ndarray:
        return self.spacing * np.arange(-2.0, 3.0)

    def log_prob(self, X: Any) -> np.ndarray:
        """Log-density in nats, (n,), for rows (n, 2)."""
        return self._marginal(self._rows(X)).sum(1)

    def _marginal(self, x: np.ndarray) -> np.ndarray:
        z = (x[..., None] - self._centers) / self.noise
        return logsumexp(-(z**2) / 2, axis=-1) - math.log(5 * self.noise) - _LOG_2PI / 2

    def sample(self, n_samples: int = 1, *, random_state: Any = None) -> np.ndarray:
        """Independent rows, (n_samples, 2)."""
        rng = check_random_state(random_state)
        center = self._centers[rng.randint(5, size=(n_samples, 2))]
        return center + self.noise * rng.normal(size=(n_samples, 2))

    @functools.cached_property
    def entropy(self) -> float:
        """Differential entropy in nats, twice that of a coordinate.

        The trapezoidal rule around each center is spectrally accurate here.
        """
        step = 1 / 16
        z = np.arange(-10, 10, step)
        mass = np.exp(-(z**2) / 2 - _LOG_2PI / 2) * step / 5
        around = self._marginal(self._centers[:, None] + self.noise * z)
        return float(-2 * (mass * around).sum())


class Pinwheel(Truth):
    r"""Pinwheel: Gaussian arms around the origin, twisted by an angle that grows with the radius.

    A row starts as a Gaussian, :math:`f \sim N((1, 0), \mathrm{diag}(a^2, b^2))`, and is rotated about
    the origin by the angle of its arm plus the twist:

    .. math::  x = 2 R\!\left(\tfrac{2\pi k}{K} + c\,e^{|f|}\right) f, \qquad
               p(x) = \frac{1}{4K} \sum_{k=0}^{K-1}
               N\!\left(R\!\left(-\tfrac{2\pi k}{K} - c\,e^{r}\right) \tfrac{x}{2} \,\Big|\,
               (1, 0), \mathrm{diag}(a^2, b^2)\right), \quad r = |x| / 2.

    In the papers below, the twist depends on the first coordinate of :math:`f`. That map folds the
    plane, and the density has no closed form. The twist here depends on the radius, which is close to
    that coordinate on a thin arm. It preserves areas, so the density is exact and the entropy is that of
    the straight arms.

    Parameters
    ----------
    n_arms : int
        Number of arms :math:`K`, at least 1.
    radial, tangential : float
        Standard deviations :math:`a` along an arm and :math:`b` across it, positive.
    twist : float
        The rate :math:`c` of the twist; with 0 the arms are straight.

    Raises
    ------
    ValueError
        ``n_arms`` is below 1, or ``radial`` or ``tangential`` is not positive.

    References
    ----------
    Johnson et al. (2016), *Composing graphical models with neural networks for structured
    representations and fast inference*, https://arxiv.org/abs/1603.06277

    Grathwohl et al. (2019), *FFJORD: Free-form continuous dynamics for scalable reversible generative
    models*, https://arxiv.org/abs/1810.01367

    Examples
    --------
    >>> bent, straight = Pinwheel(), Pinwheel(twist=0.0)
    >>> bent.entropy == straight.entropy
    True
    """

    n_dims = 2

    def __init__(
        self,
        n_arms: int = 5,
        radial: float = 0.3,
        tangential: float = 0.1,
        twist: float = 0.25,
    ):
        if n_arms < 1:
            raise ValueError(f"n_arms={n_arms!r}: must be at least 1")
        _require_positive(radial=radial, tangential=tangential)
        self.n_arms, self.radial, self.tangential, self.twist = n_arms, radial, tangential, twist

    def log_prob(self, X: Any) -> np.ndarray:
        """Log-density in nats, (n,), for rows (n, 2)."""
        x = self._rows(X) / 2
        return self._log_prob_untwisted(_rotate(x, -self._twist_angle(x))) - math.log(4)

    def _twist_angle(self, f: np.ndarray) -> np.ndarray:
        """Angle of the twist of each row, (n,).

        The radius is clipped at 30, far outside the mass, to keep the angle finite. Any function of the
        radius preserves areas.
        """
        return self.twist * np.exp(np.minimum(np.hypot(f[:, 0], f[:, 1]), 30))

    def _log_prob_untwisted(self, f: np.ndarray) -> np.ndarray:
        """Log-density of the straight arms."""
        turns = 2 * math.pi * np.arange(self.n_arms) / self.n_arms
        arms = np.stack([_rotate(f, np.full(len(f), -turn)) for turn in turns], 1)
        z = (arms - (1.0, 0.0)) / (self.radial, self.tangential)
        constant = _LOG_2PI + math.log(self.n_arms * self.radial * self.tangential)
        return logsumexp(-(z**2).sum(2) / 2, axis=1) - constant

    def sample(self, n_samples: int = 1, *, random_state: Any = None) -> np.ndarray:
        """Independent rows, (n_samples, 2)."""
        rng = check_random_state(random_state)
        scale = np.array([self.radial, self.tangential])
        f = np.array([1.0, 0.0]) + scale * rng.normal(size=(n_samples, 2))
        turn = 2 * math.pi * rng.randint(self.n_arms, size=n_samples) / self.n_arms
        return 2 * _rotate(f, turn + self._twist_angle(f))

    @functools.cached_property
    def entropy(self) -> float:
        """Differential entropy in nats, by the trapezoidal rule, which is spectrally accurate here.

        All arms contribute equally, so the rule needs to integrate over one straight arm only.
        """
        z, mass = _standard_normal_grid()
        arm = np.array([1.0, 0.0]) + z * (self.radial, self.tangential)
        return float(math.log(4) - (mass * self._log_prob_untwisted(arm)).sum())


class Banana(Truth):
    r"""Banana: a Gaussian bent along a parabola.

    .. math::  x_1 \sim N(0, s^2), \quad
               x_2 \mid x_1 \sim N\!\left(b\,(s^2 - x_1^2), 1\right), \quad
               H = \log(2 \pi e\,s).

    The bend shifts :math:`x_2` by a function of :math:`x_1`. Its Jacobian is one, so the entropy is that
    of the Gaussian. The defaults are the strongly twisted target of the paper.

    Parameters
    ----------
    width : float
        The standard deviation :math:`s` of the first coordinate, positive.
    bend : float
        The curvature :math:`b`; with 0 the distribution is Gaussian.

    Raises
    ------
    ValueError
        ``width`` is not positive.

    References
    ----------
    Haario, Saksman and Tamminen (1999), *Adaptive proposal distribution for random walk Metropolis
    algorithm*, https://doi.org/10.1007/s001800050022

    Examples
    --------
    >>> banana = Banana(width=10.0, bend=0.1)
    >>> banana.log_prob([[0.0, 10.0], [10.0, 0.0]]).round(3).tolist()    # on the parabola
    [-4.14, -4.64]
    """

    n_dims = 2

    def __init__(self, width: float = 10.0, bend: float = 0.1):
        _require_positive(width=width)
        self.width, self.bend = width, bend

    def log_prob(self, X: Any) -> np.ndarray:
        """Log-density in nats, (n,), for rows (n, 2)."""
        x = self._rows(X)
        residual = x[:, 1] - self._ridge(x[:, 0])
        square = (x[:, 0] / self.width) ** 2 + residual**2
        return -square / 2 - _LOG_2PI - math.log(self.width)

    def _ridge(self, x: np.ndarray) -> np.ndarray:
        """Mean of the second coordinate given the first."""
        return self.bend * (self.width**2 - x**2)

    def sample(self, n_samples: int = 1, *, random_state: Any = None) -> np.ndarray:
        """Independent rows, (n_samples, 2)."""
        z = check_random_state(random_state).normal(size=(n_samples, 2))
        x = self.width * z[:, 0]
        return np.stack([x, self._ridge(x) + z[:, 1]], 1)

    @property
    def entropy(self) -> float:
        """Differential entropy, log(2 pi e width) nats."""
        return 1 + _LOG_2PI + math.log(self.width)


def _rotate(x: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Rows (n, 2) rotated counterclockwise by one angle each, (n,)."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([cos * x[:, 0] - sin * x[:, 1], sin * x[:, 0] + cos * x[:, 1]], 1)


def grid_points(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """All pairs of the coordinates ``x`` and ``y``, (len(x) * len(y), 2)."""
    return np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)


@functools.cache
def _standard_normal_grid() -> tuple[np.ndarray, np.ndarray]:
    """Nodes (n, 2) and masses (n,) of the trapezoidal rule for expectations under N(0, I).

    The nodes extend to ten standard deviations, beyond which the mass is below float64 precision.
    """
    step = 1 / 16
    z = grid_points(np.arange(-10, 10, step), np.arange(-10, 10, step))
    return z, np.exp(-(z**2).sum(1) / 2 - _LOG_2PI) * step**2


def _require_positive(**parameters: float) -> None:
    for name, value in parameters.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name}={value!r}: must be positive and finite")
