r"""A monotone function of one variable whose slope and integral have closed forms.

Neural autoregressive flows use a network with positive weights and increasing activations (Huang
et al.) or the integral of a positive function (Wehenkel and Louppe). Here both are the same: the
positive function is a mixture of smooth windows that sum to one,

.. math::
    g(y) = \sum_{k=0}^{K+1} v_k\, \pi_k(y), \qquad
    \pi_k(y) = \sigma\left(\frac{y - t_{k-1}}{s}\right) - \sigma\left(\frac{y - t_k}{s}\right),
    \qquad t_{-1} = -\infty,\ t_{K+1} = \infty

and its integral is a network whose K + 2 hidden units are soft ramps from one knot t to the next,
with positive weights v. This form has four advantages:

- With all v = 1 it is exactly the identity, and each v changes it in a different way. Huang's
  mixture of sigmoids is the identity only if all its units are equal, and equal units have equal
  gradients.
- Outside the knots it is affine with bounded slopes, so that outliers stay moderate and the
  inverse is as precise at 1e6 as at 1.
- Nothing cancels: each window is a product of positive numbers, and each ramp is measured from the
  middle knot, so that float32 keeps its precision where the slope is small.
- Value and slope are consistent to the last digit, unlike with numerical quadrature.

References
----------
C.-W. Huang, D. Krueger, A. Lacoste and A. Courville. Neural Autoregressive Flows. ICML 2018.
https://arxiv.org/abs/1804.00779

A. Wehenkel and G. Louppe. Unconstrained Monotonic Neural Networks. NeurIPS 2019.
https://arxiv.org/abs/1908.05164
"""

import math

import torch
from torch import Tensor

from densekit.transforms.bracket import invert

_MAX_LOG_SLOPE = math.log(1000)
"""Bound of the log-slope of a bin."""
_MAX_TAIL_LOG_SLOPE = 1.0
"""Bound of the log-slope outside the knots, and of the log-scale of the input."""
_MAX_WIDTH_CHANGE = 3.0
"""Bound of the change of a bin's log-width from its start."""
_MAX_SMOOTHNESS_CHANGE = 2.0
"""Bound of the change of the log-width of the transitions at the knots from its start, log 0.3."""


class MonotoneElement:
    r"""A monotone network of soft ramps as an element of a flow.

    .. math::
        z = f(e^a x + c), \qquad f(y) = t_m + \sum_k v_k \int_{t_m}^{y} \pi_k, \qquad
        \log\frac{dz}{dx} = a + \log\sum_k v_k\, \pi_k(e^a x + c)

    up to a constant. The integrals are in terms of :math:`\log(1 + e^{(y - t)/s})`.

    Parameters
    ----------
    n_bins : int
        K, at least 1: number of bins between K + 1 knots.
    bound : float
        The knots start in [-bound, bound], densely in the bulk of standardized data, and move in
        training. Outside the function is affine.

    Notes
    -----
    The 2 K + 5 raw parameters are K log-widths of bins, K + 2 log-slopes (tail, bins, tail), the
    log-width of the transitions, a and c. All but c are bounded by a tanh. Zeros give the
    identity. The slope is between :math:`10^{-3}` and :math:`10^3` times :math:`e^{\pm 1}`, in the
    tails between :math:`e^{-2}` and :math:`e^2`. :func:`~densekit.transforms.bracket.invert`
    computes the inverse and its gradients.

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
        self._middle_knot = float(knots[self._middle])

    def start(self) -> Tensor:
        """Initial raw parameters: zeros, (2 K + 5,)."""
        return torch.zeros(self.n_params)

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Data to noise, and the log-slope."""
        return _Ramps(self, raw).evaluate(x)

    def inverse(self, z: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Noise to data, and the log-slope of the inverse."""
        ramps = _Ramps(self, raw)
        x = invert(ramps.value, z)
        return x, -ramps.evaluate(x)[1]


def _bounded(raw: Tensor, limit: float) -> Tensor:
    """Bound a number smoothly; small numbers hardly change."""
    return limit * torch.tanh(raw / limit)


class _Ramps:
    """The function with given parameters, for evaluation at many points."""

    def __init__(self, element: MonotoneElement, raw: Tensor) -> None:
        K, self.middle, self.middle_knot = element.n_bins, element._middle, element._middle_knot
        start = element._log_width.to(raw).view(-1, *[1] * (raw.dim() - 1))
        self.width = (start + _bounded(raw[:K], _MAX_WIDTH_CHANGE)).exp()  # (K, *S)
        left, inner, right = raw[K], raw[K + 1 : 2 * K + 1], raw[2 * K + 1]
        self.left, self.right = (
            _bounded(left, _MAX_TAIL_LOG_SLOPE).exp(),
            _bounded(right, _MAX_TAIL_LOG_SLOPE).exp(),
        )
        self.slope = _bounded(inner, _MAX_LOG_SLOPE).exp()
        self.smooth = 0.3 * _bounded(raw[2 * K + 2], _MAX_SMOOTHNESS_CHANGE).exp()
        self.log_scale, self.shift = _bounded(raw[2 * K + 3], _MAX_TAIL_LOG_SLOPE), raw[2 * K + 4]
        self.scale = self.log_scale.exp()
        below, above = self.width[: self.middle], self.width[self.middle :]
        self.knots = torch.cat(
            [
                -below.flip(0).cumsum(0).flip(0),
                torch.zeros_like(raw[:1]),
                above.cumsum(0),
            ]
        )
        # The factor between the product of a window's two sigmoids and their difference.
        self.mass = self.slope * -torch.expm1(-self.width / self.smooth)

    def _distances(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Distances from the knots, the same in units of the transition width u, and exp(-|u|)."""
        r = torch.addcmul(self.shift - self.middle_knot, x, self.scale) - self.knots  # (K + 1, *S)
        u = r / self.smooth
        return r, u, torch.exp(-u.abs())

    def _integral(self, r: Tensor, e: Tensor) -> Tensor:
        """The value z from the distances of the knots."""
        m = self.middle
        # The difference between a soft and a hard ramp at each knot.
        corner = self.smooth * torch.log1p(e)
        turn = corner[:-1] - corner[1:]
        down = torch.maximum(r[1 : m + 1], -self.width[:m]).clamp(max=0) + turn[:m]
        up = torch.minimum(r[m:-1], self.width[m:]).clamp(min=0) + turn[m:]
        z = self.left * (r[0].clamp(max=0) - corner[0])
        z = z + (self.slope[:m] * down).sum(0) + (self.slope[m:] * up).sum(0)
        return z + self.right * (r[-1].clamp(min=0) + corner[-1]) + self.middle_knot

    def value(self, x: Tensor) -> Tensor:
        r"""z at x, (\*S,), which costs less than with the slope."""
        r, _, e = self._distances(x)
        return self._integral(r, e)

    def evaluate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""z and the log-slope at x, (\*S,) each."""
        r, u, e = self._distances(x)
        near, far = 1 / (1 + e), e / (1 + e)
        above, below = torch.where(u > 0, near, far), torch.where(u > 0, far, near)
        slope = (self.mass * above[:-1] * below[1:]).sum(0)
        slope = slope + self.left * below[0] + self.right * above[-1]
        return self._integral(r, e), slope.log() + self.log_scale
