r"""Typed heads: from the outputs of a network to a distribution of typed events.

Each entry of an event has the distribution of its type:

.. math::
    p(x) &= t_\nu((x - \mu) / s) / s                     && \text{floats} \\
    P(t) &= F((t + w - \mu) / s) - F((t - \mu) / s)     && \text{integers, a step } w \text{ apart} \\
    P(k) &= F((e_{k+1} - \mu) / s) - F((e_k - \mu) / s) && \text{ordered codes } 0, \dots, K-1 \\
    P(k) &= \exp(l_k) / \textstyle\sum_j \exp(l_j)      && \text{other codes, indicators of atoms}

:math:`t_\nu` is Student's t, whose :math:`\nu > 2` is learned for each column; the scale of a
normal would depend on a few extreme rows. F is the logistic function :math:`F(x) = 1 / (1 +
e^{-x})`, and the edges are :math:`e_k = (\Phi^{-1}(k / K) - m) / v`, so that :math:`e_0 =
-\infty`, :math:`e_K = \infty` and the probabilities sum to one, including the outermost bins. A
code with two values has one logit. Given the output of the network the entries are independent,
except for a value whose column has atoms: on an atom the value is 0 and does not contribute.

References
----------
T. Salimans, A. Karpathy, X. Chen and D. P. Kingma. PixelCNN++. ICLR 2017 (the discretized
logistic). https://arxiv.org/abs/1701.05517

O. Rybkin, K. Daniilidis and S. Levine. Simple and Effective VAE Training with Calibrated Decoders.
ICML 2021 (the learned scale). https://arxiv.org/abs/2006.13202
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

_INITIAL_RAW_SCALE = math.log(math.expm1(0.1))
"""Scales start at 0.1, so that the locations matter; a latent variable whose effect is smaller than
the noise of its decoder at the start is never used.
"""


class TypedHead(nn.Module):
    """Output layer of a model of typed events, from parameters to a distribution.

    The arrays are those of a schema, with one value per entry of the flattened event.

    Parameters
    ----------
    cardinality : int array (D,)
        K if the entry is a code 0..K-1, else 0.
    ordered : bool array (D,)
        Whether the codes are ordered.
    width : array (D,)
        Step between neighboring integers, 0 for floats and codes.
    shift, spread : array (D,)
        m and v above, used for ordered codes.
    pairs : sequence of (indicator, value)
        Positions of the indicator and the value of each column with atoms.
    min_scale : float
        Lower bound of s, in event units. Without it the likelihood of a column that repeats its
        values would be unbounded.

    Attributes
    ----------
    n_parameters : int
        Number of outputs that the network needs per event.

    Raises
    ------
    ValueError
        If the arrays differ in length.

    Examples
    --------
    A float, a binary code and a code with three unordered values:

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
        self.numbers = _indices((card == 0) & (step <= 0))
        self.bins = _indices(in_bins)
        self.binary = _indices(card == 2)
        # Unordered columns with the same number of values are scored together.
        rest = ~in_bins & (card > 0) & (card != 2)
        self.unordered = {int(k): _indices(rest & (card == k)) for k in np.unique(card[rest])}
        for name, a in (("codes", card), ("width", step), ("shift", m), ("spread", v)):
            # float64 until the module is converted: rounded widths would leave gaps between integers.
            self.register_buffer(name, torch.tensor(a[self.bins]), persistent=False)
        n_scales = len(self.numbers) + len(self.bins)
        self.raw_df = nn.Parameter(torch.full((len(self.numbers),), 2.0))
        categories = [k * len(js) for k, js in self.unordered.items()]
        self.sizes = [n_scales, n_scales, len(self.binary), *categories]
        self.n_parameters = sum(self.sizes)

    def forward(self, parameters: Tensor) -> "Typed":
        """The distribution with parameters (..., n_parameters); its batch shape is (...)."""
        loc, raw, logit, *logits = parameters.split(self.sizes, -1)
        scale = self.min_scale + softplus(raw + _INITIAL_RAW_SCALE)
        return Typed(self, loc, scale, 2 + self.raw_df.exp(), logit, logits)

    def on_atom(self, value: Tensor) -> Tensor | None:
        """Mask of the entries of events (..., D) that are values of columns whose row is on an atom."""
        if not self.pairs:
            return None
        mask = torch.zeros_like(value, dtype=torch.bool)
        for indicator, place in self.pairs:
            mask[..., place] = value[..., indicator] > 0
        return mask

    def edges(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Edges of the bins (..., n_bins) that start at ``t``.

        Returns both edges and the width, all finite, and masks of the bins that extend to minus
        and to plus infinity.
        """
        codes, K = self.codes > 0, self.codes.clamp_min(1)
        tiny = torch.finfo(t.dtype).eps
        low, high = ((t + i) / K for i in (0, 1))
        low, high = (torch.special.ndtri(p.clamp(tiny, 1 - tiny)) for p in (low, high))
        low, high = ((q - self.shift) / self.spread for q in (low, high))
        # The step is used directly, because far from zero the difference of two edges is rounded.
        width = torch.where(codes, high - low, self.width)
        low, high = torch.where(codes, low, t), torch.where(codes, high, t + self.width)
        return low, high, width, codes & (t <= 0), codes & (t >= K - 1)

    def from_bins(self, z: Tensor) -> Tensor:
        """The values whose bins contain ``z`` (..., n_bins)."""
        K, step = self.codes.clamp_min(1), torch.where(self.width > 0, self.width, 1.0)
        code = (torch.special.ndtr(z * self.spread + self.shift) * K).floor()
        code = torch.minimum(code.clamp_min(0), K - 1)
        return torch.where(self.codes > 0, code, (z / step).floor() * step)


class Typed(TorchDistribution):
    """Independent entries of mixed type with given parameters; see `TypedHead`.

    The density is with respect to the product of Lebesgue measure for floats and counting measure
    for integers and codes. Event shape (D,). A value that is not a code of its column scores
    ``-inf``.
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
        """Whether all entries are floats, so that samples can be differentiated."""
        return len(self.head.numbers) == self.head.n_dims

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> "Typed":
        """The distribution with its batch shape expanded."""
        loc, scale, logit, *logits = (
            p.expand(*batch_shape, p.shape[-1])
            for p in (self.loc, self.scale, self.logit, *self.logits)
        )
        return Typed(self.head, loc, scale, self.df, logit, logits)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density in nats of ``value`` (..., D), summed over the entries: (...)."""
        head, n = self.head, len(self.head.numbers)
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        logp, on_atom = value.new_zeros(shape), head.on_atom(value)
        if head.numbers:
            loc, scale, half = self.loc[..., :n], self.scale[..., :n], 0.5 * self.df
            e = (_take(value, head.numbers) - loc) / scale
            level = (
                torch.lgamma(half + 0.5) - torch.lgamma(half) - 0.5 * (torch.pi * self.df).log()
            )
            fall = (half + 0.5) * torch.log1p(e * e / self.df)
            each = _without_atoms(level - fall - scale.log(), on_atom, head.numbers)
            logp = logp + each.sum(-1)
        if head.bins:
            t = _take(value, head.bins)
            masses = self._log_mass(t, self.loc[..., n:], self.scale[..., n:])
            logp = logp + _without_atoms(masses, on_atom, head.bins).sum(-1)
        if head.binary:
            k = _take(value, head.binary)
            # log P(1) = log F(l) and log P(0) = log F(-l).
            logp = logp + _where_valid(
                (k == 0) | (k == 1), logsigmoid((2 * k - 1) * self.logit)
            ).sum(-1)
        for (K, columns), logits in zip(head.unordered.items(), self.logits, strict=True):
            k = _take(value, columns)
            log_mass = logits.unflatten(-1, (len(columns), K)).log_softmax(-1)
            at = k.long().clamp(0, K - 1).expand(*shape, len(columns))
            log_mass = log_mass.expand(*shape, len(columns), K).gather(-1, at[..., None])
            logp = logp + _where_valid(
                (k >= 0) & (k < K) & (k == k.floor()), log_mass.squeeze(-1)
            ).sum(-1)
        return logp

    def _log_mass(self, t: Tensor, loc: Tensor, s: Tensor) -> Tensor:
        low, high, width, first, last = self.head.edges(t)
        logp = log_mass_between((low - loc) / s, (high - loc) / s, width / s, first, last)
        codes = self.head.codes
        is_value = (codes == 0) | ((t >= 0) & (t < codes) & (t == t.floor()))
        return _where_valid(is_value, logp)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        r"""Samples (\*sample_shape, \*batch_shape, D), differentiable in the parameters."""
        if not self.has_rsample:
            raise NotImplementedError(
                "samples of codes and integers are not differentiable; use sample()"
            )
        shape = torch.Size([*sample_shape, *self.loc.shape])
        t = torch.distributions.StudentT(self.df.expand(shape), validate_args=False).rsample()
        return self.loc + self.scale * t

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        r"""Samples (\*sample_shape, \*batch_shape, D)."""
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
        on_atom = head.on_atom(x)
        return x if on_atom is None else x.masked_fill(on_atom, 0.0)


def _indices(mask: np.ndarray) -> list[int]:
    return [int(j) for j in np.flatnonzero(mask)]


def _take(value: Tensor, columns: list[int]) -> Tensor:
    """Select columns of ``value``, without a copy if these are all of them."""
    return value if len(columns) == value.shape[-1] else value[..., columns]


def _without_atoms(logp: Tensor, on_atom: Tensor | None, columns: list[int]) -> Tensor:
    """Set the terms of values on atoms to zero."""
    return logp if on_atom is None else torch.where(on_atom[..., columns], 0.0, logp)


def _where_valid(valid: Tensor, logp: Tensor) -> Tensor:
    """Set the log-probability of invalid values to -inf."""
    return torch.where(valid, logp, -torch.inf)
