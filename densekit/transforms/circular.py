r"""Bijections of the circle, for angles.

Rezende, Papamakarios, Racanière, Albergo, Kanwar, Shanahan and Cranmer, Normalizing Flows on Tori and
Spheres (2020). A point of the circle is a number u in [-1, 1), in half turns.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from densekit.transforms.columns import ColumnTransform
from densekit.transforms.spline import SplineElement


def wrap(u: Tensor) -> Tensor:
    """u less whole turns, in [-1, 1)."""
    return u - 2 * torch.floor((u + 1) / 2)


class CircularSpline:
    r"""A rational-quadratic spline round the circle, between two learnt turns.

    .. math:: z = \langle f(\langle u + a \rangle) + b \rangle

    with f the spline of :class:`~densekit.transforms.spline.SplineElement` on [-1, 1], whose slope is 1
    at both ends, and whole turns taken off in the brackets: z and the log-slope are continuous all
    round. The paper learns the slope that both ends share and one turn. Here a says instead where on
    the circle the ends lie: the slopes of a smooth map of the circle onto itself have mean 1, so it
    has slope 1 somewhere, and nothing is lost.

    Parameters
    ----------
    n_bins : int
        K, at least 2.
    turn : float
        a at the start, when b = -a and f is the identity.

    Notes
    -----
    The 3 K + 1 raw parameters are those of the spline, a and b. Zeros make the identity.

    Examples
    --------
    >>> spline = CircularSpline(n_bins=4)
    >>> z, log_slope = spline.forward(torch.tensor([0.5]), torch.tensor([0.0] * 12 + [0.75])[:, None])
    >>> z.tolist(), log_slope.abs().tolist()
    ([-0.75], [0.0])
    """

    def __init__(self, n_bins: int = 8, turn: float = 0.0) -> None:
        self.spline, self.turn = SplineElement(n_bins, 1.0), turn
        self.n_params = self.spline.n_params + 2

    def start(self) -> Tensor:
        """The identity with bins of equal width, (3 K + 1,)."""
        return torch.tensor([0.0] * self.spline.n_params + [self.turn, -self.turn])

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Data to noise, and the log-slope."""
        y, log_slope = self.spline.forward(wrap(x + raw[-2]), raw[:-2])
        return wrap(y + raw[-1]), log_slope

    def inverse(self, z: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Noise to data, and the log-slope of that way."""
        y, log_slope = self.spline.inverse(wrap(z - raw[-1]), raw[:-2])
        return wrap(y - raw[-2]), log_slope


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

    index: Tensor
    loc: Tensor
    scale: Tensor

    def __init__(self, n_features: int, moments: Mapping[int, tuple[float, float]]) -> None:
        super().__init__(n_features)
        # Derived from the arguments alone, so no part of the state.
        self.register_buffer("index", torch.tensor(list(moments)), persistent=False)
        for i, name in enumerate(("loc", "scale")):
            numbers = torch.tensor([[m[i]] for m in moments.values()])
            self.register_buffer(name, numbers, persistent=False)

    def _ladj(self, w: Tensor) -> Tensor:
        """log|du/dx| at the quantile w = s x + m."""
        return (self.scale.log() + 0.5 * math.log(2 / math.pi) - 0.5 * w * w).sum(0)

    def to_noise(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Quantiles to the circle."""
        w = torch.addcmul(self.loc, x[self.index], self.scale)
        return x.index_copy(0, self.index, torch.erf(w / math.sqrt(2))), self._ladj(w)

    def to_data(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The circle to quantiles."""
        last = 1 - torch.finfo(z.dtype).eps / 2
        w = torch.erfinv(z[self.index].clamp(-last, last)) * math.sqrt(2)
        return z.index_copy(0, self.index, (w - self.loc) / self.scale), -self._ladj(w)
