"""Operations on each token or pixel other than matrix products.

Where possible they use compiled loops (``kernels/tokens.py``), which are several times as fast on
a CPU.
"""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from densekit.kernels.compiled import Looped, compiled

KERNEL = "densekit.kernels.tokens"
_TINY = 1e-6
"""Added to the mean square."""


def _norm(x: Tensor, tiny: float = _TINY) -> Tensor:
    return x * torch.rsqrt(torch.linalg.vecdot(x, x).unsqueeze(-1) / x.shape[-1] + tiny)


def _gate(x: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return F.silu(a) * b


def _turn(x: Tensor, cos: Tensor, sin: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
    turned, left = x.split([len(gain), x.shape[1] - len(gain)], 1)
    a, b = (_norm(turned) * gain.unsqueeze(1)).chunk(2, -1)
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1), left


def _switch(x: Tensor, added: Tensor | None = None) -> Tensor:
    return F.glu(x if added is None else x + added, -1)


def rms_norm(x: Tensor) -> Tensor:
    """Divide tokens x (m, width) by the root of their mean square.

    There is no learned gain, because the matrix after it can contain one.

    References
    ----------
    B. Zhang and R. Sennrich. Root Mean Square Layer Normalization. NeurIPS 2019.
    https://arxiv.org/abs/1910.07467

    Examples
    --------
    >>> round(rms_norm(torch.tensor([[3.0, 4.0]])).square().mean().item(), 4)
    1.0
    """
    if x.ndim == 2 and (loops := compiled(KERNEL, x)):
        forward_loop, backward_loop = (
            partial(loops.norm, tiny=_TINY),
            partial(loops.norm_backward, tiny=_TINY),
        )
        return Looped.apply(_norm, forward_loop, backward_loop, x)
    return _norm(x)


def swiglu(x: Tensor) -> Tensor:
    """SwiGLU, (m, 2 width) to (m, width): silu of the first half times the second half.

    References
    ----------
    N. Shazeer. GLU Variants Improve Transformer. 2020. https://arxiv.org/abs/2002.05202

    Examples
    --------
    >>> swiglu(torch.tensor([[0.0, 100.0, 7.0, 2.0]])).tolist()
    [[0.0, 200.0]]
    """
    if x.ndim == 2 and x.shape[1] % 2 == 0 and (loops := compiled(KERNEL, x)):
        return Looped.apply(_gate, loops.gate, loops.gate_backward, x)
    return _gate(x)


def glu(x: Tensor, added: Tensor | None = None) -> Tensor:
    """Gated linear unit of pixels: the first half of the channels times the sigmoid of the second
    half.

    It takes the sum of x and ``added``, (N, 2 width, H, W) each, to (N, width, H, W).

    Examples
    --------
    >>> glu(torch.tensor([5.0, 0.0]).view(1, 2, 1, 1)).item()
    2.5
    """
    both = (x,) if added is None else (x, added)
    fits = x.ndim == 4 and x.shape[1] % 2 == 0 and all(t.shape == x.shape for t in both)
    if fits and (loops := compiled(KERNEL, *both)):
        rows = (t.permute(0, 2, 3, 1).flatten(0, 2) for t in both)
        y = Looped.apply(_switch, loops.switch, loops.switch_backward, *rows)
        return y.view(len(x), *x.shape[2:], y.shape[1]).permute(0, 3, 1, 2)
    return F.glu(x if added is None else x + added, 1)


def rotary(x: Tensor, turn: tuple[Tensor, Tensor], gain: Tensor) -> tuple[Tensor, Tensor]:
    """Normalize, scale and rotate the first heads of x.

    Each of the heads with a gain is divided by the root of its mean square and multiplied by its
    gain (query-key normalization). Then each pair :math:`(x_i, x_{i + d/2})` is rotated by an
    angle (rotary positions).

    Parameters
    ----------
    x : Tensor of shape (m, h, d)
        Heads.
    turn : tuple of Tensors of shape (m, d / 2)
        Cosines and sines of the angles.
    gain : Tensor of shape (g,)
        Gains of the first g heads.

    Returns
    -------
    Tensor of shape (m, g, d), Tensor of shape (m, h - g, d)
        The rotated heads, and the others unchanged.

    References
    ----------
    J. Su et al. RoFormer: Enhanced Transformer with Rotary Position Embedding. 2021.
    https://arxiv.org/abs/2104.09864

    A. Henry et al. Query-Key Normalization for Transformers. 2020.
    https://arxiv.org/abs/2010.04245

    Examples
    --------
    >>> quarter = torch.zeros(1, 1), torch.ones(1, 1)
    >>> turned, left = rotary(torch.tensor([[[1.0, 0.0], [5.0, 6.0]]]), quarter, torch.ones(1))
    >>> round(turned.square().mean().item(), 4), left.tolist()
    (1.0, [[[5.0, 6.0]]])
    """
    half = (len(x), x.shape[-1] // 2)
    fits = x.ndim == 3 and 2 * half[1] == x.shape[2] and len(gain) <= x.shape[1]
    fits = fits and all(t.shape == half for t in turn)
    if fits and (loops := compiled(KERNEL, x, gain, *turn)):
        forward_loop, backward_loop = (
            partial(loops.turn, tiny=_TINY),
            partial(loops.turn_backward, tiny=_TINY),
        )
        return Looped.apply(_turn, forward_loop, backward_loop, x, *turn, gain)
    return _turn(x, *turn, gain)
