"""An affine map to coordinates in which the data are white."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from densekit.transforms.shrinkage import shrunken


class Whitening(nn.Module):
    r"""Whitened rows of a data set and the way back.

    .. math:: z = C^{-1/2} (x - m), \qquad C = (1 - s) S + s I

    m and S are mean and covariance of the rows that :meth:`fit` is given, and s is the shrinkage under
    which rows left out are likeliest (:mod:`densekit.transforms.shrinkage`), so that few rows in many
    dimensions change little and many rows are whitened fully. The symmetric root keeps z as close to
    x as white coordinates can be (Kessy, Lewin & Strimmer 2018, "ZCA").

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
    color: Tensor
    log_det: Tensor

    def __init__(self, n_dims: int):
        super().__init__()
        self.fitted = False
        self.register_buffer("loc", torch.zeros(n_dims))
        self.register_buffer("whiten", torch.eye(n_dims))
        self.register_buffer("color", torch.eye(n_dims))
        self.register_buffer("log_det", torch.zeros(()))
        self.register_load_state_dict_post_hook(_know_fitted)

    @torch.no_grad()
    def fit(self, x: Tensor, fixed: Sequence[int] = (), weights: Tensor | None = None) -> None:
        """Learn from rows (n, D) with weights (n,), in random order and of standardized columns.

        Columns ``fixed`` are left as they are and out of the others."""
        self.fitted = True
        free = torch.tensor([d for d in range(x.shape[1]) if d not in fixed], device=x.device)
        if not len(free):
            return
        mean, (values, vectors), _ = shrunken(x.detach().double()[:, free], weights=weights)
        block = (free[:, None], free)
        self.loc[free] = mean.to(self.loc)
        self.whiten[block] = (vectors * values.rsqrt() @ vectors.T).to(self.whiten)
        self.color[block] = (vectors * values.sqrt() @ vectors.T).to(self.color)
        self.log_det.copy_(-0.5 * values.log().sum())

    def forward(self, x: Tensor) -> Tensor:
        """x to z; log|det dz/dx| is ``log_det``."""
        return (x - self.loc) @ self.whiten

    def columns(self, x: Tensor) -> Tensor:
        """Columns x (D, N) to columns z."""
        return self.whiten @ (x - self.loc[:, None])

    def columns_inverse(self, z: Tensor) -> Tensor:
        """Columns z (D, N) to columns x."""
        return self.color @ z + self.loc[:, None]

    def inverse(self, z: Tensor) -> Tensor:
        """z to x."""
        return z @ self.color + self.loc


def _know_fitted(whitening: Whitening, _: object) -> None:
    """Weights that are loaded were learned: a fit that goes on from them keeps its coordinates."""
    whitening.fitted = True
