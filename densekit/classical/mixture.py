"""Gaussian mixture."""

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
from densekit.classical import em
from densekit.classical.rows import distinct
from densekit.classical.selection import Settings, choose
from densekit.classical.units import covariance_in_units, location_and_scale
from densekit.codecs.dequantized import Dequantized, within_reach
from densekit.distributions.mixture import NormalMixture
from densekit.params import Interval, OneOf
from densekit.runtime import padded

_ITERATIONS, _UNENDING = 200, 10**9
"""Iterations of a restart where no budget is given, and where only the clock ends them."""
_ROWS = 16_384
"""Rows whose components are scored at a time."""


class GaussianMixture(DensityEstimator):
    r"""A mixture of normals, learned by expectation-maximization.

    .. math::  p(z) = \sum_{k=1}^K w_k\, N(z; \mu_k, \Sigma_k)

    over events z (n, D). Scores are exact; with integer or discrete columns, which are
    dequantized, a lower bound. All restarts run as one tensor program, an iteration of which is
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
        Restarts from different k-means++ centers; the likeliest is kept.
    tol : float
        A restart ends when an iteration adds less than this to its mean log-likelihood, in nats.
    max_iter : int, optional
        Iterations of a restart at most; None takes 200, unless ``max_time`` is given.
    max_time : float, optional
        Seconds of wall clock since ``fit`` was called after which no further iteration begins; half
        of them may go into choosing K.
    covariance_floor : float
        Added to the variances, in units of the columns' own variances, as scikit-learn's
        ``reg_covar``: no component can collapse onto a row.
    prior_rows : float or "auto"
        Each covariance is averaged with that of so many imagined rows, whose columns are independent.
        Their variances are the component's own, averaged with one row of the components' geometric
        mean (in the manner of Fraley and Raftery 2007, who take the spread of all rows; that blurs
        components that are small). It keeps components with few rows from scoring new rows absurdly
        low; 0 is maximum likelihood. ``"auto"`` takes what makes held-out rows likeliest: all rows in
        turn where there are 1,000 at most, else a fifth of at most 20,000.

    Attributes
    ----------
    weights_ : ndarray, shape (K,)
    means_ : ndarray, shape (K, D)
        In the units of X, an entry for each column that varies; what an entry is where a column is
        bounded or has masses is as for `Gaussian`.
    covariances_ : ndarray, shape (K, D, D), (D, D), (K, D) or (K, D)
        By ``covariance_type``, in the same units. A spherical component has the same variance in
        all columns of the standardized events, and in the units of X one for each column.
    event_means_, event_covariances_ : ndarray
        Of the events z, which the model is made of; ``event_covariances_`` of spherical components
        has the shape (K,).
    n_components_, prior_rows_ : int, float
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
        begun = clock.now() - clock.current().elapsed()
        seconds = math.inf if self.max_time is None else self.max_time
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
            self._most_iterations(),
            em.Penalty(self.covariance_floor, 1.0 if chooses else float(self.prior_rows)),
            begun + seconds / 2,
        )
        if auto or chooses:
            settings = choose(x, weights, settings, auto, chooses)
        best = replace(settings, deadline=begun + seconds).run(x, weights)
        if not best.converged and self.max_iter is None and self.max_time is None:
            warnings.warn(
                f"EM had not converged when its default budget of {_ITERATIONS} iterations ended: the "
                f"last one raised the mean log-likelihood by more than tol={self.tol:g}. Raise max_iter "
                "or tol, or give the seconds it may take as max_time",
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

    def _most_iterations(self) -> int:
        if self.max_iter is not None:
            return self.max_iter
        return _ITERATIONS if self.max_time is None else _UNENDING

    @property
    def means_(self) -> np.ndarray:
        """The components' means in the units of X, (K, D)."""
        check_is_fitted(self)
        location, scale = location_and_scale(self.schema_)
        means: np.ndarray = location + scale * self.event_means_
        return means

    @property
    def covariances_(self) -> np.ndarray:
        """The components' covariances in the units of X, of the shape of ``covariance_type``."""
        check_is_fitted(self)
        scale = location_and_scale(self.schema_)[1]
        if self._as_fitted().covariance_type in ("full", "tied"):
            return covariance_in_units(self.event_covariances_, scale)
        variances: np.ndarray = self.event_covariances_.reshape(len(self.weights_), -1) * scale**2
        return variances

    def predict_proba(self, X: Any) -> np.ndarray:
        r"""The probability of each component given each row, (n, K).

        .. math::  p(k \mid x) = \frac{w_k\, p(x \mid k)}{\sum_j w_j\, p(x \mid j)}

        Where columns have masses, :math:`p(x \mid k)` is the bound that scores are made of.

        Raises
        ------
        ValueError
            A row is outside the support, such as one with an unseen category: it has density zero
            under each component.
        """
        self._check_fitted()
        X, _ = self._check_rows(codecs.for_scoring(X), None, reset=False)
        found = []
        with torch.no_grad():
            for start in range(0, codecs.n_rows(X), _ROWS):
                piece = codecs.take(X, start, min(start + _ROWS, codecs.n_rows(X)))
                typed, ladj = self.codec_.encode(piece)
                events = self._events(typed)
                outside = ~torch.isfinite(ladj) | ~within_reach(events).all(1).cpu()
                if outside.any():
                    row = start + int(outside.nonzero()[0])
                    raise ValueError(
                        f"row {row} of X is outside the support of this {type(self).__name__}: its "
                        "density is zero under every component; leave it out"
                    )
                n = len(events)
                found.append(self._log_joint(padded(events))[:n].softmax(1).cpu())
        return torch.cat(found).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest component of each row, (n,): see :meth:`predict_proba`."""
        return self.predict_proba(X).argmax(1)

    def bic(self, X: Any) -> float:
        """Bayesian information criterion on X, :math:`m \\log n - 2 \\sum_i \\log p(x_i)` with m free
        parameters: the lower, the better. Of a bound where ``density_kind_`` says so."""
        n = codecs.n_rows(codecs.for_scoring(X))
        return -2 * n * self.score(X) + self._n_parameters() * math.log(n)

    def aic(self, X: Any) -> float:
        """Akaike information criterion on X, :math:`2 m - 2 \\sum_i \\log p(x_i)`: see :meth:`bic`."""
        n = codecs.n_rows(codecs.for_scoring(X))
        return -2 * n * self.score(X) + 2 * self._n_parameters()

    def _n_parameters(self) -> int:
        k, d = self.event_means_.shape
        triangle = d * (d + 1) // 2
        free = {"full": k * triangle, "tied": triangle, "diag": k * d, "spherical": k}
        return free[self._as_fitted().covariance_type] + k * d + k - 1

    def _log_joint(self, events: Tensor) -> Tensor:
        """log w_k + log p(x, k) of typed events, up to what all k share, (n, K)."""
        mixture: NormalMixture = self._as_fitted()._distribution(None)
        if not self.schema_.quantized.any():
            return mixture.log_joint(events)
        parts = []
        for k in range(len(mixture.weights)):
            one = NormalMixture(
                torch.ones_like(mixture.weights[:1]), mixture.loc[[k]], mixture.scale[[k]]
            )
            bound = Dequantized(one, self.schema_, self.dequantization_draws)
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
