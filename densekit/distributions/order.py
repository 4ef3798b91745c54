"""The density of rows in one order of their columns, from a network that reads any known columns."""

from collections.abc import Callable

import torch
from torch import Tensor

from densekit.distributions.spiked import SpikedLaws
from densekit.nets.observed import ObservedNet

_MAX_ROWS, _MAX_PROBABILITIES = 2**14, 2**22
"""Number of rows, and of probabilities of codes, that the network computes at once."""
Draw = Callable[[int, Tensor], Tensor]
"""Function from a column and its parameters (P, n) to samples for its entries of an event."""


def _padded(columns: Tensor) -> Tensor:
    """Pad columns (E, n) to a multiple of 32, so that results do not depend on a row's position in
    the batch.

    :func:`densekit.runtime.padded` does the same for rows.
    """
    n_missing = -columns.shape[1] % 32
    return (
        columns
        if not n_missing
        else torch.cat([columns, columns[:, -1:].expand(-1, n_missing)], 1)
    )


class OrderedColumns:
    """The density of events in one order of their columns.

    Parameters
    ----------
    net : ObservedNet
    laws : SpikedLaws
    order : list of int
        A permutation of the D columns.

    Notes
    -----
    Events are columns (E, n) with arbitrary finite values in missing cells; ``present`` (D, n) is
    the mask of the known cells.
    """

    def __init__(self, net: ObservedNet, laws: SpikedLaws, order: list[int]) -> None:
        self.net, self.laws, self.order = net, laws, order
        self._first = [sum(laws.reads[:d]) for d in range(laws.n_dims)]
        most = max([2, *laws.cardinality])
        self.at_once = max(64, min(_MAX_ROWS, _MAX_PROBABILITIES // most))

    def params(self, x: Tensor, present: Tensor, d: int) -> Tensor:
        """Parameters (P, n) of column d given the known columns of events (E, n)."""
        dtype, n = self.net.net.last.dtype, x.shape[1]
        x, present = _padded(x), _padded(present)
        found: Tensor = self.net(self.laws.read_all(x.to(dtype)).to(dtype), present, d)
        return found[:, :n]

    def hidden(self, present: Tensor) -> Tensor:
        """M: which columns (D, n) are missing before the last known one."""
        out = torch.zeros_like(present)
        later = torch.zeros_like(present[0])
        for d in reversed(self.order):
            out[d] = later & ~present[d]
            later = later | present[d]
        return out

    def chain(self, x: Tensor, present: Tensor, first: int = 0) -> Tensor:
        """Log of the product (n,) over the known columns from position ``first`` of the order on, in
        float64.

        Each factor is conditional on the known columns before it.
        """
        dtype, n = self.net.net.last.dtype, x.shape[1]
        x, present = _padded(x.to(dtype)), _padded(present)
        inputs, is_scored = self.laws.read_all(x).to(dtype), present.clone()
        known = torch.zeros_like(present)
        preceding = self.order[:first]
        known[preceding], is_scored[preceding] = present[preceding], False
        params = [x.new_zeros(self.laws.n_params, x.shape[1])] * len(self.order)
        for d in self.order[first:]:
            if is_scored[d].any():
                params[d] = self.net(inputs, known, d)
            known[d] = present[d]
        logp = self.laws.log_prob(torch.stack(params, 1), x)
        return torch.where(is_scored, logp, 0.0).sum(0)[:n].double()

    def prefix(self, x: Tensor, present: Tensor, stop: int) -> Tensor:
        """Log of the product (n,) over the known columns before position ``stop``."""
        visible = present.clone()
        visible[self.order[stop:]] = False
        return self.chain(x, visible)

    def propose(
        self,
        x: Tensor,
        present: Tensor,
        wanted: Tensor,
        draw: Draw,
        order_only: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Sample the cells ``wanted`` one after another, each given all known cells and those sampled
        before.

        Rows of ``apart`` are sampled given preceding columns only. Returns the events and three
        log-densities (n,): of all cells in the order, of the sampled cells in the order, and of
        the sampled cells given the known ones.
        """
        dtype = self.net.net.last.dtype
        x, inputs = x.clone(), self.laws.read_all(x.to(dtype)).to(dtype)
        known, seen = torch.zeros_like(present), present.clone()
        nothing = inputs.new_zeros(self.laws.n_params, x.shape[1])
        in_order, given_known = [nothing] * len(self.order), [nothing] * len(self.order)
        for d in self.order:
            if (present[d] | wanted[d]).any():
                in_order[d] = self.net(inputs, known, d)
            if wanted[d].any():
                same = torch.equal(known, seen)
                given_known[d] = in_order[d] if same else self.net(inputs, seen, d)
                value = draw(d, given_known[d])
                if order_only is not None and not same:
                    value = torch.where(order_only, draw(d, in_order[d]), value)
                at = self.laws.entries[d]
                x[at] = torch.where(wanted[d], value.to(x.dtype), x[at])
                rows = slice(self._first[d], self._first[d] + self.laws.reads[d])
                inputs[rows] = self.laws.read(d, x.to(dtype)).to(dtype)
                seen[d] |= wanted[d]
            known[d] = seen[d]
        logp = self.laws.log_prob(torch.stack(in_order, 1), x.to(dtype)).double()
        logq = self.laws.log_prob(torch.stack(given_known, 1), x.to(dtype)).double()
        drawn_in_order = torch.where(wanted, logp, 0.0).sum(0)
        return (
            x,
            torch.where(seen, logp, 0.0).sum(0),
            drawn_in_order,
            torch.where(wanted, logq, 0.0).sum(0),
        )
