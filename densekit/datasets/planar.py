"""Distributions in the plane whose density and entropy are known; :mod:`toys` draws from them."""

import functools
import math
from abc import abstractmethod
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
    "Spirals",
    "TwoMoons",
]

_LOG_2PI = math.log(2 * math.pi)
_BLOCK = 1024
"""Rows scored at a time against all nodes of a quadrature."""


class _NoisyCurve(Truth):
    """Curves blurred by an isotropic Gaussian: the integral along them is a quadrature.

    The rule converges so fast that its error is that of float64 wherever the density is not
    itself negligible, as long as its nodes lie within about ``noise / 2`` of each other.
    """

    n_dims = 2
    noise: float

    def __init__(self, noise: float):
        if not noise >= 0.02:
            raise ValueError(f"noise={noise!r}: must be at least 0.02, where the quadrature holds")
        self.noise = noise

    @property
    @abstractmethod
    def _rule(self) -> tuple[np.ndarray, np.ndarray]:
        """Centers (n_nodes, 2) and log-weights (n_nodes,) of the quadrature."""

    def log_prob(self, X: Any) -> np.ndarray:
        """Log-density in nats, (n,), for rows (n, 2)."""
        rows = self._rows(X)
        centers, log_weight = self._rule
        constant = log_weight - _LOG_2PI - 2 * math.log(self.noise)
        out = np.empty(len(rows))
        for start in range(0, len(rows), _BLOCK):
            block = slice(start, start + _BLOCK)
            square = cdist(rows[block], centers, "sqeuclidean")
            terms = constant - square / (2 * self.noise**2)
            top = terms.max(1)
            out[block] = top + np.log(np.exp(terms - top[:, None]).sum(1))
        return out

    @functools.cached_property
    def entropy(self) -> float:
        """Differential entropy in nats, by the trapezoidal rule: spectrally accurate here."""
        step, margin = self.noise / 3, 8 * self.noise
        low, high = self._rule[0].min(0) - margin, self._rule[0].max(0) + margin
        x, y = (np.arange(a, b, step) for a, b in zip(low, high, strict=True))
        logp = self.log_prob(_grid(x, y))
        return float(-(np.exp(logp) * logp).sum() * step**2)


class TwoMoons(_NoisyCurve):
    r"""Two half circles with Gaussian noise, as scikit-learn's ``make_moons`` draws them.

    .. math::  p(x) = \frac{1}{2} \sum_{k=1}^{2} \frac{1}{\pi} \int_0^\pi
                      N(x \mid c_k(t), \sigma^2 I)\,dt, \quad
               c_1 = (\cos t, \sin t), \quad c_2 = (1 - \cos t, \tfrac12 - \sin t).

    The integral is taken by Gauss-Legendre quadrature; its error is that of float64 wherever the
    density is not itself negligible.

    Parameters
    ----------
    noise : float
        The standard deviation :math:`\sigma`, at least 0.02.

    Raises
    ------
    ValueError
        ``noise`` is below 0.02.

    Examples
    --------
    >>> moons = TwoMoons(noise=0.1)
    >>> X = moons.sample(3, random_state=0)
    >>> X.shape, moons.log_prob(X).shape
    ((3, 2), (3,))
    """

    def __init__(self, noise: float = 0.1):
        super().__init__(noise)

    @functools.cached_property
    def _rule(self) -> tuple[np.ndarray, np.ndarray]:
        n_nodes = max(64, math.ceil(20 / self.noise))
        t, w = np.polynomial.legendre.leggauss(n_nodes)
        return _arcs((t + 1) * math.pi / 2), np.log(np.tile(w / 4, 2))

    def sample(self, n_samples: int = 1, *, random_state: Any = None) -> np.ndarray:
        """Independent rows, (n_samples, 2)."""
        rng = check_random_state(random_state)
        t = rng.uniform(0, math.pi, n_samples)
        upper = rng.uniform(size=n_samples) < 0.5
        both = _arcs(t).reshape(2, n_samples, 2)
        return np.where(upper[:, None], both[0], both[1]) + self.noise * rng.normal(
            size=(n_samples, 2)
        )


class Spirals(_NoisyCurve):
    r"""Two interleaved Archimedean spirals of one and a half turns with Gaussian noise.

    .. math::  p(x) = \frac12 \sum_{s = \pm 1} \int_0^1
                      N\!\left(x \mid s\,c(3\pi\sqrt{u}), \sigma^2 I\right) du, \quad
               c(t) = \tfrac{t}{3} (-\cos t, \sin t).

    The spirals of the flow literature (Grathwohl et al. 2019) without the uniform jitter that
    their code adds before the Gaussian noise; the root spreads the rows evenly along the curve
    but near its middle. The integral is taken by Gauss-Legendre quadrature in :math:`\sqrt u`,
    panel by panel.

    Parameters
    ----------
    noise : float
        The standard deviation :math:`\sigma`, at least 0.02.

    Raises
    ------
    ValueError
        ``noise`` is below 0.02.

    Examples
    --------
    >>> spirals = Spirals()
    >>> X = spirals.sample(3, random_state=0)
    >>> bool(np.allclose(spirals.log_prob(X), spirals.log_prob(-X)))
    True
    """

    def __init__(self, noise: float = 0.1):
        super().__init__(noise)

    @functools.cached_property
    def _rule(self) -> tuple[np.ndarray, np.ndarray]:
        # The curve runs at most 30 units per unit of the root: each panel is at most 4 sigma long,
        # where twelve nodes of Gauss are exact to float64.
        n_panels = math.ceil(30 / (4 * self.noise))
        t, w = np.polynomial.legendre.leggauss(12)
        root = ((np.arange(n_panels)[:, None] + (t + 1) / 2) / n_panels).ravel()
        w = np.tile(w / n_panels, n_panels)
        # du = 2 root d(root); half of Gauss's length, and half of the rows on each arm.
        return _arms(3 * math.pi * root), np.log(np.tile(w * root / 2, 2))

    def sample(self, n_samples: int = 1, *, random_state: Any = None) -> np.ndarray:
        """Independent rows, (n_samples, 2)."""
        rng = check_random_state(random_state)
        t = 3 * math.pi * np.sqrt(rng.uniform(size=n_samples))
        side = rng.choice([-1.0, 1.0], size=n_samples)
        curve = side[:, None] * _arms(t)[:n_samples]
        return curve + self.noise * rng.normal(size=(n_samples, 2))


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
        """Log-density in nats, (n,), for rows (n, 2); -inf on white cells and off the board."""
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
        """log 8 nats."""
        return math.log(8)


class EightGaussians(Truth):
    r"""Eight round Gaussians with equal weights on a circle.

    .. math::  p(x) = \frac18 \sum_{k=0}^{7} N\!\left(x \mid
               r\,(\cos\tfrac{k\pi}{4}, \sin\tfrac{k\pi}{4}), \sigma^2 I\right).

    The defaults are the toy of Grathwohl et al. 2019, radius 4 and noise 1/2 over the root of 2.
    The GAN literature takes radius 2 and noise 0.02 (Metz et al. 2017).

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

    Examples
    --------
    >>> gan = EightGaussians(radius=2.0, noise=0.02)    # so far apart that the entropies add
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
        """Differential entropy in nats: all eight contribute alike, so the trapezoidal rule, which
        is spectrally accurate here, runs over one of them."""
        z, mass = _standard_normal_grid()
        return float(-(mass * self.log_prob(self._centers[0] + self.noise * z)).sum())


class GaussianGrid(Truth):
    r"""25 round Gaussians with equal weights on a square grid.

    .. math::  p(x) = \prod_{d=1}^{2} \frac15 \sum_{k=-2}^{2} N(x_d \mid k\,a, \sigma^2).

    The coordinates are independent. The defaults, spacing 2 and noise 0.05, are those on which GANs
    are asked how many modes they find (Lin et al. 2018).

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

    Examples
    --------
    >>> grid = GaussianGrid()    # so far apart that the entropies add
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
        """Differential entropy in nats: twice that of a coordinate, which is taken by the
        trapezoidal rule around each center, spectrally accurate here."""
        step = 1 / 16
        z = np.arange(-10, 10, step)
        mass = np.exp(-(z**2) / 2 - _LOG_2PI / 2) * step / 5
        around = self._marginal(self._centers[:, None] + self.noise * z)
        return float(-2 * (mass * around).sum())


class Pinwheel(Truth):
    r"""Arms of a wheel, bent further the further out.

    An arm is a Gaussian along the first axis, :math:`f \sim N((1, 0), \mathrm{diag}(a^2, b^2))`,
    turned about the origin by the angle of its arm and by a twist that grows with the radius:

    .. math::  x = 2 R\!\left(\tfrac{2\pi k}{K} + c\,e^{|f|}\right) f, \qquad
               p(x) = \frac{1}{4K} \sum_{k=0}^{K-1}
               N\!\left(R\!\left(-\tfrac{2\pi k}{K} - c\,e^{r}\right) \tfrac{x}{2} \,\Big|\,
               (1, 0), \mathrm{diag}(a^2, b^2)\right), \quad r = |x| / 2.

    The toy of Johnson et al. 2016 and Grathwohl et al. 2019, but for one thing: they twist by the
    first coordinate of :math:`f`, which folds the plane, so that their density has no closed form.
    The radius differs little from it on a thin arm, and a twist by the radius keeps areas: the
    density is exact, and the entropy is that of the wheel before the twist.

    Parameters
    ----------
    n_arms : int
        Number of arms :math:`K`, at least 1.
    radial, tangential : float
        Standard deviations :math:`a` along an arm and :math:`b` across it, positive.
    twist : float
        The rate :math:`c`; 0 leaves the arms straight.

    Raises
    ------
    ValueError
        ``n_arms`` is below 1, or ``radial`` or ``tangential`` not positive.

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
        return self._straight(_rotate(x, -self._angle(x))) - math.log(4)

    def _angle(self, f: np.ndarray) -> np.ndarray:
        """The twist at each row. Beyond any mass it grows no more: any function of the radius
        alone keeps areas, and this one stays finite."""
        return self.twist * np.exp(np.minimum(np.hypot(f[:, 0], f[:, 1]), 30))

    def _straight(self, f: np.ndarray) -> np.ndarray:
        """Log-density of the wheel before the twist."""
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
        return 2 * _rotate(f, turn + self._angle(f))

    @functools.cached_property
    def entropy(self) -> float:
        """Differential entropy in nats, by the trapezoidal rule over one straight arm, since all
        contribute alike: spectrally accurate."""
        z, mass = _standard_normal_grid()
        arm = np.array([1.0, 0.0]) + z * (self.radial, self.tangential)
        return float(math.log(4) - (mass * self._straight(arm)).sum())


class Banana(Truth):
    r"""A Gaussian bent along a parabola, the shape of Rosenbrock's valley.

    .. math::  x_1 \sim N(0, s^2), \quad
               x_2 \mid x_1 \sim N\!\left(b\,(s^2 - x_1^2), 1\right), \quad
               H = \log(2 \pi e\,s).

    Bending moves :math:`x_2` by a function of :math:`x_1` alone: the Jacobian is one, and the
    entropy that of the Gaussian. With :math:`s = 10`, :math:`b = 0.1` it is the strongly twisted
    target of Haario, Saksman and Tamminen 1999.

    Parameters
    ----------
    width : float
        The standard deviation :math:`s` of the first coordinate, positive.
    bend : float
        The curvature :math:`b`; 0 leaves a Gaussian.

    Raises
    ------
    ValueError
        ``width`` is not positive.

    Examples
    --------
    >>> banana = Banana(width=10.0, bend=0.1)
    >>> banana.log_prob([[0.0, 10.0], [10.0, 0.0]]).round(3).tolist()    # on the ridge
    [-4.14, -4.64]
    """

    n_dims = 2

    def __init__(self, width: float = 10.0, bend: float = 0.1):
        _require_positive(width=width)
        self.width, self.bend = width, bend

    def log_prob(self, X: Any) -> np.ndarray:
        """Log-density in nats, (n,), for rows (n, 2)."""
        x = self._rows(X)
        straight = x[:, 1] - self._ridge(x[:, 0])
        square = (x[:, 0] / self.width) ** 2 + straight**2
        return -square / 2 - _LOG_2PI - math.log(self.width)

    def _ridge(self, x: np.ndarray) -> np.ndarray:
        return self.bend * (self.width**2 - x**2)

    def sample(self, n_samples: int = 1, *, random_state: Any = None) -> np.ndarray:
        """Independent rows, (n_samples, 2)."""
        z = check_random_state(random_state).normal(size=(n_samples, 2))
        x = self.width * z[:, 0]
        return np.stack([x, self._ridge(x) + z[:, 1]], 1)

    @property
    def entropy(self) -> float:
        """log(2 pi e width) nats."""
        return 1 + _LOG_2PI + math.log(self.width)


def _arcs(t: np.ndarray) -> np.ndarray:
    """Points of the upper arc, then of the lower, (2 * len(t), 2)."""
    x, y = np.cos(t), np.sin(t)
    return np.concatenate([np.stack([x, y], 1), np.stack([1 - x, 0.5 - y], 1)])


def _arms(t: np.ndarray) -> np.ndarray:
    """Points of one spiral, then of the other, (2 * len(t), 2)."""
    arm = np.stack([-t * np.cos(t), t * np.sin(t)], 1) / 3
    return np.concatenate([arm, -arm])


def _rotate(x: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Rows (n, 2) turned counter-clockwise, each by its angle, (n,)."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([cos * x[:, 0] - sin * x[:, 1], sin * x[:, 0] + cos * x[:, 1]], 1)


def _grid(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)


@functools.cache
def _standard_normal_grid() -> tuple[np.ndarray, np.ndarray]:
    """Nodes (n, 2) and masses (n,) of the trapezoidal rule for means under N(0, I): ten standard
    deviations each way, beyond which lies no float64 of mass."""
    step = 1 / 16
    z = _grid(np.arange(-10, 10, step), np.arange(-10, 10, step))
    return z, np.exp(-(z**2).sum(1) / 2 - _LOG_2PI) * step**2


def _require_positive(**parameters: float) -> None:
    for name, value in parameters.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name}={value!r}: must be positive and finite")
