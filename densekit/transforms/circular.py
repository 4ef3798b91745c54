r"""Bijections of the circle, for angles.

Rezende, Papamakarios, Racanière, Albergo, Kanwar, Shanahan and Cranmer, Normalizing Flows on Tori and
Spheres (2020). A point of the circle is a number u in [-1, 1), in half turns.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from densekit.kernels.limits import MIN_BIN
from densekit.transforms.columns import ColumnTransform
from densekit.transforms.spline import SplineElement


def wrap(u: Tensor) -> Tensor:
    """u less whole turns, in [-1, 1)."""
    return u - 2 * torch.floor((u + 1) / 2)


class CircularSpline:
    r"""A rational-quadratic spline round the circle, and a turn.

    .. math:: z = \langle f(\langle x + a \rangle) + b - a \rangle

    with f a spline of [-1, 1] onto itself whose slope at both ends is the same, learned number, and
    whole turns taken off in the brackets: z and its slope are continuous all round.

    Parameters
    ----------
    n_bins : int
        K, at least 2.
    turn : float
        a, which is not learned: it says where on the circle the ends lie.

    Notes
    -----
    The 3 K + 1 raw parameters are K widths, K heights, the slopes at K knots, and b. Zeros make the
    identity. It is the middle of a :class:`~densekit.transforms.spline.SplineElement` with one more
    bin at each end, a copy of the one at the other end.

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
        r"""Parameters of the longer spline; where its middle begins and how long that is, (2, \*S), in
        width and height, as shares of its box."""
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
        """Noise to data, and the log-slope of that way."""
        longer, begin, length = self._unrolled(raw)
        z = 2 * begin[1] - 1 + length[1] * (wrap(z - raw[-1] + self.turn) + 1)
        y, log_slope = self.spline.inverse(z, longer)
        x = (y + 1 - 2 * begin[0]) / length[0] - 1
        return wrap(x - self.turn), log_slope + (length[1] / length[0]).log()


class ToCircle(ColumnTransform):
    r"""Some features from normal quantiles to the circle, the others left as they are.

    .. math:: u = 2 \Phi(s x + m) - 1

    The standard normal becomes the uniform law where m = 0 and s = 1.

    Parameters
    ----------
    n_features : int
        D.
    moments : mapping of int to (float, float)
        m and s of each feature that is moved.

    Notes
    -----
    Both infinities are one point of the circle, and floats as near to it as the circle's resolution
    (1e-7 turns in float32) come back from it finite: as points on the circle they are where they were.

    Examples
    --------
    >>> ToCircle(2, {1: (0.0, 1.0)}).inv(torch.tensor([3.0, 0.0]))
    tensor([3., 0.])
    """

    def __init__(self, n_features: int, moments: Mapping[int, tuple[float, float]]) -> None:
        super().__init__(n_features)
        self.moments = dict(moments)

    def _of(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Which features; m and s, (A, 1), in full precision whatever it is."""
        index = torch.tensor(list(self.moments), device=like.device)
        numbers = torch.tensor([*self.moments.values()], dtype=like.dtype, device=like.device)
        return index, numbers[:, :1], numbers[:, 1:]

    def to_noise(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Quantiles to the circle."""
        index, loc, scale = self._of(x)
        w = torch.addcmul(loc, x[index], scale)
        return x.index_copy(0, index, torch.erf(w / math.sqrt(2))), _ladj(w, scale)

    def to_data(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The circle to quantiles."""
        index, loc, scale = self._of(z)
        last = 1 - torch.finfo(z.dtype).eps / 2
        w = torch.erfinv(z[index].clamp(-last, last)) * math.sqrt(2)
        return z.index_copy(0, index, (w - loc) / scale), -_ladj(w, scale)


def _ladj(w: Tensor, scale: Tensor) -> Tensor:
    """log|du/dx| at the quantile w = s x + m, over the features."""
    return (scale.log() + 0.5 * math.log(2 / math.pi) - 0.5 * w * w).sum(0)
