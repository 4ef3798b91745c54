r"""The normal quantile of a mixture's distribution function: what makes one number normal.

Meng, Song, Song and Ermon, Gaussianization Flows (2020), after Chen and Gopinath, Gaussianization
(2000). With normal kernels,

.. math:: z = \Phi^{-1}(F(x)), \qquad F(x) = \sum_k w_k\, \Phi\left(\frac{x - m_k}{s_k}\right)

The paper's kernels are logistic. Normal ones have the same kind of tail as :math:`\Phi`, and z is then
asymptotically linear, of slope 1 / max s: with logistic ones it grows like :math:`\sqrt{x}`, layer
upon layer, and samples as the square.

F is 1 to the last digit from 6 on in float32. So all is done on the side where F, or 1 - F, is at most
one half; and where it is less than 1e-30, with its logarithm (which takes ten times as long):

.. math::
    \log p = \log\sum_k w_k\,\Phi(-u_k), \quad |z| = Q(\log p), \quad
    \log\frac{dz}{dx} = \log \sum_k r_k \frac{h(u_k)}{s_k} - \log h(|z|)

with u = ±(x - m)/s for the side, Q the quantile as a function of the logarithm, r the shares of the
kernels in p, and :math:`h(u) = \phi(u)/\Phi(-u)` the hazard, which neither over- nor underflows.

Between kernels that lie far apart F hardly grows. So z is mixed with a hundredth of x: no slope is
less than that, and the inverse loses no more than two digits whatever is learned.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.special import erfcx, ndtri

from densekit.transforms.bracket import invert

MIN_SLOPE = 1e-2
"""Share of x itself in z: the slope is never less."""
_BROAD, _NARROW = 1.0, 2.5
"""How far log-scales go from where they start: of the broad kernel, of the others."""
_REACH = 1e18
"""Kernel widths beyond which float32 has no squares."""
_LEAST = 1e-30
"""Tail mass below which logarithms take over: float32 has numbers down to 1e-38."""
_ROOT_HALF = math.sqrt(0.5)
_LOG_ROOT_2PI = 0.5 * math.log(2 * math.pi)


def normal_tail(u: Tensor) -> tuple[Tensor, Tensor]:
    r""":math:`\log\Phi(-u)` and the log-hazard :math:`\log \phi(u)/\Phi(-u)` of the standard normal.

    Both are true to the last digit over the whole line, and so are their gradients.

    Examples
    --------
    >>> tail, hazard = normal_tail(torch.tensor([-3.0, 0.0, 1e6]))
    >>> [round(v, 4) for v in hazard.tolist()]
    [-5.4176, -0.2258, 13.8155]
    """
    tail, hazard = _NormalTail.apply(u)
    return tail, hazard


class _NormalTail(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor) -> tuple[Tensor, Tensor]:
        # erfcx is the tail without its exponential; on the left Phi(-u) is 1 less the other tail.
        half = 0.5 * erfcx(u.abs() * _ROOT_HALF)
        power = -0.5 * u * u
        left, log_half = torch.log1p(-half * power.exp()), half.log()
        right = u > 0
        tail = torch.where(right, power + log_half, left)
        hazard = torch.where(right, -log_half, power - left) - _LOG_ROOT_2PI
        ctx.save_for_backward(u, hazard)
        return tail, hazard

    @staticmethod
    def backward(ctx: Any, g_tail: Tensor, g_hazard: Tensor) -> Tensor:
        u, hazard = ctx.saved_tensors
        h = hazard.exp()
        # h - u: far out these two are nearly the same, and a series has the digits of what is left.
        v = u.clamp(min=30.0).reciprocal()
        v2 = v * v
        excess = torch.where(u > 30, v * (1 - v2 * (2 - v2 * (10 - 74 * v2))), h - u)
        return g_hazard * excess - g_tail * h


def tail_quantile(logp: Tensor) -> Tensor:
    r"""q with :math:`\log\Phi(-q) = \log p`, for a log p below 0 of any size.

    Examples
    --------
    >>> [round(q, 2) for q in tail_quantile(torch.tensor([-1.0, -1e4, -5e11])).tolist()]
    [0.34, 141.38, 1000000.0]
    """
    q: Tensor = _TailQuantile.apply(logp)
    return q


class _TailQuantile(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logp: Tensor) -> Tensor:
        near = -ndtri(logp.clamp(min=-60).exp())
        # Newton's method on the logarithm, from its asymptote: two steps give all digits.
        aim = logp.clamp(max=-20)
        far = (-2 * aim).sqrt()
        far = far - (far.log() + _LOG_ROOT_2PI) / far
        for _ in range(2):
            tail, hazard = normal_tail(far)
            far = far + (tail - aim) * (-hazard).exp()
        q = torch.where(logp > -50, near, far)
        ctx.save_for_backward(q)
        return q

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (q,) = ctx.saved_tensors
        return -grad * (-normal_tail(q)[1]).exp()


class GaussianizeElement:
    r"""A mixture's distribution function and the normal quantile of it, as an element of a flow.

    Parameters
    ----------
    n_components : int
        K, at least 1: a broad kernel, whose scale stays between 1/e and e, and K - 1 narrow ones.

    Notes
    -----
    The 3 K raw parameters are logits of weights, locations and log-scales (bounded by a tanh). Zeros
    make a mixture that is nearly the standard normal, so that the function is nearly the identity,
    in the tails too, where the broad kernel is all there is. The inverse is found by
    :func:`~densekit.transforms.bracket.invert`, which gives its gradients too. Parameters may be
    common to all samples: they broadcast.

    Examples
    --------
    >>> x = torch.linspace(-4, 4, 5)
    >>> element = GaussianizeElement(n_components=4)
    >>> z, log_slope = element.forward(x, torch.randn(12, 1))
    >>> bool((z.diff() > 0).all())
    True
    """

    def __init__(self, n_components: int = 16) -> None:
        K, n = n_components, n_components - 1
        self.n_components, self.n_params = K, 3 * K
        # Kernels of scale s on a grid of 1.5 s, weighted as N(0, 1 - s^2) is there, add up to N(0, 1)
        # to three digits as far as the grid reaches: 3.2 standard deviations.
        spread = 3.2 / (0.75 * max(n - 1, 1))
        scale = min(spread / math.hypot(1, spread), 0.9)
        grid = 1.5 * scale * (torch.arange(n) - (n - 1) / 2)
        weight = torch.log_softmax(-0.5 * grid**2 / (1 - scale**2), 0)
        self._log_weight = torch.cat([torch.tensor([0.3]).log(), weight + math.log(0.7)])
        self._loc = torch.cat([torch.zeros(1), grid])
        self._log_scale = torch.cat([torch.zeros(1), torch.full((n,), math.log(scale))])
        self._limit = torch.tensor([_BROAD] + [_NARROW] * n)

    def start(self) -> Tensor:
        """Zeros, (3 K,)."""
        return torch.zeros(self.n_params)

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Data to noise, and the log-slope."""
        with _full(x):
            x, raw = _float(x), _float(raw)
            return _Kernels(self, raw).evaluate(x)

    def inverse(self, z: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Noise to data, and the log-slope of that way."""
        with _full(z):
            kernels = _Kernels(self, _float(raw))
            x = invert(kernels.value, _float(z))
            return x, -kernels.evaluate(x)[1]


def _full(x: Tensor) -> torch.autocast:
    """Without mixed precision: tails of half the digits are no log-densities."""
    return torch.autocast(x.device.type, enabled=False)


def _float(x: Tensor) -> Tensor:
    """Half precision, which layers before may have made, as float32."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


class _Kernels:
    """The mixture with its parameters read, to be evaluated at many places."""

    def __init__(self, element: GaussianizeElement, raw: Tensor) -> None:
        def start(values: Tensor) -> Tensor:
            return values.to(raw).view(-1, *[1] * (raw.dim() - 1))

        K, limit = element.n_components, start(element._limit)
        self.log_weight = torch.log_softmax(start(element._log_weight) + raw[:K], 0)
        self.weight = self.log_weight.exp()
        self.loc = start(element._loc) + raw[K : 2 * K]
        self.log_scale = start(element._log_scale) + limit * torch.tanh(raw[2 * K :] / limit)
        self.per_scale = (-self.log_scale).exp()

    def _side(self, u: Tensor) -> Tensor:
        """On which side of the median, 1 or -1: the one where the tail beyond is at most a half."""
        with torch.no_grad():
            below = (self.weight * torch.erfc(u * -_ROOT_HALF)).sum(0)
            return torch.where(below > 1, 1.0, -1.0).to(u.dtype)

    def _far(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Quantile and log-slope by logarithms, S.

        Of all entries, though few are needed: kernels round the ragged end of a selection in another
        way, and a score would depend on its company.
        """
        tail, hazard = normal_tail(u)
        part = self.log_weight + tail
        q = tail_quantile(torch.logsumexp(part, 0))
        top = torch.logsumexp(part.log_softmax(0) + hazard - self.log_scale, 0)
        return q, top - normal_tail(q)[1]

    def _quantile(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Side (S), places in kernel widths toward it (K, *S), quantile and mass beyond (S)."""
        u = ((x - self.loc) * self.per_scale).clamp(-_REACH, _REACH)
        side = self._side(u)
        u = u * side
        p = 0.5 * (self.weight * torch.erfc(u * _ROOT_HALF)).sum(0)
        return side, u, -ndtri(p.clamp(min=_LEAST)), p

    def value(self, x: Tensor) -> Tensor:
        """z at x, S: less work than with the slope, for who asks often."""
        side, u, q, p = self._quantile(x)
        far = p < _LEAST
        if bool(far.any()):
            # Of these alone: a root does not change with the last digit of one step on its way.
            part = (self.log_weight.expand_as(u)[:, far] + normal_tail(u[:, far])[0]).logsumexp(0)
            q = q.masked_scatter(far, tail_quantile(part))
        return torch.lerp(side * q, x, MIN_SLOPE)

    def evaluate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z and the log-slope at x, S."""
        side, u, q, p = self._quantile(x)
        density = (self.weight * self.per_scale * torch.exp(-0.5 * u * u)).sum(0)
        slope = density.clamp(min=torch.finfo(x.dtype).tiny).log() + 0.5 * q * q
        far = p < _LEAST
        if bool(far.any()):
            q_far, slope_far = self._far(u)
            q, slope = torch.where(far, q_far, q), torch.where(far, slope_far, slope)
        least = slope.new_tensor(math.log(MIN_SLOPE))
        slope = torch.logaddexp(slope + math.log1p(-MIN_SLOPE), least)
        return torch.lerp(side * q, x, MIN_SLOPE), slope
