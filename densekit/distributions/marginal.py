r"""The density of the cells of a row that are known, under one order of the columns.

.. math:: p_\sigma(x_O) = \int \prod_{d \in O \cup M} p(x_{\sigma(d)} \mid x_{\sigma(1)}, \dots,
          x_{\sigma(d - 1)})\, dx_M

where O are the columns that are known in a row and M those that are missing and come before the last
of O in the order; the ones behind it integrate to one. Without M it is a product. One code in M, or a
few that have no more than 256 values together, and one integer of a narrow law are summed over. One
number is a sum over its atoms and an integral over the logit t of its place u = F(x),

.. math:: \int g(x)\, dx = \int g(x(t))\, \frac{u (1 - u)}{f(x(t))}\, dt,

F and f being the equal mixture of what the order says of the number from the columns before it and of
what the network says of it from all that are known. The trapezoidal rule in t has 64, 128, ..., 1024
points, until twice as many change the logarithm by less than 1e-4. All else is importance sampling:
of K draws three quarters come from :math:`q_1 = \prod_{d \in M} p(x_d \mid x_O, \text{those of M before
d})` and one from :math:`q_2 = \prod_{d \in M} p(x_d \mid \text{all before d})`, and their weights,

.. math:: w_k = p_\sigma(x_O, x_M^k) \big/ \big(\tfrac34 q_1(x_M^k) + \tfrac14 q_2(x_M^k)\big),

have the mean :math:`p_\sigma(x_O)`. Since q_2 is part of the mixture, they are bounded wherever the
conditional densities of O are.

References
----------
Owen & Zhou 2000, "Safe and effective importance sampling" (defensive mixtures). Trefethen & Weideman
2014, "The exponentially convergent trapezoidal rule".
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from densekit.distributions.spiked import SpikedLaws
from densekit.nets.observed import ObservedNet
from densekit.transforms.bracket import invert

TOLERANCE = 1e-4
"""Nats that halving a grid may change, where a score is called exact."""
_REACH, _FIRST, _LAST = 25.0, 32, 1024
"""Quadrature: |t| goes so far, from so many points to so many."""
_COMBINATIONS, _INTEGERS, _SPREAD = 256, 1024, 20.0
"""Values of codes and integers that are summed over; scales to either side of the components of an
integer's law, beyond which there is 2e-9 of it."""
_BEFORE = 0.25
"""Share of the draws that an order makes from the columns before the missing ones alone."""
_AT_ONCE, _MASSES = 2**14, 2**22
"""Rows that the network is given at once, and masses of codes."""


@dataclass
class Marginal:
    """log p of n rows under one order."""

    value: Tensor
    """(n,), float64; where sampled, of no meaning."""
    error: Tensor
    """(n,): what twice as fine a grid changed."""
    sampled: Tensor
    """Which rows (n,) are sampled."""
    weights: Tensor
    """Log-weights (K, number of sampled rows)."""


Draw = Callable[[int, Tensor], Tensor]
"""From a column and its parameters (P, n) to draws for its entries of an event."""


def _padded(columns: Tensor) -> Tensor:
    """Columns (E, n) to a multiple of 32, as :func:`densekit.runtime.padded` does with rows: what is
    said of a row must not depend on its place among others."""
    lack = -columns.shape[1] % 32
    return columns if not lack else torch.cat([columns, columns[:, -1:].expand(-1, lack)], 1)


class OneOrder:
    """The density of events in one order of their columns.

    Parameters
    ----------
    net : ObservedNet
    laws : SpikedLaws
    order : list of int
        All D columns.

    Notes
    -----
    Events are columns (E, n), with anything finite in missing cells; ``present`` (D, n) says which
    are known.
    """

    def __init__(self, net: ObservedNet, laws: SpikedLaws, order: list[int]) -> None:
        self.net, self.laws, self.order = net, laws, order
        self._first = [sum(laws.reads[:d]) for d in range(laws.n_dims)]
        most = max([2, *laws.cardinality])
        self.at_once = max(64, min(_AT_ONCE, _MASSES // most))

    def params(self, x: Tensor, present: Tensor, d: int) -> Tensor:
        """Parameters (P, n) of column d, from the columns that are known of events (E, n)."""
        dtype, n = self.net.net.last.dtype, x.shape[1]
        x, present = _padded(x), _padded(present)
        found: Tensor = self.net(self.laws.read_all(x.to(dtype)).to(dtype), present, d)
        return found[:, :n]

    def hidden(self, present: Tensor) -> Tensor:
        """M: which columns (D, n) are missing before the last one that is known."""
        out = torch.zeros_like(present)
        later = torch.zeros_like(present[0])
        for d in reversed(self.order):
            out[d] = later & ~present[d]
            later = later | present[d]
        return out

    def chain(self, x: Tensor, present: Tensor, first: int = 0) -> Tensor:
        """Log of the product (n,) over the known columns from place ``first`` of the order on, each
        given the known ones before it; float64."""
        dtype, n = self.net.net.last.dtype, x.shape[1]
        x, present = _padded(x.to(dtype)), _padded(present)
        read, scored = self.laws.read_all(x).to(dtype), present.clone()
        known = torch.zeros_like(present)
        before = self.order[:first]
        known[before], scored[before] = present[before], False
        params = [x.new_zeros(self.laws.n_params, x.shape[1])] * len(self.order)
        for d in self.order[first:]:
            if scored[d].any():
                params[d] = self.net(read, known, d)
            known[d] = present[d]
        logp = self.laws.log_prob(torch.stack(params, 1), x)
        return torch.where(scored, logp, 0.0).sum(0)[:n].double()

    def prefix(self, x: Tensor, present: Tensor, stop: int) -> Tensor:
        """The same over the columns before place ``stop``."""
        shown = present.clone()
        shown[self.order[stop:]] = False
        return self.chain(x, shown)

    def propose(
        self, x: Tensor, present: Tensor, wanted: Tensor, draw: Draw, apart: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draw the cells ``wanted``, in the order, each given all that are known and those drawn before;
        those of rows ``apart`` given only what comes before in the order. Returns the events and three
        log-densities (n,): of all cells in the order, and of the drawn ones in the order and given
        what is known."""
        dtype = self.net.net.last.dtype
        x, read = x.clone(), self.laws.read_all(x.to(dtype)).to(dtype)
        known, seen = torch.zeros_like(present), present.clone()
        nothing = read.new_zeros(self.laws.n_params, x.shape[1])
        before, after = [nothing] * len(self.order), [nothing] * len(self.order)
        for d in self.order:
            if (present[d] | wanted[d]).any():
                before[d] = self.net(read, known, d)
            if wanted[d].any():
                same = torch.equal(known, seen)
                after[d] = before[d] if same else self.net(read, seen, d)
                value = draw(d, after[d])
                if apart is not None and not same:
                    value = torch.where(apart, draw(d, before[d]), value)
                at = self.laws.entries[d]
                x[at] = torch.where(wanted[d], value.to(x.dtype), x[at])
                rows = slice(self._first[d], self._first[d] + self.laws.reads[d])
                read[rows] = self.laws.read(d, x.to(dtype)).to(dtype)
                seen[d] |= wanted[d]
            known[d] = seen[d]
        logp = self.laws.log_prob(torch.stack(before, 1), x.to(dtype)).double()
        logq = self.laws.log_prob(torch.stack(after, 1), x.to(dtype)).double()
        mine = torch.where(wanted, logp, 0.0).sum(0)
        return x, torch.where(seen, logp, 0.0).sum(0), mine, torch.where(wanted, logq, 0.0).sum(0)

    def marginal(self, x: Tensor, present: Tensor, bank: Tensor) -> Marginal:
        """log p of the known cells of events (E, n); ``bank``, (K, D, 3) in [0, 1), is the noise that
        all rows share."""
        wanted = self.hidden(present)
        count = wanted.sum(0)
        value = x.new_zeros(x.shape[1], dtype=torch.float64)
        error, sampled = value.clone(), count > 0
        for rows, solve in self._ways(wanted, count):
            for part in rows.split(max(1, self.at_once // _FIRST)):
                found, off = solve(x[:, part], present[:, part])
                value[part], error[part] = found, off
                sampled[part] = off >= TOLERANCE
        whole = (count == 0).nonzero()[:, 0]
        if len(whole):
            value[whole] = self.chain(x[:, whole], present[:, whole])
        rest = sampled.nonzero()[:, 0]
        error[rest] = 0.0
        weights = [
            self.importance(x[:, part], present[:, part], wanted[:, part], bank)
            for part in rest.split(max(1, self.at_once // len(bank)))
            if len(part)
        ]
        empty = value.new_zeros(len(bank), 0)
        return Marginal(value, error, sampled, torch.cat([empty, *weights], 1))

    def free(self, present: Tensor) -> Tensor:
        """Of which rows (n,) the marginal is a product or a sum, whatever the values."""
        wanted = self.hidden(present)
        return self._product(wanted) <= _COMBINATIONS

    def _product(self, wanted: Tensor) -> Tensor:
        """How many combinations (n,) the codes ``wanted`` have; infinite with numbers among them."""
        size = [float(k or math.inf) for k in self.laws.cardinality]
        sizes = torch.tensor(size, dtype=torch.float64, device=wanted.device)
        return torch.where(wanted, sizes[:, None], 1.0).prod(0)

    def _ways(
        self, wanted: Tensor, count: Tensor
    ) -> Iterator[tuple[Tensor, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]]]:
        """Rows that need no draws, and what is done with them."""
        laws = self.laws
        for d in self.order:
            rows = (wanted[d] & (count == 1)).nonzero()[:, 0]
            if not len(rows) or laws.cardinality[d]:
                continue
            way = self._integral if d in laws.numbers else self._integers
            yield rows, lambda x, present, d=d, way=way: way(d, x, present)  # type: ignore[misc]
        few = ((count > 0) & (self._product(wanted) <= _COMBINATIONS)).nonzero()[:, 0]
        if not len(few):
            return
        patterns, which = wanted[:, few].t().unique(dim=0, return_inverse=True)
        for k, pattern in enumerate(patterns):
            columns = pattern.nonzero()[:, 0].tolist()
            yield (
                few[which == k],
                lambda x, present, columns=columns: self._codes(columns, x, present),  # type: ignore[misc]
            )

    # Sums and integrals: for rows (E, n) that all lack the same columns.

    def _with(self, columns: list[int], points: Tensor, x: Tensor, present: Tensor) -> Tensor:
        """Log of the rest of the product, from the first of ``columns`` on, with these at points
        (E', n, m), the entries of ``columns``: (n, m)."""
        n, m = points.shape[1:]
        first = min(self.order.index(d) for d in columns)
        shown = present.clone()
        shown[columns] = True
        shown = shown.repeat_interleave(m, 1)
        big, row = x.repeat_interleave(m, 1), 0
        for d in columns:
            size = 2 if d in self.laws.n_atoms else 1
            values = points[row : row + size].reshape(size, n * m).to(big.dtype)
            big[self.laws.entries[d]] = values if size == 2 else values[0]
            row += size
        pieces = zip(big.split(self.at_once, 1), shown.split(self.at_once, 1), strict=True)
        logp = torch.cat([self.chain(a, b, first) for a, b in pieces])
        return logp.view(n, m)

    def _codes(self, columns: list[int], x: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """The sum over all combinations of some codes."""
        ranges = [torch.arange(self.laws.cardinality[d], device=x.device) for d in columns]
        grid = torch.cartesian_prod(*ranges).reshape(-1, len(columns)).t().to(x.dtype)
        m = grid.shape[1]
        grid = torch.cat([grid, grid[:, -1:].expand(-1, -m % _FIRST)], 1)
        points = grid[:, None].expand(-1, x.shape[1], -1)
        logp = self._with(columns, points, x, present)[:, :m]
        first = min(self.order.index(d) for d in columns)
        total = self.prefix(x, present, first) + logp.logsumexp(1)
        return total, torch.zeros_like(total)

    def _both(self, d: int, x: Tensor, present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights, locations and scales (2 M, n) of the equal mixture of what is said of column d
        before it in the order, and from all that is known; float64."""
        shown = present.clone()
        shown[self.order[self.order.index(d) :]] = False
        parts = [
            self.laws.mixture(self.params(x, known, d).double()) for known in (shown, present)
        ]
        logw, loc, scale = (torch.cat(p) for p in zip(*parts, strict=True))
        return logw - math.log(2), loc, scale

    def _atoms(self, d: int, x: Tensor, present: Tensor) -> Tensor:
        """Log of the sum over the atoms of column d, (n,), before the product of the others."""
        k = self.laws.n_atoms.get(d, 0)
        if not k:
            return x.new_full((x.shape[1],), -math.inf, dtype=torch.float64)
        number = torch.arange(1, k + 1, device=x.device, dtype=x.dtype)
        number = torch.cat([number, number[-1:].expand(-k % _FIRST)])
        points = torch.stack([number, torch.zeros_like(number)])[:, None]
        logp = self._with([d], points.expand(-1, x.shape[1], -1), x, present)
        return logp[:, :k].logsumexp(1)

    def _points(self, d: int, values: Tensor) -> Tensor:
        """Values (n, m) off the atoms as what goes to the entries of column d, (1 or 2, n, m)."""
        off = [torch.zeros_like(values)] if d in self.laws.n_atoms else []
        return torch.stack([*off, values])

    def _integers(self, d: int, x: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """The sum over the integers that the law of column d can tell from none; an infinite error
        where they are too many."""
        _, loc, scale = self._both(d, x, present)
        low, high = self.laws.range_of(d, loc - _SPREAD * scale, loc + _SPREAD * scale)
        n, step = x.shape[1], self.laws.widths[d]
        first = (low / step).round()
        size = (high / step).round() - first + 1
        wide = size > _INTEGERS
        total = torch.zeros(n, dtype=torch.float64, device=x.device)
        error = torch.where(wide, math.inf, 0.0).to(total)
        narrow = (~wide).nonzero()[:, 0]
        if not len(narrow):
            return total, error
        m = math.ceil(float(size[narrow].max()) / _FIRST) * _FIRST
        j = torch.arange(m, device=x.device, dtype=torch.float64)
        values = (first[narrow, None] + j) * step
        x, present = x[:, narrow], present[:, narrow]
        logp = self._with([d], self._points(d, values), x, present)
        gone = (j >= size[narrow, None]) | self.laws.on_atom(d, values)
        slab = torch.where(gone, -math.inf, logp).logsumexp(1)
        prefix = self.prefix(x, present, self.order.index(d))
        total[narrow] = prefix + torch.logaddexp(self._atoms(d, x, present), slab)
        return total, error

    def _integral(self, d: int, x: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """The integral over the number in column d, its atoms among it, and what the last refinement
        of the grid changed."""
        mixture = self._both(d, x, present)
        prefix = self.prefix(x, present, self.order.index(d))
        atoms = self._atoms(d, x, present)
        error = torch.full_like(prefix, math.inf)
        total, sums = error.clone(), error.clone().neg()
        todo, m, offset = torch.arange(len(prefix), device=x.device), _FIRST, 0.0
        step, points = 2 * _REACH / _FIRST, _FIRST
        while len(todo) and points <= _LAST:
            t = -_REACH + step * (torch.arange(m, device=x.device, dtype=torch.float64) + offset)
            parts = todo.split(max(1, self.at_once // m))
            more = [self._at(d, t, p, mixture, x, present) for p in parts]
            sums[todo] = torch.logaddexp(sums[todo], torch.cat(more))
            new = torch.logaddexp(atoms[todo], sums[todo] + math.log(2 * _REACH / points))
            error[todo] = (new - total[todo]).abs()
            total[todo] = new
            if points > 2 * _FIRST:
                todo = todo[error[todo] >= TOLERANCE]
            # The points in the middle between all that there are.
            step, offset, m = 2 * _REACH / points, 0.5, points
            points *= 2
        return prefix + total, error

    def _at(
        self,
        d: int,
        t: Tensor,
        rows: Tensor,
        mixture: tuple[Tensor, Tensor, Tensor],
        x: Tensor,
        present: Tensor,
    ) -> Tensor:
        """Log of the sum of the integrand over points t (m,), of these rows: (rows,)."""
        logw, loc, scale = (p[:, rows, None] for p in mixture)

        def place(z: Tensor) -> Tensor:
            e = (z - loc) / scale
            above: Tensor = (logw + logsigmoid(-e)).logsumexp(0)
            return (logw + logsigmoid(e)).logsumexp(0) - above

        wanted = t.expand(len(rows), -1)
        start = (logw.exp() * (loc + scale * t)).sum(0)
        z = invert(place, wanted, start)
        e = (z - loc) / scale
        logf = (logw + logsigmoid(e) + logsigmoid(-e) - scale.log()).logsumexp(0)
        logp = self._with([d], self._points(d, z), x[:, rows], present[:, rows])
        return (logp + logsigmoid(t) + logsigmoid(-t) - logf).logsumexp(1)

    def importance(self, x: Tensor, present: Tensor, wanted: Tensor, bank: Tensor) -> Tensor:
        """Log-weights (K, n) whose mean is p of the known cells of events (E, n)."""
        n, k = x.shape[1], len(bank)
        uniform = bank.permute(1, 2, 0).repeat(1, 1, n)
        n_before = int(_BEFORE * k)
        apart = (torch.arange(k, device=x.device) < n_before).repeat(n)
        big, shown, drawn = (v.repeat_interleave(k, 1) for v in (x, present, wanted))
        _, logp, before, after = self.propose(
            big, shown, drawn, lambda d, params: self.laws.sample(d, params, uniform[d]), apart
        )
        share = n_before / k
        q = after + math.log1p(-share)
        if n_before:
            q = torch.logaddexp(q, before + math.log(share))
        return (logp - q).view(n, k).t()
