"""Columns one after another: a masked network and the laws of its columns as a Pyro distribution."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor

from densekit.distributions.columnwise import ColumnLaws
from densekit.nets.orders import ManyMasks
from densekit.transforms.columns import to_columns


class Chain(TorchDistribution):
    r"""The mean of S products of conditional laws, each in its own order of the columns.

    .. math:: p(x) = \frac{1}{S} \sum_{s=1}^S \prod_d
              p(x_{o_s(d)} \mid x_{o_s(1)}, \dots, x_{o_s(d-1)}, c)

    Each product is one pass of the network, and normalized; so is their mean.

    Parameters
    ----------
    net : ManyMasks
        Numbers for each column from the columns before it, under S masks.
    laws : ColumnLaws
        What these numbers mean.
    context : Tensor, optional
        c, (\*batch_shape, C).
    masks : sequence of int, optional
        Take these masks only.

    Notes
    -----
    Event shape (E,), that of the laws; batch shape that of the context without its last axis, else ().

    Examples
    --------
    >>> from densekit.nets.masked import MaskedNet
    >>> laws = ColumnLaws([2, 2], [False] * 2, [0.0] * 2)
    >>> net = ManyMasks(MaskedNet(2, laws.n_params, (8,)), torch.tensor([[0, 1]]))
    >>> Chain(net, laws).log_prob(torch.zeros(3, 2)).exp()
    tensor([0.2500, 0.2500, 0.2500], grad_fn=<ExpBackward0>)
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real_vector
    has_rsample = False

    def __init__(
        self,
        net: ManyMasks,
        laws: ColumnLaws,
        context: Tensor | None = None,
        masks: Sequence[int] | None = None,
    ) -> None:
        self.net, self.laws, self.context = net, laws, context
        self.masks = list(range(net.n_masks)) if masks is None else list(masks)
        batch_shape = torch.Size() if context is None else context.shape[:-1]
        super().__init__(batch_shape, torch.Size([laws.n_entries]), validate_args=False)

    def expand(self, batch_shape: Any, _instance: "Chain | None" = None) -> "Chain":
        """The distribution with its batch shape expanded."""
        new = Chain(self.net, self.laws, self.context, self.masks)
        new._batch_shape = torch.Size(batch_shape)
        return new

    def _context(self, batch_shape: torch.Size) -> Tensor | None:
        if self.context is None:
            return None
        return to_columns(self.context.expand(*batch_shape, self.context.shape[-1]))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of values (..., D), whose leading shape broadcasts with the batch shape."""
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        x = to_columns(value.expand(*shape, value.shape[-1]))
        read, context = self.laws.read_all(x), self._context(shape)
        logp = [self.laws.log_prob(self.net(read, context, mask), x).sum(0) for mask in self.masks]
        if len(logp) == 1:
            return logp[0].reshape(shape)
        return (torch.stack(logp).logsumexp(0) - math.log(len(logp))).reshape(shape)

    @torch.no_grad()
    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """Draws (\\*sample_shape, \\*batch_shape, D): each in one of the orders, at random."""
        shape = torch.Size(sample_shape) + self.batch_shape
        n, context = shape.numel(), self._context(shape)
        orders = self.net.orders
        like = self.net.net.last
        x = like.new_empty(self.laws.n_entries, n)
        which = torch.randint(len(self.masks), (n,), device=orders.device)
        for k, mask in enumerate(self.masks):
            mine = (which == k).nonzero()[:, 0]
            if len(mine):
                given = None if context is None else context[:, mine]
                x[:, mine] = self._draw(len(mine), given, mask)
        return x.t().reshape(*shape, self.laws.n_entries)

    def _draw(self, n: int, context: Tensor | None, mask: int) -> Tensor:
        """Events (E, n) under one mask."""
        laws = self.laws
        x = self.net.net.last.new_empty(laws.n_entries, n)

        def step(d: int, params: Tensor) -> Tensor:
            x[laws.entries[d]] = laws.sample(d, params)
            return x[0]  # What the network reads comes of the event.

        self.net.solve(step, n, context, lambda d, _: laws.read(d, x), mask)
        return x
