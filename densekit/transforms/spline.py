r"""The rational-quadratic spline: monotone, smooth, and with a closed-form inverse.

On [-B, B] the function passes through K + 1 knots. In bin k, with width w, height h and mean slope
:math:`\delta = h/w`, with slopes d and d' at its two knots and the relative position
:math:`\theta` from 0 to 1,

.. math::
    y = y_k + h \frac{\delta\theta^2 + d\,\theta(1-\theta)}
                     {\delta + (d + d' - 2\delta)\,\theta(1-\theta)}, \qquad
    \frac{dy}{dx} = \frac{\delta^2 (d'\theta^2 + 2\delta\,\theta(1-\theta) + d(1-\theta)^2)}
                         {(\delta + (d + d' - 2\delta)\,\theta(1-\theta))^2}

Outside, y = x. The slopes at the first and the last knot are 1.

A compiled loop evaluates it if numba is installed (``kernels/spline.py``, float32 on a CPU),
otherwise torch (``spline_plain.py``).

References
----------
C. Durkan, A. Bekasov, I. Murray and G. Papamakarios. Neural Spline Flows. NeurIPS 2019.
https://arxiv.org/abs/1906.04032
"""

import functools
import math
from typing import Any

import torch
from torch import Tensor

from densekit.kernels.compiled import compiled
from densekit.kernels.limits import MIN_BIN
from densekit.transforms import spline_plain

_KERNEL = "densekit.kernels.spline"


def _refuse_second_derivatives() -> None:
    """Raise an error, since the backward pass is not differentiable and the second derivative would
    be 0.
    """
    if torch.is_grad_enabled():
        raise RuntimeError(
            "the spline has no second derivatives, which create_graph=True requires; differentiate "
            "once, or use finite differences of the gradient"
        )


class _Spline(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, raw: Tensor, bound: float) -> tuple[Tensor, Tensor]:
        ctx.bound, ctx.compiled = bound, compiled(_KERNEL, x, raw)
        if ctx.compiled:
            ctx.save_for_backward(x, raw)
            y, log_slope = ctx.compiled.forward(x, raw, bound)
        else:
            y, log_slope, saved = spline_plain.forward(x, raw, bound)
            ctx.save_for_backward(*saved)
        return y, log_slope

    @staticmethod
    def backward(ctx: Any, gy: Tensor, gl: Tensor) -> tuple[Tensor, Tensor, None]:
        _refuse_second_derivatives()
        if ctx.compiled:
            return (*ctx.compiled.backward(*ctx.saved_tensors, gy, gl, ctx.bound), None)
        return (*spline_plain.backward(ctx.saved_tensors, gy, gl, ctx.bound), None)


class _InverseSpline(torch.autograd.Function):
    """x with f(x) = y, and log dx/dy.

    The gradients follow from those of f: dx/dy = 1/f' and dx/dp = -(df/dp)/f'.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, raw: Tensor, bound: float) -> tuple[Tensor, Tensor]:
        x, log_slope = (compiled(_KERNEL, y, raw) or spline_plain).inverse(y, raw, bound)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(x, raw, log_slope)
        ctx.bound = bound
        return x, log_slope

    @staticmethod
    def backward(ctx: Any, gx: Tensor, gl: Tensor) -> tuple[Tensor, Tensor, None]:
        _refuse_second_derivatives()
        x, raw, log_slope = ctx.saved_tensors
        zero = torch.zeros_like(gx)
        loops = compiled(_KERNEL, x, raw)
        if loops:
            backward = functools.partial(loops.backward, x, raw)
        else:
            saved = tuple(spline_plain.forward(x, raw, ctx.bound)[2])
            backward = functools.partial(spline_plain.backward, saved)
        gx_slope, graw_slope = backward(zero, -gl, ctx.bound)
        gy = (gx + gx_slope) * torch.exp(log_slope)
        _, graw = backward(-gy, zero, ctx.bound)
        return gy, graw.add_(graw_slope), None


class SplineElement:
    """The rational-quadratic spline as an element of a flow.

    Parameters
    ----------
    n_bins : int
        K, at least 2.
    bound : float
        B; outside of [-B, B] the function is the identity.

    Notes
    -----
    The 3 K - 1 raw parameters are K widths and K heights (a softmax maps them to fractions of 2B,
    each at least ``MIN_BIN``) and the slopes at the K - 1 inner knots (a softplus makes them at
    least ``MIN_SLOPE``). Zeros give the identity. Second derivatives are not available.

    Examples
    --------
    >>> x = torch.linspace(-4, 4, 5)
    >>> spline = SplineElement(n_bins=4, bound=3.0)
    >>> y, log_slope = spline.forward(x, torch.randn(11, 1).expand(11, 5))
    >>> bool((y.diff() > 0).all())
    True
    """

    def __init__(self, n_bins: int = 8, bound: float = 5.0) -> None:
        self.n_bins, self.bound, self.n_params = n_bins, bound, 3 * n_bins - 1

    def start(self) -> Tensor:
        """Initial raw parameters (3 K - 1,): the identity with narrow bins in the bulk of
        standardized data.

        The knots are at B sinh(2 t) / sinh(2) for evenly spaced t in [-1, 1].
        """
        knots = torch.sinh(torch.linspace(-2, 2, self.n_bins + 1)) / math.sinh(2)
        share = (knots.diff() / 2 - MIN_BIN).clamp_min(MIN_BIN).log()
        return torch.cat([share, share, torch.zeros(self.n_bins - 1)])

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Data to noise, and the log-slope."""
        y, log_slope = _Spline.apply(x, raw, self.bound)
        return y, log_slope

    def record(
        self, tape: Any, x: Any, raw: Any, steps: tuple[int, int], total: Any, name: str
    ) -> Any:
        """Record data to noise on a ``kernels.tape.Tape``."""
        return tape.spline(x, raw, steps, self.n_bins, self.bound, total, name)

    def record_inverse(
        self, tape: Any, z: Any, raw: Any, steps: tuple[int, int], total: Any, x: Any
    ) -> None:
        """Record noise to data on a ``kernels.tape.Tape``."""
        tape.spline_inverse(z, raw, steps, self.n_bins, self.bound, total, x)

    def inverse(self, z: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Noise to data, and the log-slope of the inverse."""
        x, log_slope = _InverseSpline.apply(z, raw, self.bound)
        return x, log_slope
