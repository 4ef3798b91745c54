"""Kernel density estimates as distributions, scored in tiles that fit into the cache."""

import math
from collections.abc import Callable, Iterator
from typing import ClassVar

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Size, Tensor

KERNELS = ("gaussian", "epanechnikov", "tophat")


def tile_shape(device: torch.device) -> tuple[int, int]:
    """Number of rows and columns of a tile: what fits into a core's level-2 cache, or fills a GPU."""
    return (64, 2048) if device.type == "cpu" else (2048, 8192)


_MAX_FAR_PAIRS = 2**22
"""Largest number of pairs whose distances are computed at once."""


def log_normalizer(kernel: str, n_dims: int) -> float:
    """Minus the logarithm of the integral of the kernel with bandwidth one."""
    if kernel == "gaussian":
        return -0.5 * n_dims * math.log(2 * math.pi)
    log_ball = 0.5 * n_dims * math.log(math.pi) - math.lgamma(0.5 * n_dims + 1)
    return -log_ball + (math.log(0.5 * n_dims + 1) if kernel == "epanechnikov" else 0.0)


class Tiles:
    r"""The matrix ``-|x - y|^2 / 2`` of two sets of points, computed tile by tile in one block of
    memory.

    One matrix product per tile, :math:`[x, 1, -|x|^2/2] \cdot [y, -|y|^2/2, 1]`, gives all
    entries. Where points are so far from the origin that it would cancel, distances are computed
    from differences instead.

    Parameters
    ----------
    points : Tensor of shape (n, D)
        The points y, one per column of the matrix.
    """

    def __init__(self, points: Tensor):
        self.points = points
        half = -0.5 * points.square().sum(1, keepdim=True)
        self._right = torch.cat([points, half, torch.ones_like(half)], 1)
        tolerance = 1e-7 if points.dtype == torch.float64 else 1e-3
        furthest = -half.min().item() if len(points) else 0.0
        self.tolerance = tolerance
        self.cancels = torch.finfo(points.dtype).eps * furthest > tolerance

    def left(self, rows: Tensor, shift: Tensor | None = None) -> Tensor:
        """The left factor (m, D + 2) of the rows; ``shift`` (m,) is added to the entries of each row."""
        half = -0.5 * rows.square().sum(1)
        half = half if shift is None else half + shift
        return torch.cat([rows, torch.ones_like(half)[:, None], half[:, None]], 1)

    def differences(self, rows: Tensor, points: Tensor) -> Tensor:
        """The entries (m, n) without cancellation, which takes several times as long."""
        distance = torch.cdist(rows, points, compute_mode="donot_use_mm_for_euclid_dist")
        return distance.square().mul(-0.5)

    def dense(self, rows: Tensor) -> Tensor:
        """The whole matrix (m, n), for rows whose gradient is needed."""
        if self.cancels:
            return self.differences(rows, self.points)
        return self.left(rows) @ self._right.T

    def walk(
        self, rows: Tensor, shift: Tensor | None = None
    ) -> Iterator[tuple[slice, slice, Tensor]]:
        """Yield (rows, columns, entries) of each tile. The next tile overwrites the entries."""
        height, width = tile_shape(rows.device)
        left = self.left(rows, shift)
        memory = rows.new_empty(height * width)
        for top in range(0, len(rows), height):
            rows_of_tile = slice(top, min(top + height, len(rows)))
            for start in range(0, len(self.points), width):
                columns_of_tile = slice(start, min(start + width, len(self.points)))
                shape = (rows_of_tile.stop - top, columns_of_tile.stop - start)
                tile = memory[: shape[0] * shape[1]].view(shape)
                if self.cancels:
                    tile.copy_(self.differences(rows[rows_of_tile], self.points[columns_of_tile]))
                    if shift is not None:
                        tile += shift[rows_of_tile, None]
                else:
                    torch.mm(left[rows_of_tile], self._right[columns_of_tile].T, out=tile)
                yield rows_of_tile, columns_of_tile, tile


def _sum(tile: Tensor, weights: Tensor | None) -> Tensor:
    return tile.sum(1) if weights is None else tile @ weights


def _exponential(tile: Tensor, weights: Tensor | None = None) -> Tensor:
    return _sum(tile.exp_(), weights)


def _parabola(tile: Tensor, weights: Tensor | None = None) -> Tensor:
    return _sum(tile.add_(0.5).clamp_min_(0), weights).mul_(2)


def _count(tile: Tensor, weights: Tensor | None = None) -> Tensor:
    return _sum(tile.gt_(-0.5), weights)


KERNEL_SUMS: dict[str, Callable[..., Tensor]] = {
    "gaussian": _exponential,
    "epanechnikov": _parabola,
    "tophat": _count,
}
"""Functions that map a tile of ``-u^2 / 2`` to the sums of the kernel over its columns.

They may overwrite the tile. A second argument weights the columns; None weights them equally.
"""


class KernelDistribution(TorchDistribution):
    r"""A mixture of one radial kernel around each of n points.

    .. math::  p(x) = \frac{1}{W h^D} \sum_{i=1}^n w_i\, K\Bigl(\frac{x - x_i}{h}\Bigr), \qquad
               W = \sum_{i=1}^n w_i, \qquad
               K(u) \propto e^{-|u|^2/2},\; (1 - |u|^2)_+ \text{ or } 1[|u| < 1]

    A score costs one matrix product and one exponential per pair, in tiles that fit into the
    cache, so that memory does not grow with the number of rows or points. Rows with gradients use
    autograd and n numbers per row. Rows whose sum underflows are summed again relative to their
    nearest point, so that Gaussian tails are correct wherever they are finite.

    Parameters
    ----------
    points : Tensor of shape (n, D)
    bandwidth : float
        h: the standard deviation of the Gaussian kernel, the radius of the other two.
    kernel : {"gaussian", "epanechnikov", "tophat"}
    weights : Tensor of shape (n,), optional
        Positive weights w; equal by default.
    scale_tril : Tensor of shape (D, D), optional
        Lower triangular factor L: the points are those of L^-1 x, so that a Gaussian kernel has the
        covariance :math:`h^2 L L^T`. The identity by default.

    Raises
    ------
    ValueError
        If an argument has the wrong shape or value.

    Examples
    --------
    >>> points = torch.tensor([[0.0], [2.0]])
    >>> KernelDistribution(points, 1.0, "tophat").log_prob(torch.tensor([[0.5], [9.0]])).exp()
    tensor([0.2500, 0.0000])
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = False

    def __init__(
        self,
        points: Tensor,
        bandwidth: float,
        kernel: str = "gaussian",
        weights: Tensor | None = None,
        scale_tril: Tensor | None = None,
        validate_args: bool | None = False,
    ):
        if kernel not in KERNELS:
            raise ValueError(f"kernel={kernel!r}: must be one of {', '.join(map(repr, KERNELS))}")
        if points.ndim != 2 or not len(points):
            raise ValueError(f"points: must be (n, D) with n > 0, got {tuple(points.shape)}")
        if not bandwidth > 0:
            raise ValueError(f"bandwidth={bandwidth!r}: must be greater than 0")
        if weights is not None and (weights.shape != points.shape[:1] or not (weights > 0).all()):
            raise ValueError(
                f"weights: must be {len(points)} positive numbers, one per point, got shape "
                f"{tuple(weights.shape)}"
            )
        self.points, self.bandwidth, self.kernel = points, float(bandwidth), kernel
        self.weights, self.scale_tril = weights, scale_tril
        self._tiles = Tiles(points / self.bandwidth)
        n, n_dims = points.shape
        total = n if weights is None else float(weights.double().sum())
        self._log_scale = (
            log_normalizer(kernel, n_dims) - math.log(total) - n_dims * math.log(self.bandwidth)
        )
        if scale_tril is not None:
            self._log_scale -= float(scale_tril.double().diagonal().log().sum())
        super().__init__(Size(), Size((n_dims,)), validate_args=validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        r"""Log-density (\*sample_shape,); -inf outside the reach of a compact kernel."""
        rows = value.to(self.points.dtype).reshape(-1, self.event_shape[0])
        if self.scale_tril is not None:
            rows = torch.linalg.solve_triangular(self.scale_tril, rows.T, upper=False).T
        rows = rows / self.bandwidth
        smooth = value.requires_grad and torch.is_grad_enabled()
        log_sum = self._dense(rows) if smooth else self._blocked(rows)
        return (log_sum + self._log_scale).reshape(value.shape[:-1])

    def _dense(self, rows: Tensor) -> Tensor:
        return self._log_sum(self._tiles.dense(rows))

    def _log_sum(self, exponents: Tensor) -> Tensor:
        """Logarithm of each row's sum of the kernel, from the whole matrix ``-u^2 / 2``."""
        if self.kernel == "gaussian":
            logs = exponents if self.weights is None else exponents + self.weights.log()
            return logs.logsumexp(1)
        if self.kernel == "epanechnikov":
            return _sum((2 * exponents + 1).clamp_min(0), self.weights).log()
        inside = (exponents > -0.5).to(exponents.dtype)
        return _sum(inside, self.weights).log() + 0 * exponents.sum(1)

    def _blocked(self, rows: Tensor) -> Tensor:
        total = self._sum(rows)
        log_sum = total.log()
        # Far from the origin the matrix product loses precision, and near the smallest float a Gaussian
        # sum does. Such rows are computed from differences and relative to their nearest point.
        info = torch.finfo(rows.dtype)
        far = info.eps * 0.5 * rows.square().sum(1) > self._tiles.tolerance
        if self.kernel == "gaussian":
            far |= ~(total >= info.tiny * 1e20)
        for index in far.nonzero()[:, 0].split(max(1, _MAX_FAR_PAIRS // len(self.points))):
            log_sum[index] = self._log_sum(
                self._tiles.differences(rows[index], self._tiles.points)
            )
        return log_sum

    def _sum(self, rows: Tensor) -> Tensor:
        total = rows.new_zeros(len(rows))
        reduce = KERNEL_SUMS[self.kernel]
        for rows_of_tile, columns_of_tile, tile in self._tiles.walk(rows):
            total[rows_of_tile] += reduce(
                tile, None if self.weights is None else self.weights[columns_of_tile]
            )
        return total

    def sample(self, sample_shape: Size | tuple[int, ...] = ()) -> Tensor:
        r"""Samples (\*sample_shape, D): a random point plus a draw from the kernel."""
        with torch.no_grad():
            shape = self._extended_shape(Size(sample_shape))
            index = self._sample_indices(shape[:-1])
            noise = torch.randn(shape, dtype=self.points.dtype, device=self.points.device)
            if self.kernel != "gaussian" and self.event_shape[0]:
                # The direction is uniform, and |u|^2 is Beta(D/2, 1) in a ball and Beta(D/2, 2) under
                # the Epanechnikov kernel.
                half = noise.new_tensor(0.5 * self.event_shape[0])
                tail = noise.new_tensor(2.0 if self.kernel == "epanechnikov" else 1.0)
                square = torch.distributions.Beta(half, tail).sample(shape[:-1])
                noise *= (square.sqrt() / noise.norm(dim=-1))[..., None]
            rows = self.points[index] + self.bandwidth * noise
            return rows if self.scale_tril is None else rows @ self.scale_tril.T

    def _sample_indices(self, shape: Size) -> Tensor:
        """Indices of points, drawn with probabilities proportional to the weights."""
        if self.weights is None:
            return torch.randint(len(self.points), shape, device=self.points.device)
        # Cumulative sums are used because torch.multinomial is limited to 2^24 points.
        sums = self.weights.double().cumsum(0)
        place = torch.rand(shape, dtype=torch.float64, device=sums.device) * sums[-1]
        return torch.searchsorted(sums, place, right=True).clamp_max(len(sums) - 1)
