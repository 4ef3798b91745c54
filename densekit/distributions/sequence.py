"""Token sequences: next-token models as Pyro distributions over strings."""

import itertools
from collections.abc import Iterator
from typing import Any, ClassVar, Protocol

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor

PADDING, END = 0, 1

_MAX_SAMPLED_ROWS = 256
_MAX_SCORED_TOKENS = 2**14


def begin(prompt: Tensor) -> Tensor:
    """Prepend the mark of a string's beginning to prompts and align them on the right.

    Prompts (n, P), padded with 0 on either side, become (n, P + 1), padded on the left. The mark
    is END, which has no other meaning there.

    >>> begin(torch.tensor([[5, 4, 0], [3, 5, 4]]))
    tensor([[0, 1, 5, 4],
            [1, 3, 5, 4]])
    """
    padding = prompt == PADDING
    prompt = prompt.gather(1, padding.long().argsort(dim=1, descending=True, stable=True))
    n_padding = padding.sum(1, keepdim=True)
    return torch.nn.functional.pad(prompt, (1, 0)).scatter(1, n_padding, END)


def are_strings(tokens: Tensor, vocab_size: int) -> Tensor:
    """Which rows (n, L) are strings: ids below ``vocab_size``, then one END, then only padding.

    >>> are_strings(torch.tensor([[3, 1, 0], [1, 0, 0], [3, 3, 3], [1, 3, 1], [0, 1, 0]]), 4)
    tensor([ True,  True, False, False, False])
    """
    ends = tokens == END
    after_end = (ends.cumsum(1) - ends.long()) > 0
    inside = (tokens > PADDING) & (tokens < vocab_size)
    return ends.any(1) & torch.where(after_end, tokens == PADDING, inside).all(1)


class NextToken(Protocol):
    """Interface of a model of the next token.

    ``given`` are the tokens before a string, (n, P), padded with 0 on the left. As :func:`begin`
    makes them, each row starts with the mark of a string's beginning.
    """

    vocab_size: int

    @property
    def device(self) -> torch.device:
        """Device of the model's tensors."""

    def log_probs(self, given: Tensor, tokens: Tensor) -> Tensor:
        """log p(tokens[:, t] | given, tokens[:, :t]), (n, L); 0 where ``tokens`` is padding."""

    def start(self, given: Tensor) -> tuple[Tensor, Any]:
        """Logits of the first token, (n, vocab_size), -inf for padding, and the state after
        ``given``.
        """

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Logits after one more token per row, ``tokens`` (n,), and the new state."""

    def keep(self, state: Any, rows: Tensor) -> Any:
        """The state of the rows with these indices."""


class TokenSequence(TorchDistribution):
    r"""Strings of at most ``max_length`` tokens, as ids closed by END = 1 and padded with 0.

    .. math:: \log p(x \mid \text{prompt}) = \sum_{t \le T} \log p(x_t \mid \text{prompt}, x_{<t}),
              \qquad x_T = \text{END}

    After ``max_length`` tokens, including those of the prompt, END is certain, so that the
    probabilities of all strings sum to one. A row that is not a string (without END, with tokens
    after it, or with an invalid id) has the log-probability -inf.

    Parameters
    ----------
    model : NextToken
        Next-token probabilities.
    max_length : int
        Largest number of tokens of a string, not counting END. Events have shape ``(max_length +
        1,)``; shorter padded rows are scored as well.
    prompt : Tensor, optional
        Ids of the preceding tokens, (\*batch_shape, P), padded with 0, without END.
    source : Tensor, optional
        Ids of the source of each string, (\*batch_shape, S), padded with 0. ``model`` then has a
        method ``conditioned_on``, from sources (n, S) to the :class:`NextToken` of n rows given
        these sources.

    Raises
    ------
    ValueError
        If a prompt is longer than ``max_length``.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.independent(constraints.nonnegative_integer, 1)
    has_rsample = False

    def __init__(
        self,
        model: NextToken,
        max_length: int,
        prompt: Tensor | None = None,
        source: Tensor | None = None,
        validate_args: bool | None = False,
    ):
        self.model, self.max_length, self.source = model, max_length, source
        if prompt is not None:
            longest = int((prompt != PADDING).sum(-1).max()) if prompt.numel() else 0
            if longest > max_length:
                raise ValueError(
                    f"prompt: the longest has {longest} tokens, but max_length={max_length} includes "
                    "prompt and continuation; shorten it or fit with a larger max_length"
                )
            prompt = prompt.long()
        self.prompt = prompt
        given = [x.shape[:-1] for x in (prompt, source) if x is not None]
        batch_shape = torch.broadcast_shapes(*given)
        super().__init__(batch_shape, torch.Size([max_length + 1]), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "TokenSequence":
        """The distribution with its batch shape expanded."""
        prompt = torch.zeros(0, dtype=torch.long) if self.prompt is None else self.prompt
        source = self.source
        return TokenSequence(
            self.model,
            self.max_length,
            prompt.expand(*batch_shape, prompt.shape[-1]),
            None if source is None else source.expand(*batch_shape, source.shape[-1]),
        )

    def with_model(self, model: NextToken) -> "TokenSequence":
        """The distribution of the same strings under another model of the next token."""
        return TokenSequence(model, self.max_length, self.prompt, self.source)

    def _given(self, shape: torch.Size) -> Tensor:
        """The tokens before each row of a flattened batch of this shape."""
        n, device = shape.numel(), self.model.device
        if self.prompt is None:
            return torch.full((n, 1), END, device=device)
        width = self.prompt.shape[-1]
        return begin(self.prompt.to(device).expand(*shape, width).reshape(n, width))

    def _models(self, shape: torch.Size, rows: int) -> Iterator[NextToken]:
        """The model of each piece of ``rows`` rows of a flattened batch of this shape."""
        if self.source is None:
            yield from itertools.repeat(self.model)
        else:
            width = self.source.shape[-1]
            source = self.source.to(self.model.device).expand(*shape, width)
            for piece in source.reshape(shape.numel(), width).split(rows):
                yield self.model.conditioned_on(piece)  # type: ignore[attr-defined]

    def log_prob(self, value: Tensor) -> Tensor:
        r"""Log-probability of strings in nats, END included: (\*shape, L) to (\*shape,)."""
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        tokens = value.long().expand(*shape, -1).reshape(shape.numel(), value.shape[-1])
        given = self._given(shape)
        # Without gradients, scoring proceeds in pieces to bound the memory.
        rows = (
            len(tokens) if torch.is_grad_enabled() else _MAX_SCORED_TOKENS // (tokens.shape[1] + 1)
        )
        rows = max(rows, 1)
        pieces = zip(
            self._models(shape, rows), tokens.split(rows), given.split(rows), strict=False
        )
        return torch.cat([self._score(*piece) for piece in pieces]).reshape(shape)

    def _score(self, model: NextToken, tokens: Tensor, given: Tensor) -> Tensor:
        legal, ends = are_strings(tokens, self.model.vocab_size), tokens == END
        place = torch.arange(tokens.shape[1], device=tokens.device)
        max_tokens = (self.max_length + 1 - (given != PADDING).sum(1)).unsqueeze(1)
        legal &= ((place < max_tokens) | (tokens <= END)).all(1) & (
            (place <= max_tokens) | ~ends
        ).all(1)
        tokens = torch.where(legal.unsqueeze(1) & (place < max_tokens), tokens, PADDING)
        longest = int((tokens != PADDING).sum(1).max()) if len(tokens) else 0
        logp = model.log_probs(given, tokens[:, : max(longest, 1)]).sum(1)
        return torch.where(legal, logp, -torch.inf)

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        r"""Sample strings, or continuations of the prompt: (\*sample_shape, \*batch_shape, L)."""
        shape = torch.Size(sample_shape) + self.batch_shape
        given = self._given(shape)
        models = self._models(shape, _MAX_SAMPLED_ROWS)
        pieces = zip(models, given.split(_MAX_SAMPLED_ROWS), strict=False)
        drawn = [self._draw(model, g) for model, g in pieces] or [given.new_zeros(0)]
        return torch.cat(drawn).reshape(*shape, self.max_length + 1)

    def _draw(self, model: NextToken, given: Tensor) -> Tensor:
        out = given.new_zeros(len(given), self.max_length + 1)
        rows = torch.arange(len(given), device=given.device)
        max_tokens = self.max_length + 1 - (given != PADDING).sum(1)
        alive = torch.ones_like(rows, dtype=torch.bool)
        logits, state = model.start(given)
        for t in range(self.max_length + 1):
            tokens = torch.multinomial(logits.softmax(-1), 1).squeeze(1)
            tokens = torch.where(max_tokens == t, END, tokens) * alive
            out[rows, t] = tokens
            alive = tokens > END
            n_alive = int(alive.sum())
            if not n_alive:
                break
            # Finished strings are dropped from the batch when they are at least half of it.
            if 2 * n_alive <= len(rows):
                remaining = alive.nonzero().squeeze(1)
                rows, max_tokens, tokens, alive = (
                    rows[remaining],
                    max_tokens[remaining],
                    tokens[remaining],
                    alive[remaining],
                )
                state = model.keep(state, remaining)
            logits, state = model.step(tokens, state)
        return out
