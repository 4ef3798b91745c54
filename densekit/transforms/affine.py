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
        The bound s of the log-scale. A small bound keeps an unusual row from being scaled by an
        extreme factor; a ``Diagonal`` can provide larger scales that are the same for all rows.

    Notes
    -----
    The 2 raw parameters are r and b; zeros give the identity.

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
        """Initial raw parameters: zeros, (2,)."""
        return torch.zeros(2)

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Map data to noise; return the noise and log|dz/dx|."""
        if raw.shape[1:] == x.shape and (loops := compiled(_KERNEL, x, raw)):
            forward_loop, backward_loop, formula = (
                partial(f, limit=self.limit) for f in (loops.forward, loops.backward, _formula)
            )
            z, a = Looped.apply(formula, forward_loop, backward_loop, x, raw)
            return z, a
        return _formula(x, raw, self.limit)

    def record(
        self, tape: Any, x: Any, raw: Any, steps: tuple[int, int], total: Any, name: str
    ) -> Any:
        """Record data to noise on a ``kernels.tape.Tape``."""
        return tape.affine(x, raw, steps, self.limit, total, name)

    def record_inverse(
        self, tape: Any, z: Any, raw: Any, steps: tuple[int, int], total: Any, x: Any
    ) -> None:
        """Record noise to data on a ``kernels.tape.Tape``."""
        tape.affine_inverse(z, raw, steps, self.limit, total, x)

    def inverse(self, z: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Noise to data, and the log-slope of the inverse."""
        a = -self.limit * torch.tanh(raw[0] / self.limit)
        return (z - raw[1]) * a.exp(), a
