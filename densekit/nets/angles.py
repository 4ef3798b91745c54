"""Inputs of a network for angles."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def expand_angles(x: Tensor, angles: Sequence[int]) -> Tensor:
    """Replace angles by their cosine and append their sines, so that a network of them is periodic.

    Parameters
    ----------
    x : Tensor of shape (D, N)
        Features. Angles are in half turns; the circle is [-1, 1).
    angles : sequence of int
        Indices of the A features that are angles.

    Returns
    -------
    Tensor of shape (D + A, N)

    Examples
    --------
    >>> expand_angles(torch.tensor([[3.0], [0.5]]), angles=[1]).round(decimals=4).abs().tolist()
    [[3.0], [0.0], [1.0]]
    """
    if not angles:
        return x
    index = torch.tensor(angles, device=x.device)
    radians = math.pi * x[index]
    return torch.cat([x.index_copy(0, index, radians.cos()), radians.sin()])
