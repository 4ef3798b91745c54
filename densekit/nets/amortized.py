"""Numbers that are learned, or that a network finds in the context."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from densekit.nets.residual import ResidualNet


class Amortized(nn.Module):
    r"""The raw parameters of a transform: P learned numbers, or P functions of the context.

    Where there is no context they are one column (P, 1), which broadcasts against a batch. With one
    they are the output of a :class:`~densekit.nets.residual.ResidualNet` of it, (P, N): amortized,
    in the words of Rezende and Mohamed, Variational Inference with Normalizing Flows (2015).

    Parameters
    ----------
    start : Tensor
        (P,): the numbers to begin learning from, the same for every context.
    hidden_sizes : sequence of int
        Hidden layers of the network; not looked at where ``n_context`` is 0.
    n_context : int
        Number of context features C.
    activation : str
        A name that :func:`densekit.nets.mlp.activation_layer` knows.

    Examples
    --------
    >>> Amortized(torch.zeros(3), (16,))().shape
    torch.Size([3, 1])
    >>> Amortized(torch.zeros(3), (16,), n_context=2)(torch.ones(2, 10)).shape
    torch.Size([3, 10])
    """

    def __init__(
        self,
        start: Tensor,
        hidden_sizes: Sequence[int],
        n_context: int = 0,
        activation: str = "silu",
    ) -> None:
        super().__init__()
        self.net: ResidualNet | None = None
        if n_context == 0:
            self.values = nn.Parameter(start[:, None].clone())
            return
        self.net = ResidualNet(0, len(start), hidden_sizes, n_context, activation)
        with torch.no_grad():
            self.net.last_bias.add_(start[:, None])

    def forward(self, context: Tensor | None = None) -> Tensor:
        """Context (C, N) to (P, N); (P, 1) where there is none."""
        if self.net is None:
            return self.values
        if context is None:
            raise ValueError("context=None: this transform was built with a context; condition it")
        return self.net(context.new_empty(0, context.shape[1]), context)
