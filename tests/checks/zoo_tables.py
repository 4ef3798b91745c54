"""Correct densities of mixed tables and of text that densekit did not write, as its estimators."""

from typing import Annotated, ClassVar

import numpy as np
import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor

from densekit import Capabilities, DensityEstimator
from densekit.codecs.laws import laws_of
from densekit.params import Interval, OneOf

# Tables: independent columns, in the typed view.


class Frequencies:
    """A code with the add-one frequencies of the rows."""

    def __init__(self, codes, n_codes):
        self.log_p = torch.bincount(codes.long(), minlength=n_codes).double().add(1)
        self.log_p = (self.log_p / self.log_p.sum()).log()

    def log_prob(self, t):
        known = (t >= 0) & (t < len(self.log_p)) & (t == t.round())
        return torch.where(known, self.log_p[t.long().clamp(0, len(self.log_p) - 1)], -torch.inf)

    def sample(self, n):
        return torch.multinomial(self.log_p.exp(), n, replacement=True).double()


class NormalColumn:
    """Numbers: a normal."""

    def __init__(self, t):
        t = t if len(t) > 1 else t.new_tensor([-1.0, 1.0])
        self.law = torch.distributions.Normal(t.mean(), t.std(correction=0).clamp_min(1e-3))

    def log_prob(self, t):
        return self.law.log_prob(t)

    def sample(self, n):
        return self.law.sample((n,))


class Lattice:
    """Integers k = low + j that are no atoms: the masses of a law of j = 0, 1, 2, ..., divided by what
    the atoms leave of them; the last integer has all that is beyond it."""

    def __init__(self, t, step, last, atoms):
        self.step = step
        self.low = t.min() if len(t) else torch.tensor(0.0, dtype=torch.float64)
        self.last = torch.round((last - self.low) / step)
        j = torch.round((t - self.low) / step)
        self._learn(j if len(j) else torch.ones(1, dtype=torch.float64))
        self.atoms = torch.round((torch.as_tensor(atoms) - self.low) / step)
        self.log_rest = torch.log1p(-self._log_mass(self.atoms).exp().sum())

    def _log_mass(self, j):
        inside = (j >= 0) & (j <= self.last)
        logp = torch.where(
            j == self.last, self._log_tail(j.clamp_min(0)), self._log_p(j.clamp_min(0))
        )
        return torch.where(inside, logp, -torch.inf)

    def log_prob(self, t):
        j = torch.round((t - self.low) / self.step)
        logp = self._log_mass(j) - self.log_rest
        return torch.where((j[..., None] == self.atoms).any(-1), -torch.inf, logp)

    def sample(self, n):
        j = torch.zeros(0, dtype=torch.float64)
        while len(j) < n:
            more = torch.minimum(self._draw(n), self.last)
            j = torch.cat([j, more[~(more[:, None] == self.atoms).any(1)]])
        return self.low + self.step * j[:n]


class PoissonColumn(Lattice):
    def _learn(self, j):
        self.rate = j.mean().clamp_min(0.1)

    def _log_p(self, j):
        return torch.special.xlogy(j, self.rate) - self.rate - torch.lgamma(j + 1)

    def _log_tail(self, j):
        # P(J >= j), a regularized incomplete gamma function.
        tail = torch.special.gammainc(j.clamp_min(1e-9), self.rate)
        return torch.where(j == 0, 0.0, tail.log())

    def _draw(self, n):
        return torch.poisson(self.rate.expand(n))


class GeometricColumn(Lattice):
    def _learn(self, j):
        self.p = 1 / (1 + j.mean().clamp_min(0.1))

    def _log_p(self, j):
        return j * torch.log1p(-self.p) + self.p.log()

    def _log_tail(self, j):
        return j * torch.log1p(-self.p)

    def _draw(self, n):
        return torch.distributions.Geometric(self.p).sample((n,))


class Product(TorchDistribution):
    """Independent columns of a typed event."""

    arg_constraints: ClassVar[dict] = {}
    support = constraints.real_vector
    has_rsample = False

    def __init__(self, parts, n_entries, batch_shape=()):
        self.parts = parts
        super().__init__(torch.Size(batch_shape), torch.Size([n_entries]), validate_args=False)

    def expand(self, batch_shape, _instance=None):
        return Product(self.parts, self.event_shape[0], batch_shape)

    def log_prob(self, value):
        value = value.double()
        total = value.new_zeros(torch.broadcast_shapes(value.shape[:-1], self.batch_shape))
        for indicator, place, law in self.parts:
            t = value[..., place]
            if indicator is None:
                total = total + law.log_prob(t)
                continue
            at, codes = indicator
            k = value[..., at]
            off = law.log_prob(torch.where(k == 0, t, torch.nan).nan_to_num(law_center(law)))
            on = torch.where(t == 0, 0.0, -torch.inf)
            total = total + codes.log_prob(k) + torch.where(k == 0, off, on)
        return total

    @torch.no_grad()
    def sample(self, sample_shape=()):
        shape = torch.Size(sample_shape) + self.batch_shape
        n = shape.numel()
        out = torch.zeros(n, self.event_shape[0], dtype=torch.float64)
        for indicator, place, law in self.parts:
            out[:, place] = law.sample(n)
            if indicator is not None:
                at, codes = indicator
                out[:, at] = codes.sample(n)
                out[:, place] = torch.where(out[:, at] == 0, out[:, place], 0.0)
        return out.reshape(shape + self.event_shape)


def law_center(law):
    """A value of which the law can be asked; what it says of it is not used."""
    return float(law.law.loc) if isinstance(law, NormalColumn) else float(law.low)


class IndependentTable(DensityEstimator):
    """Columns that know nothing of each other: numbers normal, categories by their frequencies, atoms
    too, and integers by a law that a subclass names. A table of zeros and numbers is zero-inflated."""

    dtype: Annotated[str, OneOf("float32", "float64")] = "float64"

    _capabilities: ClassVar[Capabilities] = Capabilities(
        density="exact", view="typed", modalities=("table",), score_batch=4096
    )
    _integers: ClassVar[type] = GeometricColumn

    def _fit(self, events: Tensor, context: Tensor | None) -> None:
        self.rows_ = events.double().cpu().numpy()

    def _distribution(self, context: Tensor | None) -> TorchDistribution:
        x, s, parts = torch.as_tensor(self.rows_), self.schema_, []
        laws = laws_of(s)
        columns = zip(s.varying, s.places, strict=True)
        for i, (column, place) in enumerate(columns):
            t, indicator = x[:, place[-1]], None
            if len(place) == 2:
                k = x[:, place[0]]
                indicator = place[0], Frequencies(k, len(column.atoms) + 1)
                t = t[k == 0]
            if s.cardinality[place[-1]]:
                law = Frequencies(t, int(s.cardinality[place[-1]]))
            elif s.width[place[-1]]:
                last = float(laws["ends"][i][1])
                step = float(s.width[place[-1]])
                atoms = np.asarray(laws["atoms"].get(i, np.zeros(0)), dtype=float)
                law = self._integers(t, step, last, atoms)
            else:
                law = NormalColumn(t)
            parts.append((indicator, place[-1], law))
        return Product(parts, s.n_dims)


class PoissonTable(IndependentTable):
    _integers: ClassVar[type] = PoissonColumn


class ZeroInflatedTable(IndependentTable):
    """The integers geometric, so that zeros are many with and without an atom."""

    _integers: ClassVar[type] = GeometricColumn


# Text.


class BigramStrings(TorchDistribution):
    """Strings whose tokens each depend on the one before; a string of full length ends for certain."""

    arg_constraints: ClassVar[dict] = {}
    support = constraints.independent(constraints.nonnegative_integer, 1)
    has_rsample = False

    def __init__(self, log_p, max_length, batch_shape=()):
        self.log_p, self.max_length = log_p, max_length
        super().__init__(
            torch.Size(batch_shape), torch.Size([max_length + 1]), validate_args=False
        )

    def expand(self, batch_shape, _instance=None):
        return BigramStrings(self.log_p, self.max_length, batch_shape)

    def log_prob(self, value):
        x = value.long()
        x = x.expand(*torch.broadcast_shapes(x.shape[:-1], self.batch_shape), x.shape[-1])
        legal = alive = torch.ones(x.shape[:-1], dtype=torch.bool)
        total, last = torch.zeros(legal.shape, dtype=torch.float64), legal.long()
        for place in range(x.shape[-1]):
            t = x[..., place]
            known = (t >= 1) & (t < len(self.log_p))
            free = self.log_p[last, t.clamp(0, len(self.log_p) - 1)]
            step = free if place < self.max_length else torch.where(t == 1, 0.0, -torch.inf)
            total = total + torch.where(alive, step, 0.0)
            legal = legal & torch.where(alive, known, t == 0)
            alive, last = alive & (t != 1), t.clamp(0, len(self.log_p) - 1)
        return torch.where(legal & ~alive, total, -torch.inf)

    @torch.no_grad()
    def sample(self, sample_shape=()):
        shape = torch.Size(sample_shape) + self.batch_shape
        n = shape.numel()
        out = torch.zeros(n, self.max_length + 1, dtype=torch.long)
        last, alive = torch.ones(n, dtype=torch.long), torch.ones(n, dtype=torch.bool)
        for place in range(self.max_length + 1):
            last = torch.ones_like(last) if place == self.max_length else self._next(last)
            out[:, place] = torch.where(alive, last, 0)
            alive = alive & (last != 1)
        return out.reshape(shape + self.event_shape)

    def _next(self, last):
        if not len(last):
            return last
        return torch.multinomial(self.log_p[last].exp(), 1)[:, 0]


class Bigram(DensityEstimator):
    """Add-one counts of pairs of tokens, unknown ones and the end included."""

    _capabilities: ClassVar[Capabilities] = Capabilities(
        density="exact", view="typed", modalities=("text",)
    )
    max_length: Annotated[int, Interval(ge=1)] = 64

    def _fit(self, events: Tensor, context: Tensor | None) -> None:
        n = self.schema_.vocab_size
        counts = torch.ones(n, n, dtype=torch.float64)
        counts[:, 0] = 0  # padding follows nothing
        before = torch.nn.functional.pad(events[:, :-1], (1, 0), value=1)
        real = events != 0
        counts.view(-1).index_add_(
            0, (before * n + events)[real], torch.ones(int(real.sum()), dtype=torch.float64)
        )
        self.log_p_ = (counts / counts.sum(1, keepdim=True)).log().numpy()

    def _distribution(self, context: Tensor | None) -> TorchDistribution:
        return BigramStrings(torch.as_tensor(self.log_p_), self.schema_.event_shape[0] - 1)


OF_MIXED_ROWS = (PoissonTable, ZeroInflatedTable, Bigram)
