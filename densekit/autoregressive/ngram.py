"""Interpolated modified Kneser-Ney n-gram model."""

from typing import Annotated, ClassVar

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from densekit.autoregressive.language import LanguageModel
from densekit.base import Capabilities
from densekit.distributions.backoff import BackoffTable, Order, find, stream
from densekit.distributions.sequence import PADDING, TokenSequence, begin
from densekit.params import Interval

_N_HELD_OUT, _MIN_HELD_OUT = 50_000, 10_000
"""Target and smallest number of held-out tokens on which discounts are tuned."""


class NGram(LanguageModel):
    r"""Interpolated modified Kneser-Ney n-gram model.

    .. math:: p_k(w \mid h) = \frac{c_k(hw) - D_k(c_k(hw))}{\sum_v c_k(hv)}
              + \frac{\sum_j D_k(j)\, N_j(h)}{\sum_v c_k(hv)}\; p_{k-1}(w \mid h')

    Here h are the k - 1 tokens before w, h' is h without its oldest token, and N_j(h) is the
    number of tokens seen j times after h. For the longest contexts, and for those that reach back
    to the beginning of the string, c_k are counts; for shorter contexts they are numbers of
    distinct preceding tokens. The discounts D_k(1), D_k(2), D_k(3 and more) are estimated from the
    counts of counts n_j,

    .. math:: D_k(j) = j - (j + 1)\, \frac{n_1}{n_1 + 2 n_2} \frac{n_{j+1}}{n_j},

    or, if a tenth of the rows has at least 10,000 tokens, by maximum likelihood on held-out rows:
    every tenth of the distinct rows, or fewer rows with about 50,000 tokens. The final counts use
    all rows. A ``sample_weight`` must be a whole number: a row of weight w counts w times.

    The shortest context interpolates with the uniform distribution over all tokens, including the
    unknown symbol and the end. Hence every string of at most ``max_length`` tokens has a positive
    probability, and all probabilities sum to one. ``score_samples`` is the exact log-probability
    in nats, including the end of the string.

    X is a list or Series of strings, one per sample. Prompts work as in
    :class:`TransformerLanguageModel`.

    Parameters
    ----------
    order : int
        n: a token depends on the n - 1 tokens before it. Memory and time grow with the number of
        distinct n-grams.

    Attributes
    ----------
    unigram_ : (vocab_size,) array
        Probabilities without a context.
    keys_, values_, leftover_ : tuples of order - 1 arrays
        For each k = 2 ... n: the k-grams, the discounted probability of each one's last token, and
        the probability that each context passes on to shorter contexts.
    discounts_ : (order, 3) array
        D_k(1), D_k(2), D_k(3 and more). There are fewer rows if no string is as long as ``order``.

    References
    ----------
    R. Kneser and H. Ney. Improved Backing-off for M-gram Language Modeling. ICASSP 1995.
    https://doi.org/10.1109/ICASSP.1995.479394

    S. F. Chen and J. Goodman. An Empirical Study of Smoothing Techniques for Language Modeling.
    Computer Speech and Language, 1999. https://doi.org/10.1006/csla.1999.0128

    Examples
    --------
    >>> from densekit import NGram
    >>> model = NGram(order=3).fit(["abba", "baab", "abab", "bb"])
    >>> model.score_samples(["ab", "zz"]).shape
    (2,)
    >>> len(model.sample(2, context="ab", random_state=0))
    2
    """

    order: Annotated[int, Interval(ge=1)] = 6

    _capabilities: ClassVar[Capabilities] = Capabilities(
        density="exact",
        view="typed",
        modalities=("text",),
        context="prompt",
        weights=True,
        score_batch=16384,
    )

    def _fit(self, events: Tensor, context: Tensor | None, weights: Tensor | None = None) -> None:
        # A prompt is counted as the beginning of its string.
        given = begin(events[:, :0] if context is None else context)
        rows, times = _distinct(torch.cat([given, events], 1), weights)
        x, place = (a.cpu().numpy() for a in stream(rows))
        times = times[np.cumsum(place == 0) - 1]
        # The end after max_length tokens is certain, so it is not counted.
        free = place < self.schema_.event_shape[0]
        tokens = x[free], place[free], times[free]
        counts, keys = _count(*tokens, self.order, self.schema_.vocab_size)
        self.discounts_ = np.array([_discounts(c) for c in counts])
        every = max(10, int(tokens[2].sum()) // _N_HELD_OUT)
        row = np.cumsum(tokens[1] == 0) % every
        held_out = row == every - 1
        if tokens[2][held_out].sum() >= _MIN_HELD_OUT:
            kept_x, kept_place, kept_times = (a[~held_out] for a in tokens)
            counts_and_keys = _count(
                kept_x, kept_place, kept_times, self.order, self.schema_.vocab_size
            )
            tuned = _tuned(*counts_and_keys, self.discounts_, *(a[held_out] for a in tokens))
            self.discounts_[: len(tuned)] = tuned
        self.unigram_ = _unigram(counts[0], self.discounts_[0])
        self.keys_ = tuple(keys)
        v, sizes = self.schema_.vocab_size, [self.schema_.vocab_size, *map(len, keys)]
        smoothed = [
            _smooth(c, k // v, n, d)
            for c, k, n, d in zip(counts[1:], keys, sizes, self.discounts_[1:], strict=False)
        ]
        self.values_ = tuple(values for values, _ in smoothed)
        self.leftover_ = tuple(leftover for _, leftover in smoothed)

    def _distribution(self, context: Tensor | None) -> TokenSequence:
        def on(array: np.ndarray) -> Tensor:
            return torch.as_tensor(array, device=self.device_)

        orders = [
            Order(on(k), on(p), on(left))
            for k, p, left in zip(self.keys_, self.values_, self.leftover_, strict=True)
        ]
        table = BackoffTable(on(self.unigram_), orders)
        return TokenSequence(table, self.schema_.event_shape[0] - 1, context)


def _distinct(rows: Tensor, weights: Tensor | None) -> tuple[Tensor, np.ndarray]:
    """The distinct rows of ids, in order of first occurrence, and how often each one occurs."""
    times = np.ones(len(rows)) if weights is None else weights.cpu().numpy()
    if weights is not None and (fractional := times != np.rint(times)).any():
        row = int(fractional.argmax())
        raise ValueError(
            f"sample_weight is {times[row]:g} in row {row} of those with a weight: an NGram counts rows "
            "and needs whole numbers; scale and round the weights"
        )
    # Two 64-bit hashes identify the rows, which is faster than sorting whole rows.
    ids = np.ascontiguousarray(rows.cpu().numpy()).view(np.uint64)
    factors = np.random.default_rng(0).integers(2**63, size=(2, ids.shape[1]), dtype=np.uint64)
    hash_1, hash_2 = (ids @ (2 * f + 1) for f in factors)
    _, first, which = np.unique(hash_1, return_index=True, return_inverse=True)
    if (hash_2 != hash_2[first[which]]).any():
        _, first, which = np.unique(ids, axis=0, return_index=True, return_inverse=True)
    total = np.bincount(which.ravel(), times)
    order = np.argsort(first)
    return rows[torch.from_numpy(first[order]).to(rows.device)], total[order].astype(np.int64)


def _counted(codes: np.ndarray, times: np.ndarray, size: int = 0) -> np.ndarray:
    """How often each code occurs, as integers; exact up to 2^53."""
    return np.bincount(codes, times, minlength=size).astype(np.int64)


def _count(
    x: np.ndarray, place: np.ndarray, times: np.ndarray, order: int, vocab_size: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Kneser-Ney counts of the 1-grams, (vocab_size,), and of the k-grams for each k > 1, with their
    keys.

    ``x`` are tokens, ``place`` their positions in their strings and ``times`` how often each
    occurs. :class:`~densekit.distributions.backoff.Order` describes the keys.
    """
    uses = _counted(x[place > 0], times[place > 0], vocab_size)
    counts, keys = [uses], []
    # The index of the k-gram that ends at each token, -1 where there is none.
    gram = x.astype(np.int64)
    for k in range(2, order + 1):
        at = np.flatnonzero(place >= k - 1)
        if not len(at):
            break
        known, first, inverse = np.unique(
            gram[at - 1] * vocab_size + x[at], return_index=True, return_inverse=True
        )
        # The count of a shorter k-gram is replaced by its number of distinct preceding tokens, except
        # at the beginning of a string, where nothing precedes it.
        shorter, ends = counts[-1], gram[at[first]]
        n_preceding = np.bincount(ends, minlength=len(shorter))
        counts[-1] = np.where(n_preceding > 0, n_preceding, shorter)
        counts.append(_counted(inverse, times[at]))
        keys.append(known)
        gram = np.full(len(x), -1)
        gram[at] = inverse
    return counts, keys


def _discounts(counts: np.ndarray) -> np.ndarray:
    """D(1), D(2), D(3 and more) from the counts of counts.

    Where these are too few to estimate a discount, or the estimate is not positive, D(j) is j / 2.
    """
    n = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].astype(float)
    j = np.arange(1, 4)
    if (n[:3] == 0).any():
        return j / 2
    d = j - (j + 1) * n[0] / (n[0] + 2 * n[1]) * n[1:] / n[:3]
    return np.where((d > 0.05) & (d <= j), d, j / 2)


def _backoff_terms(
    counts: list[np.ndarray], keys: list[np.ndarray], x: np.ndarray, place: np.ndarray
) -> list[tuple[Tensor, ...]]:
    """For each order and each held-out token, what the formula of the model needs.

    These are the counts of the token after its context and of any token after it, the fractions of
    tokens seen once, twice and more often after it, and whether the context is known.
    """
    v, target = len(counts[0]), place > 0
    gram, n_contexts = x, [1, v, *map(len, keys)]
    terms = []
    for k, (count, n) in enumerate(zip(counts, n_contexts, strict=False)):
        context = np.zeros(len(x), int) if k == 0 else np.where(place >= k, np.roll(gram, 1), -1)
        context_of = np.zeros(v, int) if k == 0 else keys[k - 1] // v
        if k:
            found = find(torch.as_tensor(keys[k - 1]), torch.as_tensor(context * v + x))
            gram = found.numpy()
        seen = np.minimum(count, 3)
        total = np.append(np.bincount(context_of, count, minlength=n), 0)[context][target]
        n_seen = [np.append(np.bincount(context_of[seen == j], minlength=n), 0) for j in (1, 2, 3)]
        n_seen = [number[context][target] for number in n_seen]
        fractions = np.stack(n_seen, 1) / np.maximum(total, 1)[:, None]
        token_count = np.append(count, 0)[gram][target]
        arrays = (token_count, np.maximum(total, 1), fractions, total > 0)
        terms.append(tuple(map(torch.as_tensor, arrays)))
    return terms


def _tuned(
    counts: list[np.ndarray],
    keys: list[np.ndarray],
    discounts: np.ndarray,
    x: np.ndarray,
    place: np.ndarray,
    times: np.ndarray,
) -> np.ndarray:
    """Discounts that maximize the likelihood of held-out tokens, (n_orders, 3)."""
    weight = torch.as_tensor(times[place > 0] / times[place > 0].sum())
    v, terms = len(counts[0]), _backoff_terms(counts, keys, x, place)

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        with torch.enable_grad():
            raw = torch.tensor(theta, requires_grad=True)
            d = most * raw.view(-1, 3).sigmoid()
            p = torch.full((len(weight),), 1 / (v - 1), dtype=torch.double)
            for (token_count, context_count, n_discounted, context_known), row in zip(
                terms, d, strict=True
            ):
                discount = torch.cat([row.new_zeros(1), row])[token_count.clamp_max(3).long()]
                p = torch.where(
                    context_known,
                    (token_count - discount) / context_count + n_discounted @ row * p,
                    p,
                )
            nats = -(weight * p.log()).sum()
            nats.backward()
        assert raw.grad is not None
        return nats.item(), raw.grad.numpy()

    most = torch.arange(1, 4)
    share_of_most = (discounts[: len(counts)] / np.arange(1, 4)).clip(0.05, 0.95)
    best = minimize(
        loss,
        np.log(share_of_most / (1 - share_of_most)).ravel(),
        jac=True,
        options={"maxiter": 40},
    )
    return (most * torch.tensor(best.x).view(-1, 3).sigmoid()).numpy()


def _smooth(
    counts: np.ndarray, contexts: np.ndarray, n_contexts: int, discounts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Values and leftovers of an :class:`~densekit.distributions.backoff.Order`."""
    discount = np.concatenate([[0.0], discounts])[np.minimum(counts, 3)]
    total = np.bincount(contexts, counts, minlength=n_contexts)
    discounted = np.bincount(contexts, discount, minlength=n_contexts)
    values = (counts - discount) / np.maximum(total, 1)[contexts]
    leftover = np.divide(discounted, total, out=np.ones(n_contexts), where=total > 0)
    return np.append(values, 0.0), np.append(leftover, 1.0)


def _unigram(counts: np.ndarray, discounts: np.ndarray) -> np.ndarray:
    """Probabilities of single tokens: discounted counts plus the uniform distribution over all ids
    but padding.
    """
    values, leftover = _smooth(counts, np.zeros(len(counts), int), 1, discounts)
    p = values[:-1] + leftover[0] / (len(counts) - 1)
    p[PADDING] = 0.0
    return p / p.sum()
