"""Kernel density estimation."""

from typing import Annotated, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from densekit.base import Capabilities, DensityEstimator
from densekit.classical.bandwidth import LeaveOneOut, cross_validated, rule_of_thumb
from densekit.classical.rows import distinct
from densekit.distributions.kernel import KernelDistribution
from densekit.params import Interval, OneOf

_MAX_PAIRS, _MIN_LEFT_OUT = 20_000_000, 100
"""Number of pairs of rows that ``"auto"`` evaluates, and the smallest number of rows it leaves out."""


class KernelDensity(DensityEstimator):
    r"""Kernel density estimate with one kernel at every training row.

    .. math::  p(z) = \frac{1}{W h^D} \sum_{i=1}^n w_i\, K\Bigl(\frac{z - z_i}{h}\Bigr), \qquad
               W = \sum_{i=1}^n w_i, \qquad
               K(u) \propto e^{-|u|^2/2},\; (1 - |u|^2)_+ \text{ or } 1[|u| < 1]

    z are events of shape (n, D) with standardized columns, and w are the weights of the rows
    (``sample_weight`` of ``fit``, one by default). Scores are exact on continuous columns, and
    -inf outside the reach of a compact kernel. Integers, categories and pixels are dequantized,
    and their score is a lower bound. A score evaluates the kernel once per training row, in blocks
    that fit into the cache, so that memory does not grow with the number of rows.

    Parameters
    ----------
    kernel : {"gaussian", "epanechnikov", "tophat"}
        The kernel K.
    bandwidth : float or {"auto", "scott", "silverman", "cv"}
        h, in standard deviations of each column, so that rescaling a column changes nothing. As in
        scikit-learn on standardized columns, it is the standard deviation of the Gaussian kernel
        and the radius of the other two. ``"scott"`` and ``"silverman"`` are rules for the standard
        deviation of the kernel, with n = W; a compact kernel gets the radius of that standard
        deviation. ``"cv"`` maximizes the exact leave-one-out likelihood; the cost is quadratic in
        the number of rows. If every row has a duplicate this likelihood has no maximum, and the
        search ends near 1/200 of Scott's bandwidth. ``"auto"`` does the same with two changes: a
        row is left out together with all rows equal to it, and if there are more than 4,000 rows
        only a random subset of them is left out in turn, as many as give twenty million pairs but
        at least 100.

    Attributes
    ----------
    bandwidth_ : float
        The bandwidth h.
    points_ : ndarray of shape (n, D)
        The training events.
    point_weights_ : ndarray of shape (n,) or None
        Their weights w; None if all are one.

    References
    ----------
    M. Rosenblatt. Remarks on Some Nonparametric Estimates of a Density Function. Annals of
    Mathematical Statistics, 1956. https://doi.org/10.1214/aoms/1177728190

    E. Parzen. On Estimation of a Probability Density Function and Mode. Annals of Mathematical
    Statistics, 1962. https://doi.org/10.1214/aoms/1177704472

    D. W. Scott. Multivariate Density Estimation. Wiley 1992. https://doi.org/10.1002/9780470316849

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
            return cross_validated(LeaveOneOut(points, weights), n, self.kernel)
        if self.bandwidth == "auto":
            points, weights = distinct(points, weights)
            m = max(_MIN_LEFT_OUT, _MAX_PAIRS // len(points))
            left_out = torch.randperm(len(points), device=points.device)[:m].sort().values
            return cross_validated(
                LeaveOneOut(points, weights, left_out, whole=True), n, self.kernel
            )
        return rule_of_thumb(self.bandwidth, n, points.shape[1], self.kernel)

    def _distribution(self, context: Tensor | None) -> TorchDistribution:
        dtype = self._torch_dtype
        points = torch.as_tensor(self.points_, dtype=dtype, device=self.device_)
        # Files saved by older versions have no weights.
        weights = getattr(self, "point_weights_", None)
        if weights is not None:
            weights = torch.as_tensor(weights, dtype=dtype, device=self.device_)
        return KernelDistribution(points, self.bandwidth_, self.kernel, weights)
