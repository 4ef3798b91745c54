r"""Distributions of single columns, with parameters from a network for each row: masses and mixtures.

.. math::
    P(k) &= \exp(l_k) / \textstyle\sum_j \exp(l_j)                   && \text{codes} \\
    p(x) &= \textstyle\sum_m w_m f((x - \mu_m) / s_m) / s_m          && \text{numbers} \\
    P(t) &= \textstyle\sum_m w_m [F((t + h - \mu_m) / s_m) - F((t - \mu_m) / s_m)]
                                                        && \text{integers, ordered codes}

with :math:`F` the logistic function and :math:`f` its slope, or those of the normal law; h is the step
between neighboring values, and the outermost bins of ordered codes reach to infinity, so that the
masses sum to one. A code of two values has one logit.

References
----------
Germain, Gregor, Murray & Larochelle 2015, "MADE" (masses). Uria, Murray & Larochelle 2013, "RNADE"
(mixtures). Salimans, Karpathy, Chen & Kingma 2017, "PixelCNN++" (discretized mixtures of logistics).
"""

import math
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, one_hot, softplus

from densekit.distributions.logistic import log_mass_between
from densekit.distributions.normal import normal_mass_between

_FEW = 16
"""Largest number of ordered codes with a logit each. More codes share the parameters of a mixture."""
_MANY_CATEGORIES = 10_000
"""Number of categories above which a column needs so much memory that the user is warned."""
_RANK = 64
"""Largest number of outputs of the network for a column whose codes have logits."""
_READ = 16
"""Size of the embedding of a column with more than twice as many codes."""
_SPREAD = math.sqrt(3.0)
"""Ordered codes are spread evenly over [-_SPREAD, _SPREAD), where a uniform law has unit variance."""


def warn_of_many_categories(columns: Iterable[Any], n_rows: int, dtype: torch.dtype) -> None:
    """Warn of the memory that columns with more than 10,000 ``levels`` need.

    It is that of the parameters of each level (with gradient, two moments, average and best weights)
    and of the logits of ``n_rows`` rows."""
    for column in columns:
        if (k := len(column.levels)) > _MANY_CATEGORIES:
            size = k * (6 * (_READ + _RANK + 1) + 3 * n_rows) * dtype.itemsize
            warnings.warn(
                f"column {column.name!r} has {k:,} categories: what is learned of each, and their "
                f"masses for {n_rows} rows, take about {size / 2**20:,.0f} MiB; join rare "
                "categories, or leave the column out, where that is too much",
                UserWarning,
                stacklevel=3,
            )


class ColumnLaws(nn.Module):
    """Distributions of single columns, with parameters from a network, and inputs of the network.

    Outputs of the network become the distribution of each column; values of each column become inputs
    of the network. Arrays have one value for each entry of the flattened event, as in a schema.

    Parameters
    ----------
    cardinality : int array (D,)
        K for a code 0..K-1, and 0 for other entries.
    ordered : bool array (D,)
        Whether the codes are ordered.
    width : array (D,)
        Step h between neighboring integers, 0 for numbers and codes.
    n_components : int
        Components of each mixture.
    component : {"logistic", "normal"}
        Distribution of the components, F above.
    min_scale : float
        Lower bound of s, in event units. Without it the likelihood of a column with repeated values
        is unbounded.
    shares : array (D, greatest K), optional
        Initial probabilities of the codes; equal by default.
    ends : array (D, 2), optional
        Smallest and largest value of integers, infinite for others. The outermost bins extend to
        infinity, so that no mass is lost.

    Attributes
    ----------
    n_params : int
        P, the number of outputs of the network for each column.
    reads : list of int
        Number of inputs of the network for each column.
    entries : list of int or slice
        Places of each column in an event.
    n_entries : int
        E, the number of entries of an event, one per column here.
    widths : list of float
        h in float64, independent of the dtype of the module.

    Notes
    -----
    A column of more than 64 unordered codes has 64 parameters, which a learned matrix maps to logits. A
    column of more than 32 is read through an embedding of size 16. The cost of a column thus grows
    with its codes, not with the product of all widths. Samples are on the last axis: parameters
    (P, D, N), values (D, N).

    Examples
    --------
    A number, a binary code and a code with three unordered values:

    >>> laws = ColumnLaws([0, 2, 3], [False] * 3, [0.0] * 3, n_components=4)
    >>> laws.n_params, laws.reads
    (12, [1, 1, 3])
    >>> laws.log_prob(torch.zeros(12, 3, 7), torch.zeros(3, 7)).shape
    torch.Size([3, 7])
    """

    step: Tensor
    codes: Tensor
    bin_low: Tensor
    bin_high: Tensor
    read_slope: Tensor
    read_shift: Tensor

    def __init__(
        self,
        cardinality: ArrayLike,
        ordered: ArrayLike,
        width: ArrayLike,
        n_components: int = 8,
        component: str = "logistic",
        min_scale: float = 1e-3,
        shares: ArrayLike | None = None,
        ends: ArrayLike | None = None,
    ) -> None:
        super().__init__()
        card, is_ordered, h = (np.asarray(a) for a in (cardinality, ordered, width))
        self.n_dims, self.n_components, self.component = len(card), n_components, component
        self.entries: list[int | slice] = list(range(len(card)))
        self.n_entries = len(card)
        self.min_scale = min_scale
        many = is_ordered.astype(bool) & (card > _FEW)
        self.binary = _where(card == 2)
        coded = (card > 2) & ~many
        self.coded = {int(k): _where(coded & (card == k)) for k in np.unique(card[coded])}
        self.bins = _where(many | (h > 0))
        self.numbers = _where((card == 0) & (h <= 0))
        mixed = self.numbers + self.bins
        sizes = [min(int(k), _RANK) for k in self.coded]
        sizes += [1] * bool(self.binary) + [3 * n_components] * bool(mixed)
        self.n_params = max(sizes)
        self.widths = [float(v) for v in h]
        self._set_bins(card, h, ends)
        one_hots = self._set_inputs(card, is_ordered)
        self._set_learned(card, one_hots, shares)

    def _set_bins(self, card: np.ndarray, h: np.ndarray, ends: ArrayLike | None) -> None:
        """Register steps, numbers of codes and ends of the columns with bins."""
        # float64 until the module is given its dtype: rounded steps would leave gaps.
        K = card[self.bins].astype(float)
        step = np.where(K > 0, 2 * _SPREAD / np.maximum(K, 1), h[self.bins])
        reach = np.full((len(card), 2), [-np.inf, np.inf]) if ends is None else np.asarray(ends)
        low, high = reach[self.bins].reshape(-1, 2).T
        self._ended = bool(np.isfinite(low).any() or np.isfinite(high).any())
        bins = (("step", step), ("codes", K), ("bin_low", low), ("bin_high", high))
        for name, a in bins:
            self.register_buffer(name, torch.tensor(a)[:, None], persistent=False)

    def _set_inputs(self, card: np.ndarray, is_ordered: np.ndarray) -> np.ndarray:
        """Set how the network reads each column; return which columns it reads as one-hot codes."""
        # Numbers, ordered and binary codes are read as a * x + b.
        reads = np.ones(len(card), int)
        one_hots = (card > 2) & ~is_ordered.astype(bool)
        reads[one_hots] = np.where(card[one_hots] <= 2 * _READ, card[one_hots], _READ)
        self.reads = [int(r) for r in reads]
        a, b = np.ones(len(card)), np.zeros(len(card))
        a[card == 2], b[card == 2] = 2, -1
        scaled = (card > 2) & ~one_hots
        a[scaled] = 2 * _SPREAD / (card[scaled] - 1)
        b[scaled] = -_SPREAD
        for name, v in (("read_slope", a), ("read_shift", b)):
            self.register_buffer(name, torch.tensor(v).float()[:, None], persistent=False)
        return one_hots

    def _set_learned(
        self, card: np.ndarray, one_hots: np.ndarray, shares: ArrayLike | None
    ) -> None:
        """Initialize the parameters of columns with many codes, and the start of all columns."""
        self.cardinality = [int(k) for k in card]
        self.embeddings = nn.ParameterDict(
            {
                str(j): nn.Parameter(torch.randn(_READ, int(card[j])))
                for j in _where(one_hots & (card > 2 * _READ))
            }
        )
        self.matrices = nn.ParameterDict(
            {
                str(j): nn.Parameter(torch.randn(k, _RANK) / math.sqrt(_RANK))
                for k, js in self.coded.items()
                if k > _RANK
                for j in js
            }
        )
        shares = np.ones((len(card), max(1, card.max()))) if shares is None else np.asarray(shares)
        self.offsets = nn.ParameterDict(
            {
                str(j): nn.Parameter(torch.tensor(np.log(shares[j, :k, None]).astype(np.float32)))
                for k, js in self.coded.items()
                if k > _RANK
                for j in js
            }
        )
        self._start = self._starts(shares)

    def _starts(self, shares: np.ndarray) -> Tensor:
        """Parameters that give codes the probabilities ``shares``; mixtures are near standard."""
        start = torch.zeros(self.n_params, self.n_dims)
        logs = torch.tensor(np.log(np.maximum(shares, 1e-12)), dtype=start.dtype)
        for j in self.binary:
            if shares.shape[1] > 1:
                start[0, j] = logs[j, 1] - logs[j, 0]
        for k, js in self.coded.items():
            if k <= _RANK:
                start[:k, js] = logs[js, :k].t()
        mixed = self.numbers + self.bins
        M = self.n_components
        if mixed:
            middle = (torch.arange(M) + 0.5) / M
            start[M : 2 * M, mixed] = 0.8 * torch.special.ndtri(middle)[:, None]
        return start

    def start(self) -> Tensor:
        """Initial parameters (P, D): given probabilities of codes, mixtures near standard."""
        return self._start

    # What a network reads.

    def read(self, d: int, x: Tensor) -> Tensor:
        """Column d of events (E, N) as the network reads it, (reads[d], N)."""
        return self._read(d, x[self.entries[d]])

    def _read(self, d: int, x: Tensor) -> Tensor:
        """Values (n,) of column d as the network reads them."""
        K = self.cardinality[d]
        if str(d) in self.embeddings:
            return self.embeddings[str(d)][:, x.long().clamp(0, K - 1)]
        if self.reads[d] > 1:
            return one_hot(x.long().clamp(0, K - 1), K).t().to(x.dtype)
        return (self.read_slope[d] * x + self.read_shift[d])[None]

    def read_all(self, x: Tensor) -> Tensor:
        """Events (E, N) as the network reads them, (sum of reads, N)."""
        if max(self.reads) == 1:
            return torch.addcmul(self.read_shift, self.read_slope, x)
        return torch.cat([self.read(d, x) for d in range(self.n_dims)])

    # Scores and draws.

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """Log-mass or density of each column, (D, N), of events (E, N)."""
        return self._log_prob(params, x)

    def _log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """Log-mass or density of values (D, N)."""
        parts: list[tuple[list[int], Tensor]] = []
        if self.binary:
            sign = 2 * _rows(x, self.binary) - 1
            parts.append((self.binary, logsigmoid(sign * _rows(params[0], self.binary))))
        for K, columns in self.coded.items():
            at = _rows(x, columns).long().clamp(0, K - 1)
            if K > _RANK:
                logp = [self._logits(params, j, K).log_softmax(0) for j in columns]
                found = [t.gather(0, i[None])[0] for t, i in zip(logp, at, strict=True)]
                parts.append((columns, torch.stack(found)))
            else:
                logits = _rows(params[:K].transpose(0, 1), columns).log_softmax(1)
                parts.append((columns, logits.gather(1, at[:, None])[:, 0]))
        for columns, law in ((self.numbers, self._log_density), (self.bins, self._log_mass)):
            if columns:
                parts.append((columns, self._mixed(params, columns, _rows(x, columns), law)))
        if len(parts) == 1:
            return parts[0][1]
        place = torch.tensor([j for columns, _ in parts for j in columns], device=x.device)
        return torch.cat([logp for _, logp in parts]).index_select(0, place.argsort())

    def _logits(self, params: Tensor, d: int, K: int) -> Tensor:
        """Logits (K, n) of a column whose parameters are (P, D, n)."""
        return self._logits_of(params[:, d], d, K)

    def _logits_of(self, params: Tensor, d: int, K: int) -> Tensor:
        if K <= _RANK:
            return params[:K]
        return torch.addmm(self.offsets[str(d)], self.matrices[str(d)], params[:_RANK])

    def mixture(self, params: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights, locations and scales, (M, ...)."""
        M = self.n_components
        scale = self.min_scale + softplus(params[2 * M : 3 * M])
        return params[:M].log_softmax(0), params[M : 2 * M], scale

    def _mixed(
        self,
        params: Tensor,
        columns: list[int],
        x: Tensor,
        law: Callable[[Tensor, Tensor, Tensor], Tensor],
    ) -> Tensor:
        if len(columns) < params.shape[1]:
            params = params[:, columns]
        logw, loc, scale = self.mixture(params)
        return (logw + law(x, loc, scale)).logsumexp(0)

    def _log_density(self, x: Tensor, loc: Tensor, s: Tensor) -> Tensor:
        e = (x - loc) / s
        if self.component == "normal":
            return -0.5 * (e * e + math.log(2 * math.pi)) - s.log()
        # log f = log F(e) + log F(-e), even in e.
        a = e.abs()
        return -a - 2 * softplus(-a) - s.log()

    def _log_mass(self, t: Tensor, loc: Tensor, s: Tensor) -> Tensor:
        codes = self.codes > 0
        low = torch.where(codes, self.step * t - _SPREAD, t)
        first, last = codes & (t <= 0), codes & (t >= self.codes - 1)
        if self._ended:
            half = 0.5 * self.step
            first = first | (t < self.bin_low + half)
            last = last | (t > self.bin_high - half)
        a, b = (low - loc) / s, (low + self.step - loc) / s
        if self.component == "normal":
            return normal_mass_between(a, b, self.step / s, first, last)
        return log_mass_between(a, b, self.step / s, first, last)

    @torch.no_grad()
    def sample(self, d: int, params: Tensor, uniform: Tensor | None = None) -> Tensor:
        """Draw ``entries[d]`` of events from the parameters (P, n) of column d.

        With ``uniform``, (3, n) in [0, 1), the draws are a function of it."""
        return self._sample(d, params, uniform)

    def _sample(self, d: int, params: Tensor, uniform: Tensor | None = None) -> Tensor:
        """Draws of column d as values (n,)."""
        K = self.cardinality[d]
        first, second = (None, None) if uniform is None else uniform[:2]
        if K == 2:
            share = params[0].sigmoid()
            return torch.bernoulli(share) if first is None else (first < share).to(share.dtype)
        if d not in self.numbers and d not in self.bins:
            return _draw(self._logits_of(params, d, K), first).to(params.dtype)
        logw, loc, scale = self.mixture(params)
        which = _draw(logw, first)[None]
        loc, scale = loc.gather(0, which)[0], scale.gather(0, which)[0]
        x = loc + scale * self._noise(loc, second)
        if d in self.numbers:
            return x
        step = self.step[self.bins.index(d), 0]
        if K:
            return ((x + _SPREAD) / step).floor().clamp(0, K - 1)
        low, high = (e[self.bins.index(d), 0] for e in (self.bin_low, self.bin_high))
        return ((x / step).floor() * step).clamp(low, high)

    def _noise(self, like: Tensor, uniform: Tensor | None) -> Tensor:
        """Draws of a component with location 0 and scale 1, (n,)."""
        normal = self.component == "normal"
        if normal and uniform is None:
            return torch.randn_like(like)
        tiny = torch.finfo(like.dtype).eps
        u = torch.rand_like(like) if uniform is None else uniform.to(like.dtype)
        u = u.clamp(tiny, 1 - tiny)
        return torch.special.ndtri(u) if normal else u.logit()


def _draw(logits: Tensor, uniform: Tensor | None = None) -> Tensor:
    """Codes (n,) with these logits (K, n): by a race of exponential clocks, or as a function of
    ``uniform``, (n,) in [0, 1)."""
    if uniform is not None:
        ends = logits.softmax(0).cumsum(0)
        return (uniform * ends[-1] >= ends).sum(0).clamp_max(len(logits) - 1)
    race = torch.empty_like(logits).exponential_().log()
    return (logits - race).argmax(0)


def _where(mask: np.ndarray) -> list[int]:
    return [int(j) for j in np.flatnonzero(mask)]


def _rows(x: Tensor, columns: list[int]) -> Tensor:
    """The rows of ``x``, without a copy when it is all of them."""
    return x if len(columns) == len(x) else x[columns]
