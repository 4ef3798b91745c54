r"""The normal quantile of a mixture's cumulative distribution function, which makes a variable normal.

With normal components,

.. math:: z = \Phi^{-1}(F(x)), \qquad F(x) = \sum_k w_k\, \Phi\left(\frac{x - m_k}{s_k}\right)

The components of the paper are logistic. Normal ones have tails like :math:`\Phi`, so that z is
asymptotically linear with slope 1 / max s. With logistic components z grows like :math:`\sqrt{x}`
in every layer, and samples like its inverse, the square.

In float32, F rounds to 1 from x = 6 on. All computations therefore use the side where F, or 1 - F,
is at most one half. Where it is below 1e-30 they use its logarithm, which takes ten times as long:

.. math::
    \log p = \log\sum_k w_k\,\Phi(-u_k), \quad |z| = Q(\log p), \quad
    \log\frac{dz}{dx} = \log \sum_k r_k \frac{h(u_k)}{s_k} - \log h(|z|)

Here u = ±(x - m)/s depends on the side, Q is the quantile as a function of the logarithm, r are
the components' fractions of p, and :math:`h(u) = \phi(u)/\Phi(-u)` is the hazard, which neither
over- nor underflows.

Between distant components F hardly increases. Therefore z is mixed with one percent of x: the
slope is at least 0.01, and the inverse loses at most two digits.

References
----------
C. Meng, Y. Song, J. Song and S. Ermon. Gaussianization Flows. AISTATS 2020.
https://arxiv.org/abs/2003.01941

S. S. Chen and R. A. Gopinath. Gaussianization. NeurIPS 2000.
https://papers.nips.cc/paper/2000/hash/3c947bc2f7ff007b86a9428b74654de5-Abstract.html
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.special import erfcx, ndtri

from densekit.transforms.bracket import invert

MIN_SLOPE = 1e-2
"""Fraction of x in z, which is the smallest slope."""
_MAX_BROAD_CHANGE, _MAX_NARROW_CHANGE = 1.0, 2.5
"""Bounds of the change of log-scales from their start: of the broad component and of the others."""
_MAX_DISTANCE = 1e18
"""Largest distance in units of a component's scale; larger ones overflow when squared in float32."""
_MIN_TAIL = 1e-30
"""Smallest tail probability that is computed without logarithms; float32 extends to 1e-38."""
_ROOT_HALF = math.sqrt(0.5)
_LOG_ROOT_2PI = 0.5 * math.log(2 * math.pi)


def normal_tail(u: Tensor) -> tuple[Tensor, Tensor]:
    r""":math:`\log\Phi(-u)` and the log-hazard :math:`\log \phi(u)/\Phi(-u)` of the standard normal.

    Both, and their gradients, are precise to the last digit on the whole real line.

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
        # erfcx is the tail divided by its exponential factor. On the left, Phi(-u) is 1 minus a tail.
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
        # h - u would cancel far out, where an asymptotic series is precise.
        v = u.clamp(min=30.0).reciprocal()
        v2 = v * v
        excess = torch.where(u > 30, v * (1 - v2 * (2 - v2 * (10 - 74 * v2))), h - u)
        return g_hazard * excess - g_tail * h


def tail_quantile(logp: Tensor) -> Tensor:
    r"""Solve :math:`\log\Phi(-q) = \log p` for q, with log p below 0 of any size.

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
        # Newton's method on the logarithm: two steps from its asymptote give full precision.
        target = logp.clamp(max=-20)
        far = (-2 * target).sqrt()
        far = far - (far.log() + _LOG_ROOT_2PI) / far
        for _ in range(2):
            tail, hazard = normal_tail(far)
            far = far + (tail - target) * (-hazard).exp()
        q = torch.where(logp > -50, near, far)
        ctx.save_for_backward(q)
        return q

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (q,) = ctx.saved_tensors
        return -grad * (-normal_tail(q)[1]).exp()


class GaussianizeElement:
    """The normal quantile of a mixture's cumulative distribution function, as an element of a flow.

    Parameters
    ----------
    n_components : int
        K, at least 1: a broad component, whose scale stays between 1/e and e, and K - 1 narrow
        ones.

    Notes
    -----
    The 3 K raw parameters are logits of weights, locations and log-scales (bounded by a tanh).
    Zeros give a mixture close to the standard normal, so that the function is close to the
    identity, also in the tails, where only the broad component matters.
    :func:`~densekit.transforms.bracket.invert` computes the inverse and its gradients. Parameters
    broadcast, so that samples can share them.

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
        # Components of scale s on a grid of distance 1.5 s, weighted by the density of N(0, 1 - s^2),
        # add up to N(0, 1) to three digits within the grid's range of 3.2 standard deviations.
        spread = 3.2 / (0.75 * max(n - 1, 1))
        scale = min(spread / math.hypot(1, spread), 0.9)
        grid = 1.5 * scale * (torch.arange(n) - (n - 1) / 2)
        weight = torch.log_softmax(-0.5 * grid**2 / (1 - scale**2), 0)
        self._log_weight = torch.cat([torch.tensor([0.3]).log(), weight + math.log(0.7)])
        self._loc = torch.cat([torch.zeros(1), grid])
        self._log_scale = torch.cat([torch.zeros(1), torch.full((n,), math.log(scale))])
        self._limit = torch.tensor([_MAX_BROAD_CHANGE] + [_MAX_NARROW_CHANGE] * n)

    def start(self) -> Tensor:
        """Initial raw parameters: zeros, (3 K,)."""
        return torch.zeros(self.n_params)

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Data to noise, and the log-slope."""
        with _full_precision(x):
            x, raw = _float(x), _float(raw)
            return _Mixture(self, raw).evaluate(x)

    def inverse(self, z: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Noise to data, and the log-slope of the inverse."""
        with _full_precision(z):
            mixture = _Mixture(self, _float(raw))
            x = invert(mixture.value, _float(z))
            return x, -mixture.evaluate(x)[1]


def _full_precision(x: Tensor) -> torch.autocast:
    """Context manager that disables mixed precision, in which tails are too imprecise for
    log-densities.
    """
    return torch.autocast(x.device.type, enabled=False)


def _float(x: Tensor) -> Tensor:
    """Convert half precision, which preceding layers may produce, to float32."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


class _Mixture:
    """The mixture with given parameters, for evaluation at many points."""

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
        """Side of the median, 1 or -1, on which the tail beyond is at most one half."""
        with torch.no_grad():
            below = (self.weight * torch.erfc(u * -_ROOT_HALF)).sum(0)
            return torch.where(below > 1, 1.0, -1.0).to(u.dtype)

    def _far(self, u: Tensor) -> tuple[Tensor, Tensor]:
        r"""Quantile and log-slope by logarithms, (\*S,) each.

        They are computed for all entries although only some need them: vectorized loops round the
        remainder of a selection differently, and a score would depend on the other rows.
        """
        tail, hazard = normal_tail(u)
        part = self.log_weight + tail
        q = tail_quantile(torch.logsumexp(part, 0))
        top = torch.logsumexp(part.log_softmax(0) + hazard - self.log_scale, 0)
        return q, top - normal_tail(q)[1]

    def _quantile(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        r"""Side (S), distances toward it in units of the scales (K, \*S), quantile and tail
        probability (S).
        """
        u = ((x - self.loc) * self.per_scale).clamp(-_MAX_DISTANCE, _MAX_DISTANCE)
        side = self._side(u)
        u = u * side
        p = 0.5 * (self.weight * torch.erfc(u * _ROOT_HALF)).sum(0)
        return side, u, -ndtri(p.clamp(min=_MIN_TAIL)), p

    def value(self, x: Tensor) -> Tensor:
        r"""z at x, (\*S,), which costs less than with the slope."""
        side, u, q, p = self._quantile(x)
        far = p < _MIN_TAIL
        if bool(far.any()):
            # Selecting entries is safe here, because a root does not depend on the rounding of steps.
            part = (self.log_weight.expand_as(u)[:, far] + normal_tail(u[:, far])[0]).logsumexp(0)
            q = q.masked_scatter(far, tail_quantile(part))
        return torch.lerp(side * q, x, MIN_SLOPE)

    def evaluate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""z and the log-slope at x, (\*S,) each."""
        side, u, q, p = self._quantile(x)
        density = (self.weight * self.per_scale * torch.exp(-0.5 * u * u)).sum(0)
        slope = density.clamp(min=torch.finfo(x.dtype).tiny).log() + 0.5 * q * q
        far = p < _MIN_TAIL
        if bool(far.any()):
            q_far, slope_far = self._far(u)
            q, slope = torch.where(far, q_far, q), torch.where(far, slope_far, slope)
        least = slope.new_tensor(math.log(MIN_SLOPE))
        slope = torch.logaddexp(slope + math.log1p(-MIN_SLOPE), least)
        return torch.lerp(side * q, x, MIN_SLOPE), slope
