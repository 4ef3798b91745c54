r"""Laws of columns some of whose values have a mass of their own, and laws restricted to a set.

.. math::
    P(x = v_k) &= \pi_k, \qquad p(x) = \pi_0\, f(x) \text{ elsewhere}           && \text{numbers} \\
    P(t) &= \sum_k \pi_k [t = v_k] + \pi_{K+1} \frac{n_t}{n} + \pi_0\, F(t)      && \text{integers}

("spike and slab"): f is the mixture of :mod:`densekit.distributions.columnwise`, F its masses, v the
atoms and spikes. The law of numbers is one over Lebesgue measure and a counting measure on the atoms.
Atoms are told by their indicator in the event, spikes, which are integers, by their value. Of n rows of
integers :math:`n_t` had the value t: weights and prices come again without any being common. While
the law is learned a row counts for nothing at its own value, :math:`(n_t - 1) / (n - 1)`, or what was
seen once would seem certain to come again.
"""

import math
from collections.abc import Collection, Mapping
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
    """Column laws with atoms and spikes, which can be restricted to an interval or to some values.

    Parameters
    ----------
    spikes : mapping from column to (K,)
        Integers with a mass of their own, as they are in an event; compared in 32 bits.
    seen : mapping from column to (values (V,), rows (V,)), optional
        Integers that fit saw, as they are in an event, in order, and how many rows had each.
    atoms : mapping from column to (K,), optional
        Where the atoms of numbers and integers would lie in an event, were they none. An event has
        two entries of such a column: the indicator, 0 or the number k of an atom, and the value,
        which is 0 on the atoms.
    **laws
        As of :class:`~densekit.distributions.columnwise.ColumnLaws`; restrictions of numbers and
        integers need logistic components.

    Notes
    -----
    A network reads a column with K atoms and spikes as 1 + K numbers: the value, and which of them it
    is. The value of one of 8 or fewer is read as 0; that of more is not, since they are in an order.
    Samples are last: parameters (P, D, N), events (E, N).

    Examples
    --------
    >>> laws = SpikedLaws(atoms={0: [0.0]}, cardinality=[0, 2], ordered=[False] * 2, width=[0.0] * 2)
    >>> events = torch.tensor([[1.0], [0.0], [1.0]])  # on the atom; no value; the second code
    >>> laws.reads, laws.log_prob(torch.zeros(laws.n_params, 2, 1), events).exp().tolist()
    ([2, 1], [[0.5], [0.5]])
    """

    def __init__(
        self,
        spikes: Mapping[int, ArrayLike] | None = None,
        seen: Mapping[int, tuple[ArrayLike, ArrayLike]] | None = None,
        atoms: Mapping[int, ArrayLike] | None = None,
        **laws: Any,
    ) -> None:
        super().__init__(**laws)
        spikes, seen, atoms = spikes or {}, seen or {}, atoms or {}
        self.seen = set(seen)
        self.n_atoms = {d: len(np.asarray(a)) for d, a in atoms.items()}
        self.spiked: dict[int, list[float]] = {
            d: [*np.asarray(atoms.get(d, []), float), *np.asarray(spikes.get(d, []), float)]
            for d in sorted({*atoms, *spikes, *self.seen})
        }
        for d, known in self.spiked.items():
            places = torch.tensor(known, dtype=torch.float64)
            self.register_buffer(f"spikes{d}", places, persistent=False)
            self.reads[d] = 1 + len(places)
            n_masses = 1 + len(places) + (d in self.seen)
            self.n_params = max(self.n_params, 3 * self.n_components + n_masses)
        for d, (values, rows) in seen.items():
            for name, a in ((f"seen{d}", values), (f"rows{d}", rows)):
                self.register_buffer(name, torch.tensor(np.asarray(a, float)), persistent=False)
        more = self.n_params - len(self._start)
        self._start = torch.cat([self._start, self._start.new_zeros(more, self.n_dims)])
        first, self._values = 0, []
        for d in range(self.n_dims):
            pair = d in self.n_atoms
            self.entries[d] = slice(first, first + 2) if pair else first
            self._values.append(first + pair)
            first += 1 + pair
        self.n_entries = first

    def _value(self, d: int, x: Tensor) -> Tensor:
        """Values (N,) of column d of events (E, N): of atoms of integers their own."""
        value = x[self._values[d]]
        if d not in self.n_atoms or d in self.numbers:
            return value
        places = self.get_buffer(f"spikes{d}").to(value.dtype)
        indicator = x[self._values[d] - 1].long()
        return torch.where(indicator > 0, places[(indicator - 1).clamp_min(0)], value)

    def _hits(self, d: int, x: Tensor) -> Tensor:
        """Which atom or spike each event (E, N) has in column d: (K, N)."""
        places, k = self.get_buffer(f"spikes{d}"), self.n_atoms.get(d, 0)
        value = x[self._values[d]]
        if not k:
            return places.float()[:, None] == value.float()
        indicator = x[self._values[d] - 1]
        of_atoms = torch.arange(1, k + 1, device=x.device)[:, None] == indicator
        of_spikes = (places[k:].float()[:, None] == value.float()) & (indicator == 0)
        return torch.cat([of_atoms, of_spikes])

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
        """Column d of events (E, N) as the network reads it, (reads[d], N)."""
        if d not in self.spiked:
            return super().read(d, x)
        hits, value = self._hits(d, x), self._value(d, x)
        value = value if len(hits) > _IN_ORDER else torch.where(hits.any(0), 0.0, value)
        return torch.cat([value[None], hits.to(x.dtype)])

    def present(self, x: Tensor) -> Tensor:
        """Which columns of events (E, N) are not missing, (D, N)."""
        return ~(x[self._values] if self.n_atoms else x).isnan()

    def log_prob(self, params: Tensor, x: Tensor, left_out: bool = False) -> Tensor:
        """Log-mass or density of each column, (D, N), of events (E, N); with ``left_out``, of rows that
        fit saw, each by what the others have."""
        values = x
        if self.n_atoms:
            values = torch.stack([self._value(d, x) for d in range(self.n_dims)])
        slab = self._log_prob(params, values)
        if not self.spiked:
            return slab
        rows = list(slab)
        for d in self.spiked:
            hits, shares = self._hits(d, x), self._shares(d, params[:, d])
            rest = shares[0] + rows[d]
            if d in self.seen:
                rest = torch.logaddexp(rest, shares[-1] + self._log_seen(d, values[d], left_out))
            rows[d] = rest
            if not len(hits):
                continue
            spike = shares[1:].gather(0, hits.float().argmax(0)[None])[0]
            both = spike if d in self.numbers else torch.logaddexp(spike, rest)
            rows[d] = torch.where(hits.any(0), both, rest)
        return torch.stack(rows)

    @torch.no_grad()
    def sample(self, d: int, params: Tensor, uniform: Tensor | None = None) -> Tensor:
        """Draws of column d, from its parameters (P, n): what goes to ``entries[d]`` of an event. They
        are a function of ``uniform``, (3, n) in [0, 1), where it is given."""
        x = self._sample(d, params, uniform)
        if d not in self.spiked:
            return x
        return self._or_spikes(d, self._shares(d, params), x, uniform=uniform)

    def _or_spikes(
        self,
        d: int,
        logits: Tensor,
        x: Tensor,
        seen: slice = slice(None),
        uniform: Tensor | None = None,
    ) -> Tensor:
        """In the place of x one of the atoms and spikes, or of the values seen, of which only a part
        may be: with these logits (1 + K, n) of x and the spikes, and then of the values."""
        which = _draw(logits, None if uniform is None else uniform[2])
        places = x.new_tensor(self.spiked[d])  # not the buffer's, which are rounded
        if d in self.seen and len(self.get_buffer(f"rows{d}")[seen]):
            values, rows = self.get_buffer(f"seen{d}")[seen], self.get_buffer(f"rows{d}")[seen]
            if uniform is None:
                at = torch.multinomial(rows, len(x), replacement=True)
            else:
                # What the slab made of it is not used where a value seen is drawn.
                ends = rows.double().cumsum(0)
                at = torch.searchsorted(ends, uniform[1].double() * ends[-1], right=True)
            drawn = values[at.clamp_max(len(values) - 1)].to(x.dtype)
            x = torch.where(which > len(places), drawn, x)
            which = which.masked_fill(which > len(places), 0)
        if not len(places):
            return x
        if d in self.bins:
            # The spike's own integer, rounded elsewhere, is the spike all the same.
            near = (x - places[:, None]).abs() < 0.5 * self.widths[d]
            which = torch.where((which == 0) & near.any(0), 1 + near.float().argmax(0), which)
        k = self.n_atoms.get(d, 0)
        x = torch.where(which > k, places[(which - 1).clamp_min(0)], x)
        if not k:
            return x
        indicator = which.masked_fill(which > k, 0)
        return torch.stack([indicator.to(x.dtype), torch.where(indicator > 0, 0.0, x)])

    @torch.no_grad()
    def among(self, d: int, params: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Log of the mass (of one number: density) that column d has on these values (V,), or (2, V)
        with their indicators first, (n,), and a draw from them for ``entries[d]``, from parameters
        (P, n)."""
        P, n = params.shape
        if d in self.binary:
            logp = logsigmoid(torch.stack([-params[0], params[0]]))[values.long()]
        elif self.cardinality[d] and d not in self.bins:
            logits = self._logits_of(params, d, self.cardinality[d])
            logp = logits.log_softmax(0)[values.long()]
        else:
            every = params[:, None].expand(P, self.n_dims, n)
            events = params.new_zeros(self.n_entries, n)
            parts = []
            for v in values.unbind(-1):
                events[self.entries[d]] = v[..., None].expand(*v.shape, n)
                parts.append(self.log_prob(every, events)[d])
            logp = torch.stack(parts)
        return logp.logsumexp(0), values[..., _draw(logp)]

    @torch.no_grad()
    def between(
        self, d: int, params: Tensor, low: float, high: float, atoms: Collection[int] = ()
    ) -> tuple[Tensor, Tensor]:
        """Log of the mass that column d, a number or integer, has from ``low`` to ``high``, both
        included, and on these of its atoms, by their numbers from 1 on: (n,); and a draw from there
        for ``entries[d]``, from parameters (P, n)."""
        step = self.widths[d]
        logw, loc, scale = self.mixture(params.double())
        a, b = (low - loc) / scale, (high + step - loc) / scale
        masses = logw + log_mass_between(a, b, b - a, torch.isinf(a), torch.isinf(b))
        which = _draw(masses)[None]
        a, b, loc, scale = (t.gather(0, which)[0] for t in (a, b, loc, scale))
        x = loc + scale * _truncated_logistic(a, b)
        if step:
            # Steps from an end: the quotient of a value far from 0 would be rounded.
            start = low if math.isfinite(low) else high if math.isfinite(high) else 0.0
            x = start + ((x - start) / step).floor() * step
        x, mass = x.clamp(low, high), masses.logsumexp(0)
        if d in self.bins:
            place = self.bins.index(d)
            x = x.clamp(self.bin_low[place, 0], self.bin_high[place, 0])
        if d in self.spiked:
            # By the values themselves: those of the buffer are rounded.
            k = self.n_atoms.get(d, 0)
            inside = [j in atoms for j in range(1, k + 1)]
            inside += [low <= v <= high for v in self.spiked[d][k:]]
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

    def values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values (D, N) of events (E, N), and which of them are there and no atoms."""
        off = self.present(x)
        for d in self.n_atoms:
            off[d] &= x[self._values[d] - 1] == 0
        return x[self._values], off

    def entry_mask(self, columns: Tensor) -> Tensor:
        """Entries (E, N) of these columns (D, N)."""
        sizes = [2 if d in self.n_atoms else 1 for d in range(self.n_dims)]
        return columns.repeat_interleave(torch.tensor(sizes, device=columns.device), 0)

    def range_of(self, d: int, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """The smallest and the largest value (n,) of column d, integers, whose components lie between
        ``low`` and ``high``, (M, n): spikes and values seen are inside."""
        first, last = low.min(0).values, high.max(0).values
        special = list(self.spiked.get(d, []))[self.n_atoms.get(d, 0) :]
        if d in self.seen:
            special += self.get_buffer(f"seen{d}")[[0, -1]].tolist()
        if special:
            first, last = first.clamp_max(min(special)), last.clamp_min(max(special))
        place = self.bins.index(d)
        ends = [float(e[place, 0]) for e in (self.bin_low, self.bin_high)]
        return first.clamp(*ends), last.clamp(*ends)

    def on_atom(self, d: int, values: Tensor) -> Tensor:
        """Which of these values of a column of integers are those of an atom."""
        out = torch.zeros_like(values, dtype=torch.bool)
        for place in self.spiked.get(d, [])[: self.n_atoms.get(d, 0)]:
            out = out | ((values - place).abs() < 0.5 * self.widths[d])
        return out


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
