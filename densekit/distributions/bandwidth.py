"""Bandwidths of kernel density estimates: rules of thumb and exact leave-one-out likelihood."""

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
    r"""Bandwidth by the rule of Scott (1992) or Silverman (1986) for n standardized rows.

    The rules give the standard deviation of the kernel along each column. The radius of a compact
    kernel with this standard deviation is :math:`\sqrt{D + 4}` (Epanechnikov) or :math:`\sqrt{D +
    2}` (tophat) times as large.

    Parameters
    ----------
    rule : {"scott", "silverman"}
    n : float
        Number of rows, or their total weight.
    n_dims : int
        Number of columns D.
    kernel : {"gaussian", "epanechnikov", "tophat"}

    Returns
    -------
    float

    Examples
    --------
    >>> round(rule_of_thumb("scott", 1000, 2, "gaussian"), 4)
    0.3162
    """
    n_effective = n * (n_dims + 2) / 4 if rule == "silverman" else n
    squared_radius = {"gaussian": 1.0, "epanechnikov": n_dims + 4.0, "tophat": n_dims + 2.0}[
        kernel
    ]
    return math.sqrt(squared_radius) * n_effective ** (-1 / (n_dims + 4))


@dataclass
class LeaveOneOut:
    """Leave-one-out scores of some points, each under the kernel density of the others.

    Parameters
    ----------
    points : Tensor of shape (n, D)
    weights : Tensor of shape (n,), optional
        Weights of the points; ones by default.
    places : Tensor of shape (m,), optional
        Indices of the points that are scored; all by default.
    whole : bool
        Leave out a point with all of its weight. Otherwise at most a weight of one is left out,
        and a point of larger weight counts as a neighbor of itself.
    """

    points: Tensor
    weights: Tensor | None = None
    places: Tensor | None = None
    whole: bool = False

    def __post_init__(self) -> None:
        if self.places is None:
            self.places = torch.arange(len(self.points), device=self.points.device)
        all_weights = torch.ones_like(self.points[:, 0]) if self.weights is None else self.weights
        self.rows, self.counts = self.points[self.places], all_weights[self.places]
        left_out = self.counts if self.whole else self.counts.clamp_max(1)
        self.remaining = self.counts - left_out
        self.others = all_weights.sum() - left_out
        self.nearest = self._nearest()

    def _nearest(self) -> Tensor:
        """:math:`-|x_i - x_j|^2 / 2` for each point and its nearest neighbor, (m,)."""
        best = torch.where(self.remaining > 0, 0.0, -torch.inf).to(self.rows)
        for rows, columns, tile in Tiles(self.points).walk(self.rows):
            self._exclude_self(tile, rows, columns)
            best[rows] = torch.maximum(best[rows], tile.amax(1))
        return best.clamp_max(0)

    def _exclude_self(self, tile: Tensor, rows: slice, columns: slice) -> None:
        """Exclude each point from its own row of the table of distances."""
        assert self.places is not None
        places = self.places[rows] - columns.start
        inside = ((places >= 0) & (places < tile.shape[1])).nonzero()[:, 0]
        tile[inside, places[inside]] = -torch.inf

    def log_likelihood(self, largest: float, n_bandwidths: int, kernel: str) -> Tensor:
        """Mean leave-one-out log-density at several bandwidths.

        The bandwidths are :math:`h_b = h_0 2^{-b/2}`. The Gaussian kernel of each bandwidth is the
        square of the one before, so that all of them together need one exponential per pair of
        points.

        Parameters
        ----------
        largest : float
            The largest bandwidth :math:`h_0`.
        n_bandwidths : int
            Number of bandwidths.
        kernel : {"gaussian", "epanechnikov", "tophat"}

        Returns
        -------
        Tensor of shape (n_bandwidths,)
        """
        n_dims = self.points.shape[1]
        nearest = self.nearest / largest**2
        gaussian = kernel == "gaussian"
        # The weight of a point that is not left out is at distance zero, where every kernel is one.
        total = self.remaining.repeat(n_bandwidths, 1)
        tiles = Tiles(self.points / largest)
        # A sum of Gaussian kernels relative to that of the nearest neighbor cannot underflow.
        shift = -nearest if gaussian else None
        for rows, columns, tile in tiles.walk(self.rows / largest, shift):
            weights = None if self.weights is None else self.weights[columns]
            self._exclude_self(tile, rows, columns)
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


def cross_validated(loo: LeaveOneOut, n: float, kernel: str) -> float:
    """Bandwidth that maximizes the leave-one-out likelihood (Habbema et al. 1974; Duin 1976).

    The maximum is located on a grid from four times Scott's bandwidth for ``n`` rows down to 1/200
    of it and refined by a line search. A compact kernel must reach the nearest neighbor of every
    scored point. The cost is about ten passes over all pairs of a point and a scored point.

    Parameters
    ----------
    loo : LeaveOneOut
    n : float
        Number of rows, or their total weight.
    kernel : {"gaussian", "epanechnikov", "tophat"}

    Returns
    -------
    float
    """
    largest, smallest = 4 * rule_of_thumb("scott", n, loo.points.shape[1], kernel), 0.0
    if kernel != "gaussian":
        smallest = math.sqrt(-2 * float(loo.nearest.min())) * (1 + 1e-6)
        largest = max(largest, 2 * smallest)
    grid = loo.log_likelihood(largest, _GRID_SIZE, kernel)
    low, high = (
        largest * 2.0 ** (-0.5 * b) for b in (int(grid.argmax()) + 1, int(grid.argmax()) - 1)
    )
    found = minimize_scalar(
        lambda log_h: -float(loo.log_likelihood(math.exp(log_h), 1, kernel)[0]),
        bounds=(math.log(max(low, smallest)), math.log(high)),
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
