"""The radial transform."""

from collections.abc import Sequence

import torch
from torch import Tensor

from densekit.nets.amortized import Amortized
from densekit.transforms.columns import ColumnTransform
from densekit.transforms.step import above_minus_one, limited, positive

_MAX_RADIUS = 1e16
"""Radii are clamped to this: beyond it the transform is the identity in floats, and its square is
finite.
"""


class RadialTransform(ColumnTransform):
    r"""A contraction or expansion around a point.

    .. math:: z = x + \frac{\beta}{\alpha + r} (x - x_0), \quad r = \|x - x_0\|, \qquad
              \log\left|\frac{dz}{dx}\right| = (D - 1) \log\Big(1 + \frac{\beta}{\alpha + r}\Big)
              + \log\Big(1 + \frac{\alpha \beta}{(\alpha + r)^2}\Big)

    It is the radial map of Rezende and Mohamed (section 4.1), here from data to noise. The inverse
    solves :math:`\|z - x_0\| = r (\alpha + \beta + r) / (\alpha + r)` for the radius r. The
    equation is quadratic, so the inverse has a closed form.

    The map is invertible for :math:`\beta > -\alpha` (appendix A.2). Here :math:`\beta = \alpha\,
    m(b)` with an increasing m > 0.05 - 1 and m(0) = 0: b = 0 is the identity, and every radial
    slope is at least 0.05.

    Parameters
    ----------
    n_features : int
        D.
    hidden_sizes : sequence of int
        Hidden layers of the network from the context to the parameters.
    n_context : int
        Number of context features; without a context the parameters are learned directly.
    activation : str
        Activation of the network.

    Notes
    -----
    The D + 2 raw parameters are :math:`x_0`, the logarithm of :math:`\alpha` and b, bounded by 20;
    :math:`\alpha` is between 1/20 and 20. The transform starts as the identity, around a point
    drawn from a standard normal. The log-determinant is not differentiable at :math:`x_0`.

    References
    ----------
    D. J. Rezende and S. Mohamed. Variational Inference with Normalizing Flows. ICML 2015.
    https://arxiv.org/abs/1505.05770

    Examples
    --------
    >>> transform = RadialTransform(3)
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
        start = torch.cat([torch.randn(n_features), torch.zeros(2)])
        self.raw = Amortized(start, hidden_sizes, n_context, activation)

    def weights(self, context: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        r""":math:`x_0`, (D, N), :math:`\alpha` and :math:`\beta`, (N,); N is 1 without a context."""
        raw = limited(self.raw(context))
        alpha = positive(raw[-2])
        return raw[:-2], alpha, alpha * above_minus_one(raw[-1])

    def _radius(self, difference: Tensor) -> Tensor:
        clamped = difference.clamp(-_MAX_RADIUS, _MAX_RADIUS)
        return torch.linalg.vector_norm(clamped, dim=0).clamp_max(_MAX_RADIUS)

    def _log_det(self, r: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
        tangential = torch.log1p(beta / (alpha + r))
        return (self.n_features - 1) * tangential + torch.log1p(
            alpha * beta / (alpha + r).square()
        )

    def to_noise(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data to noise, and log|dz/dx|."""
        x0, alpha, beta = self.weights(context)
        r = self._radius(x - x0)
        return torch.addcmul(x, x - x0, beta / (alpha + r)), self._log_det(r, alpha, beta)

    def to_data(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Noise to data, and log|dx/dz|."""
        x0, alpha, beta = self.weights(context)
        rho = self._radius(z - x0)
        # The positive root of r^2 + p r - alpha rho = 0, computed without cancellation.
        p = alpha + beta - rho
        q = torch.sqrt(p.square() + 4 * alpha * rho)
        r = torch.where(p > 0, 2 * alpha * rho / (q + p.abs()), (q + p.abs()) / 2)
        return z - (z - x0) * (beta / (alpha + beta + r)), -self._log_det(r, alpha, beta)
