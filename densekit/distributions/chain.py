"""A masked autoregressive network and its column distributions as a Pyro distribution."""

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
    r"""The average of S autoregressive densities, each with its own order of the columns.

    .. math:: p(x) = \frac{1}{S} \sum_{s=1}^S \prod_d
              p(x_{o_s(d)} \mid x_{o_s(1)}, \dots, x_{o_s(d-1)}, c)

    Each product is one pass of the network and is normalized; so is the average.

    Parameters
    ----------
    net : ManyMasks
        Network that computes parameters of each column from the columns before it, under S masks.
    laws : ColumnLaws
        The column distributions with these parameters.
    context : Tensor, optional
        c, (\*batch_shape, C).
    masks : sequence of int, optional
        Use only these masks.

    Notes
    -----
    Event shape (E,), that of the laws. The batch shape is that of the context without its last
    axis, or ().

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
        """Log-density of values (..., D); their leading shape broadcasts with the batch shape."""
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        x = to_columns(value.expand(*shape, value.shape[-1]))
        inputs, context = self.laws.read_all(x), self._context(shape)
        logp = [
            self.laws.log_prob(self.net(inputs, context, mask), x).sum(0) for mask in self.masks
        ]
        if len(logp) == 1:
            return logp[0].reshape(shape)
        return (torch.stack(logp).logsumexp(0) - math.log(len(logp))).reshape(shape)

    @torch.no_grad()
    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        r"""Samples (\*sample_shape, \*batch_shape, D), each in a random one of the orders."""
        shape = torch.Size(sample_shape) + self.batch_shape
        n, context = shape.numel(), self._context(shape)
        orders = self.net.orders
        weight = self.net.net.last
        x = weight.new_empty(self.laws.n_entries, n)
        mask_of_row = torch.randint(len(self.masks), (n,), device=orders.device)
        for k, mask in enumerate(self.masks):
            rows = (mask_of_row == k).nonzero()[:, 0]
            if len(rows):
                given = None if context is None else context[:, rows]
                x[:, rows] = self._draw(len(rows), given, mask)
        return x.t().reshape(*shape, self.laws.n_entries)

    def _draw(self, n: int, context: Tensor | None, mask: int) -> Tensor:
        """Sample events (E, n) under one mask."""
        laws = self.laws
        x = self.net.net.last.new_empty(laws.n_entries, n)

        def step(d: int, params: Tensor) -> Tensor:
            x[laws.entries[d]] = laws.sample(d, params)
            return x[0]  # This value is not used: the network reads the event itself.

        self.net.solve(step, n, context, lambda d, _: laws.read(d, x), mask)
        return x
