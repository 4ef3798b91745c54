"""An affine map to coordinates in which the data are white."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from densekit.transforms.shrinkage import shrunken


class Whitening(nn.Module):
    r"""Whitening of rows, and its inverse.

    .. math:: z = C^{-1/2} (x - m), \qquad C = (1 - s) S + s I

    m and S are the mean and covariance of the rows of :meth:`fit`, and s is the shrinkage that
    maximizes the likelihood of held-out rows (:mod:`densekit.transforms.shrinkage`). Few rows in
    many dimensions are therefore changed little, and many rows are whitened fully. The symmetric
    root keeps z as close to x as possible (ZCA).

    Before :meth:`fit` it is the identity. Its state consists of buffers.

    Parameters
    ----------
    n_dims : int
        D; x and z are (..., D).

    References
    ----------
    A. Kessy, A. Lewin and K. Strimmer. Optimal Whitening and Decorrelation. American Statistician,
    2018. https://arxiv.org/abs/1512.00809

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
        self.register_load_state_dict_post_hook(_mark_fitted)

    @torch.no_grad()
    def fit(self, x: Tensor, fixed: Sequence[int] = (), weights: Tensor | None = None) -> None:
        """Fit to rows (n, D) with weights (n,), in random order and with standardized columns.

        The columns ``fixed`` are not changed and do not affect others.
        """
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
        """Map x to z; log|det dz/dx| is ``log_det``."""
        return (x - self.loc) @ self.whiten

    def columns(self, x: Tensor) -> Tensor:
        """Map columns x (D, N) to columns z."""
        return self.whiten @ (x - self.loc[:, None])

    def columns_inverse(self, z: Tensor) -> Tensor:
        """Map columns z (D, N) to columns x."""
        return self.color @ z + self.loc[:, None]

    def inverse(self, z: Tensor) -> Tensor:
        """Map z to x."""
        return z @ self.color + self.loc


def _mark_fitted(whitening: Whitening, _: object) -> None:
    """Mark a whitening with loaded weights as fitted, so that resumed training keeps its coordinates."""
    whitening.fitted = True
