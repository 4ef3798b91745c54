"""The affine element: a scale and a shift."""

from typing import Any

import torch
from torch import Tensor

from densekit.kernels.compiled import compiled

_KERNEL = "densekit.kernels.affine"


def _formula(x: Tensor, raw: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    a = limit * torch.tanh(raw[0] / limit)
    return torch.addcmul(raw[1], x, a.exp()), a


class _Affine(torch.autograd.Function):
    """The formula as one loop each way; as itself where it is differentiated again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, raw: Tensor, limit: float) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, raw)
        ctx.limit, ctx.loops = limit, compiled(_KERNEL, x, raw)
        z, a = ctx.loops.forward(x, raw, limit)
        return z, a

    @staticmethod
    def backward(ctx: Any, gz: Tensor, ga: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, raw = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return (*ctx.loops.backward(x, raw, gz, ga, ctx.limit), None)
        # Views, since raw may depend on x: what flows through it is not wanted here.
        x, raw = x.view_as(x), raw.view_as(raw)
        wanted = [t for t, need in zip((x, raw), ctx.needs_input_grad, strict=False) if need]
        value = _formula(x, raw, ctx.limit)
        found = iter(torch.autograd.grad(value, wanted, (gz, ga), create_graph=True))
        gx, graw = (next(found) if need else None for need in ctx.needs_input_grad[:2])
        return gx, graw, None


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
        if raw.shape[1:] == x.shape and compiled(_KERNEL, x, raw):
            z, a = _Affine.apply(x, raw, self.limit)
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
