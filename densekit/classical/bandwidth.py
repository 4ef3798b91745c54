"""How wide a kernel should be: rules of thumb, and exact leave-one-out likelihood."""

import math

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from densekit.distributions.kernel import KERNEL_SUMS, Tiles, log_normaliser

_GRID_SIZE = 20


def rule_of_thumb(rule: str, n: int, n_dims: int, kernel: str) -> float:
    """Scott's (1992) or Silverman's (1986) bandwidth for standardised columns.

    The rules give the standard deviation of the kernel along each column; the radius of a compact
    kernel with that standard deviation is :math:`\\sqrt{D + 4}` (Epanechnikov) or
    :math:`\\sqrt{D + 2}` (tophat) times it.

    Examples
    --------
    >>> round(rule_of_thumb("scott", 1000, 2, "gaussian"), 4)
    0.3162
    """
    effective = n * (n_dims + 2) / 4 if rule == "silverman" else n
    spread = {"gaussian": 1.0, "epanechnikov": n_dims + 4.0, "tophat": n_dims + 2.0}[kernel]
    return math.sqrt(spread) * effective ** (-1 / (n_dims + 4))


def nearest_neighbour(points: Tensor) -> Tensor:
    """:math:`-|x_i - x_j|^2 / 2` of each point and the one nearest to it, (n,)."""
    best = points.new_full((len(points),), -torch.inf)
    for rows, columns, tile in Tiles(points).walk(points):
        _strike(tile, rows, columns)
        best[rows] = torch.maximum(best[rows], tile.amax(1))
    return best.clamp_max(0)


def leave_one_out(
    points: Tensor, nearest: Tensor, largest: float, n_bandwidths: int, kernel: str
) -> Tensor:
    r"""Mean log-density of the points, each under the kernel density of the others.

    The bandwidths are :math:`h_b = h_0 2^{-b/2}`: a Gaussian kernel of the next one is the square
    of the last, so that all of them together cost one exponential per pair of points.

    Parameters
    ----------
    points : Tensor, shape (n, D)
    nearest : Tensor, shape (n,)
        From :func:`nearest_neighbour`.
    largest : float
        :math:`h_0`.

    Returns
    -------
    Tensor, shape (n_bandwidths,)
    """
    n, n_dims = points.shape
    nearest = nearest / largest**2
    gaussian = kernel == "gaussian"
    total = points.new_zeros(n_bandwidths, n)
    tiles = Tiles(points / largest)
    # Relative to the nearest neighbour's, a sum of Gaussian kernels cannot underflow.
    for rows, columns, tile in tiles.walk(tiles.points, -nearest if gaussian else None):
        _strike(tile, rows, columns)
        if gaussian:
            tile.exp_()
        for b in range(n_bandwidths):
            if gaussian:
                total[b, rows] += tile.sum(1)
                tile.square_()
            else:
                total[b, rows] += KERNEL_SUMS[kernel](tile * 2.0**b)
    power = 2.0 ** torch.arange(n_bandwidths, dtype=points.dtype, device=points.device)
    log_sum = total.log() + (nearest * power[:, None] if gaussian else 0)
    log_volume = n_dims * (math.log(largest) - 0.5 * power.log())
    return log_sum.mean(1) + log_normaliser(kernel, n_dims) - math.log(n - 1) - log_volume


def _strike(tile: Tensor, rows: slice, columns: slice) -> None:
    """Take each point out of its own row of the table."""
    start, stop = max(rows.start, columns.start), min(rows.stop, columns.stop)
    if start < stop:
        itself = torch.arange(start, stop, device=tile.device)
        tile[itself - rows.start, itself - columns.start] = -torch.inf


def cross_validated(points: Tensor, kernel: str) -> float:
    """The bandwidth of the largest leave-one-out likelihood (Habbema et al. 1974; Duin 1976).

    A grid from four times Scott's rule down to a two-hundredth of it finds the peak, a line search
    its top. A compact kernel must reach every point's nearest neighbour, however far out that is.
    The cost is quadratic in the number of points: some ten passes over all pairs.
    """
    n, n_dims = points.shape
    nearest = nearest_neighbour(points)
    largest, least = 4 * rule_of_thumb("scott", n, n_dims, kernel), 0.0
    if kernel != "gaussian":
        least = math.sqrt(-2 * float(nearest.min())) * (1 + 1e-6)
        largest = max(largest, 2 * least)
    grid = leave_one_out(points, nearest, largest, _GRID_SIZE, kernel)
    low, high = (
        largest * 2.0 ** (-0.5 * b) for b in (int(grid.argmax()) + 1, int(grid.argmax()) - 1)
    )
    found = minimize_scalar(
        lambda log_h: -float(leave_one_out(points, nearest, math.exp(log_h), 1, kernel)[0]),
        bounds=(math.log(max(low, least)), math.log(high)),
        method="bounded",
        options={"xatol": 1e-3},
    )
    return math.exp(found.x)
