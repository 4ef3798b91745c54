"""What a network reads of an angle."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def readings(x: Tensor, angles: Sequence[int]) -> Tensor:
    r"""Features (D, N) as a network reads them, (D + A, N): in the place of each of the A angles its
    cosine, and behind all features the sines, so that whatever depends on them is periodic.

    Parameters
    ----------
    x : Tensor
        (D, N); an angle in half turns, the whole circle [-1, 1).
    angles : sequence of int
        Which features are angles.

    Examples
    --------
    >>> readings(torch.tensor([[3.0], [0.5]]), angles=[1]).round(decimals=4).abs().tolist()
    [[3.0], [0.0], [1.0]]
    """
    if not angles:
        return x
    index = torch.tensor(angles, device=x.device)
    radians = math.pi * x[index]
    return torch.cat([x.index_copy(0, index, radians.cos()), radians.sin()])
