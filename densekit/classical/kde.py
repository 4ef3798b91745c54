"""Kernel density."""

from typing import Annotated, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from densekit.base import Capabilities, DensityEstimator
from densekit.classical.bandwidth import Held, cross_validated, rule_of_thumb
from densekit.classical.rows import distinct
from densekit.distributions.kernel import KernelDistribution
from densekit.params import Interval, OneOf

_PAIRS, _LEFT_OUT = 20_000_000, 100
"""Pairs of rows whose distances ``"auto"`` takes at a time, and rows that it leaves out at least."""


class KernelDensity(DensityEstimator):
    r"""One kernel around every row.

    .. math::  p(z) = \frac{1}{W h^D} \sum_{i=1}^n w_i\, K\Bigl(\frac{z - z_i}{h}\Bigr), \qquad
               W = \sum_{i=1}^n w_i, \qquad
               K(u) \propto e^{-|u|^2/2},\; (1 - |u|^2)_+ \text{ or } 1[|u| < 1]

    over events z (n, D), whose columns are standardized (Rosenblatt 1956; Parzen 1962), with weights
    w of the rows, one unless ``fit`` is given a ``sample_weight``. Scores are exact, and -inf where a
    compact kernel does not reach; with integer or discrete columns, which are dequantized, a lower
    bound. A score costs one exponential per row learned from, in blocks that stay in cache, so that
    memory does not grow.

    Parameters
    ----------
    kernel : {"gaussian", "epanechnikov", "tophat"}
        K.
    bandwidth : float or {"auto", "scott", "silverman", "cv"}
        h, in units of each column's standard deviation: rescaling a column changes nothing. It
        is the standard deviation of the Gaussian kernel and the radius of the other two, as in
        scikit-learn on standardized columns. The rules of Scott (1992) and Silverman (1986) give
        the kernel's standard deviation, so that a compact kernel gets a radius that suits it;
        their n is W.
        ``"cv"`` maximizes the exact leave-one-out likelihood, at a cost quadratic in the rows;
        where every row has a duplicate that has no maximum, and a two-hundredth of Scott's
        bandwidth is about the least that is tried.
        ``"auto"`` does as ``"cv"`` does, but for two things: a row is left out with all rows that
        are equal to it, and of more than 4,000 rows only some are left out in turn, at random: so many
        that there are twenty million pairs, and 100 at least.

    Attributes
    ----------
    bandwidth_ : float
    points_ : ndarray, shape (n, D)
        The events learned from.
    point_weights_ : ndarray, shape (n,), or None
        w, None where all are one.

    Examples
    --------
    >>> import numpy as np
    >>> from densekit import KernelDensity
    >>> X = np.random.default_rng(0).normal(size=(1000, 2))
    >>> est = KernelDensity(bandwidth="scott").fit(X)
    >>> round(est.bandwidth_, 4), est.sample(3).shape
    (0.3162, (3, 2))
    """

    kernel: Annotated[str, OneOf("gaussian", "epanechnikov", "tophat")] = "gaussian"
    bandwidth: Annotated[
        float | str, OneOf("auto", "scott", "silverman", "cv"), Interval(gt=0)
    ] = "auto"
    dtype: Annotated[str, OneOf("float32", "float64")] = "float64"

    _capabilities: ClassVar[Capabilities] = Capabilities(
        density="exact",
        view="relaxed",
        modalities=("table", "image"),
        weights=True,
        score_batch=4096,
    )

    def _fit(self, events: Tensor, context: Tensor | None, weights: Tensor | None = None) -> None:
        points = events.double()
        self.bandwidth_ = self._bandwidth(points, weights)
        self.points_ = points.cpu().numpy().copy()
        self.point_weights_ = None if weights is None else weights.cpu().numpy().copy()

    def _bandwidth(self, points: Tensor, weights: Tensor | None) -> float:
        n = len(points) if weights is None else float(weights.sum())
        if not isinstance(self.bandwidth, str):
            return float(self.bandwidth)
        if self.bandwidth == "cv":
            return cross_validated(Held(points, weights), n, self.kernel)
        if self.bandwidth == "auto":
            points, weights = distinct(points, weights)
            m = max(_LEFT_OUT, _PAIRS // len(points))
            chosen = torch.randperm(len(points), device=points.device)[:m].sort().values
            return cross_validated(Held(points, weights, chosen, whole=True), n, self.kernel)
        return rule_of_thumb(self.bandwidth, n, points.shape[1], self.kernel)

    def _distribution(self, context: Tensor | None) -> TorchDistribution:
        dtype = self._torch_dtype
        points = torch.as_tensor(self.points_, dtype=dtype, device=self.device_)
        # Files from before there were weights have none.
        weights = getattr(self, "point_weights_", None)
        if weights is not None:
            weights = torch.as_tensor(weights, dtype=dtype, device=self.device_)
        return KernelDistribution(points, self.bandwidth_, self.kernel, weights)
