"""A network that reads any subset of the columns of a row."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from densekit.nets.residual import ResidualNet


class ObservedNet(nn.Module):
    r"""Parameters of every column, from whichever columns have been observed.

    .. math:: \theta = f(r_1 o_1, \dots, r_D o_D, o_1, \dots, o_D)

    with r what is read of each column and o = 1 where it is observed, else 0: the masked input with
    indicators of Uria, Murray and Larochelle, A Deep and Tractable Density Estimator (2014).

    Parameters
    ----------
    reads : sequence of int
        How many numbers are read of each of D columns.
    n_params : int
        P, numbers for each column.
    hidden_sizes, activation, dropout
        As in :class:`~densekit.nets.residual.ResidualNet`.
    start : Tensor, optional
        Parameters (P, D) to begin at; zeros where not given.

    Notes
    -----
    Readings (sum of reads, N) and observed (D, N), boolean; out come (P, D, N), or (P, N) of one column.

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
        """Readings (sum of reads, N) and indicators (D, N) to parameters."""
        seen = observed.to(x.dtype)
        x = torch.cat([x * seen.repeat_interleave(self.reads, 0), seen])
        P = self.n_params
        if column is not None:
            return self.net(x, rows=slice(column * P, (column + 1) * P))
        y: Tensor = self.net(x)
        return y.view(len(self.reads), P, x.shape[1]).transpose(0, 1)
