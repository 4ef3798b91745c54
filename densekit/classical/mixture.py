"""Gaussian mixture model."""

import math
import warnings
from dataclasses import replace
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from densekit import clock, codecs
from densekit.base import Capabilities, DensityEstimator
from densekit.classical.rows import distinct
from densekit.classical.selection import Settings, choose
from densekit.classical.units import covariance_in_units, location_and_scale
from densekit.codecs.dequantized import Dequantized, within_reach
from densekit.distributions import em
from densekit.distributions.mixture import NormalMixture
from densekit.params import Interval, OneOf
from densekit.runtime import padded

_DEFAULT_ITERATIONS, _UNLIMITED = 200, 10**9
"""Iterations of a restart without a budget, and with ``max_time`` only."""
_BATCH_ROWS = 16_384
"""Number of rows that ``predict_proba`` scores at a time."""


class GaussianMixture(DensityEstimator):
    r"""Gaussian mixture model fitted by expectation-maximization (EM).

    .. math::  p(z) = \sum_{k=1}^K w_k\, N(z; \mu_k, \Sigma_k)

    z are events of shape (n, D). Scores are exact on continuous columns. Integers, categories and
    pixels are dequantized, and their score is a lower bound. All restarts run as one tensor
    program, in which an iteration of EM is two matrix products over quadratic features of the
    rows.

    Parameters
    ----------
    n_components : int or "auto"
        K. ``"auto"`` doubles K from 1 as long as this raises the likelihood of held-out rows (a
        fifth of at most 20,000) by more than its standard error. It stops at 64, or when a
        component would have fewer rows than twice its free parameters per column.
    covariance_type : {"full", "tied", "diag", "spherical"}
        Each component has its own covariance, all share one, or each has its own variances or a
        single variance.
    n_init : int
        Number of restarts from different k-means++ centers; the most likely result is kept.
    tol : float
        A restart ends when an iteration raises its mean log-likelihood by less than this, in nats.
    max_iter : int, optional
        Largest number of iterations of a restart. None is 200, or no limit if ``max_time`` is
        given.
    max_time : float, optional
        Seconds of wall clock after the call of ``fit`` until which iterations may begin. At most
        half of them are used to choose K.
    covariance_floor : float
        Added to the variances, in units of the columns' variances, like scikit-learn's
        ``reg_covar``: no component can collapse onto a row.
    prior_rows : float or "auto"
        Number of prior rows. Each covariance is averaged with that of this many imaginary rows
        with independent columns, whose variances are those of the component, averaged with one row
        of the components' geometric mean. (Fraley and Raftery use the variances of all rows, which
        blurs small components.) Prior rows keep a component of few rows from giving new rows
        extremely low scores. 0 is maximum likelihood. ``"auto"`` maximizes the likelihood of
        held-out rows: in cross-validation for up to 1,000 rows, otherwise a fifth of at most
        20,000.

    Attributes
    ----------
    weights_ : ndarray of shape (K,)
        Weights w.
    means_ : ndarray of shape (K, D)
        Means in the units of X, with one entry per column that varies; `Gaussian` describes the
        entries of columns that are bounded or discrete.
    covariances_ : ndarray of shape (K, D, D), (D, D), (K, D) or (K, D)
        Covariances in the same units, by ``covariance_type``. A spherical component has the same
        variance in all columns of the standardized events, but one variance per column in the
        units of X.
    event_means_, event_covariances_ : ndarray
        Means and covariances of the events z, which define the model. The ``event_covariances_``
        of spherical components have shape (K,).
    n_components_, prior_rows_ : int, float
        The number of components and of prior rows.
    n_iter_, converged_, lower_bound_ : int, bool, float
        Number of iterations of the best restart, whether it converged, and its mean log-likelihood
        of the events.

    References
    ----------
    A. P. Dempster, N. M. Laird and D. B. Rubin. Maximum Likelihood from Incomplete Data via the EM
    Algorithm. JRSS B, 1977. https://doi.org/10.1111/j.2517-6161.1977.tb01600.x

    C. Fraley and A. E. Raftery. Bayesian Regularization for Normal Mixture Estimation and
    Model-Based Clustering. Journal of Classification, 2007.
    https://doi.org/10.1007/s00357-007-0004-5

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
    max_iter: Annotated[int, Interval(ge=1)] | None = None
    max_time: Annotated[float, Interval(gt=0)] | None = None
    covariance_floor: Annotated[float, Interval(ge=1e-10)] = 1e-10
    prior_rows: Annotated[float | str, OneOf("auto"), Interval(ge=0)] = "auto"
    dtype: Annotated[str, OneOf("float32", "float64")] = "float64"

    _capabilities: ClassVar[Capabilities] = Capabilities(
        density="exact",
        view="relaxed",
        modalities=("table", "image"),
        weights=True,
        score_batch=4096,
    )
    _renamed: ClassVar[dict[str, str]] = {
        "means_": "event_means_",
        "covariances_": "event_covariances_",
    }

    def _fit(self, events: Tensor, context: Tensor | None, weights: Tensor | None = None) -> None:
        start_time = clock.now() - clock.current().elapsed()
        seconds = math.inf if self.max_time is None else self.max_time
        n = max(len(events), 0 if weights is None else int(weights.sum()))
        x, weights = distinct(events.double(), weights)
        auto, n_components = self.n_components == "auto", self.n_components
        if not auto and int(n_components) > n:
            raise ValueError(
                f"n_components={n_components} is more than the {n} rows of X; "
                'lower it or use n_components="auto"'
            )
        auto_rows = self.prior_rows == "auto"
        settings = Settings(
            1 if auto else int(n_components),
            self.covariance_type,
            self.n_init,
            self.tol,
            self._max_iterations(),
            em.Penalty(self.covariance_floor, 1.0 if auto_rows else float(self.prior_rows)),
            start_time + seconds / 2,
        )
        if auto or auto_rows:
            settings = choose(x, weights, settings, auto, auto_rows)
        best = replace(settings, deadline=start_time + seconds).run(x, weights)
        if not best.converged and self.max_iter is None and self.max_time is None:
            warnings.warn(
                f"EM did not converge in its default budget of {_DEFAULT_ITERATIONS} iterations: the "
                f"last one raised the mean log-likelihood by more than tol={self.tol:g}. Raise max_iter "
                "or tol, or set max_time in seconds",
                ConvergenceWarning,
                stacklevel=2,
            )
        mixture = best.mixture
        self.n_components_ = settings.n_components
        self.prior_rows_ = settings.penalty.rows
        self.weights_ = mixture.log_weights.exp().cpu().numpy()
        self.event_means_ = mixture.loc.cpu().numpy()
        self.event_covariances_ = self._covariances(mixture.scale)
        self.lower_bound_, self.n_iter_, self.converged_ = (
            best.lower_bound,
            best.n_iter,
            best.converged,
        )

    def _max_iterations(self) -> int:
        if self.max_iter is not None:
            return self.max_iter
        return _DEFAULT_ITERATIONS if self.max_time is None else _UNLIMITED

    @property
    def means_(self) -> np.ndarray:
        """Means of the components in the units of X, of shape (K, D)."""
        check_is_fitted(self)
        location, scale = location_and_scale(self.schema_)
        means: np.ndarray = location + scale * self.event_means_
        return means

    @property
    def covariances_(self) -> np.ndarray:
        """Covariances of the components in the units of X, with the shape of ``covariance_type``."""
        check_is_fitted(self)
        scale = location_and_scale(self.schema_)[1]
        if self._as_fitted().covariance_type in ("full", "tied"):
            return covariance_in_units(self.event_covariances_, scale)
        variances: np.ndarray = self.event_covariances_.reshape(len(self.weights_), -1) * scale**2
        return variances

    def predict_proba(self, X: Any) -> np.ndarray:
        r"""Probability of each component given each row.

        .. math::  p(k \mid x) = \frac{w_k\, p(x \mid k)}{\sum_j w_j\, p(x \mid j)}

        With discrete columns, :math:`p(x \mid k)` is a lower bound, as in scores.

        Parameters
        ----------
        X : like X of ``fit``
            n rows.

        Returns
        -------
        ndarray of shape (n, K)

        Raises
        ------
        ValueError
            If a row is outside the support, for example one with an unseen category: its density
            is zero under every component.
        """
        self._check_fitted()
        X, _ = self._check_rows(codecs.for_scoring(X), None, reset=False)
        probabilities = []
        with torch.no_grad():
            for start in range(0, codecs.n_rows(X), _BATCH_ROWS):
                piece = codecs.take(X, start, min(start + _BATCH_ROWS, codecs.n_rows(X)))
                typed, ladj = self.codec_.encode(piece)
                events = self._events(typed)
                outside = ~torch.isfinite(ladj) | ~within_reach(events).all(1).cpu()
                if outside.any():
                    row = start + int(outside.nonzero()[0])
                    raise ValueError(
                        f"row {row} of X is outside the support of this {type(self).__name__}: its "
                        "density is zero under every component; remove it"
                    )
                n = len(events)
                probabilities.append(self._log_joint(padded(events))[:n].softmax(1).cpu())
        return torch.cat(probabilities).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """Most probable component of each row.

        Parameters
        ----------
        X : like X of ``fit``
            n rows.

        Returns
        -------
        ndarray of shape (n,)
            Indices of components.

        Raises
        ------
        ValueError
            As :meth:`predict_proba`.
        """
        return self.predict_proba(X).argmax(1)

    def bic(self, X: Any) -> float:
        r"""Bayesian information criterion on X; lower is better.

        .. math::  m \log n - 2 \sum_i \log p(x_i)

        with m free parameters. It uses the lower bound if ``density_kind_`` is ``"lower_bound"``.

        Parameters
        ----------
        X : like X of ``fit``
            n rows.

        Returns
        -------
        float
        """
        n = codecs.n_rows(codecs.for_scoring(X))
        return -2 * n * self.score(X) + self._n_parameters() * math.log(n)

    def aic(self, X: Any) -> float:
        r"""Akaike information criterion on X; lower is better.

        .. math::  2 m - 2 \sum_i \log p(x_i)

        with m free parameters. It uses the lower bound if ``density_kind_`` is ``"lower_bound"``.

        Parameters
        ----------
        X : like X of ``fit``
            n rows.

        Returns
        -------
        float
        """
        n = codecs.n_rows(codecs.for_scoring(X))
        return -2 * n * self.score(X) + 2 * self._n_parameters()

    def _n_parameters(self) -> int:
        k, d = self.event_means_.shape
        triangle = d * (d + 1) // 2
        free = {"full": k * triangle, "tied": triangle, "diag": k * d, "spherical": k}
        return free[self._as_fitted().covariance_type] + k * d + k - 1

    def _log_joint(self, events: Tensor) -> Tensor:
        """log w_k + log p(x | k) of typed events, (n, K), up to a term that all k share."""
        mixture: NormalMixture = self._as_fitted()._distribution(None)
        if not self.schema_.quantized.any():
            return mixture.log_joint(events)
        parts = []
        for k in range(len(mixture.weights)):
            component = NormalMixture(
                torch.ones_like(mixture.weights[:1]), mixture.loc[[k]], mixture.scale[[k]]
            )
            bound = Dequantized(component, self.schema_, self.dequantization_draws)
            parts.append(bound.log_prob(events) + mixture.weights[k].log())
        return torch.stack(parts, 1)

    def _covariances(self, scale: Tensor) -> np.ndarray:
        if self.covariance_type == "full":
            return (scale @ scale.mT).cpu().numpy()
        if self.covariance_type == "tied":
            return (scale[0] @ scale[0].mT).cpu().numpy()
        variance = scale.square().cpu().numpy()
        return variance if self.covariance_type == "diag" else variance.mean(1)

    def _distribution(self, context: Tensor | None) -> NormalMixture:
        weights, loc, covariance = (
            torch.as_tensor(a, dtype=torch.float64, device=self.device_)
            for a in (self.weights_, self.event_means_, self.event_covariances_)
        )
        if self.covariance_type in ("full", "tied"):
            scale = torch.linalg.cholesky(covariance)
            scale = scale.expand(*loc.shape, loc.shape[1])
        else:
            scale = covariance.sqrt().reshape(len(loc), -1).expand_as(loc)
        dtype = self._torch_dtype
        return NormalMixture(weights.to(dtype), loc.to(dtype), scale.to(dtype))
