"""The multi-layer perceptron, and activations by name."""

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}


def activation_layer(name: str, dropout: float = 0.0) -> nn.Module:
    """Create the activation called ``name``, one of ``ACTIVATIONS``, with dropout after it if
    ``dropout`` > 0.

    Raises
    ------
    ValueError
        If there is no such activation.

    Examples
    --------
    >>> activation_layer("silu")
    SiLU()
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"activation={name!r}: must be one of {sorted(ACTIVATIONS)}")
    layer = ACTIVATIONS[name]()
    return nn.Sequential(layer, nn.Dropout(dropout)) if dropout else layer


class MLP(nn.Module):
    r"""A multi-layer perceptron on rows.

    .. math:: h_0 = x, \qquad h_i = \sigma(W_i h_{i-1} + b_i), \qquad y = W h_k + b

    Parameters
    ----------
    n_in, n_out : int
        Width of inputs and outputs. With ``n_in`` = 0 the output is learned but constant.
    hidden_sizes : sequence of int
        Width of each hidden layer; empty for an affine map.
    activation : str
        One of ``ACTIVATIONS``.
    dropout : float
        Probability with which training drops a hidden unit.
    zero_last : bool
        Initialize the last layer with zeros, so that y = 0 for every x.

    Notes
    -----
    Input (..., n_in), output (..., n_out).

    Examples
    --------
    >>> net = MLP(3, (16, 16), 2, zero_last=True)
    >>> net(torch.ones(5, 3)).abs().sum().item()
    0.0
    """

    def __init__(
        self,
        n_in: int,
        hidden_sizes: Sequence[int],
        n_out: int,
        activation: str = "silu",
        dropout: float = 0.0,
        zero_last: bool = False,
    ) -> None:
        super().__init__()
        self.n_in, self.n_out = n_in, n_out
        sizes = (n_in, *hidden_sizes)
        layers: list[nn.Module] = []
        for fan_in, fan_out in itertools.pairwise(sizes):
            layers += [_linear(fan_in, fan_out), activation_layer(activation, dropout)]
        last = _linear(sizes[-1], n_out)
        if zero_last:
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(*layers, last)

    def forward(self, x: Tensor) -> Tensor:
        """Rows (..., n_in) to rows (..., n_out)."""
        y: Tensor = self.layers(x)
        return y


def join_context(x: Tensor, context: Tensor | None) -> Tensor:
    """Append the context (n, c) of each row to x (..., n, k): (..., n, k + c).

    Examples
    --------
    >>> join_context(torch.zeros(5, 3, 2), torch.ones(3, 1)).shape
    torch.Size([5, 3, 3])
    """
    if context is None:
        return x
    return torch.cat([x, context.expand(*x.shape[:-1], context.shape[-1])], -1)


def _linear(fan_in: int, fan_out: int) -> nn.Linear:
    """A linear layer with torch's initialization; without inputs it is a bias."""
    if fan_in:
        return nn.Linear(fan_in, fan_out)
    # It is created with one input, because torch warns when it initializes an empty weight.
    layer = nn.Linear(1, fan_out)
    layer.in_features, layer.weight = 0, nn.Parameter(torch.empty(fan_out, 0))
    return layer
