r"""The marginal density of the known cells of a row, under one order of the columns.

.. math:: p_\sigma(x_O) = \int \prod_{d \in O \cup M} p(x_{\sigma(d)} \mid x_{\sigma(1)}, \dots,
          x_{\sigma(d - 1)})\, dx_M

O are the known columns of a row. M are the missing columns that come before the last column of O
in the order; missing columns after it integrate to one. There are four cases:

- M is empty: the density is a product.
- M is a single code or integer, or several codes with at most 256 combinations: the density is a
  sum. An integer whose distribution is wide belongs to the last case.
- M is a single float: the density is a sum over its atoms plus an integral over t, the logit of
  u = F(x),

  .. math:: \int g(x)\, dx = \int g(x(t))\, \frac{u (1 - u)}{f(x(t))}\, dt.

  F and f belong to the equal mixture of two distributions of the float: given the columns before it
  in the order, and given all known columns. The trapezoidal rule in t uses 64, 128, ..., 1024
  points, until doubling them changes the logarithm by less than 1e-4.
- Otherwise: importance sampling. Three quarters of K draws come from
  :math:`q_1 = \prod_{d \in M} p(x_d \mid x_O, \text{those of M before d})` and one quarter from
  :math:`q_2 = \prod_{d \in M} p(x_d \mid \text{all before d})`. Their weights

  .. math:: w_k = p_\sigma(x_O, x_M^k) \big/ \big(\tfrac34 q_1(x_M^k) + \tfrac14 q_2(x_M^k)\big)

  have the mean :math:`p_\sigma(x_O)`. Because q_2 is part of the mixture, they are bounded wherever
  the conditional densities of O are.

References
----------
A. Owen and Y. Zhou. Safe and Effective Importance Sampling. JASA 2000 (defensive mixtures).
https://doi.org/10.1080/01621459.2000.10473909

L. N. Trefethen and J. A. C. Weideman. The Exponentially Convergent Trapezoidal Rule. SIAM Review,
2014. https://doi.org/10.1137/130932132
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from densekit.distributions.order import OrderedColumns
from densekit.transforms.bracket import invert

TOLERANCE = 1e-4
"""Largest change in nats from halving the grid for a score to count as exact."""
_MAX_T, _MIN_POINTS, _MAX_POINTS = 25.0, 32, 1024
"""Quadrature: the range of |t|, and the smallest and largest number of points."""
_MAX_COMBINATIONS, _MAX_INTEGERS, _N_SCALES = 256, 1024, 20.0
"""Largest number of combinations of codes, and of integers, in a sum; an integer's sum extends this
number of scales beyond its components, outside of which the probability is 2e-9."""
_DEFENSIVE_FRACTION = 0.25
"""Fraction of the draws from q_2, which depends on preceding columns only."""


@dataclass
class Marginal:
    """Marginal log-densities of n rows under one order."""

    value: Tensor
    """(n,), float64; meaningless for sampled rows."""
    error: Tensor
    """(n,): the change from the last refinement of the grid."""
    sampled: Tensor
    """Which rows (n,) are sampled."""
    weights: Tensor
    """Log-weights (K, number of sampled rows)."""


class OneOrder(OrderedColumns):
    """Marginal densities in one order of the columns; the parameters are those of the base class."""

    def marginal(self, x: Tensor, present: Tensor, bank: Tensor) -> Marginal:
        """Marginal log-density of the known cells of events (E, n).

        ``bank``, (K, D, 3) in [0, 1), is the noise of importance sampling, which all rows share.
        """
        wanted = self.hidden(present)
        count = wanted.sum(0)
        value = x.new_zeros(x.shape[1], dtype=torch.float64)
        error, sampled = value.clone(), count > 0
        for rows, solve in self._exact_cases(wanted, count):
            for part in rows.split(max(1, self.at_once // _MIN_POINTS)):
                log_density, change = solve(x[:, part], present[:, part])
                value[part], error[part] = log_density, change
                sampled[part] = change >= TOLERANCE
        complete = (count == 0).nonzero()[:, 0]
        if len(complete):
            value[complete] = self.chain(x[:, complete], present[:, complete])
        rest = sampled.nonzero()[:, 0]
        error[rest] = 0.0
        weights = [
            self.importance(x[:, part], present[:, part], wanted[:, part], bank)
            for part in rest.split(max(1, self.at_once // len(bank)))
            if len(part)
        ]
        empty = value.new_zeros(len(bank), 0)
        return Marginal(value, error, sampled, torch.cat([empty, *weights], 1))

    def exact_for_any_value(self, present: Tensor) -> Tensor:
        """Which rows (n,) have a marginal that is a product or a sum, for any values."""
        wanted = self.hidden(present)
        return self._n_combinations(wanted) <= _MAX_COMBINATIONS

    def _n_combinations(self, wanted: Tensor) -> Tensor:
        """Number of combinations (n,) of the codes ``wanted``, infinite if floats or integers are
        among them.
        """
        size = [float(k or math.inf) for k in self.laws.cardinality]
        sizes = torch.tensor(size, dtype=torch.float64, device=wanted.device)
        return torch.where(wanted, sizes[:, None], 1.0).prod(0)

    def _exact_cases(
        self, wanted: Tensor, count: Tensor
    ) -> Iterator[tuple[Tensor, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]]]:
        """Yield rows that need no sampling, with the function that computes their marginals."""
        laws = self.laws
        for d in self.order:
            rows = (wanted[d] & (count == 1)).nonzero()[:, 0]
            if not len(rows) or laws.cardinality[d]:
                continue
            function = self._integral_over_float if d in laws.numbers else self._sum_over_integers
            yield rows, lambda x, present, d=d, function=function: function(d, x, present)  # type: ignore[misc]
        few = ((count > 0) & (self._n_combinations(wanted) <= _MAX_COMBINATIONS)).nonzero()[:, 0]
        if not len(few):
            return
        patterns, pattern_of_row = wanted[:, few].t().unique(dim=0, return_inverse=True)
        for k, pattern in enumerate(patterns):
            columns = pattern.nonzero()[:, 0].tolist()
            yield (
                few[pattern_of_row == k],
                lambda x, present, columns=columns: self._sum_over_codes(columns, x, present),  # type: ignore[misc]
            )

    # Sums and integrals of rows (E, n) with the same missing columns.

    def _log_prob_at(
        self, columns: list[int], points: Tensor, x: Tensor, present: Tensor
    ) -> Tensor:
        """Log of the product from the first of ``columns`` on, with these columns at given points:
        (n, m).

        ``points`` are (E', n, m), where E' is the number of entries of ``columns``.
        """
        n, m = points.shape[1:]
        first = min(self.order.index(d) for d in columns)
        visible = present.clone()
        visible[columns] = True
        visible = visible.repeat_interleave(m, 1)
        big, row = x.repeat_interleave(m, 1), 0
        for d in columns:
            size = 2 if d in self.laws.n_atoms else 1
            values = points[row : row + size].reshape(size, n * m).to(big.dtype)
            big[self.laws.entries[d]] = values if size == 2 else values[0]
            row += size
        pieces = zip(big.split(self.at_once, 1), visible.split(self.at_once, 1), strict=True)
        logp = torch.cat([self.chain(a, b, first) for a, b in pieces])
        return logp.view(n, m)

    def _sum_over_codes(
        self, columns: list[int], x: Tensor, present: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Sum over all combinations of some codes."""
        ranges = [torch.arange(self.laws.cardinality[d], device=x.device) for d in columns]
        grid = torch.cartesian_prod(*ranges).reshape(-1, len(columns)).t().to(x.dtype)
        m = grid.shape[1]
        grid = torch.cat([grid, grid[:, -1:].expand(-1, -m % _MIN_POINTS)], 1)
        points = grid[:, None].expand(-1, x.shape[1], -1)
        logp = self._log_prob_at(columns, points, x, present)[:, :m]
        first = min(self.order.index(d) for d in columns)
        total = self.prefix(x, present, first) + logp.logsumexp(1)
        return total, torch.zeros_like(total)

    def _mixture(self, d: int, x: Tensor, present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Equal mixture of the distributions of column d given preceding columns and given all known
        columns.

        Returns log-weights, locations and scales, (2 M, n) each, in float64.
        """
        visible = present.clone()
        visible[self.order[self.order.index(d) :]] = False
        parts = [
            self.laws.mixture(self.params(x, known, d).double()) for known in (visible, present)
        ]
        logw, loc, scale = (torch.cat(p) for p in zip(*parts, strict=True))
        return logw - math.log(2), loc, scale

    def _sum_over_atoms(self, d: int, x: Tensor, present: Tensor) -> Tensor:
        """Log of the sum over the atoms of column d, without the product of preceding columns: (n,)."""
        k = self.laws.n_atoms.get(d, 0)
        if not k:
            return x.new_full((x.shape[1],), -math.inf, dtype=torch.float64)
        number = torch.arange(1, k + 1, device=x.device, dtype=x.dtype)
        number = torch.cat([number, number[-1:].expand(-k % _MIN_POINTS)])
        points = torch.stack([number, torch.zeros_like(number)])[:, None]
        logp = self._log_prob_at([d], points.expand(-1, x.shape[1], -1), x, present)
        return logp[:, :k].logsumexp(1)

    def _points(self, d: int, values: Tensor) -> Tensor:
        """The entries (1 or 2, n, m) of column d with values (n, m) that are not atoms."""
        off = [torch.zeros_like(values)] if d in self.laws.n_atoms else []
        return torch.stack([*off, values])

    def _sum_over_integers(self, d: int, x: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Sum over all integers with a noticeable probability; if there are too many the error is
        infinite.
        """
        _, loc, scale = self._mixture(d, x, present)
        low, high = self.laws.range_of(d, loc - _N_SCALES * scale, loc + _N_SCALES * scale)
        n, step = x.shape[1], self.laws.widths[d]
        first = (low / step).round()
        size = (high / step).round() - first + 1
        wide = size > _MAX_INTEGERS
        total = torch.zeros(n, dtype=torch.float64, device=x.device)
        error = torch.where(wide, math.inf, 0.0).to(total)
        narrow = (~wide).nonzero()[:, 0]
        if not len(narrow):
            return total, error
        m = math.ceil(float(size[narrow].max()) / _MIN_POINTS) * _MIN_POINTS
        j = torch.arange(m, device=x.device, dtype=torch.float64)
        values = (first[narrow, None] + j) * step
        x, present = x[:, narrow], present[:, narrow]
        logp = self._log_prob_at([d], self._points(d, values), x, present)
        excluded = (j >= size[narrow, None]) | self.laws.on_atom(d, values)
        slab = torch.where(excluded, -math.inf, logp).logsumexp(1)
        prefix = self.prefix(x, present, self.order.index(d))
        total[narrow] = prefix + torch.logaddexp(self._sum_over_atoms(d, x, present), slab)
        return total, error

    def _integral_over_float(self, d: int, x: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Integral over the float in column d, including its atoms, and the change from the last
        refinement of the grid.
        """
        mixture = self._mixture(d, x, present)
        prefix = self.prefix(x, present, self.order.index(d))
        atoms = self._sum_over_atoms(d, x, present)
        error = torch.full_like(prefix, math.inf)
        total, sums = error.clone(), error.clone().neg()
        todo, m, offset = torch.arange(len(prefix), device=x.device), _MIN_POINTS, 0.0
        step, points = 2 * _MAX_T / _MIN_POINTS, _MIN_POINTS
        while len(todo) and points <= _MAX_POINTS:
            t = -_MAX_T + step * (torch.arange(m, device=x.device, dtype=torch.float64) + offset)
            parts = todo.split(max(1, self.at_once // m))
            more = [self._sum_of_integrand(d, t, p, mixture, x, present) for p in parts]
            sums[todo] = torch.logaddexp(sums[todo], torch.cat(more))
            new = torch.logaddexp(atoms[todo], sums[todo] + math.log(2 * _MAX_T / points))
            error[todo] = (new - total[todo]).abs()
            total[todo] = new
            if points > 2 * _MIN_POINTS:
                todo = todo[error[todo] >= TOLERANCE]
            # The next points are the midpoints of the grid.
            step, offset, m = 2 * _MAX_T / points, 0.5, points
            points *= 2
        return prefix + total, error

    def _sum_of_integrand(
        self,
        d: int,
        t: Tensor,
        rows: Tensor,
        mixture: tuple[Tensor, Tensor, Tensor],
        x: Tensor,
        present: Tensor,
    ) -> Tensor:
        """Log of the sum of the integrand over points t (m,), for some rows: (rows,)."""
        logw, loc, scale = (p[:, rows, None] for p in mixture)

        def logit_of_value(z: Tensor) -> Tensor:
            e = (z - loc) / scale
            above: Tensor = (logw + logsigmoid(-e)).logsumexp(0)
            return (logw + logsigmoid(e)).logsumexp(0) - above

        wanted = t.expand(len(rows), -1)
        start = (logw.exp() * (loc + scale * t)).sum(0)
        z = invert(logit_of_value, wanted, start)
        e = (z - loc) / scale
        logf = (logw + logsigmoid(e) + logsigmoid(-e) - scale.log()).logsumexp(0)
        logp = self._log_prob_at([d], self._points(d, z), x[:, rows], present[:, rows])
        return (logp + logsigmoid(t) + logsigmoid(-t) - logf).logsumexp(1)

    def importance(self, x: Tensor, present: Tensor, wanted: Tensor, bank: Tensor) -> Tensor:
        """Log-weights (K, n) whose mean is the marginal density of the known cells of events (E, n)."""
        n, k = x.shape[1], len(bank)
        uniform = bank.permute(1, 2, 0).repeat(1, 1, n)
        n_defensive = int(_DEFENSIVE_FRACTION * k)
        order_only = (torch.arange(k, device=x.device) < n_defensive).repeat(n)
        big, visible, drawn = (v.repeat_interleave(k, 1) for v in (x, present, wanted))
        _, logp, in_order, given_known = self.propose(
            big,
            visible,
            drawn,
            lambda d, params: self.laws.sample(d, params, uniform[d]),
            order_only,
        )
        share = n_defensive / k
        q = given_known + math.log1p(-share)
        if n_defensive:
            q = torch.logaddexp(q, in_order + math.log(share))
        return (logp - q).view(n, k).t()
