"""A network that reads any subset of the columns of a row."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from densekit.nets.residual import ResidualNet


class ObservedNet(nn.Module):
    r"""Parameters of every column from any subset of observed columns.

    .. math:: \theta = f(r_1 o_1, \dots, r_D o_D, o_1, \dots, o_D)

    r are the inputs for each column, and o = 1 if the column is observed, else 0: a masked input
    with indicators (Uria et al.).

    Parameters
    ----------
    reads : sequence of int
        Number of inputs for each of D columns.
    n_params : int
        Number of parameters P per column.
    hidden_sizes, activation, dropout
        As in :class:`~densekit.nets.residual.ResidualNet`.
    start : Tensor of shape (P, D), optional
        Initial parameters; zeros by default.

    Notes
    -----
    Input (sum of reads, N) and boolean ``observed`` (D, N); output (P, D, N), or (P, N) for a
    single column.

    References
    ----------
    B. Uria, I. Murray and H. Larochelle. A Deep and Tractable Density Estimator. ICML 2014.
    https://arxiv.org/abs/1310.1757

    Examples
    --------
    >>> net = ObservedNet([1, 3], 4, (16, 16))
    >>> net(torch.ones(4, 10), torch.ones(2, 10, dtype=torch.bool)).shape
    torch.Size([4, 2, 10])
    """

    reads: Tensor

    def __init__(
        self,
        reads: Sequence[int],
        n_params: int,
        hidden_sizes: Sequence[int],
        activation: str = "silu",
        dropout: float = 0.0,
        start: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.n_params = n_params
        self.register_buffer("reads", torch.tensor(list(reads)), persistent=False)
        self.net = ResidualNet(
            sum(reads) + len(reads),
            len(reads) * n_params,
            hidden_sizes,
            activation=activation,
            dropout=dropout,
        )
        if start is not None:
            with torch.no_grad():
                self.net.last_bias.add_(start.t().reshape(-1, 1))

    def forward(self, x: Tensor, observed: Tensor, column: int | None = None) -> Tensor:
        """Inputs (sum of reads, N) and indicators (D, N) to parameters."""
        indicators = observed.to(x.dtype)
        x = torch.cat([x * indicators.repeat_interleave(self.reads, 0), indicators])
        P = self.n_params
        if column is not None:
            return self.net(x, rows=slice(column * P, (column + 1) * P))
        y: Tensor = self.net(x)
        return y.view(len(self.reads), P, x.shape[1]).transpose(0, 1)
