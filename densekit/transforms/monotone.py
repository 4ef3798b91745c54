r"""A monotone network of one number, whose slope and integral are formulas.

Huang, Krueger, Lacoste and Courville, Neural Autoregressive Flows (2018), put a network with positive
weights and increasing activations in the place of the affine function; Wehenkel and Louppe,
Unconstrained Monotonic Neural Networks (2019), integrate a positive function instead. Here they are
one: the positive function is a mixture of smooth windows that sum to one,

.. math::
    g(y) = \sum_{k=0}^{K+1} v_k\, \pi_k(y), \qquad
    \pi_k(y) = \sigma\left(\frac{y - t_{k-1}}{s}\right) - \sigma\left(\frac{y - t_k}{s}\right),
    \qquad t_{-1} = -\infty,\ t_{K+1} = \infty

and its integral a network whose K + 2 hidden units are soft ramps, each rising from one knot t to the
next, with positive weights v. That it takes this form has reasons:

- all v = 1 is the identity, exactly, and each v moves it another way from there. Huang's mixture of
  sigmoids is the identity only where all of its units are equal, and equal units learn alike;
- beyond the knots it is affine, with slopes that are bounded both ways: an outlier stays in sight, and
  the inverse holds at 1e6 as at 1;
- nothing cancels: each window is a product of positive numbers, and each ramp is measured from the
  middle knot, so that float32 keeps its digits where the slope is small;
- value and slope agree to the last digit, where an integral by quadrature has an error of its own.
"""

import math

import torch
from torch import Tensor

from densekit.transforms.bracket import invert

_STEEP = math.log(1000)
"""Bound of a bin's log-slope."""
_TAIL = 1.0
"""Bound of the log-slope beyond the knots, and of the log-scale of the number that goes in."""
_WIDTH = 3.0
"""How far, in logarithm, a bin's width can go from where it starts."""
_SMOOTH = 2.0
"""The same for the width of the transition at a knot, which starts at 0.3."""


class MonotoneElement:
    r"""A monotone network of soft ramps as an element of a flow.

    .. math::
        z = f(e^a x + c), \qquad f(y) = t_m + \sum_k v_k \int_{t_m}^{y} \pi_k, \qquad
        \log\frac{dz}{dx} = a + \log\sum_k v_k\, \pi_k(e^a x + c)

    up to a constant, the integrals in terms of :math:`\log(1 + e^{(y - t)/s})`.

    Parameters
    ----------
    n_bins : int
        K, at least 1: bins between K + 1 knots.
    bound : float
        The knots start on [-bound, bound], narrowly where standardized data lie. They move with what
        is learned; beyond them the function is affine.

    Notes
    -----
    The 2 K + 5 raw parameters are K log-widths of bins, K + 2 log-slopes (tail, bins, tail), the
    log-width of the transitions, a and c, each bounded by a tanh (c is not). Zeros make the identity.
    The slope lies between :math:`10^{-3}` and :math:`10^3` times :math:`e^{\pm 1}`, in the tails
    between :math:`e^{-2}` and :math:`e^2`. The inverse is found by
    :func:`~densekit.transforms.bracket.invert`, which gives its gradients too.

    Examples
    --------
    >>> x = torch.linspace(-4, 4, 5)
    >>> element = MonotoneElement(n_bins=4)
    >>> z, log_slope = element.forward(x, torch.randn(13, 1).expand(13, 5))
    >>> bool((z.diff() > 0).all())
    True
    """

    def __init__(self, n_bins: int = 12, bound: float = 3.0) -> None:
        self.n_bins, self.bound, self.n_params = n_bins, bound, 2 * n_bins + 5
        knots = torch.sinh(torch.linspace(-2, 2, n_bins + 1)) / math.sinh(2) * bound
        self._log_width = knots.diff().log()
        self._middle = n_bins // 2
        self._at = float(knots[self._middle])

    def start(self) -> Tensor:
        """Zeros, (2 K + 5,)."""
        return torch.zeros(self.n_params)

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Data to noise, and the log-slope."""
        return _Ramps(self, raw).evaluate(x)

    def inverse(self, z: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Noise to data, and the log-slope of that way."""
        ramps = _Ramps(self, raw)
        x = invert(ramps.value, z)
        return x, -ramps.evaluate(x)[1]


def _bounded(raw: Tensor, limit: float) -> Tensor:
    """The number itself near 0, and never beyond the limit."""
    return limit * torch.tanh(raw / limit)


class _Ramps:
    """The function with its parameters read, to be evaluated at many places."""

    def __init__(self, element: MonotoneElement, raw: Tensor) -> None:
        K, self.middle, self.at = element.n_bins, element._middle, element._at
        start = element._log_width.to(raw).view(-1, *[1] * (raw.dim() - 1))
        self.width = (start + _bounded(raw[:K], _WIDTH)).exp()  # (K, *S)
        left, inner, right = raw[K], raw[K + 1 : 2 * K + 1], raw[2 * K + 1]
        self.left, self.right = _bounded(left, _TAIL).exp(), _bounded(right, _TAIL).exp()
        self.slope = _bounded(inner, _STEEP).exp()
        self.smooth = 0.3 * _bounded(raw[2 * K + 2], _SMOOTH).exp()
        self.log_scale, self.shift = _bounded(raw[2 * K + 3], _TAIL), raw[2 * K + 4]
        self.scale = self.log_scale.exp()
        below, above = self.width[: self.middle], self.width[self.middle :]
        self.knots = torch.cat(
            [
                -below.flip(0).cumsum(0).flip(0),
                torch.zeros_like(raw[:1]),
                above.cumsum(0),
            ]
        )
        # What a window's two sigmoids differ by, apart from their own values.
        self.mass = self.slope * -torch.expm1(-self.width / self.smooth)

    def _places(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Distances from the knots, the same in transition widths, and exp(-|those|)."""
        r = torch.addcmul(self.shift - self.at, x, self.scale) - self.knots  # (K + 1, *S)
        u = r / self.smooth
        return r, u, torch.exp(-u.abs())

    def _integral(self, r: Tensor, e: Tensor) -> Tensor:
        m = self.middle
        corner = self.smooth * torch.log1p(e)  # a soft ramp less the hard one, at each knot
        turn = corner[:-1] - corner[1:]
        down = torch.maximum(r[1 : m + 1], -self.width[:m]).clamp(max=0) + turn[:m]
        up = torch.minimum(r[m:-1], self.width[m:]).clamp(min=0) + turn[m:]
        z = self.left * (r[0].clamp(max=0) - corner[0])
        z = z + (self.slope[:m] * down).sum(0) + (self.slope[m:] * up).sum(0)
        return z + self.right * (r[-1].clamp(min=0) + corner[-1]) + self.at

    def value(self, x: Tensor) -> Tensor:
        """z at x, S: less work than with the slope, for who asks often."""
        r, _, e = self._places(x)
        return self._integral(r, e)

    def evaluate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z and the log-slope at x, S."""
        r, u, e = self._places(x)
        near, far = 1 / (1 + e), e / (1 + e)
        above, below = torch.where(u > 0, near, far), torch.where(u > 0, far, near)
        slope = (self.mass * above[:-1] * below[1:]).sum(0)
        slope = slope + self.left * below[0] + self.right * above[-1]
        return self._integral(r, e), slope.log() + self.log_scale
