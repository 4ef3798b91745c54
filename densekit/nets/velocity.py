"""The velocity of a continuous flow: a network of position and time with a fast divergence."""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from densekit.nets.chain import squash
from densekit.nets.residual import check_hidden, uniform_weight

_N_TIMES = 4
"""Number of functions of time, 1, cos(pi t), cos(2 pi t), ..., in biases and gains."""


class VelocityNet(nn.Module):
    r"""A velocity of columns y (D, N) at time t, given a context c (C, N), and its divergence.

    .. math:: h_1 = \tanh(W_1 y + V \operatorname{asinh}(c) + b_1(t)), \quad
              h_{l+1} = \tanh(W_{l+1}\, g_l(t) h_l + b_{l+1}(t)), \quad
              v = W_{L+1}\, g_L(t) h_L + b_{L+1}(t)

    The gains g and biases b of each unit are sums of :math:`\cos(k \pi t)`; FFJORD uses a
    hypernetwork for them. The velocity starts at zero. It is bounded for all y, because tanh is,
    so that no row diverges.

    With :math:`D_l` the slopes of layer l, and gains merged into the weights, the divergence is
    the trace of :math:`W_{L+1} D_L W_L \cdots D_1 W_1`. A trace is invariant under cyclic
    permutation. For two layers it is therefore

    .. math:: \operatorname{tr} \frac{\partial v}{\partial y}
              = d_2^\top \big(W_2 \odot (W_1 W_3)^\top\big)\, d_1, \qquad D_l = \operatorname{diag}(d_l),

    one additional product per batch for any D, and for one layer :math:`\sum_i (W_1 W_2)_{ii}\,
    d_{1,i}`. With three or more layers it takes a pass through the hidden layers for each of D
    directions, or for a few probes.

    Parameters
    ----------
    n_features : int
        D.
    hidden_sizes : sequence of int
        Hidden layers, at least one.
    n_context : int
        C, which may be 0.

    References
    ----------
    W. Grathwohl, R. T. Q. Chen, J. Bettencourt, I. Sutskever and D. Duvenaud. FFJORD: Free-form
    Continuous Dynamics for Scalable Reversible Generative Models. ICLR 2019.
    https://arxiv.org/abs/1810.01367

    Examples
    --------
    >>> net = VelocityNet(3, (16, 16))
    >>> v, divergence = net.with_divergence(torch.tensor(0.5), torch.ones(3, 10))
    >>> v.shape, divergence.shape
    (torch.Size([3, 10]), torch.Size([1, 10]))
    """

    def __init__(self, n_features: int, hidden_sizes: Sequence[int], n_context: int = 0) -> None:
        super().__init__()
        check_hidden(hidden_sizes)
        self.n_features, self.hidden_sizes = n_features, tuple(hidden_sizes)
        sizes = (n_features, *hidden_sizes)
        self.weights = nn.ParameterList(
            uniform_weight(b, a, a + (n_context if i == 0 else 0))
            for i, (a, b) in enumerate(itertools.pairwise(sizes))
        )
        # Larger weights make the units differ from the start, because tanh is almost linear near zero.
        self.weights[0].data *= 2
        self.context = uniform_weight(hidden_sizes[0], n_context, n_features + n_context)
        self.last = nn.Parameter(torch.zeros(n_features, hidden_sizes[-1]))
        n_hidden = sum(hidden_sizes)
        bias, gain = 0.3 * torch.randn(2, n_hidden, _N_TIMES)
        bias[:, 0] = 2 * torch.rand(n_hidden) - 1
        gain[:, 0] = 1
        self.bias, self.gain = nn.Parameter(bias), nn.Parameter(gain)
        self.last_bias = nn.Parameter(torch.zeros(n_features, _N_TIMES))

    @property
    def is_closed(self) -> bool:
        """Whether the divergence has a closed form whose cost does not depend on the dimension."""
        return len(self.hidden_sizes) <= 2

    def forward(self, t: Tensor, y: Tensor, context: Tensor | None = None) -> Tensor:
        """The velocity (D, N) at time t, a scalar."""
        return self._layers(t, y, context)[0]

    def with_divergence(
        self, t: Tensor, y: Tensor, context: Tensor | None = None, probes: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        r"""The velocity (D, N), and its divergence (1, N).

        With ``probes`` (D, k, 1), shared by all columns, or (D, 1, N), one per column, the second
        is :math:`e^\top (\partial v / \partial y)\, e` for each probe e: (k, N) or (1, N).
        """
        v, weights, units = self._layers(t, y, context)
        slopes = [torch.addcmul(torch.ones_like(h[:1]), h, h, value=-1) for h in units]
        if probes is None and self.is_closed:
            cyclic_product = (weights[0] @ weights[-1]).t()
            if len(slopes) == 1:
                return v, cyclic_product.diagonal()[None] @ slopes[0]
            return v, (slopes[1] * ((weights[1] * cyclic_product) @ slopes[0])).sum(
                0, keepdim=True
            )
        directions = probes
        if directions is None:
            directions = torch.eye(self.n_features, dtype=y.dtype, device=y.device)[..., None]
        traces = self._directional(directions, weights, slopes)
        return v, traces if probes is not None else traces.sum(0, keepdim=True)

    def _layers(
        self, t: Tensor, y: Tensor, context: Tensor | None
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """The velocity, the weights at time t, and the hidden units."""
        times = torch.cos(t * math.pi * torch.arange(_N_TIMES, dtype=y.dtype, device=y.device))
        bias = (self.bias @ times)[:, None].split(self.hidden_sizes)
        gain = (self.gain @ times).split(self.hidden_sizes)
        first, *after = [*self.weights, self.last]
        weights = [first, *(w * g for w, g in zip(after, gain, strict=True))]
        h = torch.addmm(bias[0], first, y)
        if context is not None:
            h = torch.addmm(h, self.context, squash(context))
        units = [torch.tanh(h)]
        for w, b in zip(weights[1:-1], bias[1:], strict=True):
            units.append(torch.tanh(torch.addmm(b, w, units[-1])))
        v = torch.addmm((self.last_bias @ times)[:, None], weights[-1], units[-1])
        return v, weights, units

    def _directional(self, probes: Tensor, weights: list[Tensor], slopes: list[Tensor]) -> Tensor:
        """Quadratic form of the Jacobian for each probe."""

        def times(weight: Tensor, x: Tensor) -> Tensor:
            return (weight @ x.flatten(1)).unflatten(1, x.shape[1:])

        change = times(weights[0], probes) * slopes[0][:, None]
        for weight, slope in zip(weights[1:-1], slopes[1:], strict=True):
            change = times(weight, change) * slope[:, None]
        return (times(weights[-1].t(), probes) * change).sum(0)
