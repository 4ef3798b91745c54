"""Token sequences that end: any next-token model as a Pyro distribution over strings."""

import itertools
from collections.abc import Iterator
from typing import Any, ClassVar, Protocol

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor

PADDING, END = 0, 1

_ROWS_AT_ONCE = 256
_TOKENS_AT_ONCE = 2**14


def begin(prompt: Tensor) -> Tensor:
    """Prompts (n, P), padded with 0 on either side, to (n, P + 1), padded on the left, each behind
    the mark that begins a string. The mark is END, which can mean nothing else there.

    >>> begin(torch.tensor([[5, 4, 0], [3, 5, 4]]))
    tensor([[0, 1, 5, 4],
            [1, 3, 5, 4]])
    """
    padding = prompt == PADDING
    prompt = prompt.gather(1, padding.long().argsort(dim=1, descending=True, stable=True))
    n_padding = padding.sum(1, keepdim=True)
    return torch.nn.functional.pad(prompt, (1, 0)).scatter(1, n_padding, END)


def are_strings(tokens: Tensor, vocab_size: int) -> Tensor:
    """Which rows (n, L) are ids below ``vocab_size``, END once, and nothing but padding behind: (n,).

    >>> are_strings(torch.tensor([[3, 1, 0], [1, 0, 0], [3, 3, 3], [1, 3, 1], [0, 1, 0]]), 4)
    tensor([ True,  True, False, False, False])
    """
    ends = tokens == END
    behind = (ends.cumsum(1) - ends.long()) > 0
    inside = (tokens > PADDING) & (tokens < vocab_size)
    return ends.any(1) & torch.where(behind, tokens == PADDING, inside).all(1)


class NextToken(Protocol):
    """What a model of the next token offers. ``given`` is (n, P), padded with 0 on the left, and
    each row of it begins with the mark of :func:`begin`, as every string does."""

    vocab_size: int

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""

    def log_probs(self, given: Tensor, tokens: Tensor) -> Tensor:
        """log p(tokens[:, t] | given, tokens[:, :t]), (n, L); 0 where ``tokens`` is padding."""

    def start(self, given: Tensor) -> tuple[Tensor, Any]:
        """Logits of the first token, (n, vocab_size), -inf for padding, and the state after."""

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Logits of the token after one more token per row, (n,), and the new state."""

    def keep(self, state: Any, rows: Tensor) -> Any:
        """The state of the rows with these indices."""


class TokenSequence(TorchDistribution):
    r"""Strings of at most ``max_length`` tokens, as ids closed by END = 1 and padded with 0.

    .. math:: \log p(x \mid \text{prompt}) = \sum_{t \le T} \log p(x_t \mid \text{prompt}, x_{<t}),
              \qquad x_T = \text{END}

    A string of full length can only end there, so END is certain after ``max_length`` tokens, the
    prompt's included, and the masses of all strings sum to one. A row that is no such string (no
    END, something behind it, an id out of range) has log-mass -inf.

    Parameters
    ----------
    model : NextToken
        Next-token probabilities, in one go for scoring and step by step for sampling.
    max_length : int
        Tokens a string may have, END not counted. Events have shape ``(max_length + 1,)``; shorter
        rows of padded ids are scored too.
    prompt : Tensor, optional
        Ids of the tokens before, (\*batch_shape, P), padded with 0, without END.
    source : Tensor, optional
        Ids of what each string is written from, (\*batch_shape, S), padded with 0: ``model`` has then a
        method ``reading``, from sources (n, S) to the :class:`NextToken` of n rows that go by them.

    Raises
    ------
    ValueError
        A prompt is longer than ``max_length``.
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
                    f"prompt: one has {longest} tokens and max_length={max_length} is the length "
                    "of prompt and continuation together; shorten it or fit with a larger one"
                )
            prompt = prompt.long()
        self.prompt = prompt
        given = [x.shape[:-1] for x in (prompt, source) if x is not None]
        batch_shape = torch.broadcast_shapes(*given)
        super().__init__(batch_shape, torch.Size([max_length + 1]), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "TokenSequence":
        """The same, independently for each place of a larger batch."""
        prompt = torch.zeros(0, dtype=torch.long) if self.prompt is None else self.prompt
        source = self.source
        return TokenSequence(
            self.model,
            self.max_length,
            prompt.expand(*batch_shape, prompt.shape[-1]),
            None if source is None else source.expand(*batch_shape, source.shape[-1]),
        )

    def by(self, model: NextToken) -> "TokenSequence":
        """The same strings by another model of the next token."""
        return TokenSequence(model, self.max_length, self.prompt, self.source)

    def _given(self, shape: torch.Size) -> Tensor:
        """What comes before each row of a batch of this shape, flattened."""
        n, device = shape.numel(), self.model.device
        if self.prompt is None:
            return torch.full((n, 1), END, device=device)
        width = self.prompt.shape[-1]
        return begin(self.prompt.to(device).expand(*shape, width).reshape(n, width))

    def _models(self, shape: torch.Size, rows: int) -> Iterator[NextToken]:
        """The model of each piece of so many rows of a batch of this shape."""
        if self.source is None:
            yield from itertools.repeat(self.model)
        else:
            width = self.source.shape[-1]
            source = self.source.to(self.model.device).expand(*shape, width)
            for piece in source.reshape(shape.numel(), width).split(rows):
                yield self.model.conditioned_on(piece)  # type: ignore[attr-defined]

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-mass of strings, (\\*shape, L) to (\\*shape,), in nats, END included."""
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        tokens = value.long().expand(*shape, -1).reshape(shape.numel(), value.shape[-1])
        given = self._given(shape)
        # Scoring goes in pieces that bound the memory; training takes its batch whole.
        rows = len(tokens) if torch.is_grad_enabled() else _TOKENS_AT_ONCE // (tokens.shape[1] + 1)
        rows = max(rows, 1)
        pieces = zip(
            self._models(shape, rows), tokens.split(rows), given.split(rows), strict=False
        )
        return torch.cat([self._score(*piece) for piece in pieces]).reshape(shape)

    def _score(self, model: NextToken, tokens: Tensor, given: Tensor) -> Tensor:
        legal, ends = are_strings(tokens, self.model.vocab_size), tokens == END
        place = torch.arange(tokens.shape[1], device=tokens.device)
        room = (self.max_length + 1 - (given != PADDING).sum(1)).unsqueeze(1)
        legal &= ((place < room) | (tokens <= END)).all(1) & ((place <= room) | ~ends).all(1)
        tokens = torch.where(legal.unsqueeze(1) & (place < room), tokens, PADDING)
        longest = int((tokens != PADDING).sum(1).max()) if len(tokens) else 0
        logp = model.log_probs(given, tokens[:, : max(longest, 1)]).sum(1)
        return torch.where(legal, logp, -torch.inf)

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw strings (with a prompt: what follows it), (\\*sample_shape, \\*batch_shape, L)."""
        shape = torch.Size(sample_shape) + self.batch_shape
        given = self._given(shape)
        models = self._models(shape, _ROWS_AT_ONCE)
        pieces = zip(models, given.split(_ROWS_AT_ONCE), strict=False)
        drawn = [self._draw(model, g) for model, g in pieces] or [given.new_zeros(0)]
        return torch.cat(drawn).reshape(*shape, self.max_length + 1)

    def _draw(self, model: NextToken, given: Tensor) -> Tensor:
        out = given.new_zeros(len(given), self.max_length + 1)
        rows = torch.arange(len(given), device=given.device)
        room = self.max_length + 1 - (given != PADDING).sum(1)
        alive = torch.ones_like(rows, dtype=torch.bool)
        logits, state = model.start(given)
        for t in range(self.max_length + 1):
            tokens = torch.multinomial(logits.softmax(-1), 1).squeeze(1)
            tokens = torch.where(room == t, END, tokens) * alive
            out[rows, t] = tokens
            alive = tokens > END
            n_alive = int(alive.sum())
            if not n_alive:
                break
            # Strings that have ended cost nothing more, once they are the half.
            if 2 * n_alive <= len(rows):
                left = alive.nonzero().squeeze(1)
                rows, room, tokens, alive = rows[left], room[left], tokens[left], alive[left]
                state = model.keep(state, left)
            logits, state = model.step(tokens, state)
        return out
