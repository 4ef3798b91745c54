r"""Distributions of columns with atoms and spikes, and their restrictions to sets.

.. math::
    P(x = v_k) &= \pi_k, \qquad p(x) = \pi_0\, f(x) \text{ elsewhere}           && \text{floats} \\
    P(t) &= \sum_k \pi_k [t = v_k] + \pi_{K+1} \frac{n_t}{n} + \pi_0\, F(t)      && \text{integers}

This is a spike-and-slab distribution: f is the mixture of
:mod:`densekit.distributions.columnwise`, F are its probabilities of integers, and v are the atoms
and spikes. For floats it is a density with respect to Lebesgue measure plus counting measure on
the atoms. An event marks atoms by an indicator; spikes are integers and are recognized by their
value. The second term of integers is the empirical distribution: :math:`n_t` of n training rows
had the value t, since values such as prices recur without any being frequent. In training a row is
not counted at its own value, which gives :math:`(n_t - 1) / (n - 1)`; otherwise values seen once
would seem certain to recur.
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

_MAX_MASKED_SPIKES = 8
"""Up to this number of spikes the network reads a spike's value as 0; with more it reads the value."""


class SpikedLaws(ColumnLaws):
    """Column distributions with atoms and spikes, which can be restricted to an interval or to some
    values.

    Parameters
    ----------
    spikes : mapping from column to (K,)
        Integers with a probability of their own, in the units of events; compared in 32 bits.
    seen : mapping from column to (values (V,), rows (V,)), optional
        Integers of the training rows in ascending order, in the units of events, and the number of
        rows with each.
    atoms : mapping from column to (K,), optional
        Values of the atoms of floats and integers, in the units of events. An event has two
        entries for such a column: the indicator, 0 or the number k of an atom, and the value,
        which is 0 on atoms.
    **laws
        Arguments of :class:`~densekit.distributions.columnwise.ColumnLaws`. Restrictions of floats
        and integers require logistic components.

    Notes
    -----
    The network reads a column with K atoms and spikes as 1 + K numbers: the value and an indicator
    of each. With at most 8 of them, the value of an atom or spike is read as 0. Samples are on the
    last axis: parameters (P, D, N), events (E, N).

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
        """Values (N,) of column d of events (E, N); atoms of integers have their own value."""
        value = x[self._values[d]]
        if d not in self.n_atoms or d in self.numbers:
            return value
        places = self.get_buffer(f"spikes{d}").to(value.dtype)
        indicator = x[self._values[d] - 1].long()
        return torch.where(indicator > 0, places[(indicator - 1).clamp_min(0)], value)

    def _is_spike(self, d: int, x: Tensor) -> Tensor:
        """Which atom or spike each event (E, N) has in column d: (K, N)."""
        places, k = self.get_buffer(f"spikes{d}"), self.n_atoms.get(d, 0)
        value = x[self._values[d]]
        if not k:
            return places.float()[:, None] == value.float()
        indicator = x[self._values[d] - 1]
        of_atoms = torch.arange(1, k + 1, device=x.device)[:, None] == indicator
        of_spikes = (places[k:].float()[:, None] == value.float()) & (indicator == 0)
        return torch.cat([of_atoms, of_spikes])

    def _component_log_probs(self, d: int, params: Tensor) -> Tensor:
        """Log-probabilities (1 + K, n) of the slab and the spikes, and of the empirical term if there
        is one, from parameters (P, n).
        """
        first, n = 3 * self.n_components, len(self.get_buffer(f"spikes{d}"))
        return params[first : first + 1 + n + (d in self.seen)].log_softmax(0)

    def _log_seen(self, d: int, x: Tensor, left_out: bool) -> Tensor:
        """Logarithm of the fraction of training rows with each value (n,), very small if there are
        none.

        With ``left_out`` one row is left out at each value.
        """
        values, rows = self.get_buffer(f"seen{d}"), self.get_buffer(f"rows{d}")
        half, own = 0.5 * self.step[self.bins.index(d), 0], int(left_out)
        at = torch.searchsorted(values, (x - half).to(values.dtype)).clamp_max(len(values) - 1)
        count = torch.where((values[at] - x).abs() < half, rows[at] - own, 0.0)
        share = count / (rows.sum() - own)
        return torch.where(count > 0, share, 1e-30).log().to(x.dtype)

    def read(self, d: int, x: Tensor) -> Tensor:
        """The inputs of the network for column d of events (E, N), (reads[d], N)."""
        if d not in self.spiked:
            return super().read(d, x)
        hits, value = self._is_spike(d, x), self._value(d, x)
        value = value if len(hits) > _MAX_MASKED_SPIKES else torch.where(hits.any(0), 0.0, value)
        return torch.cat([value[None], hits.to(x.dtype)])

    def present(self, x: Tensor) -> Tensor:
        """Which columns of events (E, N) are not missing, (D, N)."""
        return ~(x[self._values] if self.n_atoms else x).isnan()

    def log_prob(self, params: Tensor, x: Tensor, left_out: bool = False) -> Tensor:
        """Log-probability or log-density (D, N) of each column of events (E, N).

        With ``left_out``, events are training rows, each of which is left out of the empirical
        term.
        """
        values = x
        if self.n_atoms:
            values = torch.stack([self._value(d, x) for d in range(self.n_dims)])
        slab = self._log_prob(params, values)
        if not self.spiked:
            return slab
        rows = list(slab)
        for d in self.spiked:
            hits, shares = self._is_spike(d, x), self._component_log_probs(d, params[:, d])
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
        """Samples of column d from its parameters (P, n), as the ``entries[d]`` of an event.

        If ``uniform``, (3, n) in [0, 1), is given, they are a function of it.
        """
        x = self._sample(d, params, uniform)
        if d not in self.spiked:
            return x
        return self._or_spikes(d, self._component_log_probs(d, params), x, uniform=uniform)

    def _or_spikes(
        self,
        d: int,
        logits: Tensor,
        x: Tensor,
        seen: slice = slice(None),
        uniform: Tensor | None = None,
    ) -> Tensor:
        """Replace x by an atom, a spike or a value of the empirical term, with the given
        probabilities.

        ``logits`` (1 + K, n) are those of x and of the spikes, followed by that of the empirical
        term, which is restricted to the part ``seen`` of its values.
        """
        component = _draw(logits, None if uniform is None else uniform[2])
        places = x.new_tensor(self.spiked[d])  # The values of the buffer are rounded.
        if d in self.seen and len(self.get_buffer(f"rows{d}")[seen]):
            values, rows = self.get_buffer(f"seen{d}")[seen], self.get_buffer(f"rows{d}")[seen]
            if uniform is None:
                at = torch.multinomial(rows, len(x), replacement=True)
            else:
                # uniform[1] is free here: the slab's draw is not used where a training value is drawn.
                ends = rows.double().cumsum(0)
                at = torch.searchsorted(ends, uniform[1].double() * ends[-1], right=True)
            drawn = values[at.clamp_max(len(values) - 1)].to(x.dtype)
            x = torch.where(component > len(places), drawn, x)
            component = component.masked_fill(component > len(places), 0)
        if not len(places):
            return x
        if d in self.bins:
            # A draw of the slab that equals a spike up to rounding is the spike.
            near = (x - places[:, None]).abs() < 0.5 * self.widths[d]
            component = torch.where(
                (component == 0) & near.any(0), 1 + near.float().argmax(0), component
            )
        k = self.n_atoms.get(d, 0)
        x = torch.where(component > k, places[(component - 1).clamp_min(0)], x)
        if not k:
            return x
        indicator = component.masked_fill(component > k, 0)
        return torch.stack([indicator.to(x.dtype), torch.where(indicator > 0, 0.0, x)])

    @torch.no_grad()
    def among(self, d: int, params: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Restrict column d to some values.

        ``values`` are (V,), or (2, V) with indicators first, and ``params`` (P, n). Returns the
        logarithm of their total probability (for a float, density), (n,), and a sample among them
        for ``entries[d]``.
        """
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
        """Restrict column d, a float or integer, to the closed interval from ``low`` to ``high`` and
        to some atoms.

        ``atoms`` are numbers of atoms, starting at 1, and ``params`` (P, n). Returns the logarithm
        of the probability, (n,), and a sample for ``entries[d]``.
        """
        step = self.widths[d]
        logw, loc, scale = self.mixture(params.double())
        a, b = (low - loc) / scale, (high + step - loc) / scale
        masses = logw + log_mass_between(a, b, b - a, torch.isinf(a), torch.isinf(b))
        which = _draw(masses)[None]
        a, b, loc, scale = (t.gather(0, which)[0] for t in (a, b, loc, scale))
        x = loc + scale * _truncated_logistic(a, b)
        if step:
            # Steps are counted from an end, because the quotient of a large value would be rounded.
            start = low if math.isfinite(low) else high if math.isfinite(high) else 0.0
            x = start + ((x - start) / step).floor() * step
        x, mass = x.clamp(low, high), masses.logsumexp(0)
        if d in self.bins:
            place = self.bins.index(d)
            x = x.clamp(self.bin_low[place, 0], self.bin_high[place, 0])
        if d in self.spiked:
            # The exact values are compared, because those of the buffer are rounded.
            k = self.n_atoms.get(d, 0)
            inside = [j in atoms for j in range(1, k + 1)]
            inside += [low <= v <= high for v in self.spiked[d][k:]]
            logits, part = self._component_log_probs(d, params.double()), slice(None)
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
        """Values (D, N) of events (E, N), and which of them are neither missing nor atoms."""
        not_atom = self.present(x)
        for d in self.n_atoms:
            not_atom[d] &= x[self._values[d] - 1] == 0
        return x[self._values], not_atom

    def entry_mask(self, columns: Tensor) -> Tensor:
        """The entries (E, N) of a mask of columns (D, N)."""
        sizes = [2 if d in self.n_atoms else 1 for d in range(self.n_dims)]
        return columns.repeat_interleave(torch.tensor(sizes, device=columns.device), 0)

    def range_of(self, d: int, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Smallest and largest value (n,) of column d of integers.

        ``low`` and ``high``, (M, n), bound the values of its components; spikes and training
        values are included.
        """
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
        """Which of these values of a column of integers are atoms."""
        out = torch.zeros_like(values, dtype=torch.bool)
        for place in self.spiked.get(d, [])[: self.n_atoms.get(d, 0)]:
            out = out | ((values - place).abs() < 0.5 * self.widths[d])
        return out


def _truncated_logistic(a: Tensor, b: Tensor) -> Tensor:
    """Samples of the standard logistic distribution between a and b.

    They are computed from log F, on the side where F is small, which is precise at any distance
    from zero.
    """
    flip = a + b > 0
    low, high = torch.where(flip, -b, a), torch.where(flip, -a, b)
    top = logsigmoid(high)
    u = torch.rand_like(a)
    log_f = top + torch.log(u + (1 - u) * torch.exp(logsigmoid(low) - top))
    x = log_f - torch.log(-torch.expm1(log_f))
    x = torch.minimum(torch.maximum(x, low), high)
    return torch.where(flip, -x, x)
