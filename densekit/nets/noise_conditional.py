"""A residual network on rows that is conditioned on a noise level."""

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_MAX_INPUT = 100.0
"""Inputs are clamped to [-100, 100] standard deviations, so that every row has a finite output."""


class NoiseEmbedding(nn.Module):
    """Features of a noise level: sines and cosines of log sigma at geometric frequencies, and a
    linear layer.

    Input sigma (n,), output (n, width). Frequencies range from 1/4 to 4 radians per unit of log
    sigma: the lowest distinguishes the ends of a range of 1,000, the highest distinguishes
    neighboring levels.

    References
    ----------
    A. Vaswani et al. Attention Is All You Need. NeurIPS 2017, section 3.5.
    https://arxiv.org/abs/1706.03762
    """

    frequencies: Tensor

    def __init__(self, width: int, n_frequencies: int = 16):
        super().__init__()
        geometric = torch.logspace(math.log10(0.25), math.log10(4.0), n_frequencies)
        self.register_buffer("frequencies", geometric)
        self.mix = nn.Sequential(nn.Linear(2 * n_frequencies, width), nn.SiLU())

    def forward(self, sigma: Tensor) -> Tensor:
        """Levels (n,) to features (n, width)."""
        angle = sigma.log()[:, None] * self.frequencies
        features: Tensor = self.mix(torch.cat([angle.sin(), angle.cos()], 1))
        return features


class NoiseConditionalMLP(nn.Module):
    r"""A network of rows x, a noise level sigma and an optional context c.

    .. math:: h_{i+1} = h_i + \mathrm{drop}\big(\mathrm{silu}(
              (1 + \gamma_i)\, W_i\, \mathrm{norm}(h_i) + \beta_i)\big), \qquad
              (\gamma_i, \beta_i) = V_i\, e(\sigma, c)

    A layer whose width differs from the one before, such as the first, has neither the sum nor the
    norm. The last layer is linear and starts at zero. The level is given as the position of its
    logarithm between two ends, from 0 to 1 (:class:`~densekit.nets.timed.TimedNet`).

    Parameters
    ----------
    n_dims, n_context : int
        Width of x and of the output, and of c.
    hidden_sizes : sequence of int
        Width of each layer.
    dropout : float
        Probability with which training drops a hidden unit.
    n_fourier : int
        Number of random directions b whose :math:`\sin b \cdot x` and :math:`\cos b \cdot x` the first
        layer sees too.
    levels : (float, float)
        Noise levels at times 0 and 1.

    References
    ----------
    E. Perez, F. Strub, H. de Vries, V. Dumoulin and A. Courville. FiLM: Visual Reasoning with a
    General Conditioning Layer. AAAI 2018. https://arxiv.org/abs/1709.07871

    Examples
    --------
    >>> net = NoiseConditionalMLP(3, (16, 16))
    >>> net(torch.ones(5, 3), torch.ones(5)).abs().sum().item()
    0.0
    """

    directions: Tensor | None

    def __init__(
        self,
        n_dims: int,
        hidden_sizes: Sequence[int],
        n_context: int = 0,
        dropout: float = 0.0,
        n_fourier: int = 0,
        levels: tuple[float, float] = (0.01, 20.0),
    ) -> None:
        super().__init__()
        self.dropout, self.levels = dropout, levels
        self.directions = None
        if n_fourier:
            scale = math.sqrt(2 / max(n_dims, 2))
            self.register_buffer("directions", scale * torch.randn(n_dims, n_fourier))
        width = 32
        self.level = NoiseEmbedding(width)
        self.context = nn.Linear(n_context, width) if n_context else None
        self.mix = nn.Sequential(nn.Linear(width, width), nn.SiLU())
        sizes = (n_dims + 2 * n_fourier, *hidden_sizes)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.films = nn.ModuleList(_zero(nn.Linear(width, 2 * b)) for b in hidden_sizes)
        self.last = _zero(nn.Linear(sizes[-1], n_dims))

    def forward(self, x: Tensor, time: Tensor, context: Tensor | None = None) -> Tensor:
        """Rows (n, n_dims), times (n,) or (1,), context (n, n_context) to rows (n, n_dims)."""
        e = self.level(self.levels[0] * (self.levels[1] / self.levels[0]) ** time)
        if self.context is not None and context is not None:
            e = e + F.silu(self.context(context.clamp(-_MAX_INPUT, _MAX_INPUT)))
        e = self.mix(e)
        h = x.clamp(-_MAX_INPUT, _MAX_INPUT)
        if self.directions is not None:
            angle = h @ self.directions
            h = torch.cat([h, angle.sin(), angle.cos()], 1)
        for layer, film in zip(self.layers, self.films, strict=True):
            gain, shift = film(e).chunk(2, 1)
            same = layer.in_features == layer.out_features
            r = layer(F.layer_norm(h, h.shape[-1:]) if same else h)
            r = F.dropout(F.silu(torch.addcmul(shift + r, gain, r)), self.dropout, self.training)
            h = h + r if same else r
        # Files of older releases hold weights of minus the velocity.
        velocity: Tensor = -self.last(h)
        return velocity


def _zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
