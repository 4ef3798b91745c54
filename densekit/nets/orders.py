"""One masked network under several orders of its features and several connectivities."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from densekit.nets.masked import MaskedNet


class ManyMasks(nn.Module):
    r"""A masked network whose weights serve S masks: orders of the features, and degrees of the units.

    Germain, Gregor, Murray and Larochelle, MADE (2015), sections 4.2 and 4.3: trained under all masks
    in turn the network is agnostic of order and of connectivity, and the mean of what it says under
    them is an ensemble for the price of one set of weights. A mask is drawn by shuffling: the
    rows and columns of each weight are put into the order that a
    :class:`~densekit.nets.masked.MaskedNet` of the natural order, whose units are sorted by
    degree, wants them in. Layers of equal width are shuffled alike, so that residual sums join each
    unit with itself.

    Parameters
    ----------
    net : MaskedNet
        Of the natural order.
    orders : int tensor (S, D)
        Features in the order in which each mask takes them.
    shuffle_units : bool
        Draw the degrees of hidden units for each mask anew, with torch's generator; else all masks
        have the same.

    Notes
    -----
    Input (sum of reads, N) and context (C, N), output (P, D, N), as of the network.

    Examples
    --------
    >>> net = ManyMasks(MaskedNet(3, 2, (16, 16)), torch.tensor([[0, 1, 2], [2, 0, 1]]))
    >>> net(torch.ones(3, 10), mask=1).shape
    torch.Size([2, 3, 10])
    """

    orders: Tensor

    def __init__(self, net: MaskedNet, orders: Tensor, shuffle_units: bool = False) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("orders", orders)
        self.widths = [len(b) for b in net.bias]
        for width in sorted(set(self.widths)):
            draws = [
                torch.randperm(width) if shuffle_units else torch.arange(width) for _ in orders
            ]
            self.register_buffer(f"units{width}", torch.stack(draws))
        identity = torch.equal(orders[0], torch.arange(orders.shape[1])) and not shuffle_units
        self.plain = len(orders) == 1 and identity

    @property
    def n_masks(self) -> int:
        """S."""
        return len(self.orders)

    def _columns(self, mask: int) -> Tensor:
        """Rows of the input in the order of the mask."""
        reads = torch.tensor(self.net.reads)
        ends = reads.cumsum(0)
        order = self.orders[mask].tolist()
        rows = [torch.arange(int(ends[d] - reads[d]), int(ends[d])) for d in order]
        return torch.cat(rows).to(self.orders.device)

    def _weights(self, mask: int, columns: Tensor) -> dict[str, Tensor]:
        """The network's parameters, shuffled."""
        net, order = self.net, self.orders[mask]
        units = [self.get_buffer(f"units{w}")[mask] for w in self.widths]
        sides = [columns, *units[:-1]]
        weights = {
            f"weights.{i}": w.index_select(0, rows).index_select(1, side)
            for i, (w, rows, side) in enumerate(zip(net.weights, units, sides, strict=True))
        }
        biases = {
            f"bias.{i}": b[rows] for i, (b, rows) in enumerate(zip(net.bias, units, strict=True))
        }
        ends = {
            "context": net.context[units[0]],
            "last": net.last.index_select(1, order).index_select(2, units[-1]),
            "last_bias": net.last_bias.index_select(1, order),
        }
        if net.direct is not None:
            ends["direct"] = net.direct.index_select(1, order).index_select(2, columns)
        return weights | biases | ends

    def _masks(self, mask: int) -> dict[str, Tensor]:
        """The masks of what reads the input, with as many columns for each place as its feature is
        read as."""
        net = self.net
        ends = torch.tensor(net.reads).cumsum(0) - 1
        reads = torch.tensor(net.reads, device=self.orders.device)[self.orders[mask]]
        names = ["mask0"] if net.direct is None else ["mask0", "direct_mask"]
        return {n: net.get_buffer(n)[:, ends].repeat_interleave(reads, 1) for n in names}

    def forward(self, x: Tensor, context: Tensor | None = None, mask: int = 0) -> Tensor:
        """Input (sum of reads, N) and context (C, N) to parameters (P, D, N), under one mask."""
        if self.plain:
            y: Tensor = self.net(x, context)
            return y
        columns = self._columns(mask)
        given = (x.index_select(0, columns), context)
        state = self._weights(mask, columns)
        if len(set(self.net.reads)) > 1:
            state |= self._masks(mask)
        y = functional_call(self.net, state, given)
        return y.index_select(1, self.orders[mask].argsort())

    def solve(
        self,
        step: Callable[[int, Tensor], Tensor],
        n: int,
        context: Tensor | None,
        read: Callable[[int, Tensor], Tensor],
        mask: int = 0,
    ) -> Tensor:
        """Features (D, n) found one after another, without gradients, as
        :meth:`~densekit.nets.masked.MaskedNet.solve` does."""
        if self.plain:
            return self.net.solve(step, n, context, read)
        order = self.orders[mask].tolist()
        net = copy.deepcopy(self.net)
        net.load_state_dict(self._weights(mask, self._columns(mask)))
        for name, buffer in self._masks(mask).items():
            setattr(net, name, buffer)
        net.reads = [self.net.reads[d] for d in order]
        found = net.solve(
            lambda p, raw: step(order[p], raw), n, context, lambda p, x: read(order[p], x)
        )
        return found[self.orders[mask].argsort()]


def draw_orders(n_features: int, first: Sequence[int], n_masks: int) -> Tensor:
    """``first`` and ``n_masks`` - 1 random orders behind it, (n_masks, n_features), by torch's
    generator.

    Examples
    --------
    >>> draw_orders(3, [2, 0, 1], 4).shape
    torch.Size([4, 3])
    """
    rest = [torch.randperm(n_features) for _ in range(n_masks - 1)]
    return torch.stack([torch.tensor(list(first)), *rest])
