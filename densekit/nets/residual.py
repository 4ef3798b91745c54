"""A residual network on columns: features first, samples last."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from densekit.nets.chain import Plan, chain, record, squash
from densekit.nets.mlp import activation_layer


def check_hidden(hidden_sizes: Sequence[int]) -> None:
    """Raise a ValueError if there is no hidden layer."""
    if not hidden_sizes:
        raise ValueError("hidden_sizes=() must have at least one layer, as in hidden_sizes=(64,)")


def uniform_weight(n_out: int, n_in: int, fan_in: Tensor | float) -> nn.Parameter:
    """A weight (n_out, n_in), uniform with variance 1/(3 fan_in) in each row."""
    weight = 2 * torch.rand(n_out, n_in) - 1
    scale = torch.as_tensor(fan_in, dtype=weight.dtype).clamp_min(1).rsqrt()
    return nn.Parameter(weight * scale)


class ResidualNet(nn.Module):
    r"""A network from (n_in, N), and a context (n_context, N), to (n_out, N).

    .. math:: h_1 = W_1 \operatorname{asinh}(x) + V \operatorname{asinh}(c) + b_1, \quad
              h_{i+1} = h_i + W_{i+1}\,\sigma(h_i) + b_{i+1}, \quad y = W \sigma(h_k) + b

    Consecutive layers of different width have no sum. W and b start at zero.

    Parameters
    ----------
    n_in, n_out, n_context : int
        Numbers of features; ``n_in`` and ``n_context`` may be 0.
    hidden_sizes : sequence of int
        Width of each hidden layer, at least one layer.
    activation : str
        Activation, see :func:`densekit.nets.mlp.activation_layer`.
    dropout : float
        Probability with which training drops a hidden unit.

    Examples
    --------
    >>> ResidualNet(3, 2, (16, 16))(torch.ones(3, 10)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        hidden_sizes: Sequence[int],
        n_context: int = 0,
        activation: str = "silu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_hidden(hidden_sizes)
        self.name, self.dropout = activation, dropout
        self.activation = activation_layer(activation, dropout)
        self._kept: Plan | None = None
        fan_in = [n_in + n_context, *hidden_sizes[:-1]]
        self.first = uniform_weight(hidden_sizes[0], n_in, fan_in[0])
        self.context = uniform_weight(hidden_sizes[0], n_context, fan_in[0])
        self.hidden = nn.ParameterList(
            uniform_weight(b, a, a) for a, b in itertools.pairwise(hidden_sizes)
        )
        self.bias = nn.ParameterList(
            uniform_weight(h, 1, fan) for h, fan in zip(hidden_sizes, fan_in, strict=True)
        )
        self.last = nn.Parameter(torch.zeros(n_out, hidden_sizes[-1]))
        self.last_bias = nn.Parameter(torch.zeros(n_out, 1))

    def forward(
        self, x: Tensor, context: Tensor | None = None, rows: slice | None = None
    ) -> Tensor:
        """Columns (n_in, N) and (n_context, N) to (n_out, N), or to some ``rows`` of it."""
        first, *biases = self.bias
        if context is not None:
            first = torch.addmm(first, self.context, squash(context))
        rows = slice(None) if rows is None else rows
        last, last_bias = self.last[rows], self.last_bias[rows]
        return chain(
            x, [self.first, *self.hidden, last], [first, *biases, last_bias], self._plan()
        )

    def _plan(self) -> Plan:
        random = self.dropout > 0 and self.training
        if self._kept is None or self._kept.random != random:
            nothing = [None] * (len(self.hidden) + 2)
            self._kept = Plan(self.name, self.activation, random, nothing, nothing)
        return self._kept

    def can_record(self) -> bool:
        """Whether :meth:`record` is available."""
        return self._plan().can_record() and self.first.numel() > 0

    def record(self, tape: Any, x: Any, context: Any = None) -> Any:
        """Record the network on a ``kernels.tape.Tape``: rows (n_in) and asinh of the context to rows
        (n_out).
        """
        weights = [self.first, *self.hidden, self.last]
        side_product = None if context is None else (self.context, context)
        return record(
            tape, x, weights, [*self.bias, self.last_bias], self._plan(), side_product=side_product
        )
