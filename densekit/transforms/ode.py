"""Continuous transforms: data to noise along the solution of a differential equation."""

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torchdiffeq import odeint

from densekit.nets.chain import squash
from densekit.transforms.columns import ColumnTransform

_MAX_CORRECTIONS = 20
"""Largest number of corrections of the inverse; three or four suffice if the steps are short enough."""


class Velocity(Protocol):
    """Interface of the velocity, for example :class:`~densekit.nets.velocity.VelocityNet`."""

    def __call__(self, t: Tensor, y: Tensor, context: Tensor | None = None) -> Tensor:
        """The velocity (D, N) of columns y (D, N) at time t, a scalar."""

    def with_divergence(
        self, t: Tensor, y: Tensor, context: Tensor | None = None, probes: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The velocity, and its divergence (1, N) or the quadratic form of each probe (k, N)."""


class ContinuousTransform(ColumnTransform):
    r"""A transform along the flow of a velocity v from time 0 (data) to time 1 (noise).

    .. math:: y(0) = \operatorname{asinh}(x), \qquad \frac{dy}{dt} = v(y, t, c), \qquad
              z = \sinh(y(1))

    .. math:: \log\left|\frac{dz}{dx}\right|
              = \int_0^1 \operatorname{tr} \frac{\partial v}{\partial y}\, dt
              + \sum_d \log\cosh y_d(1) - \sum_d \log\cosh y_d(0)

    The function asinh handles outliers: it is close to x near zero and close to a logarithm far
    out, where a bounded velocity then scales x, and no finite row diverges. With v = 0 the
    transform is the identity.

    Parameters
    ----------
    velocity : nn.Module
        A :class:`Velocity`.
    n_features, n_context : int
        D, C.
    n_steps : int
        Number of Runge-Kutta steps of order four in training; evaluation uses twice as many.

    Notes
    -----
    **Exactness.** The solution and the integral use the same grid of equal steps. Both have an
    error of order ``n_steps`` ** -4, which is deterministic and does not depend on the other rows.
    ``to_data`` is the inverse of the discretized map, not only of the differential equation, up to
    rounding if its corrections converge. The log-determinant is that of the differential equation
    with the error above, not that of the discretized map.

    **Training mode.** The steps end at random times. With a fixed grid a network learns to move
    between its nodes in a way that the solver does not see, which gives wrong likelihoods.

    References
    ----------
    R. T. Q. Chen, Y. Rubanova, J. Bettencourt and D. Duvenaud. Neural Ordinary Differential
    Equations. NeurIPS 2018. https://arxiv.org/abs/1806.07366

    W. Grathwohl, R. T. Q. Chen, J. Bettencourt, I. Sutskever and D. Duvenaud. FFJORD: Free-form
    Continuous Dynamics for Scalable Reversible Generative Models. ICLR 2019.
    https://arxiv.org/abs/1810.01367

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
        """Data to noise, and log|dz/dx| with the exact divergence at each time."""
        z, ladj = self.estimates(x, context)
        return z, ladj[0]

    def estimates(
        self, x: Tensor, context: Tensor | None = None, probes: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        r"""Data (D, N) to noise (D, N), and log|dz/dx| estimated from each of k probes, (k, N).

        Probes (D, k, 1) or (D, 1, N), with mean 0 and covariance I, estimate the divergence by
        :math:`e^\top (\partial v / \partial y)\, e` (Hutchinson 1989), with the same e at all
        times. Each estimate is unbiased. Without probes the result (1, N) is exact.
        """
        start = squash(x)
        grid = self._random_grid(x) if self.training else self._even_grid(x)
        end, ladj = self.integrate(start, grid, context, probes)
        return torch.sinh(end), ladj + _log_cosh(end) - _log_cosh(start)

    def to_data(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Noise to data, and log|dx/dz|.

        The equation solved backward ends within the error of the grid. The starting point is then
        corrected repeatedly by the distance between z and the forward solution from that end. A
        column stops when nothing is left to correct or a correction reduces the distance by less
        than a tenth. The latter happens if the velocity changes too fast for the grid; more steps
        solve it.
        """
        end, grid = squash(z), self._even_grid(z)
        start, ladj = self.integrate(
            self._corrected_start(end, grid, context), grid.flip(0), context
        )
        return torch.sinh(start), ladj[0] + _log_cosh(start) - _log_cosh(end)

    def data_of(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Noise to data without the log-determinant, which costs less."""
        end, grid = squash(z), self._even_grid(z)
        return torch.sinh(
            self._solution(self._corrected_start(end, grid, context), grid.flip(0), context)
        )

    def _corrected_start(self, end: Tensor, grid: Tensor, context: Tensor | None) -> Tensor:
        """Starting point of the backward solution for which the forward solution from its end returns
        to ``end``.
        """
        current = best = end
        tolerance = 2 * torch.finfo(end.dtype).eps * (1 + end.abs().amax(0))
        smallest = torch.full_like(tolerance, torch.inf)
        going = torch.ones_like(tolerance, dtype=torch.bool)
        for _ in range(_MAX_CORRECTIONS):
            residual = end - self._solution(
                self._solution(current, grid.flip(0), context), grid, context
            )
            distance = residual.abs().amax(0)
            best = torch.where(distance < smallest, current, best)
            # Each column stops on its own, so that none depends on the others.
            going = going & (distance < 0.9 * smallest) & (distance > tolerance)
            if not going.any():
                break
            smallest = torch.minimum(distance, smallest)
            current = torch.where(going, current + residual, current)
        return best

    def integrate(
        self,
        y: Tensor,
        grid: Tensor,
        context: Tensor | None = None,
        probes: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Solve for columns y (D, N) from the first to the last time of the grid.

        Also returns the integral of the divergence, (1, N), or its estimate from each probe, (k,
        N).
        """
        d = self.n_features
        k = 1 if probes is None else probes.shape[1]

        def rates(t: Tensor, state: Tensor) -> Tensor:
            return torch.cat(self.velocity.with_divergence(t, state[:d], context, probes))

        state = _solve(rates, torch.cat([y, y.new_zeros(k, y.shape[1])]), grid)
        return state[:d], state[d:]

    def _solution(self, y: Tensor, grid: Tensor, context: Tensor | None) -> Tensor:
        return _solve(lambda t, y: self.velocity(t, y, context), y, grid)

    def _even_grid(self, like: Tensor) -> Tensor:
        return torch.linspace(0, 1, 2 * self.n_steps + 1, dtype=like.dtype, device=like.device)

    def _random_grid(self, like: Tensor) -> Tensor:
        """A grid whose inner nodes are each moved by up to four tenths of a step."""
        grid = torch.linspace(0, 1, self.n_steps + 1, dtype=like.dtype, device=like.device)
        grid[1:-1] += 0.8 / self.n_steps * (torch.rand_like(grid[1:-1]) - 0.5)
        return grid


def _solve(rates: Callable[[Tensor, Tensor], Tensor], state: Tensor, grid: Tensor) -> Tensor:
    """The state at the end of the grid.

    Gradients are those of the steps. Solving the adjoint equation instead took 1.6 times as long,
    to save memory that is not scarce.
    """
    ends = grid[[0, -1]]
    options = {"grid_constructor": lambda func, y, t: grid}
    end: Tensor = odeint(rates, state, ends, method="rk4", options=options)[-1]
    return end


def _log_cosh(y: Tensor) -> Tensor:
    """log(dx/dy) of x = sinh(y), summed over the features, without overflow."""
    return (y.abs() + softplus(-2 * y.abs()) - math.log(2)).sum(0)
