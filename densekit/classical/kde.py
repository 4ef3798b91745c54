"""Kernel density estimation."""

import math
from typing import Annotated, Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from densekit.base import Capabilities, DensityEstimator
from densekit.classical.rows import distinct
from densekit.distributions.bandwidth import (
    LeaveOneOut,
    cross_validated,
    cross_validated_full,
    drawn_in,
    mean_and_factor,
    rule_of_thumb,
)
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
    covariance : {"auto", "diag", "full"}
        Shape of the kernels. ``"diag"``: the same bandwidth along each column, in its standard
        deviations. ``"full"``, Gaussian kernels only: kernels of covariance :math:`h^2 C` around
        :math:`m + \sqrt{1 - h^2}\,(z_i - m)`, with the mean m and the shrunken covariance C of the
        events, which the density then has too (West 1993); at h = 1, its largest, it is the Gaussian,
        so that a few rows of many correlated columns cost no more than they must. ``"auto"`` takes
        the one of the larger held-out likelihood where ``bandwidth="auto"`` and the kernel is Gaussian,
        and ``"diag"`` elsewhere.

    Attributes
    ----------
    bandwidth_ : float
        The bandwidth h.
    covariance_ : {"diag", "full"}
        Shape of the kernels.
    scale_tril_ : ndarray of shape (D, D) or None
        Cholesky factor of C if the covariance is full.
    mean_event_ : ndarray of shape (D,) or None
        m if the covariance is full.
    points_ : ndarray of shape (n, D)
        The training events.
    point_weights_ : ndarray of shape (n,) or None
        Their weights w; None if all are one.

    Raises
    ------
    ValueError
        If ``covariance="full"`` is combined with a compact kernel or a bandwidth above one.

    References
    ----------
    M. Rosenblatt. Remarks on Some Nonparametric Estimates of a Density Function. Annals of
    Mathematical Statistics, 1956. https://doi.org/10.1214/aoms/1177728190

    E. Parzen. On Estimation of a Probability Density Function and Mode. Annals of Mathematical
    Statistics, 1962. https://doi.org/10.1214/aoms/1177704472

    D. W. Scott. Multivariate Density Estimation. Wiley 1992. https://doi.org/10.1002/9780470316849

    M. West. Approximating Posterior Distributions by Mixtures. Journal of the Royal Statistical Society
    B, 1993. https://doi.org/10.1111/j.2517-6161.1993.tb01911.x

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
    covariance: Annotated[str, OneOf("auto", "diag", "full")] = "auto"
    dtype: Annotated[str, OneOf("float32", "float64")] = "float64"

    _before: ClassVar[dict[str, Any]] = {"covariance": "diag"}
    _capabilities: ClassVar[Capabilities] = Capabilities(
        density="exact",
        view="relaxed",
        modalities=("table", "image"),
        weights=True,
        score_batch=4096,
    )

    def _fit(self, events: Tensor, context: Tensor | None, weights: Tensor | None = None) -> None:
        self._check_covariance()
        points = events.double()
        self.points_ = points.cpu().numpy().copy()
        self.point_weights_ = None if weights is None else weights.cpu().numpy().copy()
        self.covariance_ = "full" if self.covariance == "full" else "diag"
        if self.covariance_ == "diag" and self.bandwidth != "auto":
            self.bandwidth_ = self._bandwidth(points, weights)
            self.mean_event_, self.scale_tril_ = None, None
            return
        few, counts = distinct(points, weights)
        order = torch.randperm(len(few), device=few.device)
        if self.bandwidth == "auto":
            n = len(points) if weights is None else float(weights.sum())
            self._choose(few, counts, n, order)
        else:
            self.bandwidth_ = self._bandwidth(points, weights)
        self.mean_event_, self.scale_tril_ = None, None
        if self.covariance_ == "full":
            mean, factor = mean_and_factor(few[order], None if counts is None else counts[order])
            self.mean_event_, self.scale_tril_ = mean.cpu().numpy(), factor.cpu().numpy()

    def _check_covariance(self) -> None:
        if self.covariance != "full":
            return
        if self.kernel != "gaussian":
            raise ValueError(
                f'covariance="full" with kernel={self.kernel!r}: a full covariance is that of a '
                'Gaussian kernel; leave kernel="gaussian", or set covariance="diag"'
            )
        if self.bandwidth == "cv" or (not isinstance(self.bandwidth, str) and self.bandwidth > 1):
            raise ValueError(
                f'covariance="full" with bandwidth={self.bandwidth!r}: must be "auto", "scott", '
                '"silverman" or a number up to 1, at which the density is the Gaussian'
            )

    def _bandwidth(self, points: Tensor, weights: Tensor | None) -> float:
        n = len(points) if weights is None else float(weights.sum())
        if not isinstance(self.bandwidth, str):
            return float(self.bandwidth)
        if self.bandwidth == "cv":
            return cross_validated(LeaveOneOut(points, weights), n, self.kernel)
        found = rule_of_thumb(self.bandwidth, n, points.shape[1], self.kernel)
        return min(found, 1.0) if self.covariance_ == "full" else found

    def _choose(self, points: Tensor, weights: Tensor | None, n: float, order: Tensor) -> None:
        """Set the bandwidth, and whether the covariance is full, by rows that are held out."""
        best = -math.inf
        if self.covariance != "full":
            m = max(_MIN_LEFT_OUT, _MAX_PAIRS // len(points))
            held = LeaveOneOut(points, weights, order[:m].sort().values, whole=True)
            self.bandwidth_ = cross_validated(held, n, self.kernel)
            best = float(held.log_likelihood(self.bandwidth_, 1, self.kernel)[0])
        if self.covariance != "diag" and self.kernel == "gaussian":
            bandwidth, likelihood = cross_validated_full(points, weights, order)
            if likelihood > best or self.covariance == "full":
                self.bandwidth_, self.covariance_ = bandwidth, "full"

    def _distribution(self, context: Tensor | None) -> TorchDistribution:
        dtype = self._torch_dtype
        points = torch.as_tensor(self.points_, device=self.device_)
        # Files from before there were weights have none, and none of a full covariance.
        weights = getattr(self, "point_weights_", None)
        if weights is not None:
            weights = torch.as_tensor(weights, dtype=dtype, device=self.device_)
        scale_tril = getattr(self, "scale_tril_", None)
        if scale_tril is not None:
            mean = torch.as_tensor(self.mean_event_, device=self.device_)
            scale_tril = torch.as_tensor(scale_tril, device=self.device_)
            points = drawn_in(points, mean, scale_tril, self.bandwidth_)
            scale_tril = scale_tril.to(dtype)
        return KernelDistribution(
            points.to(dtype), self.bandwidth_, self.kernel, weights, scale_tril
        )
