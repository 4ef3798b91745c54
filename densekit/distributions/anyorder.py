"""Autoregressive densities in any order of the columns, from a network that reads any known columns."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions import constraints
from torch import Tensor

from densekit.distributions.marginal import TOLERANCE, OneOrder
from densekit.distributions.montecarlo import (
    MonteCarloDistribution,
    Scores,
    effective_sample_size,
    log_mean_exp,
    resample,
)
from densekit.distributions.spiked import SpikedLaws
from densekit.nets.observed import ObservedNet
from densekit.transforms.columns import to_columns

_FEW_CANDIDATES, _MANY_CANDIDATES, _MIN_CANDIDATES = 4, 16, 256
"""Candidates per sample under conditions: at first, if their effective sample size is too small, and the
smallest total number."""
_ALL = 1 - 1e-6
"""Relative effective sample size from which all weights count as equal."""
_CANDIDATES_PER_ROW = 16
"""Number of candidates for the missing cells of a row."""


class AnyOrder(MonteCarloDistribution):
    r"""The average of S autoregressive densities, each with its own order of the columns.

    .. math:: p(x) = \frac{1}{S} \sum_{s=1}^S \prod_{d} p(x_{o_s(d)} \mid x_{o_s(1)}, \dots,
              x_{o_s(d-1)})

    Missing cells (NaN) are integrated out. With given columns G the score is :math:`\log p(x) -
    \log p(x_G)`. :mod:`densekit.distributions.marginal` describes the computation. With
    ``method="network"`` both cases use the network's conditional densities of the other cells, in
    the given order and given the known cells. This takes one pass per column and is a density, but
    it differs from the marginal of p as far as the network's conditional densities are
    inconsistent.

    Parameters
    ----------
    net : ObservedNet
        Network that computes parameters of each column from the known columns.
    laws : SpikedLaws
        The column distributions with these parameters.
    orders : int tensor of shape (S, D)
    given : sequence of int
        The given columns G.
    conditions : mapping from column to object with ``values``, ``low``, ``high``, ``atoms``
        Samples have one of the values (for a column with atoms, pairs of indicator and value), or
        are between the ends or on one of the atoms.
    method : {"marginal", "network"}
        The density that is scored and sampled with missing cells, given columns or conditions.
    draws : int
        K, number of draws of a score that is neither a product nor a sum nor a one-dimensional
        integral.

    Attributes
    ----------
    effective_sample_size : float
        Total effective sample size, (sum w)^2 / sum w^2 over candidates, of all samples under
        conditions so far. A candidate has the values of the conditions; then restricted columns
        are sampled, each from its own restricted distribution given those before, and then the
        other columns in one of the orders. Each sample is chosen by weight among four candidates,
        or sixteen if these are worth less than one per sample. Samples are practically exact if
        this size is many times their number.
    log_probability : float
        Logarithm of the mean weight of all candidates so far: of the probability of the
        conditions, a density for floats with a fixed value.

    Notes
    -----
    Event shape (D,), batch shape (). Samples under conditions are in float64, which distinguishes
    large integers.

    Examples
    --------
    >>> laws = SpikedLaws(cardinality=[2, 2], ordered=[False] * 2, width=[0.0] * 2)
    >>> net = ObservedNet(laws.reads, laws.n_params, (8,))
    >>> rows = torch.tensor([[0.0, 1.0], [0.0, torch.nan]])
    >>> AnyOrder(net, laws, torch.tensor([[0, 1]])).log_prob(rows).exp().detach()
    tensor([0.2500, 0.5000], dtype=torch.float64)
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
        method: str = "marginal",
        draws: int = 64,
    ) -> None:
        self.net, self.laws, self.orders = net, laws, orders
        self.given, self.conditions = sorted(given), dict(conditions or {})
        self.method, self.draws = method, draws
        self.effective_sample_size, self._weights = 0.0, list[tuple[float, int]]()
        self._orders = [OneOrder(net, laws, order) for order in orders.tolist()]
        super().__init__(torch.Size(), torch.Size([laws.n_entries]), validate_args=False)

    def expand(self, batch_shape: Any, _instance: "AnyOrder | None" = None) -> "AnyOrder":
        """The distribution with its batch shape expanded."""
        arguments = (self.net, self.laws, self.orders, self.given, self.conditions)
        new = AnyOrder(*arguments, self.method, self.draws)
        new._batch_shape = torch.Size(batch_shape)
        return new

    # Scores.

    def log_prob_and_error(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Log-density of values (..., D) and its standard error; a row without known cells scores 0."""
        return self.scores(value)[:2]

    def scores(self, value: Tensor) -> Scores:
        """Scores with standard errors, effective sample sizes and which of them are exact."""
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        x = to_columns(value.expand(*shape, value.shape[-1]))
        present = self.laws.present(x)
        x = torch.where(x.isnan(), 0.0, x)
        if self.method == "network":
            scores = self._network(x, present)
        else:
            scores = self._marginal(x, present)
        if self.given and self.method != "network":
            visible = torch.zeros_like(present)
            visible[self.given] = present[self.given]
            scores = _difference(scores, self._marginal(x, visible))
        return Scores(*(None if v is None else v.reshape(shape) for v in scores))  # type: ignore[arg-type]

    def _network(self, x: Tensor, present: Tensor) -> Scores:
        """The network's conditional density of the known cells, given the given columns and those
        before in each order.

        It equals the marginal if no missing cell precedes a known one.
        """
        hidden = torch.zeros_like(present[0])
        logp = []
        for one in self._orders:
            rest = [d for d in one.order if d not in self.given]
            given_first = OneOrder(self.net, self.laws, [*self.given, *rest])
            logp.append(given_first.chain(x, present, len(self.given)))
            first = set(one.order[: len(self.given)])
            hidden |= one.hidden(present).any(0) | (first != set(self.given))
        score = torch.stack(logp).logsumexp(0) - math.log(len(logp))
        return Scores(score, *_no_errors(score), ~hidden)

    def _marginal(self, x: Tensor, present: Tensor) -> Scores:
        """Scores by marginal densities."""
        if present.all():
            logp = torch.stack([one.chain(x, present) for one in self._orders])
            score = logp.logsumexp(0) - math.log(len(logp))
            return Scores(score, *_no_errors(score), torch.ones_like(present[0]))
        with torch.no_grad():
            bank = self._bank(x.device)
            parts = [
                one.marginal(x, present, noise)
                for one, noise in zip(self._orders, bank, strict=True)
            ]
        value = torch.stack([p.value for p in parts])
        error = torch.stack([p.error for p in parts])
        score = value.logsumexp(0) - math.log(len(parts))
        std = (value.softmax(0) * error).sum(0)
        size = torch.full_like(score, torch.nan)
        sampled = torch.stack([p.sampled for p in parts])
        rows = sampled.any(0).nonzero()[:, 0]
        if len(rows):
            # Weight k of a row is the mean over orders; an order without sampling contributes its value.
            weights = value[:, None, rows].repeat(1, self.draws, 1)
            for s, part in enumerate(parts):
                weights[s][:, sampled[s, rows]] = part.weights
            logw = weights.logsumexp(0) - math.log(len(parts))
            score[rows], std[rows] = log_mean_exp(logw)
            size[rows] = effective_sample_size(logw)
        return Scores(score, std, size, ~sampled.any(0) & (std < TOLERANCE))

    def _bank(self, device: torch.device) -> Tensor:
        """The noise (S, K, D, 3) in [0, 1) of all scores; each entry is stratified over the draws."""
        generator = torch.Generator().manual_seed(0)
        shape = (len(self.orders), self.draws, self.laws.n_dims, 3)
        strata = torch.rand(shape, generator=generator, dtype=torch.float64).argsort(1)
        jitter = torch.rand(shape, generator=generator, dtype=torch.float64)
        return ((strata + jitter) / self.draws).to(device)

    def exact_without_draws(self, present: Tensor) -> bool:
        """Whether the marginals of all rows with these known cells (D, n) are products and sums."""
        return all(bool(one.exact_for_any_value(present).all()) for one in self._orders)

    # Draws.

    @torch.no_grad()
    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        r"""Samples (\*sample_shape, \*batch_shape, D), each in a random one of the orders."""
        shape = torch.Size(sample_shape) + self.batch_shape
        n, like = shape.numel(), self.net.net.last
        if not n:
            return like.new_empty(*shape, self.laws.n_entries)
        if not self.conditions:
            x = torch.cat([c[0] for c in self._candidates(n)], 1)
            x = x[:, torch.randperm(n, device=x.device)].to(like.dtype)
            self._count(torch.zeros(n), n)
            return x.t().reshape(*shape, self.laws.n_entries)
        several = sum(not _is_single_value(c) for c in self.conditions.values())
        if self.method == "network":
            first = _MANY_CANDIDATES * n if several > 1 else n
        else:
            first = _FEW_CANDIDATES * n
        candidates = list(self._candidates(max(first, _MIN_CANDIDATES)))
        w = torch.cat([c[1] for c in candidates])
        if (
            _ALL * n > effective_sample_size(w)
            and first < _MANY_CANDIDATES * n
            and self.method == "marginal"
        ):
            candidates += self._candidates((_MANY_CANDIDATES - _FEW_CANDIDATES) * n)
            w = torch.cat([c[1] for c in candidates])
        self._count(w, n, torch.cat([c[2] for c in candidates]))
        x = torch.cat([c[0] for c in candidates], 1)[:, resample(w, n)]
        return x.t().reshape(*shape, self.laws.n_entries)

    def _count(self, w: Tensor, n: int, of_conditions: Tensor | None = None) -> None:
        """Add the weights of candidates to the effective sample size and the mean weight."""
        size = float(effective_sample_size(w))
        self.effective_sample_size += len(w) if size > _ALL * len(w) else size
        total = w if of_conditions is None else of_conditions
        self._weights.append((float(total.logsumexp(0)), len(total)))

    @property
    def log_probability(self) -> float:
        """Logarithm of the mean weight of all candidates so far."""
        sums, counts = zip(*self._weights, strict=True)
        return float(torch.tensor(sums).double().logsumexp(0)) - math.log(sum(counts))

    @torch.no_grad()
    def improbable(self, seen: Any, bound: float) -> str | tuple[int, str]:
        """Explain why samples under the conditions so far have next to no probability, if so.

        ``seen``, (2, D) or None, are the smallest and largest training values of each column, and
        ``bound`` is a log-probability. Returns an explanation, a column with an explanation, or an
        empty string.
        """
        like = self.net.net.last
        x = like.new_zeros(self.laws.n_entries, 1, dtype=torch.float64)
        fixed = torch.zeros(self.laws.n_dims, 1, dtype=torch.bool, device=like.device)
        for d, condition in self.conditions.items():
            if seen is not None and _is_beyond(condition, *seen[:, d]):
                return d, "is outside the range of the values in fit"
            if _is_single_value(condition):
                x[self.laws.entries[d], 0] = x.new_tensor(condition.values[0])
                fixed[d] = True
        for d in self.conditions:
            others = fixed.clone()
            others[d] = False
            log_p = float(self._restricted(d, self._orders[0].params(x, others, d))[0])
            if log_p < bound:
                return d, f"has a log-probability of {log_p:.1f} given the values of the others"
        event = torch.where(self.laws.entry_mask(fixed), x, torch.nan).to(like.dtype).t()
        rest = self.log_probability - float(
            AnyOrder(self.net, self.laws, self.orders, method=self.method).log_prob(event)
        )
        if rest < bound and not fixed[list(self.conditions)].all():
            return f"the intervals and lists together have a log-probability of {rest:.1f}"
        return ""

    def _candidates(self, m: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield m candidates in all: events (E, k), log-weights (k,) for choosing one, and
        log-weights whose mean is the probability of the conditions.
        """
        order_of_candidate = torch.randint(len(self.orders), (m,), device=self.net.net.last.device)
        counts = order_of_candidate.bincount(minlength=len(self.orders)).tolist()
        for one, k in zip(self._orders, counts, strict=True):
            while k:
                part = min(k, one.at_once)
                yield self._candidates_of(one, part)
                k -= part

    def _candidates_of(self, one: OneOrder, n: int) -> tuple[Tensor, Tensor, Tensor]:
        like = self.net.net.last
        x = like.new_zeros(self.laws.n_entries, n, dtype=torch.float64)
        present = torch.zeros(self.laws.n_dims, n, dtype=torch.bool, device=like.device)
        for d, condition in self.conditions.items():
            if _is_single_value(condition):
                value = x.new_tensor(condition.values[0])
                x[self.laws.entries[d]] = value[..., None].expand(*value.shape, n)
                present[d] = True
        fixed = present.clone()
        mass = x.new_zeros(n)
        params = [like.new_zeros(self.laws.n_params, n)] * self.laws.n_dims
        restricted = [d for d in one.order if d in self.conditions and not fixed[d, 0]]
        for d in restricted:
            params[d] = one.params(x, present, d)
            log_mass, values = self._restricted(d, params[d])
            x[self.laws.entries[d]] = values.double()
            present[d], mass = True, mass + log_mass.double()
        x, logp, _, after = one.propose(x, present, ~present, self._draw)
        if self.method == "network":
            return x, mass, mass + one.chain(x, fixed)
        if not self.conditions:
            return x, mass, mass
        log_q_restricted = self.laws.log_prob(torch.stack(params, 1), x.to(like.dtype))[
            restricted
        ].sum(0)
        logw = logp - after - log_q_restricted.double() + mass
        return x, logw, logw

    def _draw(self, d: int, params: Tensor) -> Tensor:
        """A sample of column d, in float64 for floats and integers."""
        wide = not self.laws.cardinality[d]
        return self.laws.sample(d, params.double() if wide else params)

    def _restricted(self, d: int, params: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability of the condition on column d, and a sample under it."""
        condition = self.conditions[d]
        if not condition.values:
            params = params.double()
            return self.laws.between(d, params, condition.low, condition.high, condition.atoms)
        values = torch.tensor(condition.values, dtype=torch.float64, device=params.device)
        return self.laws.among(d, params, values.t())

    @torch.no_grad()
    def complete(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Fill the missing cells (NaN) of events (n, D) with samples given the known cells, in
        float64.

        Also returns the effective sample size (n,) of the 16 candidates from which each row's
        sample is chosen, or 1 if there is a single candidate.
        """
        x = to_columns(value.double())
        present = self.laws.present(x)
        x = torch.where(x.isnan(), 0.0, x)
        out, size = x.clone(), x.new_ones(x.shape[1])
        k = 1 if self.method == "network" else _CANDIDATES_PER_ROW
        rows = (~present).any(0).nonzero()[:, 0]
        for part in rows.split(max(1, self._orders[0].at_once // k)):
            if len(part):
                out[:, part], size[part] = self._completed(x[:, part], present[:, part], k)
        return out.t(), size

    def _completed(self, x: Tensor, present: Tensor, k: int) -> tuple[Tensor, Tensor]:
        n = x.shape[1]
        x, present = x.repeat_interleave(k, 1), present.repeat_interleave(k, 1)
        logw = x.new_empty(n * k)
        order_of_row = torch.randint(len(self.orders), (n * k,), device=x.device)
        for s, one in enumerate(self._orders):
            rows = (order_of_row == s).nonzero()[:, 0]
            if len(rows):
                known = present[:, rows]
                x[:, rows], logp, _, after = one.propose(x[:, rows], known, ~known, self._draw)
                logw[rows] = logp - after
        w = logw.view(n, k).t()
        chosen = torch.multinomial(w.softmax(0).t(), 1)[:, 0]
        return x.view(-1, n, k)[:, torch.arange(n), chosen], effective_sample_size(w)


def _no_errors(score: Tensor) -> tuple[Tensor, Tensor]:
    return torch.zeros_like(score), torch.full_like(score, torch.nan)


def _difference(whole: Scores, given: Scores) -> Scores:
    """log p(x) - log p(x_G), with errors as if they were independent and the smaller effective sample
    size.
    """
    assert whole.exact is not None
    assert given.exact is not None
    std = torch.hypot(whole.std.double(), given.std.double())
    size = torch.fmin(whole.effective_sample_size.double(), given.effective_sample_size.double())
    return Scores(
        whole.score.double() - given.score.double(), std, size, whole.exact & given.exact
    )


def _is_beyond(condition: Any, low: float, high: float) -> bool:
    """Whether a condition allows no value between ``low`` and ``high`` in a column of floats or
    integers.
    """
    values = [v if isinstance(v, float) else v[1] for v in condition.values if _is_not_atom(v)]
    if condition.atoms or len(values) < len(condition.values):
        return False
    first, last = (min(values), max(values)) if values else (condition.low, condition.high)
    return bool(first > high or last < low)


def _is_not_atom(value: Any) -> bool:
    return isinstance(value, float) or value[0] == 0


def _is_single_value(condition: Any) -> bool:
    return len(condition.values) == 1
