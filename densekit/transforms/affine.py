"""The affine element: a scale and a shift."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from densekit.kernels.compiled import Looped, compiled

_KERNEL = "densekit.kernels.affine"


def _formula(x: Tensor, raw: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    a = limit * torch.tanh(raw[0] / limit)
    return torch.addcmul(raw[1], x, a.exp()), a


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
        if raw.shape[1:] == x.shape and (loops := compiled(_KERNEL, x, raw)):
            there, back, formula = (
                partial(f, limit=self.limit) for f in (loops.forward, loops.backward, _formula)
            )
            z, a = Looped.apply(formula, there, back, x, raw)
            return z, a
        return _formula(x, raw, self.limit)

    def write(
        self, tape: Any, x: Any, raw: Any, steps: tuple[int, int], total: Any, name: str
    ) -> Any:
        """The way there on a ``kernels.tape.Tape``."""
        return tape.affine(x, raw, steps, self.limit, total, name)

    def write_inverse(
        self, tape: Any, z: Any, raw: Any, steps: tuple[int, int], total: Any, x: Any
    ) -> None:
        """The way back on a ``kernels.tape.Tape``."""
        tape.affine_inverse(z, raw, steps, self.limit, total, x)

    def inverse(self, z: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Noise to data, and the log-slope of that way."""
        a = -self.limit * torch.tanh(raw[0] / self.limit)
        return (z - raw[1]) * a.exp(), a
