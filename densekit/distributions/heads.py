r"""Typed heads: from the numbers that a network puts out to a distribution over typed events.

Each entry of an event gets the law that suits it:

.. math::
    p(x) &= t_\nu((x - \mu) / s) / s                     && \text{numbers} \\
    P(t) &= F((t + w - \mu) / s) - F((t - \mu) / s)     && \text{integers, a step } w \text{ apart} \\
    P(k) &= F((e_{k+1} - \mu) / s) - F((e_k - \mu) / s) && \text{ordered codes } 0, \dots, K-1 \\
    P(k) &= \exp(l_k) / \textstyle\sum_j \exp(l_j)      && \text{other codes, indicators of atoms}

with Student's :math:`t_\nu` (a few wild rows would rule a normal's scale; :math:`\nu > 2` is learned
for each column), the logistic :math:`F(x) = 1 / (1 + e^{-x})` and the edges
:math:`e_k = (\Phi^{-1}(k / K) - m) / v`, so that :math:`e_0 = -\infty`, :math:`e_K = \infty` and the
masses sum to one, outermost bins included. A code with two values has one logit. Given the
network's output the entries are independent, but for a value behind the indicator of its atoms: on an
atom it says nothing and is 0.

References
----------
Salimans, Karpathy, Chen & Kingma 2017, "PixelCNN++" (the discretized logistic). Rybkin, Daniilidis
& Levine 2021, "Simple and effective VAE training with calibrated decoders" (the learned scale).
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import logsigmoid, softplus

from densekit.distributions.logistic import log_mass_between

_START = math.log(math.expm1(0.1))
"""Scales start at 0.1, where what the network says about a location counts: a latent variable
that starts under the noise of its decoder is never used."""


class TypedHead(nn.Module):
    """The output layer of a model of typed events: parameters in, a distribution out.

    The arrays are a schema's, one value for each entry of the flattened event.

    Parameters
    ----------
    cardinality : int array (D,)
        K where the entry is a code 0..K-1, else 0.
    ordered : bool array (D,)
        Whether the order of the codes means something.
    width : array (D,)
        Step between neighboring integers, 0 for numbers and codes.
    shift, spread : array (D,)
        m and v above, read for ordered codes.
    pairs : sequence of (indicator, value)
        Places of the indicator and of the value of each column with atoms.
    min_scale : float
        Lower bound of s, in event units. Without one, a column that repeats its values would take
        the likelihood to infinity.

    Attributes
    ----------
    n_parameters : int
        How many numbers per event the network has to put out.

    Raises
    ------
    ValueError
        The arrays differ in length.

    Examples
    --------
    A number, a binary code and a code with three unordered values:

    >>> head = TypedHead([0, 2, 3], [False] * 3, [0.0] * 3, [0.0] * 3, [1.0] * 3)
    >>> head.n_parameters
    6
    >>> d = head(torch.zeros(7, 6))
    >>> d.batch_shape, d.event_shape
    (torch.Size([7]), torch.Size([3]))
    """

    codes: Tensor
    width: Tensor
    shift: Tensor
    spread: Tensor

    def __init__(
        self,
        cardinality: ArrayLike,
        ordered: ArrayLike,
        width: ArrayLike,
        shift: ArrayLike,
        spread: ArrayLike,
        *,
        pairs: Sequence[tuple[int, int]] = (),
        min_scale: float = 0.01,
    ) -> None:
        super().__init__()
        arrays = [np.asarray(a, float) for a in (cardinality, ordered, width, shift, spread)]
        if len({len(a) for a in arrays}) > 1:
            raise ValueError(
                "cardinality, ordered, width, shift and spread describe the same entries, but have "
                f"lengths {[len(a) for a in arrays]}"
            )
        card, is_ordered, step, m, v = arrays
        self.n_dims, self.min_scale, self.pairs = len(card), min_scale, list(pairs)
        in_bins = (step > 0) | ((is_ordered > 0) & (card > 2))
        self.numbers = _where((card == 0) & (step <= 0))
        self.bins = _where(in_bins)
        self.binary = _where(card == 2)
        # Unordered columns with equally many values are scored in one go.
        rest = ~in_bins & (card > 0) & (card != 2)
        self.unordered = {int(k): _where(rest & (card == k)) for k in np.unique(card[rest])}
        for name, a in (("codes", card), ("width", step), ("shift", m), ("spread", v)):
            # float64 until the module is given its dtype: rounded widths would leave gaps.
            self.register_buffer(name, torch.tensor(a[self.bins]), persistent=False)
        n_scales = len(self.numbers) + len(self.bins)
        self.raw_df = nn.Parameter(torch.full((len(self.numbers),), 2.0))
        categories = [k * len(js) for k, js in self.unordered.items()]
        self.sizes = [n_scales, n_scales, len(self.binary), *categories]
        self.n_parameters = sum(self.sizes)

    def forward(self, parameters: Tensor) -> "Typed":
        """Parameters (..., n_parameters) to a distribution of batch shape (...)."""
        loc, raw, logit, *logits = parameters.split(self.sizes, -1)
        scale = self.min_scale + softplus(raw + _START)
        return Typed(self, loc, scale, 2 + self.raw_df.exp(), logit, logits)

    def hidden(self, value: Tensor) -> Tensor | None:
        """Which entries of events (..., D) are values of rows that sit on an atom."""
        if not self.pairs:
            return None
        mask = torch.zeros_like(value, dtype=torch.bool)
        for indicator, place in self.pairs:
            mask[..., place] = value[..., indicator] > 0
        return mask

    def edges(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Of the bins (..., n_bins) that start at ``t``: both edges and the width, finite everywhere,
        and masks of those that reach to minus and to plus infinity."""
        codes, K = self.codes > 0, self.codes.clamp_min(1)
        tiny = torch.finfo(t.dtype).eps
        low, high = ((t + i) / K for i in (0, 1))
        low, high = (torch.special.ndtri(p.clamp(tiny, 1 - tiny)) for p in (low, high))
        low, high = ((q - self.shift) / self.spread for q in (low, high))
        # The step itself, since far from zero it is lost in the difference of two edges.
        width = torch.where(codes, high - low, self.width)
        low, high = torch.where(codes, low, t), torch.where(codes, high, t + self.width)
        return low, high, width, codes & (t <= 0), codes & (t >= K - 1)

    def from_bins(self, z: Tensor) -> Tensor:
        """The values whose bins hold ``z`` (..., n_bins)."""
        K, step = self.codes.clamp_min(1), torch.where(self.width > 0, self.width, 1.0)
        code = (torch.special.ndtr(z * self.spread + self.shift) * K).floor()
        code = torch.minimum(code.clamp_min(0), K - 1)
        return torch.where(self.codes > 0, code, (z / step).floor() * step)


class Typed(TorchDistribution):
    r"""Independent entries of mixed type, given the parameters of each; see `TypedHead`.

    The density is with respect to the product of Lebesgue measure on numbers and counting measure
    on integers and codes. Event shape (D,); what is no code of a column has ``-inf``.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.real_vector

    def __init__(
        self,
        head: TypedHead,
        loc: Tensor,
        scale: Tensor,
        df: Tensor,
        logit: Tensor,
        logits: Sequence[Tensor],
    ) -> None:
        self.head, self.loc, self.scale, self.df, self.logit = head, loc, scale, df, logit
        self.logits = list(logits)
        super().__init__(loc.shape[:-1], torch.Size([head.n_dims]), validate_args=False)

    @property
    def has_rsample(self) -> bool:
        """Whether every entry is a number, so that draws can be differentiated."""
        return len(self.head.numbers) == self.head.n_dims

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> "Typed":
        """The same distribution with a larger batch shape."""
        loc, scale, logit, *logits = (
            p.expand(*batch_shape, p.shape[-1])
            for p in (self.loc, self.scale, self.logit, *self.logits)
        )
        return Typed(self.head, loc, scale, self.df, logit, logits)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of ``value`` (..., D), summed over the entries: shape (...), in nats."""
        head, n = self.head, len(self.head.numbers)
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        logp, hidden = value.new_zeros(shape), head.hidden(value)
        if head.numbers:
            loc, scale, half = self.loc[..., :n], self.scale[..., :n], 0.5 * self.df
            e = (_take(value, head.numbers) - loc) / scale
            level = (
                torch.lgamma(half + 0.5) - torch.lgamma(half) - 0.5 * (torch.pi * self.df).log()
            )
            fall = (half + 0.5) * torch.log1p(e * e / self.df)
            each = _shown(level - fall - scale.log(), hidden, head.numbers)
            logp = logp + each.sum(-1)
        if head.bins:
            t = _take(value, head.bins)
            masses = self._log_mass(t, self.loc[..., n:], self.scale[..., n:])
            logp = logp + _shown(masses, hidden, head.bins).sum(-1)
        if head.binary:
            k = _take(value, head.binary)
            # log P(1) = log F(l) and log P(0) = log F(-l).
            logp = logp + _only((k == 0) | (k == 1), logsigmoid((2 * k - 1) * self.logit)).sum(-1)
        for (K, columns), logits in zip(head.unordered.items(), self.logits, strict=True):
            k = _take(value, columns)
            log_mass = logits.unflatten(-1, (len(columns), K)).log_softmax(-1)
            at = k.long().clamp(0, K - 1).expand(*shape, len(columns))
            log_mass = log_mass.expand(*shape, len(columns), K).gather(-1, at[..., None])
            logp = logp + _only((k >= 0) & (k < K) & (k == k.floor()), log_mass.squeeze(-1)).sum(
                -1
            )
        return logp

    def _log_mass(self, t: Tensor, loc: Tensor, s: Tensor) -> Tensor:
        low, high, width, first, last = self.head.edges(t)
        logp = log_mass_between((low - loc) / s, (high - loc) / s, width / s, first, last)
        codes = self.head.codes
        is_value = (codes == 0) | ((t >= 0) & (t < codes) & (t == t.floor()))
        return _only(is_value, logp)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """Draws (\\*sample_shape, \\*batch_shape, D), differentiable in the parameters."""
        if not self.has_rsample:
            raise NotImplementedError("codes and integers cannot be differentiated; use sample()")
        shape = torch.Size([*sample_shape, *self.loc.shape])
        t = torch.distributions.StudentT(self.df.expand(shape), validate_args=False).rsample()
        return self.loc + self.scale * t

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """Draws (\\*sample_shape, \\*batch_shape, D)."""
        head, n = self.head, len(self.head.numbers)
        x = self.loc.new_empty(*sample_shape, *self.batch_shape, head.n_dims)
        loc = self.loc.expand(*sample_shape, *self.loc.shape)
        t = torch.distributions.StudentT(
            self.df.expand_as(loc[..., :n]), validate_args=False
        ).sample()
        x[..., head.numbers] = loc[..., :n] + self.scale[..., :n] * t
        tiny = torch.finfo(x.dtype).eps
        logistic = torch.rand_like(loc[..., n:]).clamp(tiny, 1 - tiny).logit()
        x[..., head.bins] = head.from_bins(loc[..., n:] + self.scale[..., n:] * logistic)
        p = self.logit.sigmoid().expand(*sample_shape, *self.logit.shape)
        x[..., head.binary] = torch.bernoulli(p)
        for (K, columns), logits in zip(head.unordered.items(), self.logits, strict=True):
            each = logits.unflatten(-1, (len(columns), K))
            x[..., columns] = (
                torch.distributions.Categorical(logits=each, validate_args=False)
                .sample(sample_shape)
                .to(x.dtype)
            )
        hidden = head.hidden(x)
        return x if hidden is None else x.masked_fill(hidden, 0.0)


def _where(mask: np.ndarray) -> list[int]:
    return [int(j) for j in np.flatnonzero(mask)]


def _take(value: Tensor, columns: list[int]) -> Tensor:
    """The columns of ``value``, without a copy when it is all of them."""
    return value if len(columns) == value.shape[-1] else value[..., columns]


def _shown(logp: Tensor, hidden: Tensor | None, columns: list[int]) -> Tensor:
    """Without the values of rows that sit on an atom."""
    return logp if hidden is None else torch.where(hidden[..., columns], 0.0, logp)


def _only(valid: Tensor, logp: Tensor) -> Tensor:
    return torch.where(valid, logp, -torch.inf)
