"""Bijections of the circle, for angles.

A point of the circle is a number u in [-1, 1), in half turns.

References
----------
D. J. Rezende et al. Normalizing Flows on Tori and Spheres. ICML 2020.
https://arxiv.org/abs/2002.02428
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from densekit.kernels.limits import MIN_BIN
from densekit.transforms.columns import ColumnTransform
from densekit.transforms.spline import SplineElement


def wrap(u: Tensor) -> Tensor:
    """Subtract whole turns from u: the result is in [-1, 1)."""
    return u - 2 * torch.floor((u + 1) / 2)


class CircularSpline:
    r"""A rational-quadratic spline on the circle, followed by a rotation.

    .. math:: z = \langle f(\langle x + a \rangle) + b - a \rangle

    f is a spline from [-1, 1] onto itself with the same learned slope at both ends, and the
    brackets subtract whole turns. Hence z and its slope are continuous on the whole circle.

    Parameters
    ----------
    n_bins : int
        K, at least 2.
    turn : float
        The constant a, which determines where on the circle the ends of the spline are.

    Notes
    -----
    The 3 K + 1 raw parameters are K widths, K heights, the slopes at K knots, and b. Zeros give
    the identity. The function is the inner part of a
    :class:`~densekit.transforms.spline.SplineElement` with one more bin at each end, a copy of the
    bin at the opposite end.

    Examples
    --------
    >>> spline = CircularSpline(n_bins=4)
    >>> z, log_slope = spline.forward(torch.tensor([0.5]), torch.tensor([0.0] * 12 + [0.75])[:, None])
    >>> round(z.item(), 5), abs(round(log_slope.item(), 5))
    (-0.75, 0.0)
    """

    def __init__(self, n_bins: int = 8, turn: float = 0.0) -> None:
        self.n_bins, self.turn, self.n_params = n_bins, turn, 3 * n_bins + 1
        self.spline = SplineElement(n_bins + 2, 1.0)

    def start(self) -> Tensor:
        """The identity with bins of equal width, (3 K + 1,)."""
        return torch.zeros(self.n_params)

    def _unrolled(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r"""Parameters of the extended spline, and the start and length (2, \*S) of its inner part.

        Start and length are given in width and in height, as fractions of the box of the extended
        spline.
        """
        K = self.n_bins
        w, h, d = raw[:K], raw[K : 2 * K], raw[2 * K : 3 * K]
        longer = torch.cat([w[-1:], w, w[:1], h[-1:], h, h[:1], d, d[:1]])
        share = torch.softmax(longer[: 2 * K + 4].unflatten(0, (2, K + 2)), 1)
        ends = (1 - MIN_BIN * (K + 2)) * share[:, [0, -1]] + MIN_BIN
        return longer, ends[:, 0], 1 - ends.sum(1)

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Data to noise, and the log-slope."""
        longer, begin, length = self._unrolled(raw)
        x = 2 * begin[0] - 1 + length[0] * (wrap(x + self.turn) + 1)
        y, log_slope = self.spline.forward(x, longer)
        z = (y + 1 - 2 * begin[1]) / length[1] - 1
        return wrap(z + raw[-1] - self.turn), log_slope + (length[0] / length[1]).log()

    def inverse(self, z: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Noise to data, and the log-slope of the inverse."""
        longer, begin, length = self._unrolled(raw)
        z = 2 * begin[1] - 1 + length[1] * (wrap(z - raw[-1] + self.turn) + 1)
        y, log_slope = self.spline.inverse(z, longer)
        x = (y + 1 - 2 * begin[0]) / length[0] - 1
        return wrap(x - self.turn), log_slope + (length[1] / length[0]).log()


class ToCircle(ColumnTransform):
    r"""Map some features from normal quantiles to the circle, and leave the others unchanged.

    .. math:: u = 2 \Phi(s x + m) - 1

    With m = 0 and s = 1 the standard normal becomes the uniform distribution.

    Parameters
    ----------
    n_features : int
        D.
    moments : mapping of int to (float, float)
        m and s of each feature that is mapped.

    Notes
    -----
    Both infinities are the same point of the circle. Floats closer to it than the resolution of
    the circle (1e-7 turns in float32) come back finite, which is the same point of the circle up
    to rounding.

    Examples
    --------
    >>> ToCircle(2, {1: (0.0, 1.0)}).inv(torch.tensor([3.0, 0.0]))
    tensor([3., 0.])
    """

    def __init__(self, n_features: int, moments: Mapping[int, tuple[float, float]]) -> None:
        super().__init__(n_features)
        self.moments = dict(moments)

    def _index_and_moments(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Indices of the mapped features, and m and s, (A, 1), in the dtype of ``like``."""
        index = torch.tensor(list(self.moments), device=like.device)
        numbers = torch.tensor([*self.moments.values()], dtype=like.dtype, device=like.device)
        return index, numbers[:, :1], numbers[:, 1:]

    def to_noise(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Normal quantiles to the circle."""
        index, loc, scale = self._index_and_moments(x)
        w = torch.addcmul(loc, x[index], scale)
        return x.index_copy(0, index, torch.erf(w / math.sqrt(2))), _ladj(w, scale)

    def to_data(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map angles to standard normal quantiles."""
        index, loc, scale = self._index_and_moments(z)
        last = 1 - torch.finfo(z.dtype).eps / 2
        w = torch.erfinv(z[index].clamp(-last, last)) * math.sqrt(2)
        return z.index_copy(0, index, (w - loc) / scale), -_ladj(w, scale)


def _ladj(w: Tensor, scale: Tensor) -> Tensor:
    """log|du/dx| at the quantile w = s x + m, summed over the features."""
    return (scale.log() + 0.5 * math.log(2 / math.pi) - 0.5 * w * w).sum(0)
