"""Interpolated Kneser-Ney: counts of token n-grams, smoothed."""

from typing import Annotated, ClassVar

import numpy as np
import torch
from torch import Tensor

from densekit.base import Capabilities, DensityEstimator
from densekit.distributions.backoff import BackoffTable, Order, stream
from densekit.distributions.sequence import PADDING, TokenSequence, begin
from densekit.params import Interval, OneOf


class NGram(DensityEstimator):
    r"""Interpolated modified Kneser-Ney model (Kneser and Ney 1995; Chen and Goodman 1999).

    .. math:: p_k(w \mid h) = \frac{c_k(hw) - D_k(c_k(hw))}{\sum_v c_k(hv)}
              + \frac{\sum_j D_k(j)\, N_j(h)}{\sum_v c_k(hv)}\; p_{k-1}(w \mid h')

    where h are the k - 1 tokens before w, h' is h without its oldest, N_j(h) counts the tokens
    seen j times after h, and c_k are counts for the longest contexts (and those that reach back to
    the beginning of the string), and for the shorter ones the number of different tokens seen
    before. The discounts D_k(1), D_k(2), D_k(3 and more) are estimated from the counts of counts

    .. math:: D_k(j) = j - (j + 1)\, \frac{n_1}{n_1 + 2 n_2} \frac{n_{j+1}}{n_j}.

    At the bottom lies the uniform distribution over all tokens, the unknown symbol and the end
    included, so every string of at most ``max_length`` tokens has a mass above zero and all masses
    sum to one. ``score_samples`` is the exact log-mass in nats, end of string included.

    Text goes in as a list or Series of strings, one sample each. Prompts need no special fit: see
    :class:`TransformerLanguageModel`.

    Parameters
    ----------
    order : int
        n: a token depends on the n - 1 before it. Memory and time grow with the number of
        different n-grams.
    tokens : {"character", "byte", "bpe"}
        What a token is.
    vocab_size : int or None
        Number of BPE tokens, or how many characters to keep; the rest are unknown symbols.
    max_length : int or None
        Tokens a string (with its prompt) may have; None takes twice the longest in ``fit``.

    Attributes
    ----------
    unigram_ : (vocab_size,) array
        Probabilities without a context.
    keys_, values_, leftover_ : tuples of order - 1 arrays
        For each k = 2 ... n the k-grams, the discounted probability of the last token of each,
        and what each context hands down.
    discounts_ : (order, 3) array
        D_k(1), D_k(2), D_k(3 and more). Where no string is as long as k, the longest k there is.

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
    tokens: Annotated[str, OneOf("character", "byte", "bpe")] = "character"
    vocab_size: Annotated[int | None, Interval(ge=4)] = None
    max_length: Annotated[int | None, Interval(ge=1)] = None

    _capabilities: ClassVar[Capabilities] = Capabilities(
        density="exact", view="typed", modalities=("text",), context="prompt", score_batch=16384
    )

    def _fit(self, events: Tensor, context: Tensor | None) -> None:
        # A prompt is text as well: it is counted as the beginning of its string.
        given = begin(events[:, :0] if context is None else context)
        x, place = (a.cpu().numpy() for a in stream(torch.cat([given, events], 1)))
        # The end of a string of full length is certain, so it teaches nothing.
        free = place < self.schema_.event_shape[0]
        counts, keys = _count(x[free], place[free], self.order, self.schema_.vocab_size)
        self.discounts_ = np.array([_discounts(c) for c in counts])
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


def _count(
    x: np.ndarray, place: np.ndarray, order: int, vocab_size: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Kneser-Ney counts of the 1-grams, (vocab_size,), and of the k-grams of each k > 1, and the
    keys of the latter (see `backoff.Order`)."""
    uses = np.bincount(x[place > 0], minlength=vocab_size)
    counts, keys = [uses], []
    gram = x.astype(np.int64)  # the k-gram that ends at each token, -1 where there is none
    for k in range(2, order + 1):
        at = np.flatnonzero(place >= k - 1)
        if not len(at):
            break
        known, first, inverse = np.unique(
            gram[at - 1] * vocab_size + x[at], return_index=True, return_inverse=True
        )
        # Shorter k-grams count the different tokens before them; none comes before a beginning.
        shorter, ends = counts[-1], gram[at[first]]
        before = np.bincount(ends, minlength=len(shorter))
        counts[-1] = np.where(before > 0, before, shorter)
        counts.append(np.bincount(inverse))
        keys.append(known)
        gram = np.full(len(x), -1)
        gram[at] = inverse
    return counts, keys


def _discounts(counts: np.ndarray) -> np.ndarray:
    """D(1), D(2), D(3 and more) from the counts of counts; what few counts leave open, or what
    would discount nothing, is put at half of what is there."""
    n = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].astype(float)
    j = np.arange(1, 4)
    if (n[:3] == 0).any():
        return j / 2
    d = j - (j + 1) * n[0] / (n[0] + 2 * n[1]) * n[1:] / n[:3]
    return np.where((d > 0.05) & (d <= j), d, j / 2)


def _smooth(
    counts: np.ndarray, contexts: np.ndarray, n_contexts: int, discounts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Values and leftovers of an `Order`."""
    discount = np.concatenate([[0.0], discounts])[np.minimum(counts, 3)]
    total = np.bincount(contexts, counts, minlength=n_contexts)
    handed = np.bincount(contexts, discount, minlength=n_contexts)
    values = (counts - discount) / np.maximum(total, 1)[contexts]
    leftover = np.divide(handed, total, out=np.ones(n_contexts), where=total > 0)
    return np.append(values, 0.0), np.append(leftover, 1.0)


def _unigram(counts: np.ndarray, discounts: np.ndarray) -> np.ndarray:
    """The bottom: discounted counts and the uniform distribution over all ids but padding."""
    values, leftover = _smooth(counts, np.zeros(len(counts), int), 1, discounts)
    p = values[:-1] + leftover[0] / (len(counts) - 1)
    p[PADDING] = 0.0
    return p / p.sum()
