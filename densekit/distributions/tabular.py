"""The module of an autoregressive model of tables in any order of the columns."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from densekit.distributions.anyorder import AnyOrder
from densekit.distributions.montecarlo import resized
from densekit.distributions.spiked import SpikedLaws
from densekit.nets.observed import ObservedNet
from densekit.nets.orders import draw_orders


class TabularModule(nn.Module):
    """A network, the column distributions it parametrizes, and the orders in which rows are scored."""

    orders: Tensor

    def __init__(self, net: ObservedNet, laws: SpikedLaws, orders: Tensor) -> None:
        super().__init__()
        self.net, self.laws = net, laws
        self.register_buffer("orders", orders)

    def forward(
        self,
        context: Tensor | None = None,
        given: Sequence[int] = (),
        conditions: dict[int, Any] | None = None,
        method: str = "marginal",
        draws: int = 64,
        n_orders: int | None = None,
    ) -> AnyOrder:
        """Return the distribution: event shape that of the laws, batch shape ().

        ``n_orders`` changes the number of orders from that of the constructor.
        """
        orders, D = self.orders, self.laws.n_dims
        if n_orders is not None:
            orders = resized(orders, n_orders, lambda k: draw_orders(D, range(D), k + 1)[1:])
        return AnyOrder(self.net, self.laws, orders, given, conditions, method, draws)

    def summary(self, events: Tensor) -> tuple[np.ndarray, np.ndarray, bool]:
        """Smallest and largest value of each column of events (N, E), each (D,), NaN where there is
        none, and whether all their densities are exact without an integral.
        """
        x = events.t()
        present = self.laws.present(x)
        values, not_atom = self.laws.values(x)
        low = torch.where(not_atom, values, torch.inf).amin(1).double().cpu().numpy()
        high = torch.where(not_atom, values, -torch.inf).amax(1).double().cpu().numpy()
        exact = bool(present.all()) or self().exact_without_draws(present)
        return np.where(np.isinf(low), np.nan, low), np.where(np.isinf(high), np.nan, high), exact

    def weighed(self, events: Tensor) -> Tensor:
        """Unbiased estimate (N,) of the log-density of events (N, D) under a random order.

        A random number of cells is known. The estimate is the sum of the log-probabilities of the
        others, each given the known cells, weighted for the number of known cells.
        """
        x = events.t().contiguous()
        present = self.laws.present(x)
        x = torch.where(x.isnan(), 0.0, x)
        n_cells = present.sum(0)
        u = torch.rand_like(present, dtype=x.dtype)
        place = u.masked_fill(~present, 2.0).argsort(0).argsort(0)
        # The numbers of known cells are stratified over the batch, whose rows are in random order.
        stratum = (torch.arange(x.shape[1], device=x.device) + torch.rand_like(x[0])) / x.shape[1]
        k = (stratum * n_cells).long().clamp_max(n_cells - 1)
        known = present & (place < k)
        logp = self.laws.log_prob(self.net(self.laws.read_all(x), known), x, left_out=True)
        rest = torch.where(present & ~known, logp, 0.0).sum(0)
        return rest * n_cells / (n_cells - k).clamp_min(1)
