"""An affine map to coordinates in which the data are white, set by the first batch it sees."""

import torch
from torch import Tensor, nn


class Whitening(nn.Module):
    r"""Whitened rows of a data set and the way back.

    .. math:: z = C^{-1/2} (x - m), \qquad C = S + \rho I

    m and S are mean and covariance of the rows that :meth:`fit` is given. The ridge rho is the one
    under which one half of the rows gives the other the greatest Gaussian likelihood, so that few
    rows in many dimensions change little and many rows are whitened fully. The symmetric root keeps
    z as close to x as white coordinates can be (Kessy, Lewin & Strimmer 2018, "ZCA").

    Before :meth:`fit` it is the identity. All it learns are buffers.

    Parameters
    ----------
    n_dims : int
        D; x and z are (..., D).

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> x = torch.randn(1000, 1) + 0.1 * torch.randn(1000, 2)
    >>> w = Whitening(2)
    >>> w.fit(x)
    >>> bool(torch.allclose(torch.cov(w(x).T), torch.eye(2), atol=0.02))
    True
    """

    loc: Tensor
    whiten: Tensor
    colour: Tensor
    log_det: Tensor

    def __init__(self, n_dims: int):
        super().__init__()
        self.fitted = False
        self.register_buffer("loc", torch.zeros(n_dims))
        self.register_buffer("whiten", torch.eye(n_dims))
        self.register_buffer("colour", torch.eye(n_dims))
        self.register_buffer("log_det", torch.zeros(()))
        self.register_load_state_dict_post_hook(_know_fitted)

    @torch.no_grad()
    def fit(self, x: Tensor, weights: Tensor | None = None) -> None:
        """Learn from rows (n, D) and their weights (n,); fewer than four only give their mean."""
        self.fitted = True
        x = x.detach().double()
        self.loc.copy_(x.mean(0) if weights is None else weights @ x / weights.sum())
        if len(x) < 4:
            return
        values, vectors = torch.linalg.eigh(_covariance(x, weights))
        values = values.clamp_min(0) + _ridge(x, weights)
        self.whiten.copy_(vectors * values.rsqrt() @ vectors.T)
        self.colour.copy_(vectors * values.sqrt() @ vectors.T)
        self.log_det.copy_(-0.5 * values.log().sum())

    def forward(self, x: Tensor) -> Tensor:
        """x to z; log|det dz/dx| is ``log_det``."""
        return (x - self.loc) @ self.whiten

    def inverse(self, z: Tensor) -> Tensor:
        """z to x."""
        return z @ self.colour + self.loc


def _know_fitted(whitening: Whitening, _: object) -> None:
    """Weights that are loaded were learnt: a fit that goes on from them keeps its coordinates."""
    whitening.fitted = True


def _covariance(x: Tensor, weights: Tensor | None) -> Tensor:
    # Without a correction where all the weight may be one row's.
    correction = 1 if weights is None else 0
    covariance = torch.cov(x.T, correction=correction, aweights=weights)
    return covariance.reshape(x.shape[1], x.shape[1])


def _ridge(x: Tensor, weights: Tensor | None) -> Tensor:
    """The ridge under which the Gaussian of every other row suits the rows between best."""
    w = x.new_ones(len(x)) if weights is None else weights.double()
    half, rest = x[::2], x[1::2]
    values, vectors = torch.linalg.eigh(_covariance(half, None if weights is None else w[::2]))
    mean = w[::2] @ half / w[::2].sum()
    second = w[1::2] @ ((rest - mean) @ vectors).square() / w[1::2].sum()
    ridges = torch.logspace(-6, 2, 33, dtype=x.dtype, device=x.device)
    variance = values.clamp_min(0) + ridges[:, None]
    return ridges[(variance.log() + second / variance).sum(1).argmin()]
