"""Flows of time: data to noise along the solution of a differential equation."""

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torchdiffeq import odeint

from densekit.nets.chain import squash
from densekit.transforms.columns import ColumnTransform

_CORRECTIONS = 20
"""Corrections of the way back, at most: three or four reach rounding where the grid is fine enough."""


class Velocity(Protocol):
    """What is integrated: :class:`~densekit.nets.velocity.VelocityNet`, or anything like it."""

    def __call__(self, t: Tensor, y: Tensor, context: Tensor | None = None) -> Tensor:
        """The velocity (D, N) of columns y (D, N) at the time t, ()."""

    def with_divergence(
        self, t: Tensor, y: Tensor, context: Tensor | None = None, probes: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The velocity, and its divergence (1, N) or the quadratic form of each probe (k, N)."""


class ContinuousTransform(ColumnTransform):
    r"""Data move with a velocity v from time 0 to time 1, where they are noise.

    .. math:: y(0) = \operatorname{asinh}(x), \qquad \frac{dy}{dt} = v(y, t, c), \qquad
              z = \sinh(y(1))

    .. math:: \log\left|\frac{dz}{dx}\right|
              = \int_0^1 \operatorname{tr} \frac{\partial v}{\partial y}\, dt
              + \sum_d \log\cosh y_d(1) - \sum_d \log\cosh y_d(0)

    Chen et al., Neural Ordinary Differential Equations (2018); Grathwohl et al., FFJORD (2019). The
    chart asinh keeps outliers: near zero it is x itself, and far out its logarithm, so that a bounded
    velocity there scales and no finite row runs away. With v = 0 it is the identity.

    Parameters
    ----------
    velocity : nn.Module
        A :class:`Velocity`.
    n_features, n_context : int
        D, C.
    n_steps : int
        Steps of the Runge-Kutta rule of order four while training; otherwise it is twice as many.

    Notes
    -----
    **What is exact.** Place and integral are those of a grid of equal steps, by the same rule: an error
    of order ``n_steps`` ** -4 in both, which is none of chance and is the same for a row whatever
    rows are beside it. ``to_data`` is the inverse of that very map and not only of the differential
    equation, to rounding where the grid is fine enough for its corrections to converge
    (:meth:`to_data`). The log-determinant is the equation's, up to the error said, and not that of the
    map of the grid.

    **In training mode** the steps end at random places. With fixed ones a network learns to move
    between them as the rule does not see: likelihood that is none.

    Examples
    --------
    >>> from densekit.nets.velocity import VelocityNet
    >>> transform = ContinuousTransform(VelocityNet(2, (8, 8)), 2).eval()
    >>> transform(torch.tensor([1.0, 2.0])).round(decimals=5).tolist()
    [1.0, 2.0]
    """

    def __init__(
        self, velocity: nn.Module, n_features: int, n_context: int = 0, n_steps: int = 8
    ) -> None:
        super().__init__(n_features, n_context)
        self.velocity: Any = velocity
        self.n_steps = n_steps

    def to_noise(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data to noise, and log|dz/dx| with the divergence exact at each place."""
        z, ladj = self.estimates(x, context)
        return z, ladj[0]

    def estimates(
        self, x: Tensor, context: Tensor | None = None, probes: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        r"""Data (D, N) to noise (D, N), and log|dz/dx| by each of k probes, (k, N).

        Probes (D, k, 1) or (D, 1, N), of mean 0 and covariance I, estimate the divergence by
        :math:`e^\top (\partial v / \partial y)\, e` (Hutchinson 1989), the same e all the way; each
        estimate is unbiased. Without probes there is one, and it is exact.
        """
        start = squash(x)
        grid = self._uneven(x) if self.training else self._even(x)
        end, ladj = self.integrate(start, grid, context, probes)
        return torch.sinh(end), ladj + _log_cosh(end) - _log_cosh(start)

    def to_data(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Noise to data, and log|dx/dz|.

        The equation solved backwards ends within the error of the grid. How far from z the way forth
        from there leads is added to where the way back begins, again and again: a column stops when
        nothing is left to correct, or when a correction no longer takes a tenth off what is left.
        That happens where the velocity changes too fast for the grid: more steps are the remedy.
        """
        end, grid = squash(z), self._even(z)
        start, ladj = self.integrate(self._begin(end, grid, context), grid.flip(0), context)
        return torch.sinh(start), ladj[0] + _log_cosh(start) - _log_cosh(end)

    def place(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Data alone, for whom the log-determinant would cost more than the way."""
        end, grid = squash(z), self._even(z)
        return torch.sinh(self._move(self._begin(end, grid, context), grid.flip(0), context))

    def _begin(self, end: Tensor, grid: Tensor, context: Tensor | None) -> Tensor:
        """Whence the way back leads to where the way forth leads to ``end`` from."""
        begin = best = end
        enough = 2 * torch.finfo(end.dtype).eps * (1 + end.abs().amax(0))
        least = torch.full_like(enough, torch.inf)
        going = torch.ones_like(enough, dtype=torch.bool)
        for _ in range(_CORRECTIONS):
            off = end - self._move(self._move(begin, grid.flip(0), context), grid, context)
            left = off.abs().amax(0)
            best = torch.where(left < least, begin, best)
            # Each column for itself: none depends on which others are beside it.
            going = going & (left < 0.9 * least) & (left > enough)
            if not going.any():
                break
            least = torch.minimum(left, least)
            begin = torch.where(going, begin + off, begin)
        return best

    def integrate(
        self,
        y: Tensor,
        grid: Tensor,
        context: Tensor | None = None,
        probes: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Columns y (D, N) from the first time of the grid to the last, and the integral of their
        divergence, (1, N), or of each probe's estimate of it, (k, N)."""
        d = self.n_features
        k = 1 if probes is None else probes.shape[1]

        def rates(t: Tensor, state: Tensor) -> Tensor:
            return torch.cat(self.velocity.with_divergence(t, state[:d], context, probes))

        state = _solve(rates, torch.cat([y, y.new_zeros(k, y.shape[1])]), grid)
        return state[:d], state[d:]

    def _move(self, y: Tensor, grid: Tensor, context: Tensor | None) -> Tensor:
        return _solve(lambda t, y: self.velocity(t, y, context), y, grid)

    def _even(self, like: Tensor) -> Tensor:
        return torch.linspace(0, 1, 2 * self.n_steps + 1, dtype=like.dtype, device=like.device)

    def _uneven(self, like: Tensor) -> Tensor:
        """Equal steps whose ends are each moved by up to four tenths of a step."""
        grid = torch.linspace(0, 1, self.n_steps + 1, dtype=like.dtype, device=like.device)
        grid[1:-1] += 0.8 / self.n_steps * (torch.rand_like(grid[1:-1]) - 0.5)
        return grid


def _solve(rates: Callable[[Tensor, Tensor], Tensor], state: Tensor, grid: Tensor) -> Tensor:
    """The state at the end of the grid. The gradient goes back through the steps: solving the adjoint
    equation instead was measured at 1.6 times the time, for memory that is not needed."""
    ends = grid[[0, -1]]
    options = {"grid_constructor": lambda func, y, t: grid}
    end: Tensor = odeint(rates, state, ends, method="rk4", options=options)[-1]
    return end


def _log_cosh(y: Tensor) -> Tensor:
    """log(dx/dy) of x = sinh(y), summed over the features; no overflow."""
    return (y.abs() + softplus(-2 * y.abs()) - math.log(2)).sum(0)
