"""Increasing functions inverted by bracketing, for transforms whose inverse has no formula."""

from collections.abc import Callable

import torch
from torch import Tensor

_DOUBLINGS = 1100
"""More than the exponents of a float64 have: a bracket that is not found by then does not exist."""
_HALVINGS = 200
"""Far more than are needed: an interval is halved at least every few steps."""


def invert(function: Callable[[Tensor], Tensor], y: Tensor, start: Tensor | None = None) -> Tensor:
    r"""x with f(x) = y, for an f that acts on each entry alone and increases.

    An interval around ``start`` is doubled until it holds the root, and narrowed by Chandrupatla's
    method (1997): inverse quadratic interpolation where it is safe, else bisection, down to
    neighboring floats. Entries that are done stay as they are, so that none depends on its company.

    Parameters
    ----------
    function : callable
        f, from a tensor of the shape of y to one; non-decreasing in each entry.
    y : Tensor
        Any shape S.
    start : Tensor, optional
        A first guess, S; y itself where not given.

    Returns
    -------
    x : Tensor
        S. Where gradients are on, differentiable in y and in whatever f depends on, by the implicit
        function theorem: :math:`dx = (dy - \partial f) / f'(x)`. Infinite where y lies beyond all
        values of f, and NaN where y is.

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
    # One Newton step from the root moves nothing but carries the gradients of the inverse.
    leaf = x.detach().requires_grad_()
    value = function(leaf)
    (slope,) = torch.autograd.grad(value.sum(), leaf, retain_graph=True)
    moved = x - (function(x) - y) / slope.detach()
    return torch.where(torch.isfinite(moved), moved, x)


def _root(function: Callable[[Tensor], Tensor], y: Tensor, start: Tensor) -> Tensor:
    low, high = _bracket(function, y, start)
    eps = torch.finfo(y.dtype).eps
    # b is the newest point, a the end of the interval opposite to it, c the point before b.
    a, b = low, high
    fa, fb = function(a) - y, function(b) - y
    c, fc = a, fa
    t = torch.full_like(y, 0.5)
    best = torch.where(torch.isfinite(a), b, a)  # of a bracket that has no other end
    done = ~torch.isfinite(low) | ~torch.isfinite(high)
    for _ in range(_HALVINGS):
        nearest = torch.where(fa.abs() < fb.abs(), a, b)
        best = torch.where(done, best, nearest)
        width = (b - a).abs()
        done = done | (torch.minimum(fa.abs(), fb.abs()) == 0)
        done = done | (width <= 2 * eps * best.abs() + torch.finfo(y.dtype).tiny)
        if bool(done.all()):
            break
        # Never nearer to an end than the floats around the best point are to each other.
        least = (eps * best.abs() / width.clamp_min(torch.finfo(y.dtype).tiny)).clamp(max=0.5)
        new = a + torch.maximum(torch.minimum(t, 1 - least), least) * (b - a)
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
    """Ends with f(low) <= y <= f(high); infinite where there are none, NaN where y is."""
    reach = torch.ones_like(y) + start.abs() * 2**-10
    low, high = start - reach, start + reach
    for _ in range(_DOUBLINGS):
        more = torch.isfinite(reach)
        below, above = (function(low) > y) & more, (function(high) < y) & more
        if not bool((below | above).any()):
            break
        reach = torch.where(below | above, 2 * reach, reach)
        # The end that was not far enough becomes the other one.
        low, high = (
            torch.where(below, start - reach, torch.where(above, high, low)),
            torch.where(above, start + reach, torch.where(below, low, high)),
        )
    return low, high
