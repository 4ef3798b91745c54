"""Interpolated Kneser-Ney: counts of token n-grams, smoothed."""

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

_HELD_OUT, _ENOUGH = 50_000, 10_000
"""Tokens that discounts are tuned to: about so many, and no fewer."""


class NGram(LanguageModel):
    r"""Interpolated modified Kneser-Ney model (Kneser and Ney 1995; Chen and Goodman 1999).

    .. math:: p_k(w \mid h) = \frac{c_k(hw) - D_k(c_k(hw))}{\sum_v c_k(hv)}
              + \frac{\sum_j D_k(j)\, N_j(h)}{\sum_v c_k(hv)}\; p_{k-1}(w \mid h')

    where h are the k - 1 tokens before w, h' is h without its oldest, N_j(h) counts the tokens
    seen j times after h, and c_k are counts for the longest contexts (and those that reach back to
    the beginning of the string), and for the shorter ones the number of different tokens seen
    before. The discounts D_k(1), D_k(2), D_k(3 and more) are estimated from the counts of counts

    .. math:: D_k(j) = j - (j + 1)\, \frac{n_1}{n_1 + 2 n_2} \frac{n_{j+1}}{n_j},

    or, where a tenth of the rows has 10,000 tokens, by maximum likelihood of rows held out: every
    tenth of the distinct rows, or so many that they have about 50,000 tokens. Then all rows are counted.
    With a ``sample_weight``, which must be whole numbers, a row of weight w counts w times.

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

    _capabilities: ClassVar[Capabilities] = Capabilities(
        density="exact",
        view="typed",
        modalities=("text",),
        context="prompt",
        weights=True,
        score_batch=16384,
    )

    def _fit(self, events: Tensor, context: Tensor | None, weights: Tensor | None = None) -> None:
        # A prompt is text as well: it is counted as the beginning of its string.
        given = begin(events[:, :0] if context is None else context)
        rows, times = _distinct(torch.cat([given, events], 1), weights)
        x, place = (a.cpu().numpy() for a in stream(rows))
        times = times[np.cumsum(place == 0) - 1]
        # The end of a string of full length is certain, so it teaches nothing.
        free = place < self.schema_.event_shape[0]
        tokens = x[free], place[free], times[free]
        counts, keys = _count(*tokens, self.order, self.schema_.vocab_size)
        self.discounts_ = np.array([_discounts(c) for c in counts])
        every = max(10, int(tokens[2].sum()) // _HELD_OUT)
        row = np.cumsum(tokens[1] == 0) % every
        held = row == every - 1
        if tokens[2][held].sum() >= _ENOUGH:
            ids, at, often = (a[~held] for a in tokens)
            known = _count(ids, at, often, self.order, self.schema_.vocab_size)
            tuned = _tuned(*known, self.discounts_, *(a[held] for a in tokens))
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
    """The distinct rows of ids, in the order in which they come first, and how often each comes."""
    times = np.ones(len(rows)) if weights is None else weights.cpu().numpy()
    if weights is not None and (odd := times != np.rint(times)).any():
        row = int(odd.argmax())
        raise ValueError(
            f"sample_weight is {times[row]:g} in row {row} of those with a weight: an NGram counts, and "
            "takes whole numbers; scale and round the weights"
        )
    # By two 64-bit hashes, which cost no sorting of whole rows.
    ids = np.ascontiguousarray(rows.cpu().numpy()).view(np.uint64)
    factors = np.random.default_rng(0).integers(2**63, size=(2, ids.shape[1]), dtype=np.uint64)
    one, other = (ids @ (2 * f + 1) for f in factors)
    _, first, which = np.unique(one, return_index=True, return_inverse=True)
    if (other != other[first[which]]).any():
        _, first, which = np.unique(ids, axis=0, return_index=True, return_inverse=True)
    total = np.bincount(which.ravel(), times)
    order = np.argsort(first)
    return rows[torch.from_numpy(first[order]).to(rows.device)], total[order].astype(np.int64)


def _counted(codes: np.ndarray, times: np.ndarray, size: int = 0) -> np.ndarray:
    """How often each code comes; whole numbers, exact up to 2^53."""
    return np.bincount(codes, times, minlength=size).astype(np.int64)


def _count(
    x: np.ndarray, place: np.ndarray, times: np.ndarray, order: int, vocab_size: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Kneser-Ney counts of the 1-grams, (vocab_size,), and of the k-grams of each k > 1, and the
    keys of the latter (see `backoff.Order`), from tokens, their places and how often each comes."""
    uses = _counted(x[place > 0], times[place > 0], vocab_size)
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
        counts.append(_counted(inverse, times[at]))
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


def _tuned(
    counts: list[np.ndarray],
    keys: list[np.ndarray],
    discounts: np.ndarray,
    x: np.ndarray,
    place: np.ndarray,
    times: np.ndarray,
) -> np.ndarray:
    """Discounts under which tokens that were not counted are likeliest, (n_orders, 3)."""
    share = torch.as_tensor(times[place > 0] / times[place > 0].sum())
    v, target = len(counts[0]), place > 0
    gram, n_contexts = x, [1, v, *map(len, keys)]
    terms = []
    for k, (count, n) in enumerate(zip(counts, n_contexts, strict=False)):
        context = np.zeros(len(x), int) if k == 0 else np.where(place >= k, np.roll(gram, 1), -1)
        of = np.zeros(v, int) if k == 0 else keys[k - 1] // v
        if k:
            found = find(torch.as_tensor(keys[k - 1]), torch.as_tensor(context * v + x))
            gram = found.numpy()
        # How often: this token after this context, any token, and how many tokens once, twice, more.
        seen = np.minimum(count, 3)
        any_ = np.append(np.bincount(of, count, minlength=n), 0)[context][target]
        kinds = [np.append(np.bincount(of[seen == j], minlength=n), 0) for j in (1, 2, 3)]
        handed = (
            np.stack([kind[context][target] for kind in kinds], 1) / np.maximum(any_, 1)[:, None]
        )
        this = np.append(count, 0)[gram][target]
        terms.append([torch.as_tensor(a) for a in (this, np.maximum(any_, 1), handed, any_ > 0)])

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        with torch.enable_grad():
            raw = torch.tensor(theta, requires_grad=True)
            d = most * raw.view(-1, 3).sigmoid()
            p = torch.full((int(target.sum()),), 1 / (v - 1), dtype=torch.double)
            for (this, any_, handed, there), row in zip(terms, d, strict=True):
                off = torch.cat([row.new_zeros(1), row])[this.clamp_max(3).long()]
                p = torch.where(there, (this - off) / any_ + handed @ row * p, p)
            nats = -(share * p.log()).sum()
            nats.backward()
        assert raw.grad is not None
        return nats.item(), raw.grad.numpy()

    most = torch.arange(1, 4)
    part = (discounts[: len(counts)] / np.arange(1, 4)).clip(0.05, 0.95)
    best = minimize(loss, np.log(part / (1 - part)).ravel(), jac=True, options={"maxiter": 40})
    return (most * torch.tensor(best.x).view(-1, 3).sigmoid()).numpy()


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
