"""A residual network on rows that is told how noisy its input is."""

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_FAR = 100.0
"""Inputs are clamped to [-FAR, FAR] standard deviations, so that any row gets a finite answer."""


class NoiseEmbedding(nn.Module):
    r"""Features of a noise level: sines and cosines of log sigma at geometric frequencies, mixed.

    Input sigma (n,), output (n, width). Frequencies run from 1/4 to 4 radians per unit of log sigma:
    the slowest tells the two ends of a range of 1,000 apart, the fastest a level from its neighbor.

    References
    ----------
    Vaswani et al. 2017, section 3.5; Karras et al. 2022, "Elucidating the design space of
    diffusion-based generative models".
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
    r"""A network of rows x, noise levels sigma and, if there is any, a context c.

    .. math:: h_{i+1} = h_i + \mathrm{drop}\big(\mathrm{silu}(
              (1 + \gamma_i)\, W_i\, \mathrm{norm}(h_i) + \beta_i)\big), \qquad
              (\gamma_i, \beta_i) = V_i\, e(\sigma, c)

    with neither sum nor norm where two neighboring layers differ in width (the first always), and
    a last linear layer that starts at zero.

    Parameters
    ----------
    n_dims, n_context : int
        Width of x, which is that of the output, and of c.
    hidden_sizes : sequence of int
        Width of each layer.
    dropout : float
        Probability with which a hidden unit is left out while training.

    References
    ----------
    Perez et al. 2018, "FiLM: visual reasoning with a general conditioning layer".

    Examples
    --------
    >>> net = NoiseConditionalMLP(3, (16, 16))
    >>> net(torch.ones(5, 3), torch.ones(5)).abs().sum().item()
    0.0
    """

    def __init__(
        self, n_dims: int, hidden_sizes: Sequence[int], n_context: int = 0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.dropout = dropout
        width = 32
        self.level = NoiseEmbedding(width)
        self.context = nn.Linear(n_context, width) if n_context else None
        self.mix = nn.Sequential(nn.Linear(width, width), nn.SiLU())
        sizes = (n_dims, *hidden_sizes)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.films = nn.ModuleList(_zero(nn.Linear(width, 2 * b)) for b in hidden_sizes)
        self.last = _zero(nn.Linear(sizes[-1], n_dims))

    def forward(self, x: Tensor, sigma: Tensor, context: Tensor | None = None) -> Tensor:
        """Rows (n, n_dims), levels (n,) or (1,), context (n, n_context) to rows (n, n_dims)."""
        e = self.level(sigma)
        if self.context is not None and context is not None:
            e = e + F.silu(self.context(context.clamp(-_FAR, _FAR)))
        e = self.mix(e)
        h = x.clamp(-_FAR, _FAR)
        for layer, film in zip(self.layers, self.films, strict=True):
            gain, shift = film(e).chunk(2, 1)
            same = layer.in_features == layer.out_features
            r = layer(F.layer_norm(h, h.shape[-1:]) if same else h)
            r = F.dropout(F.silu(torch.addcmul(shift + r, gain, r)), self.dropout, self.training)
            h = h + r if same else r
        y: Tensor = self.last(h)
        return y


def _zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
