"""Columns in any order: a network that reads whichever are known, as a Pyro distribution."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor

from densekit.distributions.spiked import SpikedLaws
from densekit.nets.observed import ObservedNet
from densekit.transforms.columns import to_columns

_CANDIDATES, _FEWEST_CANDIDATES = 16, 256
"""Candidates for a draw under several restrictions, and how many there are at least."""


class AnyOrder(TorchDistribution):
    r"""The mean of S products of conditional laws, each in an order of its own, given some columns.

    .. math:: p(x_U \mid x_G) = \frac{1}{S} \sum_{s=1}^S \prod_{d \in U}
              p(x_{o_s(d)} \mid x_G, x_{o_s(1)}, \dots, x_{o_s(d-1)})

    where the orders pass over the given columns G, which are known from the start, and in each row
    over the cells that are missing (NaN), which are neither known nor scored.

    Parameters
    ----------
    net : ObservedNet
        Parameters of each column from those that are known.
    laws : SpikedLaws
        What these mean.
    orders : int tensor (S, D)
    given : sequence of int
        G.
    conditions : mapping from column to object with ``values``, ``low``, ``high``, ``atoms``
        Draws have one of the values (of a column with atoms pairs of indicator and value), or lie
        between the ends or on one of the atoms. One value is known from the start; then
        come columns that are restricted to several, each drawn from its own law, restricted.

    Attributes
    ----------
    effective_sample_size : float
        Of all draws under conditions so far. One restricted column is drawn exactly. Several give
        each draw a weight, the mass of their restrictions, each given the ones before it, by which
        draws are chosen from 16 candidates each: this is (sum w)^2 / sum w^2 over the candidates,
        and draws are as good as exact where it is many times their number.

    Notes
    -----
    Event shape (D,), batch shape ().

    Examples
    --------
    >>> laws = SpikedLaws(cardinality=[2, 2], ordered=[False] * 2, width=[0.0] * 2)
    >>> net = ObservedNet(laws.reads, laws.n_params, (8,))
    >>> rows = torch.tensor([[0.0, 1.0], [0.0, torch.nan]])
    >>> AnyOrder(net, laws, torch.tensor([[0, 1]])).log_prob(rows).exp()
    tensor([0.2500, 0.5000], grad_fn=<ExpBackward0>)
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real_vector
    has_rsample = False

    def __init__(
        self,
        net: ObservedNet,
        laws: SpikedLaws,
        orders: Tensor,
        given: Sequence[int] = (),
        conditions: Mapping[int, Any] | None = None,
    ) -> None:
        self.net, self.laws, self.orders = net, laws, orders
        self.given, self.conditions = sorted(given), dict(conditions or {})
        self.effective_sample_size = 0.0
        super().__init__(torch.Size(), torch.Size([laws.n_entries]), validate_args=False)

    def expand(self, batch_shape: Any, _instance: "AnyOrder | None" = None) -> "AnyOrder":
        """The distribution with its batch shape expanded."""
        new = AnyOrder(self.net, self.laws, self.orders, self.given, self.conditions)
        new._batch_shape = torch.Size(batch_shape)
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of values (..., D); a missing cell is NaN, and a row without any cell has 0."""
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        x = to_columns(value.expand(*shape, value.shape[-1]))
        present = self.laws.present(x)
        x = torch.where(x.isnan(), 0.0, x)
        read = self.laws.read_all(x)
        logp = torch.stack(
            [self._chain(order, x, read, present) for order in self.orders.tolist()]
        )
        return (logp.logsumexp(0) - math.log(len(logp))).reshape(shape)

    def _chain(self, order: list[int], x: Tensor, read: Tensor, present: Tensor) -> Tensor:
        """The product in one order, (N,)."""
        known = torch.zeros_like(present)
        known[self.given] = present[self.given]
        scored = present & ~torch.zeros_like(present).index_fill(
            0, torch.tensor(self.given, dtype=torch.long, device=x.device), True
        )
        params = [x.new_zeros(self.laws.n_params, x.shape[1])] * len(order)
        for d in order:
            if d not in self.given:
                params[d] = self.net(read, known, d)
                known[d] = present[d]
        logp = self.laws.log_prob(torch.stack(params, 1), x)
        return torch.where(scored, logp, 0.0).sum(0)

    @torch.no_grad()
    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """Draws (\\*sample_shape, \\*batch_shape, D): each in one of the orders, at random."""
        shape = torch.Size(sample_shape) + self.batch_shape
        n = shape.numel()
        x = self.net.net.last.new_empty(self.laws.n_entries, n)
        if not n:
            return x.t().reshape(*shape, self.laws.n_entries)
        several = [d for d, condition in self.conditions.items() if not _is_one(condition)]
        m = max(_CANDIDATES * n, _FEWEST_CANDIDATES) if len(several) > 1 else n
        which = torch.randint(len(self.orders), (m,), device=x.device)
        counts = which.bincount(minlength=len(self.orders)).tolist()
        begun = [
            (order, *self._begin([d for d in order if d in several], k))
            for order, k in zip(self.orders.tolist(), counts, strict=True)
            if k
        ]
        # Weighed against each other over all orders: in some the restrictions have more mass.
        w = torch.cat([logw for _, _, logw in begun]).double().softmax(0)
        if len(several) > 1:
            self.effective_sample_size += float(1 / w.square().sum())
            chosen = torch.multinomial(w, n, replacement=True)
        else:
            self.effective_sample_size += n
            chosen = torch.randperm(n, device=x.device)
        first = 0
        for order, rows, logw in begun:
            mine = ((chosen >= first) & (chosen < first + len(logw))).nonzero()[:, 0]
            if len(mine):
                rows.keep(chosen[mine] - first)
                for d in order:
                    if d not in self.conditions:
                        rows.put(d, self.laws.sample(d, rows.params(d)))
                x[:, mine] = rows.x
            first += len(logw)
        return x.t().reshape(*shape, self.laws.n_entries)

    def _begin(self, several: list[int], n: int) -> tuple["_Known", Tensor]:
        """Rows of which the columns under conditions are known, those of ``several`` one after another,
        and the log-mass, (n,), of what these are restricted to."""
        rows = _Known(self.net, self.laws, n)
        for d, condition in self.conditions.items():
            if _is_one(condition):
                value = rows.x.new_tensor(condition.values[0])
                rows.put(d, value[..., None].expand(*value.shape, n))
        logw = torch.zeros_like(rows.x[0])
        for d in several:
            mass, found = self._restricted(d, rows.params(d))
            rows.put(d, found)
            logw = logw + mass
        return rows, logw

    def _restricted(self, d: int, params: Tensor) -> tuple[Tensor, Tensor]:
        condition = self.conditions[d]
        if not condition.values:
            return self.laws.between(d, params, condition.low, condition.high, condition.atoms)
        values = torch.tensor(condition.values, dtype=params.dtype, device=params.device)
        return self.laws.among(d, params, values.t())


def _is_one(condition: Any) -> bool:
    return len(condition.values) == 1


class _Known:
    """Rows of which some columns are known: events (E, n), readings and which are known."""

    def __init__(self, net: ObservedNet, laws: SpikedLaws, n: int) -> None:
        like = net.net.last
        self.net, self.laws = net, laws
        self.x = like.new_zeros(laws.n_entries, n)
        self._read = like.new_zeros(sum(laws.reads), n)
        self._known = torch.zeros(laws.n_dims, n, dtype=torch.bool, device=like.device)

    def params(self, d: int) -> Tensor:
        """Parameters (P, n) of column d, given what is known."""
        found: Tensor = self.net(self._read, self._known, d)
        return found

    def put(self, d: int, values: Tensor) -> None:
        """Column d becomes known: what goes to its entries of an event, (n,) or (2, n)."""
        first = sum(self.laws.reads[:d])
        self.x[self.laws.entries[d]] = values
        self._read[first : first + self.laws.reads[d]] = self.laws.read(d, self.x)
        self._known[d] = True

    def keep(self, rows: Tensor) -> None:
        """These rows, (n,), in the place of all."""
        self.x, self._read = self.x[:, rows], self._read[:, rows]
        self._known = self._known[:, rows]
