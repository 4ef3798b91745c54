"""Networks of rows and a time, for diffusions and flow matching."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_MAX_INPUT = 100.0
"""Inputs are clamped to [-100, 100] standard deviations, so that every row has a finite output."""


class TimedNet(Protocol):
    r"""Interface of a network of a diffusion: ``net(y, time, context)``.

    Rows y (n, \*event_shape), times (n,) or (1,) between 0 (data) and 1 (noise), and context (n,
    n_context) or None, which a network with a context takes as "not known"; the output is like y.
    """

    def __call__(self, y: Tensor, time: Tensor, context: Tensor | None = None) -> Tensor:
        """The output at noisy rows."""


NetFactory = Callable[[torch.Size, int], nn.Module]
"""From the shape of an event and the width of a context (0 for none) to a :class:`TimedNet`."""


class TimeFeatures(nn.Module):
    """The time, and its sines and cosines at multiples of a quarter turn.

    Input (n,), output (n, 1 + 2 n_frequencies).

    Examples
    --------
    >>> TimeFeatures(2)(torch.tensor([0.0, 1.0])).shape
    torch.Size([2, 5])
    """

    frequencies: Tensor

    def __init__(self, n_frequencies: int = 16) -> None:
        super().__init__()
        multiples = torch.arange(1, n_frequencies + 1) * (math.pi / 2)
        self.register_buffer("frequencies", multiples)
        self.width = 1 + 2 * n_frequencies

    def forward(self, time: Tensor) -> Tensor:
        """Times (n,) to features (n, width)."""
        time = time[:, None]
        angle = time * self.frequencies
        return torch.cat([time, angle.sin(), angle.cos()], 1)


class ContextFeatures(nn.Module):
    """A context and whether it is known; with None, zeros.

    Examples
    --------
    >>> ContextFeatures(2)(None, torch.zeros(3, 1)).shape
    torch.Size([3, 3])
    """

    def __init__(self, n_context: int) -> None:
        super().__init__()
        self.n_context = n_context
        self.width = n_context + 1 if n_context else 0

    def forward(self, context: Tensor | None, like: Tensor) -> Tensor:
        """Context (n, n_context), in which a row of NaN is not known, to features (n, width)."""
        if context is None:
            return like.new_zeros(len(like), self.width)
        known = ~context.isnan().any(1, keepdim=True)
        values = torch.where(known, context, 0.0).clamp(-_MAX_INPUT, _MAX_INPUT)
        return torch.cat([values, known.to(values)], 1)


class TimedMLP(nn.Module):
    r"""A residual network of a row y, a time w and an optional context c.

    .. math:: h_1 = \mathrm{silu}(W_1 [y, \sin B y, \cos B y] + V [\phi(w), c]), \qquad
              h_{i + 1} = h_i + \mathrm{drop}(\mathrm{silu}(W_{i + 1} h_i))

    The rows of B are random directions of fixed length (Fourier features): without them a network of
    few columns learns edges slowly (Tancik et al. 2020). The last layer is linear and starts at zero.

    Parameters
    ----------
    n_dims, n_context : int
        Width of y and of the output, and of c.
    hidden_sizes : sequence of int
        Width of each layer. Only layers of the width of the one before add to it.
    n_fourier : int
        Number of random directions.
    dropout : float
        Probability with which training drops a hidden unit.

    References
    ----------
    M. Tancik et al. Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional
    Domains. NeurIPS 2020. https://arxiv.org/abs/2006.10739

    Examples
    --------
    >>> net = TimedMLP(3, (16, 16))
    >>> net(torch.ones(5, 3), torch.ones(1)).abs().sum().item()
    0.0
    """

    directions: Tensor

    def __init__(
        self,
        n_dims: int,
        hidden_sizes: Sequence[int],
        n_context: int = 0,
        n_fourier: int = 32,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        # The same spread of B y for standard normal rows of every width.
        scale = math.sqrt(2 / max(n_dims, 2))
        self.register_buffer("directions", scale * torch.randn(n_dims, n_fourier))
        self.time, self.context = TimeFeatures(), ContextFeatures(n_context)
        self.first = nn.Linear(n_dims + 2 * n_fourier, hidden_sizes[0])
        self.condition = nn.Linear(self.time.width + self.context.width, hidden_sizes[0])
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(hidden_sizes))
        self.last = nn.Linear(hidden_sizes[-1], n_dims)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, y: Tensor, time: Tensor, context: Tensor | None = None) -> Tensor:
        """Rows (n, n_dims), times (n,) or (1,), context (n, n_context) to rows (n, n_dims)."""
        y = y.clamp(-_MAX_INPUT, _MAX_INPUT)
        angle = y @ self.directions
        condition = self.time(time)
        if self.context.width:
            features = self.context(context, y)
            condition = torch.cat([condition.expand(len(features), -1), features], 1)
        h = self.first(torch.cat([y, angle.sin(), angle.cos()], 1)) + self.condition(condition)
        h = F.silu(h)
        for layer in self.layers:
            r = F.dropout(F.silu(layer(h)), self.dropout, self.training)
            h = h + r if layer.in_features == layer.out_features else r
        out: Tensor = self.last(h)
        return out
