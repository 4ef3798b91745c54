"""Multivariate normal."""

from typing import Annotated, ClassVar

import numpy as np
import torch
from pyro.distributions import MultivariateNormal, TorchDistribution
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from densekit.base import Capabilities, DensityEstimator
from densekit.classical.rows import distinct
from densekit.classical.units import covariance_in_units, location_and_scale
from densekit.params import Interval, OneOf
from densekit.transforms.shrinkage import shrunken


class Gaussian(DensityEstimator):
    r"""One normal with a full covariance, shrunk toward independent columns.

    .. math::  p(z) = N(z; \mu, \Sigma), \qquad \Sigma = (1 - s) S + s I

    over events z (n, D), whose columns are standardized: S is their sample covariance (divided by
    n), I the covariance of independent columns with the variances of the data. Scores are exact;
    with integer or discrete columns, which are dequantized, a lower bound.

    Parameters
    ----------
    shrinkage : float or "auto"
        s, between 0 and 1. ``"auto"`` maximizes the likelihood of rows left out in 5 folds, which
        needs only the folds' moments (Friedman 1989 chose it so; Ledoit and Wolf 2004 aim at
        squared error instead). With 0 it is the maximum likelihood estimate; where that is
        singular, variances below 1e-10 of a column's own are raised to it.

    Attributes
    ----------
    mean_ : ndarray, shape (D,)
        In the units of X, an entry for each column that varies. Where the support of a column is
        bounded, they are those of b(x) in :class:`~densekit.codecs.TableCodec` (log x of a positive
        one); of an integer k, those of k + u with u uniform on [0, 1); of a datetime, seconds since
        1970. Columns of levels, the indicators of atoms (which have an entry before the value) and
        pixels have no units: there the entry is that of the event, standardized.
    covariance_ : ndarray, shape (D, D)
        In the same units.
    event_mean_, event_covariance_ : ndarray, shape (D,) and (D, D)
        Of the events z, which the model is made of: set these to change it.
    shrinkage_ : float

    Examples
    --------
    >>> import numpy as np
    >>> from densekit import Gaussian
    >>> X = np.random.default_rng(0).normal(size=(1000, 2)) @ [[1.0, 1.0], [0.0, 2.0]]
    >>> float(Gaussian(shrinkage=0.0).fit(X).covariance_[0, 1].round(1))
    1.0
    """

    shrinkage: Annotated[float | str, OneOf("auto"), Interval(ge=0, le=1)] = "auto"
    dtype: Annotated[str, OneOf("float32", "float64")] = "float64"

    _capabilities: ClassVar[Capabilities] = Capabilities(
        density="exact",
        view="relaxed",
        modalities=("table", "image"),
        weights=True,
        score_batch=4096,
    )
    _renamed: ClassVar[dict[str, str]] = {
        "mean_": "event_mean_",
        "covariance_": "event_covariance_",
    }

    def _fit(self, events: Tensor, context: Tensor | None, weights: Tensor | None = None) -> None:
        x, weights = distinct(events.double(), weights)
        places = torch.randperm(len(x), device=x.device)
        given = None if weights is None else weights[places]
        mean, (values, vectors), self.shrinkage_ = shrunken(x[places], self.shrinkage, given)
        self.event_mean_ = mean.cpu().numpy()
        self.event_covariance_ = ((vectors * values) @ vectors.T).cpu().numpy()

    def _distribution(self, context: Tensor | None) -> TorchDistribution:
        covariance = torch.as_tensor(
            self.event_covariance_, dtype=torch.float64, device=self.device_
        )
        factor = torch.linalg.cholesky(covariance).to(self._torch_dtype)
        mean = torch.as_tensor(self.event_mean_, dtype=self._torch_dtype, device=self.device_)
        return MultivariateNormal(mean, scale_tril=factor, validate_args=False)

    @property
    def mean_(self) -> np.ndarray:
        """The mean in the units of X, (D,)."""
        check_is_fitted(self)
        location, scale = location_and_scale(self.schema_)
        mean: np.ndarray = location + scale * self.event_mean_
        return mean

    @property
    def covariance_(self) -> np.ndarray:
        """The covariance in the units of X, (D, D)."""
        check_is_fitted(self)
        scale = location_and_scale(self.schema_)[1]
        return covariance_in_units(self.event_covariance_, scale)
