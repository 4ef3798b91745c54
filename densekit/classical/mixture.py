"""Gaussian mixture."""

import math
import time
from dataclasses import replace
from typing import Annotated, ClassVar

import numpy as np
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from densekit.base import Capabilities, DensityEstimator
from densekit.classical import em
from densekit.classical.rows import distinct
from densekit.classical.selection import Settings, choose
from densekit.distributions.mixture import NormalMixture
from densekit.params import Interval, OneOf

_CHOICE_ROWS = 20_000
_MOST_COMPONENTS = 64


class GaussianMixture(DensityEstimator):
    r"""A mixture of normals, learnt by expectation-maximisation.

    .. math::  p(z) = \sum_{k=1}^K w_k\, N(z; \mu_k, \Sigma_k)

    over events z (n, D). Scores are exact; with integer or discrete columns, which are
    dequantised, a lower bound. All restarts run as one tensor program, an iteration of which is
    two matrix products over quadratic features of the rows (Dempster, Laird and Rubin 1977).

    Parameters
    ----------
    n_components : int or "auto"
        K. ``"auto"`` doubles K from 1 for as long as that raises the likelihood of a fifth of the
        rows (of at most 20,000) that are held out, by more than its standard error; it stops at 64
        or where a component would have fewer rows than twice its free parameters per column.
    covariance_type : {"full", "tied", "diag", "spherical"}
        A covariance of its own for each component, one for all, variances, or one variance each.
    n_init : int
        Restarts from different k-means++ centres; the likeliest is kept.
    tol : float
        A restart ends when an iteration adds less than this to its mean log-likelihood, in nats.
    max_iter : int
        Iterations of a restart at most.
    max_time : float, optional
        Seconds of wall clock after which no further iteration begins; half of them may go into
        choosing K.
    covariance_floor : float
        Added to the variances, in units of the columns' own variances, as scikit-learn's
        ``reg_covar``: no component can collapse onto a row.
    prior_rows : float
        Each covariance is averaged with that of so many imagined rows, spread independently over
        a K-th of the volume of the data (after Fraley and Raftery 2007). It keeps components with
        few rows from scoring new rows absurdly low; 0 is maximum likelihood.

    Attributes
    ----------
    weights_ : ndarray, shape (K,)
    means_ : ndarray, shape (K, D)
        In event space: the columns are standardised. ``distribution_`` is in the units of X.
    covariances_ : ndarray, shape (K, D, D), (D, D), (K, D) or (K,)
        By ``covariance_type``, in event space.
    n_components_ : int
    n_iter_, converged_, lower_bound_ : int, bool, float
        Of the restart that was kept; the last is the mean log-likelihood of the events.

    Examples
    --------
    >>> import numpy as np
    >>> from densekit import GaussianMixture
    >>> X = np.random.default_rng(0).normal(size=(200, 1)) + [[-9.0], [9.0]] * 100
    >>> est = GaussianMixture(random_state=0).fit(X)
    >>> est.n_components_, est.weights_.round(2)
    (2, array([0.5, 0.5]))
    """

    n_components: Annotated[int | str, OneOf("auto"), Interval(ge=1)] = "auto"
    covariance_type: Annotated[str, OneOf("full", "tied", "diag", "spherical")] = "full"
    n_init: Annotated[int, Interval(ge=1)] = 3
    tol: Annotated[float, Interval(gt=0)] = 1e-4
    max_iter: Annotated[int, Interval(ge=1)] = 200
    max_time: Annotated[float, Interval(gt=0)] | None = None
    covariance_floor: Annotated[float, Interval(ge=1e-10)] = 1e-6
    prior_rows: Annotated[float | str, OneOf("auto"), Interval(ge=0)] = "auto"
    dtype: Annotated[str, OneOf("float32", "float64")] = "float64"

    _capabilities: ClassVar[Capabilities] = Capabilities(
        density="exact", view="relaxed", modalities=("table", "image"), score_batch=4096
    )

    def _fit(self, events: Tensor, context: Tensor | None, weights: Tensor | None = None) -> None:
        begun, seconds = time.perf_counter(), self.max_time or math.inf
        n = max(len(events), 0 if weights is None else int(weights.sum()))
        x, weights = distinct(events.double(), weights)
        auto, n_components = self.n_components == "auto", self.n_components
        if not auto and int(n_components) > n:
            raise ValueError(
                f"n_components={n_components} is more than the {n} rows of X; "
                'lower it or use n_components="auto"'
            )
        chooses = self.prior_rows == "auto"
        settings = Settings(
            1 if auto else int(n_components),
            self.covariance_type,
            self.n_init,
            self.tol,
            self.max_iter,
            em.Penalty(self.covariance_floor, 1.0 if chooses else float(self.prior_rows)),
            begun + seconds / 2,
        )
        if auto or chooses:
            settings = choose(x, weights, settings, auto, chooses)
        best = replace(settings, deadline=begun + seconds).run(x, weights)
        mixture = best.mixture
        self.n_components_ = settings.n_components
        self.prior_rows_ = settings.penalty.rows
        self.weights_ = mixture.log_weights.exp().cpu().numpy()
        self.means_ = mixture.loc.cpu().numpy()
        self.covariances_ = self._covariances(mixture.scale)
        self.lower_bound_, self.n_iter_, self.converged_ = (
            best.lower_bound,
            best.n_iter,
            best.converged,
        )

    def _covariances(self, scale: Tensor) -> np.ndarray:
        if self.covariance_type == "full":
            return (scale @ scale.mT).cpu().numpy()
        if self.covariance_type == "tied":
            return (scale[0] @ scale[0].mT).cpu().numpy()
        variance = scale.square().cpu().numpy()
        return variance if self.covariance_type == "diag" else variance.mean(1)

    def _distribution(self, context: Tensor | None) -> TorchDistribution:
        weights, loc, covariance = (
            torch.as_tensor(a, dtype=torch.float64, device=self.device_)
            for a in (self.weights_, self.means_, self.covariances_)
        )
        if self.covariance_type in ("full", "tied"):
            scale = torch.linalg.cholesky(covariance)
            scale = scale.expand(*loc.shape, loc.shape[1])
        else:
            scale = covariance.sqrt().reshape(len(loc), -1).expand_as(loc)
        dtype = self._torch_dtype
        return NormalMixture(weights.to(dtype), loc.to(dtype), scale.to(dtype))
