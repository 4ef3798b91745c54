"""A masked network under several orders of its features and several connectivities."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from densekit.nets.masked import MaskedNet


class ManyMasks(nn.Module):
    """A masked network whose weights serve S masks: orders of the features and degrees of the units.

    A network trained under all masks in turn is agnostic of order and connectivity, and the
    average of its densities is an ensemble with one set of weights (MADE, sections 4.2 and 4.3). A
    mask is implemented by a permutation: rows and columns of each weight are permuted to the order
    of a :class:`~densekit.nets.masked.MaskedNet`, whose features have their natural order and
    whose units are sorted by degree. Layers of equal width are permuted alike, so that residual
    connections join each unit with itself.

    Parameters
    ----------
    net : MaskedNet
        A network with the natural order of the features.
    orders : int tensor of shape (S, D)
        Features in the order of each mask.
    shuffle_units : bool
        Draw the degrees of hidden units anew for each mask; otherwise all masks have the same.

    Notes
    -----
    Input (sum of reads, N) and context (C, N), output (P, D, N), as for the network.

    References
    ----------
    M. Germain, K. Gregor, I. Murray and H. Larochelle. MADE: Masked Autoencoder for Distribution
    Estimation. ICML 2015. https://arxiv.org/abs/1502.03509

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
        """Number of masks S."""
        return len(self.orders)

    def _columns(self, mask: int) -> Tensor:
        """Indices of the inputs in the order of a mask."""
        reads = torch.tensor(self.net.reads)
        ends = reads.cumsum(0)
        order = self.orders[mask].tolist()
        rows = [torch.arange(int(ends[d] - reads[d]), int(ends[d])) for d in order]
        return torch.cat(rows).to(self.orders.device)

    def _weights(self, mask: int, columns: Tensor) -> dict[str, Tensor]:
        """The permuted parameters of the network."""
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
        """The masks of the first layer, with as many columns per feature as it has inputs."""
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
        """Compute features (D, n) one after another without gradients, as
        :meth:`~densekit.nets.masked.MaskedNet.solve` does.
        """
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
    """The order ``first`` followed by ``n_masks`` - 1 random orders, (n_masks, n_features).

    Examples
    --------
    >>> draw_orders(3, [2, 0, 1], 4).shape
    torch.Size([4, 3])
    """
    rest = [torch.randperm(n_features) for _ in range(n_masks - 1)]
    return torch.stack([torch.tensor(list(first)), *rest])
