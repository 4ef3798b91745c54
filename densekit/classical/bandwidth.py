"""How wide a kernel should be: rules of thumb, and exact leave-one-out likelihood."""

import math
from dataclasses import dataclass

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from densekit.distributions.kernel import KERNEL_SUMS, KernelDistribution, Tiles, log_normalizer
from densekit.transforms.shrinkage import shrunken

_GRID_SIZE = 20
_FOLDS, _FULL_PAIRS, _FEWEST_FULL = 5, 2_000_000, 100
"""Folds of rows that are held out of a full covariance; pairs of rows of which the distances are taken
in all folds together, and rows that are held out at least."""
_FULL_BANDWIDTHS = tuple(2 ** (-b / 3) for b in range(17))


def rule_of_thumb(rule: str, n: float, n_dims: int, kernel: str) -> float:
    """Scott's (1992) or Silverman's (1986) bandwidth for n standardized rows.

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


@dataclass
class Held:
    """Points of which some are scored, each under the kernel density of the others.

    Parameters
    ----------
    points : Tensor, shape (n, D)
    weights : Tensor, shape (n,), optional
        Ones unless given.
    places : Tensor, shape (m,), optional
        Which points are scored; all unless given.
    whole : bool
        Whether a point is left out with all of its weight, or with a weight of one at most: what stays
        then is how often it is repeated.
    """

    points: Tensor
    weights: Tensor | None = None
    places: Tensor | None = None
    whole: bool = False

    def __post_init__(self) -> None:
        if self.places is None:
            self.places = torch.arange(len(self.points), device=self.points.device)
        everywhere = torch.ones_like(self.points[:, 0]) if self.weights is None else self.weights
        self.rows, self.counts = self.points[self.places], everywhere[self.places]
        out = self.counts if self.whole else self.counts.clamp_max(1)
        self.stays = self.counts - out
        self.others = everywhere.sum() - out
        self.nearest = self._nearest()

    def _nearest(self) -> Tensor:
        """:math:`-|x_i - x_j|^2 / 2` of each point and the one nearest to it, (m,)."""
        best = torch.where(self.stays > 0, 0.0, -torch.inf).to(self.rows)
        for rows, columns, tile in Tiles(self.points).walk(self.rows):
            self._strike(tile, rows, columns)
            best[rows] = torch.maximum(best[rows], tile.amax(1))
        return best.clamp_max(0)

    def _strike(self, tile: Tensor, rows: slice, columns: slice) -> None:
        """Take each point out of its own row of the table."""
        assert self.places is not None
        places = self.places[rows] - columns.start
        inside = ((places >= 0) & (places < tile.shape[1])).nonzero()[:, 0]
        tile[inside, places[inside]] = -torch.inf

    def log_likelihood(self, largest: float, n_bandwidths: int, kernel: str) -> Tensor:
        r"""Mean log-density of the points, each under the kernel density of the others.

        The bandwidths are :math:`h_b = h_0 2^{-b/2}`: a Gaussian kernel of the next one is the square
        of the last, so that all of them together cost one exponential per pair of points.

        Parameters
        ----------
        largest : float
            :math:`h_0`.

        Returns
        -------
        Tensor, shape (n_bandwidths,)
        """
        n_dims = self.points.shape[1]
        nearest = self.nearest / largest**2
        gaussian = kernel == "gaussian"
        # What stays of a point lies at distance zero, where each kernel here is one.
        total = self.stays.repeat(n_bandwidths, 1)
        tiles = Tiles(self.points / largest)
        # Relative to the nearest neighbor's, a sum of Gaussian kernels cannot underflow.
        shift = -nearest if gaussian else None
        for rows, columns, tile in tiles.walk(self.rows / largest, shift):
            weights = None if self.weights is None else self.weights[columns]
            self._strike(tile, rows, columns)
            if gaussian:
                tile.exp_()
            for b in range(n_bandwidths):
                if gaussian:
                    total[b, rows] += tile.sum(1) if weights is None else tile @ weights
                    tile.square_()
                else:
                    total[b, rows] += KERNEL_SUMS[kernel](tile * 2.0**b, weights)
        power = 2.0 ** torch.arange(n_bandwidths).to(self.points)
        log_sum = total.log() + (nearest * power[:, None] if gaussian else 0)
        log_volume = n_dims * (math.log(largest) - 0.5 * power.log())
        score = ((log_sum - self.others.log()) @ self.counts) / self.counts.sum()
        return score + log_normalizer(kernel, n_dims) - log_volume


def cross_validated(held: Held, n: float, kernel: str) -> float:
    """The bandwidth of the largest leave-one-out likelihood (Habbema et al. 1974; Duin 1976).

    A grid from four times Scott's rule for ``n`` rows down to a two-hundredth of it finds the peak, a
    line search its top. A compact kernel must reach every point's nearest neighbor, however far out
    that is. The cost is the number of points times that of those scored: some ten passes over all
    pairs.
    """
    largest, least = 4 * rule_of_thumb("scott", n, held.points.shape[1], kernel), 0.0
    if kernel != "gaussian":
        least = math.sqrt(-2 * float(held.nearest.min())) * (1 + 1e-6)
        largest = max(largest, 2 * least)
    grid = held.log_likelihood(largest, _GRID_SIZE, kernel)
    low, high = (
        largest * 2.0 ** (-0.5 * b) for b in (int(grid.argmax()) + 1, int(grid.argmax()) - 1)
    )
    found = minimize_scalar(
        lambda log_h: -float(held.log_likelihood(math.exp(log_h), 1, kernel)[0]),
        bounds=(math.log(max(low, least)), math.log(high)),
        method="bounded",
        options={"xatol": 1e-3},
    )
    return math.exp(found.x)


def mean_and_factor(points: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean (D,) and Cholesky factor (D, D) of the shrunken covariance of the points."""
    mean, (values, vectors), _ = shrunken(points, weights=weights)
    return mean, torch.linalg.cholesky((vectors * values) @ vectors.T)


def drawn_in(points: Tensor, mean: Tensor, scale_tril: Tensor, bandwidth: float) -> Tensor:
    """L^-1 (m + sqrt(1 - h^2) (x - m)), (n, D): centers of kernels of covariance h^2 L L^T, drawn toward
    the mean so that the density has the covariance L L^T (West 1993)."""
    shrink = math.sqrt(max(0.0, 1 - bandwidth**2))
    centers = mean + shrink * (points - mean)
    return torch.linalg.solve_triangular(scale_tril, centers.T, upper=False).T


def cross_validated_full(
    points: Tensor, weights: Tensor | None, order: Tensor
) -> tuple[float, float]:
    """The bandwidth of kernels with a full covariance, and the mean log-density of held-out rows at it.

    Mean and covariance of a fold are those of the other folds, since rows that helped to find a
    covariance fit it too well.

    Parameters
    ----------
    points : Tensor, shape (n, D)
    weights : Tensor, shape (n,), optional
    order : Tensor, shape (n,)
        The points in random order, which are cut into folds.
    """
    total = points.new_zeros(len(_FULL_BANDWIDTHS))
    count = 0.0
    n_held = max(_FEWEST_FULL, _FULL_PAIRS // len(points)) // _FOLDS
    folds = order.tensor_split(min(_FOLDS, len(points)))
    if len(folds) < 2:
        return 1.0, -math.inf
    for k, fold in enumerate(folds):
        rest = torch.cat([other for j, other in enumerate(folds) if j != k])
        held = fold[: max(1, n_held)]
        kept, w = points[rest], None if weights is None else weights[rest]
        mean, scale_tril = mean_and_factor(kept, w)
        counts = torch.ones_like(points[held, 0]) if weights is None else weights[held]
        for b, bandwidth in enumerate(_FULL_BANDWIDTHS):
            centers = drawn_in(kept, mean, scale_tril, bandwidth)
            law = KernelDistribution(centers, bandwidth, "gaussian", w, scale_tril)
            total[b] += counts @ law.log_prob(points[held])
        count += float(counts.sum())
    best = int(total.argmax())
    return _FULL_BANDWIDTHS[best], float(total[best]) / count
