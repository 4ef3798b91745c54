r"""What a network predicts of a noisy row, and the velocity that follows from it.

A row x with noise is :math:`y = \cos\theta\, x + \sin\theta\, \epsilon`
(:mod:`densekit.distributions.paths`). Four predictions are equivalent:

============  ==================================================================  =====================
name          target of the squared error                                         velocity
============  ==================================================================  =====================
``velocity``  :math:`v = \cos\theta\, \epsilon - \sin\theta\, x`                  F
``noise``     :math:`\epsilon`                                                    (F - sin y) / cos
``data``      x                                                                   (cos y - F) / sin
``score``     :math:`-\epsilon`, which is :math:`\sin\theta\, \nabla\log p(y)`    (-F - sin y) / cos
============  ==================================================================  =====================

The velocity is :math:`E[dy / d\theta \mid y]`, and gives all that samplers and densities need: the
posterior means :math:`E[x \mid y] = \cos\theta\, y - \sin\theta\, v` and :math:`E[\epsilon \mid y] =
\sin\theta\, y + \cos\theta\, v`. For data of variance one it is also what the preconditioning of Karras
et al. makes of a network, up to its sign.

References
----------
T. Salimans and J. Ho. Progressive Distillation for Fast Sampling of Diffusion Models. ICLR 2022.
https://arxiv.org/abs/2202.00512

T. Karras, M. Aittala, T. Aila and S. Laine. Elucidating the Design Space of Diffusion-Based Generative
Models. NeurIPS 2022. https://arxiv.org/abs/2206.00364
"""

from typing import Literal

from torch import Tensor

Prediction = Literal["velocity", "noise", "data", "score"]

_LEAST = 1e-3
"""Least sine or cosine that divides: at the very end of a path the prediction says nothing."""


def target(prediction: Prediction, x: Tensor, noise: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """What a network learns to predict from rows x and their noise.

    Examples
    --------
    >>> import torch
    >>> one = torch.ones(1)
    >>> target("velocity", one, 2 * one, 0.6 * one, 0.8 * one).round(decimals=5).tolist()
    [0.4]
    """
    if prediction == "velocity":
        return cos * noise - sin * x
    if prediction == "data":
        return x
    return noise if prediction == "noise" else -noise


def velocity(prediction: Prediction, output: Tensor, y: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The velocity at y that a network's output means.

    Examples
    --------
    >>> import torch
    >>> one = torch.ones(1)
    >>> y, v = 2.2 * one, 0.4 * one  # x = 1, noise = 2
    >>> for name, output in [("velocity", v), ("noise", 2 * one), ("data", one), ("score", -2 * one)]:
    ...     print(round(velocity(name, output, y, 0.6 * one, 0.8 * one).item(), 5))
    0.4
    0.4
    0.4
    0.4
    """
    if prediction == "velocity":
        return output
    if prediction == "data":
        return (cos * y - output) / sin.clamp_min(_LEAST)
    noise = output if prediction == "noise" else -output
    return (noise - sin * y) / cos.clamp_min(_LEAST)
