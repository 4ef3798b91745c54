"""The affine element: a scale and a shift."""

import torch
from torch import Tensor


class AffineElement:
    r"""An affine function, :math:`z = x e^{a} + b` with :math:`a = s \tanh(r / s)`.

    Parameters
    ----------
    limit : float
        s: no log-scale grows beyond it. Small, it keeps a row unlike all others from being scaled
        out of sight; scales that hold for all rows belong in a ``Diagonal`` beside it.

    Notes
    -----
    The 2 raw parameters are r and b; zeros make the identity.

    Examples
    --------
    >>> z, log_slope = AffineElement().forward(torch.ones(3), torch.zeros(2, 3))
    >>> z.tolist(), log_slope.tolist()
    ([1.0, 1.0, 1.0], [0.0, 0.0, 0.0])
    """

    n_params = 2

    def __init__(self, limit: float = 1.0) -> None:
        self.limit = limit

    def start(self) -> Tensor:
        """Zeros, (2,)."""
        return torch.zeros(2)

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Data to noise, and the log-slope."""
        a = self.limit * torch.tanh(raw[0] / self.limit)
        return torch.addcmul(raw[1], x, a.exp()), a

    def inverse(self, z: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Noise to data, and the log-slope of that way."""
        a = -self.limit * torch.tanh(raw[0] / self.limit)
        return (z - raw[1]) * a.exp(), a
