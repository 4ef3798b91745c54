"""Inversion of increasing functions by bracketing, for transforms without a closed-form inverse."""

from collections.abc import Callable

import torch
from torch import Tensor

_DOUBLINGS = 1100
"""More than the number of exponents of a float64: a bracket that is not found by then does not exist."""
_HALVINGS = 200
"""Far more than needed, since the interval is halved at least every few iterations."""


def invert(function: Callable[[Tensor], Tensor], y: Tensor, start: Tensor | None = None) -> Tensor:
    r"""Solve f(x) = y elementwise for an increasing function f.

    An interval around ``start`` is doubled until it contains the root. Chandrupatla's method then
    narrows it to neighboring floats, by inverse quadratic interpolation where it is safe and by
    bisection otherwise. Converged entries do not change any more, so that no entry depends on the
    others.

    Parameters
    ----------
    function : callable
        f, from a tensor of the shape of y to one of the same shape; non-decreasing in each entry.
    y : Tensor
        Any shape S.
    start : Tensor of shape S, optional
        Initial guess; y by default.

    Returns
    -------
    x : Tensor of shape S
        If gradients are enabled, x is differentiable in y and in everything that f depends on, by
        the implicit function theorem: :math:`dx = (dy - \partial f) / f'(x)`. It is infinite where
        y is outside the range of f, and NaN where y is.

    References
    ----------
    T. R. Chandrupatla. A New Hybrid Quadratic/Bisection Algorithm for Finding the Zero of a
    Nonlinear Function. Advances in Engineering Software, 1997.
    https://doi.org/10.1016/S0965-9978(96)00051-8

    Examples
    --------
    >>> x = invert(lambda x: x + torch.tanh(x), torch.tensor([0.0, 1e6], dtype=torch.float64))
    >>> x.tolist()
    [0.0, 999999.0]
    """
    with torch.no_grad():
        x = _root(function, y, y if start is None else start)
    if not torch.is_grad_enabled():
        return x
    # A Newton step from the root does not change x, but it has the gradients of the inverse.
    leaf = x.detach().requires_grad_()
    value = function(leaf)
    (slope,) = torch.autograd.grad(value.sum(), leaf, retain_graph=True)
    x_with_gradient = x - (function(x) - y) / slope.detach()
    return torch.where(torch.isfinite(x_with_gradient), x_with_gradient, x)


def _root(function: Callable[[Tensor], Tensor], y: Tensor, start: Tensor) -> Tensor:
    low, high = _bracket(function, y, start)
    eps = torch.finfo(y.dtype).eps
    # b is the newest point, a the end of the interval opposite to it, c the point before b.
    a, b = low, high
    fa, fb = function(a) - y, function(b) - y
    c, fc = a, fa
    t = torch.full_like(y, 0.5)
    # Where one end of the bracket does not exist, the result is that infinite end.
    best = torch.where(torch.isfinite(a), b, a)
    done = ~torch.isfinite(low) | ~torch.isfinite(high)
    for _ in range(_HALVINGS):
        nearest = torch.where(fa.abs() < fb.abs(), a, b)
        best = torch.where(done, best, nearest)
        width = (b - a).abs()
        done = done | (torch.minimum(fa.abs(), fb.abs()) == 0)
        done = done | (width <= 2 * eps * best.abs() + torch.finfo(y.dtype).tiny)
        if bool(done.all()):
            break
        # The new point is at least one float away from both ends.
        min_t = (eps * best.abs() / width.clamp_min(torch.finfo(y.dtype).tiny)).clamp(max=0.5)
        new = a + torch.maximum(torch.minimum(t, 1 - min_t), min_t) * (b - a)
        f_new = function(new) - y
        same = torch.sign(f_new) == torch.sign(fa)
        c, fc = torch.where(same, a, b), torch.where(same, fa, fb)
        b, fb = torch.where(same, b, a), torch.where(same, fb, fa)
        a, fa = new, f_new
        xi, phi = (a - b) / (c - b), (fa - fb) / (fc - fb)
        safe = (phi * phi < xi) & ((1 - phi) * (1 - phi) < 1 - xi)
        fit = fa / (fb - fa) * fc / (fb - fc) + (c - a) / (b - a) * fa / (fc - fa) * fb / (fc - fb)
        t = torch.where(safe & torch.isfinite(fit), fit, 0.5)
    return best


def _bracket(
    function: Callable[[Tensor], Tensor], y: Tensor, start: Tensor
) -> tuple[Tensor, Tensor]:
    """Ends with f(low) <= y <= f(high), infinite where there are none, NaN where y is."""
    reach = torch.ones_like(y) + start.abs() * 2**-10
    low, high = start - reach, start + reach
    for _ in range(_DOUBLINGS):
        is_finite = torch.isfinite(reach)
        below, above = (function(low) > y) & is_finite, (function(high) < y) & is_finite
        if not bool((below | above).any()):
            break
        reach = torch.where(below | above, 2 * reach, reach)
        # An end that was not far enough becomes the opposite end.
        low, high = (
            torch.where(below, start - reach, torch.where(above, high, low)),
            torch.where(above, start + reach, torch.where(below, low, high)),
        )
    return low, high
