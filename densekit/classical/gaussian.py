"""Multivariate normal."""

from typing import Annotated, ClassVar

import torch
from pyro.distributions import MultivariateNormal, TorchDistribution
from torch import Tensor

from densekit.base import Capabilities, DensityEstimator
from densekit.params import Interval, OneOf
from densekit.transforms.shrinkage import shrunken


class Gaussian(DensityEstimator):
    r"""One normal with a full covariance, shrunk towards independent columns.

    .. math::  p(z) = N(z; \mu, \Sigma), \qquad \Sigma = (1 - s) S + s I

    over events z (n, D), whose columns are standardised: S is their sample covariance (divided by
    n), I the covariance of independent columns with the variances of the data. Scores are exact;
    with integer or discrete columns, which are dequantised, a lower bound.

    Parameters
    ----------
    shrinkage : float or "auto"
        s, between 0 and 1. ``"auto"`` maximises the likelihood of rows left out in 5 folds, which
        needs only the folds' moments (Friedman 1989 chose it so; Ledoit and Wolf 2004 aim at
        squared error instead). With 0 it is the maximum likelihood estimate; where that is
        singular, variances below 1e-10 of a column's own are raised to it.

    Attributes
    ----------
    mean_ : ndarray, shape (D,)
        In event space: the columns are standardised. ``distribution_`` is in the units of X.
    covariance_ : ndarray, shape (D, D)
        In event space.
    shrinkage_ : float

    Examples
    --------
    >>> import numpy as np
    >>> from densekit import Gaussian
    >>> X = np.random.default_rng(0).normal(size=(1000, 2)) @ [[1.0, 1.0], [0.0, 2.0]]
    >>> float(Gaussian(shrinkage=0.0).fit(X).covariance_[0, 1].round(1))
    0.4
    """

    shrinkage: Annotated[float | str, OneOf("auto"), Interval(ge=0, le=1)] = "auto"
    dtype: Annotated[str, OneOf("float32", "float64")] = "float64"

    _capabilities: ClassVar[Capabilities] = Capabilities(
        density="exact", view="relaxed", modalities=("table", "image"), score_batch=4096
    )

    def _fit(self, events: Tensor, context: Tensor | None) -> None:
        x = events.double()
        x = x[torch.randperm(len(x), device=x.device)]
        mean, (values, vectors), self.shrinkage_ = shrunken(x, self.shrinkage)
        self.mean_ = mean.cpu().numpy()
        self.covariance_ = ((vectors * values) @ vectors.T).cpu().numpy()

    def _distribution(self, context: Tensor | None) -> TorchDistribution:
        covariance = torch.as_tensor(self.covariance_, dtype=torch.float64, device=self.device_)
        factor = torch.linalg.cholesky(covariance).to(self._torch_dtype)
        mean = torch.as_tensor(self.mean_, dtype=self._torch_dtype, device=self.device_)
        return MultivariateNormal(mean, scale_tril=factor, validate_args=False)
