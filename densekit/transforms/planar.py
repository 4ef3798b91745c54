"""The planar transform."""

from collections.abc import Sequence

import torch
from torch import Tensor

from densekit.nets.amortized import Amortized
from densekit.transforms.columns import ColumnTransform
from densekit.transforms.step import above_minus_one, finite, limited, log_slope, solve_step

_MIN_SQUARED_NORM = 1e-12
"""Smallest squared norm of w that is divided by."""


class PlanarTransform(ColumnTransform):
    r"""A move along one direction that depends on the distance from a plane.

    .. math:: z = x + \hat u \tanh(s), \quad s = w^T x + b, \qquad
              \log\left|\frac{dz}{dx}\right| = \log(1 + c \tanh'(s)), \quad c = w^T \hat u

    It is the planar map of Rezende and Mohamed (section 4.1), here from data to noise. The inverse
    multiplies by w, which leaves the monotone scalar equation :math:`w^T z + b = s + c \tanh(s)`;
    bracketing solves it for s, and :math:`x = z - \hat u \tanh(s)`.

    The map is invertible for c > -1 (appendix A.1). For any u,

    .. math:: \hat u = u + (m(w^T u) - w^T u)\, w / \|w\|^2

    has c = m(w^T u). The paper uses :math:`m(a) = \log(1 + e^a) - 1`. Here m is shifted and scaled
    such that m(0) = 0 and m > 0.05 - 1: u = 0 is the identity, and the slope along w is at least
    0.05.

    Parameters
    ----------
    n_features : int
        D.
    hidden_sizes : sequence of int
        Hidden layers of the network from the context to w, u and b.
    n_context : int
        Number of context features; without a context w, u and b are learned directly.
    activation : str
        Activation of the network.

    Notes
    -----
    The 2 D + 1 raw parameters are the entries of w, u and b, each bounded by 20. The transform
    starts as the identity (u = 0), with a random plane through the bulk of a standard normal.

    References
    ----------
    D. J. Rezende and S. Mohamed. Variational Inference with Normalizing Flows. ICML 2015.
    https://arxiv.org/abs/1505.05770

    Examples
    --------
    >>> transform = PlanarTransform(3)
    >>> z = torch.randn(5, 3)
    >>> bool(torch.allclose(transform.inv(transform(z)), z, atol=1e-5))
    True
    """

    def __init__(
        self,
        n_features: int,
        hidden_sizes: Sequence[int] = (64, 64),
        n_context: int = 0,
        activation: str = "silu",
    ) -> None:
        super().__init__(n_features, n_context)
        w = torch.randn(n_features)
        w = w / w.norm().clamp_min(0.1)
        start = torch.cat([w, torch.zeros(n_features), torch.randn(1)])
        self.raw = Amortized(start, hidden_sizes, n_context, activation)

    def weights(self, context: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        r"""w and :math:`\hat u`, (D, N), and b and c, (N,); N is 1 without a context."""
        D, raw = self.n_features, limited(self.raw(context))
        w, u, b = raw[:D], raw[D : 2 * D], raw[2 * D]
        along, square = (w * u).sum(0), w.square().sum(0)
        c, floor = above_minus_one(along), square.clamp_min(_MIN_SQUARED_NORM)
        u_hat = u + w * ((c - along) / floor)
        # c is computed directly, because the product of w and u_hat is rounded.
        return w, u_hat, b, torch.lerp(along, c, square / floor)

    def to_noise(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data to noise, and log|dz/dx|."""
        w, u_hat, b, c = self.weights(context)
        s = finite((w * x).sum(0) + b)
        return torch.addcmul(x, u_hat, torch.tanh(s)), log_slope(s, c)

    def to_data(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Noise to data, and log|dx/dz|."""
        w, u_hat, b, c = self.weights(context)
        s = solve_step(finite((w * z).sum(0) + b), c)
        return z - u_hat * torch.tanh(s), -log_slope(s, c)
