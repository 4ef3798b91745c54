"""Next-token probabilities of an interpolated n-gram model, stored in tables."""

from dataclasses import dataclass

import torch
from torch import Tensor

from densekit.distributions.sequence import PADDING


def stream(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Concatenate the tokens of padded rows.

    ``rows`` are ids (n, T), padded with 0. Returns all tokens (m,) and the position of each in its
    row.
    """
    real = rows != PADDING
    return rows[real], (real.cumsum(1) - 1)[real]


def find(keys: Tensor, wanted: Tensor) -> Tensor:
    """Index of each of ``wanted`` in the sorted ``keys``, or -1 if it is not among them.

    The key of an unknown context is negative and therefore never found.
    """
    index = torch.searchsorted(keys, wanted).clamp_max(len(keys) - 1)
    return torch.where(keys[index] == wanted, index, -1)


@dataclass(frozen=True)
class Order:
    """The k-grams of one k > 1. A k-gram is represented by its index in ``keys``."""

    keys: Tensor
    """Sorted keys: index of the first k - 1 tokens among the (k-1)-grams times vocab_size, plus the
    last token.
    """
    values: Tensor
    """Discounted probability of each k-gram's last token, and 0 in the end for unknown k-grams."""
    leftover: Tensor
    """Probability that each (k-1)-gram passes on to the shorter context, and 1 in the end for unknown
    ones.
    """


class BackoffTable:
    r"""Interpolated back-off model of the next token.

    With h the context and h' the context without its oldest token,

    .. math:: p_k(w \mid h) = \text{values}_k(h w) + \text{leftover}_k(h)\, p_{k-1}(w \mid h')

    down to a distribution over all tokens, ``unigram``, (vocab_size,). It is a
    :class:`~densekit.distributions.sequence.NextToken`. Its state (n, n_orders) holds the indices
    of the 1-gram, 2-gram, ... (n-1)-gram that end at the last token, -1 for unknown ones.
    """

    def __init__(self, unigram: Tensor, orders: list[Order]):
        self.unigram, self.orders, self.vocab_size = unigram, orders, len(unigram)
        self._starts: list[Tensor] | None = None

    @property
    def device(self) -> torch.device:
        """Device of the tables."""
        return self.unigram.device

    def log_probs(self, given: Tensor, tokens: Tensor) -> Tensor:
        """log p(tokens[:, t] | given, tokens[:, :t]), (n, L); 0 where ``tokens`` is padding."""
        x, _ = stream(torch.cat([given, tokens], 1))
        p, gram = self.unigram[x], x
        for order in self.orders:
            # Rows are concatenated, but no known k-gram extends over the mark at a row's beginning.
            context = gram.roll(1)
            gram = find(order.keys, context * self.vocab_size + x)
            p = order.values[gram] + order.leftover[context] * p
        target = torch.cat([torch.zeros_like(given), tokens], 1)
        out = torch.zeros(target.shape, dtype=p.dtype, device=p.device)
        is_token = torch.cat([given, tokens], 1) != PADDING
        logp = out.masked_scatter(is_token, p.log())
        return torch.where(target != PADDING, logp, 0)[:, given.shape[1] :]

    def start(self, given: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the first token, (n, vocab_size), and the state."""
        state = torch.full((len(given), len(self.orders)), -1, device=given.device)
        for tokens in given.T:
            state = self._advanced(tokens, state)
        return self._logits(state), state

    def step(self, tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the token after ``tokens``, (n,), and the new state."""
        state = self._advanced(tokens, state)
        return self._logits(state), state

    def keep(self, state: Tensor, rows: Tensor) -> Tensor:
        """The state of the rows with these indices."""
        return state[rows]

    def _advanced(self, tokens: Tensor, state: Tensor) -> Tensor:
        """The state after one more token per row."""
        grams = [torch.where(tokens == PADDING, -1, tokens)]
        for order, context in zip(self.orders[:-1], state.T, strict=False):
            grams.append(find(order.keys, context * self.vocab_size + tokens))
        return torch.stack(grams[: len(self.orders)], 1) if self.orders else state

    def _logits(self, state: Tensor) -> Tensor:
        """Log-probabilities of all tokens given states, (n, vocab_size)."""
        # The first index of the tokens after each context, which only sampling needs.
        if self._starts is None:
            self._starts = [
                torch.searchsorted(
                    o.keys, torch.arange(len(o.leftover), device=o.keys.device) * self.vocab_size
                )
                for o in self.orders
            ]
        n, v = len(state), self.vocab_size
        p = self.unigram.repeat(n, 1)
        for order, starts, context in zip(self.orders, self._starts, state.T, strict=True):
            p *= order.leftover[context].unsqueeze(1)
            first = starts[context]
            count = torch.where(context < 0, 0, starts[context + 1] - first)
            row = torch.repeat_interleave(count)
            offset = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]
            index = first[row] + offset
            p.view(-1).index_add_(0, row * v + order.keys[index] % v, order.values[index])
        return p.log()
