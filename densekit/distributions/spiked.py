r"""Laws of columns some of whose values have a mass of their own, and laws restricted to a set.

.. math::
    P(x = v_k) &= \pi_k, \qquad p(x) = \pi_0\, f(x) \text{ elsewhere}           && \text{numbers} \\
    P(t) &= \sum_k \pi_k [t = v_k] + \pi_{K+1} \frac{n_t}{n} + \pi_0\, F(t)      && \text{integers}

("spike and slab"): f is the mixture of :mod:`densekit.distributions.columnwise`, F its masses, v the
spikes. The law of numbers is one over Lebesgue measure and a counting measure on the spikes. Of n rows
of integers :math:`n_t` had the value t: weights and prices come again without any being common. While
the law is learnt a row counts for nothing at its own value, :math:`(n_t - 1) / (n - 1)`, or what was
seen once would seem certain to come again.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn.functional import logsigmoid

from densekit.distributions.columnwise import ColumnLaws, _draw
from densekit.distributions.logistic import log_mass_between

_IN_ORDER = 8
"""More spikes than these are read with their values."""


class SpikedLaws(ColumnLaws):
    """Column laws with spikes, which can be restricted to an interval or to some values.

    Parameters
    ----------
    spikes : mapping from column to (K,)
        Values of numbers or integers, as they are in an event; compared in 32 bits.
    seen : mapping from column to (values (V,), rows (V,)), optional
        Integers that fit saw, as they are in an event, in order, and how many rows had each.
    **laws
        As of :class:`~densekit.distributions.columnwise.ColumnLaws`; its components are logistic.

    Notes
    -----
    A network reads a column with K spikes as 1 + K numbers: the value, and which spike it is. The value
    of one of 8 spikes or fewer is read as 0; that of more is not, since they are in an order. Samples
    are last: parameters (P, D, N), values (D, N).

    Examples
    --------
    >>> laws = SpikedLaws({0: [0.0]}, cardinality=[0, 2], ordered=[False] * 2, width=[0.0] * 2)
    >>> laws.reads, laws.log_prob(torch.zeros(laws.n_params, 2, 1), torch.zeros(2, 1)).exp().tolist()
    ([2, 1], [[0.5], [0.5]])
    """

    def __init__(
        self,
        spikes: Mapping[int, ArrayLike],
        seen: Mapping[int, tuple[ArrayLike, ArrayLike]] | None = None,
        **laws: Any,
    ) -> None:
        super().__init__(**laws)
        self.seen = set(seen or ())
        self.spiked: dict[int, list[float]] = {
            d: np.asarray(spikes.get(d, []), float).tolist() for d in sorted({*spikes, *self.seen})
        }
        for d, known in self.spiked.items():
            places = torch.tensor(known, dtype=torch.float64)
            self.register_buffer(f"spikes{d}", places, persistent=False)
            self.reads[d] = 1 + len(places)
            n_masses = 1 + len(places) + (d in self.seen)
            self.n_params = max(self.n_params, 3 * self.n_components + n_masses)
        for d, (values, rows) in (seen or {}).items():
            for name, a in ((f"seen{d}", values), (f"rows{d}", rows)):
                self.register_buffer(name, torch.tensor(np.asarray(a, float)), persistent=False)
        more = self.n_params - len(self._start)
        self._start = torch.cat([self._start, self._start.new_zeros(more, self.n_dims)])

    def _hits(self, d: int, x: Tensor) -> Tensor:
        """Which spike each value (n,) is: (K, n)."""
        return self.get_buffer(f"spikes{d}").float()[:, None] == x.float()

    def _shares(self, d: int, params: Tensor) -> Tensor:
        """Logarithms (1 + K, n) of the masses of slab and spikes, and of the values seen where there
        are any, from parameters (P, n)."""
        first, n = 3 * self.n_components, len(self.get_buffer(f"spikes{d}"))
        return params[first : first + 1 + n + (d in self.seen)].log_softmax(0)

    def _log_seen(self, d: int, x: Tensor, left_out: bool) -> Tensor:
        """Logarithm of the share of the rows that have each value (n,), the value's own row left out
        or not; very low where none has."""
        values, rows = self.get_buffer(f"seen{d}"), self.get_buffer(f"rows{d}")
        half, own = 0.5 * self.step[self.bins.index(d), 0], int(left_out)
        at = torch.searchsorted(values, (x - half).to(values.dtype)).clamp_max(len(values) - 1)
        count = torch.where((values[at] - x).abs() < half, rows[at] - own, 0.0)
        share = count / (rows.sum() - own)
        return torch.where(count > 0, share, 1e-30).log().to(x.dtype)

    def read(self, d: int, x: Tensor) -> Tensor:
        """Values (n,) of column d as the network reads them, (reads[d], n)."""
        if d not in self.spiked:
            return super().read(d, x)
        hits = self._hits(d, x)
        value = x if len(hits) > _IN_ORDER else torch.where(hits.any(0), 0.0, x)
        return torch.cat([value[None], hits.to(x.dtype)])

    def log_prob(self, params: Tensor, x: Tensor, left_out: bool = False) -> Tensor:
        """Log-mass or density of each entry, (D, N), of values (D, N); with ``left_out``, of rows that
        fit saw, each by what the others have."""
        slab = super().log_prob(params, x)
        if not self.spiked:
            return slab
        rows = list(slab)
        for d in self.spiked:
            hits, shares = self._hits(d, x[d]), self._shares(d, params[:, d])
            rest = shares[0] + rows[d]
            if d in self.seen:
                rest = torch.logaddexp(rest, shares[-1] + self._log_seen(d, x[d], left_out))
            rows[d] = rest
            if not len(hits):
                continue
            spike = shares[1:].gather(0, hits.float().argmax(0)[None])[0]
            both = spike if d in self.numbers else torch.logaddexp(spike, rest)
            rows[d] = torch.where(hits.any(0), both, rest)
        return torch.stack(rows)

    @torch.no_grad()
    def sample(self, d: int, params: Tensor) -> Tensor:
        """Draws (n,) of column d, from its parameters (P, n)."""
        x = super().sample(d, params)
        return x if d not in self.spiked else self._or_spikes(d, self._shares(d, params), x)

    def _or_spikes(self, d: int, logits: Tensor, x: Tensor, seen: slice = slice(None)) -> Tensor:
        """In the place of x one of the spikes, or of the values seen, of which only a part may be:
        with these logits (1 + K, n) of x and the spikes, and then of the values."""
        which = _draw(logits)
        places = self.get_buffer(f"spikes{d}").to(x.dtype)
        if d in self.seen and len(self.get_buffer(f"rows{d}")[seen]):
            values, rows = self.get_buffer(f"seen{d}")[seen], self.get_buffer(f"rows{d}")[seen]
            drawn = values[torch.multinomial(rows, len(x), replacement=True)].to(x.dtype)
            x = torch.where(which > len(places), drawn, x)
            which = which.masked_fill(which > len(places), 0)
        if not len(places):
            return x
        if d in self.bins:
            # The spike's own integer, rounded elsewhere, is the spike all the same.
            near = (x - places[:, None]).abs() < 0.5 * self.step[self.bins.index(d)].to(x.dtype)
            x = torch.where(near.any(0), places[near.float().argmax(0)], x)
        return torch.where(which > 0, places[(which - 1).clamp_min(0)], x)

    @torch.no_grad()
    def among(self, d: int, params: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Log of the mass (of one number: density) that column d has on these values (V,), and a draw
        from them: (n,) each, from parameters (P, n)."""
        P, n = params.shape
        if d in self.binary:
            logp = logsigmoid(torch.stack([-params[0], params[0]]))[values.long()]
        elif self.cardinality[d] and d not in self.bins:
            logits = self._logits_of(params, d, self.cardinality[d])
            logp = logits.log_softmax(0)[values.long()]
        else:
            every = params[:, None].expand(P, self.n_dims, n)
            parts = [self.log_prob(every, v.expand(self.n_dims, n))[d] for v in values]
            logp = torch.stack(parts)
        return logp.logsumexp(0), values[_draw(logp)]

    @torch.no_grad()
    def between(self, d: int, params: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
        """Log of the mass that column d, a number or integer, has from ``low`` to ``high``, both
        included, and a draw from there: (n,) each, from parameters (P, n)."""
        step = float(self.step[self.bins.index(d), 0]) if d in self.bins else 0.0
        logw, loc, scale = self._mixture(params.double())
        a, b = (low - loc) / scale, (high + step - loc) / scale
        masses = logw + log_mass_between(a, b, b - a, torch.isinf(a), torch.isinf(b))
        which = _draw(masses)[None]
        a, b, loc, scale = (t.gather(0, which)[0] for t in (a, b, loc, scale))
        x = loc + scale * _truncated_logistic(a, b)
        x = (x / step).floor() * step if step else x
        x, mass = x.clamp(low, high), masses.logsumexp(0)
        if d in self.spiked:
            # By the values themselves: those of the buffer are rounded.
            inside = [low <= v <= high for v in self.spiked[d]]
            logits, part = self._shares(d, params.double()), slice(None)
            more = [mass, *(logits.new_tensor(0.0 if i else -math.inf) for i in inside)]
            if d in self.seen:
                values, rows = self.get_buffer(f"seen{d}"), self.get_buffer(f"rows{d}").double()
                ends = values.new_tensor([low - 0.5 * step, high + 0.5 * step])
                part = slice(*torch.searchsorted(values, ends).tolist())
                more.append((rows[part].sum() / rows.sum()).log())
            logits = logits + torch.stack([m.expand_as(x) for m in more])
            x, mass = self._or_spikes(d, logits, x, part), logits.logsumexp(0)
        return mass.to(params.dtype), x.to(params.dtype)


def _truncated_logistic(a: Tensor, b: Tensor) -> Tensor:
    """Draws of the standard logistic law between a and b, through the logarithm of F, on the side
    where F is small: precise however far out a and b are."""
    flip = a + b > 0
    low, high = torch.where(flip, -b, a), torch.where(flip, -a, b)
    top = logsigmoid(high)
    u = torch.rand_like(a)
    log_f = top + torch.log(u + (1 - u) * torch.exp(logsigmoid(low) - top))
    x = log_f - torch.log(-torch.expm1(log_f))
    x = torch.minimum(torch.maximum(x, low), high)
    return torch.where(flip, -x, x)
