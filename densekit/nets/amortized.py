"""Raw parameters that are learned directly, or computed from the context."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from densekit.nets.residual import ResidualNet


class Amortized(nn.Module):
    """The P raw parameters of a transform: learned numbers, or functions of the context.

    Without a context they have the shape (P, 1), which broadcasts against a batch. With a context
    they are the output of a :class:`~densekit.nets.residual.ResidualNet`, (P, N), which is called
    amortization (Rezende and Mohamed).

    Parameters
    ----------
    start : Tensor of shape (P,)
        Initial values, the same for every context.
    hidden_sizes : sequence of int
        Hidden layers of the network; not used if ``n_context`` is 0.
    n_context : int
        Number of context features C.
    activation : str
        Activation, see :func:`densekit.nets.mlp.activation_layer`.

    References
    ----------
    D. J. Rezende and S. Mohamed. Variational Inference with Normalizing Flows. ICML 2015.
    https://arxiv.org/abs/1505.05770

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
        """The parameters (P, N) for a context (C, N), or (P, 1) without one."""
        if self.net is None:
            return self.values
        if context is None:
            raise ValueError("context=None: this transform was built with a context; condition it")
        return self.net(context.new_empty(0, context.shape[1]), context)
