"""What all language models share: tokens, draws at a temperature, long documents in windows; and what
those share that are networks."""

import math
from collections.abc import Callable, Iterator
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pyro.distributions import TorchDistribution
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn import functional as F

from densekit import codecs
from densekit.base import DensityEstimator
from densekit.distributions.montecarlo import Scores
from densekit.distributions.sequence import END, PADDING, TokenSequence
from densekit.distributions.tempered import Tempered
from densekit.distributions.windows import score_in_windows
from densekit.neural import NeuralDensity
from densekit.params import Interval, OneOf, check_integer

_LOGITS_AT_ONCE = 2**24


def log_probs_of(
    write: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor, vocab_size: int
) -> Tensor:
    """Log-probabilities (m,) of the tokens ``targets`` by the logits that ``write`` makes of states
    (m, width): a few at a time where no gradient is asked for, so that logits take no more memory."""
    rows = len(hidden) if torch.is_grad_enabled() else _LOGITS_AT_ONCE // vocab_size
    pieces = zip(hidden.split(max(rows, 1)), targets.split(max(rows, 1)), strict=True)
    return torch.cat([-F.cross_entropy(write(h), y, reduction="none") for h, y in pieces])


class NextTokenNet(nn.Module):
    """A network as a :class:`~densekit.distributions.sequence.NextToken`: ``net`` has ``embed``, reads
    with ``hidden`` and ``write``, and goes on with ``start`` and ``step``; its states have ``keep``."""

    net: Any

    def __init__(self, net: Any, vocab_size: int, max_length: int):
        super().__init__()
        self.net, self.vocab_size, self.max_length = net, vocab_size, max_length

    def forward(self, context: Tensor | None = None) -> TokenSequence:
        return TokenSequence(self, self.max_length, context)

    @property
    def device(self) -> torch.device:
        return self.net.embed.weight.device

    def log_probs(self, given: Tensor, tokens: Tensor) -> Tensor:
        return self.read(given, tokens)[0]

    def read(self, given: Tensor, tokens: Tensor, *state: Any) -> tuple[Tensor, Any]:
        """Log-probabilities of ``tokens`` after ``given``, and what the network has beside them; it
        begins with ``state``, where it takes one."""
        # What is read at place t predicts place t + 1; what predicts padding need not be read.
        follows = tokens != PADDING
        read = torch.cat([given, tokens[:, :-1] * follows[:, 1:]], 1)
        hidden, after = self.net.hidden(read, *state)
        predicts = torch.cat([follows.new_zeros(len(given), given.shape[1] - 1), follows], 1)
        hidden, targets = hidden[predicts[read != PADDING]], tokens[follows]
        logp = log_probs_of(self.net.write, hidden, targets, self.vocab_size)
        out = torch.zeros(tokens.shape, dtype=logp.dtype, device=tokens.device)
        return out.masked_scatter(follows, logp), after

    def start(self, given: Tensor) -> tuple[Tensor, Any]:
        return self.net.start(given)

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        return self.net.step(tokens, state)

    def keep(self, state: Any, rows: Tensor) -> Any:
        return state.keep(rows)


class TextModel(DensityEstimator):
    """A model of strings, read as tokens. Abstract.

    Parameters
    ----------
    tokens : {"character", "byte", "bpe", "word"}
        **Text.** What a token is: see :class:`~densekit.codecs.text.TextCodec`.
    vocab_size : int or None
        Number of BPE tokens, or how many characters or words to keep; the rest are unknown symbols.
    max_length : int or None
        Tokens a string (with its prompt) may have; None takes twice the longest in ``fit``.
    """

    tokens: Annotated[str, OneOf("character", "byte", "bpe", "word")] = "character"
    vocab_size: Annotated[int | None, Interval(ge=4)] = None
    max_length: Annotated[int | None, Interval(ge=1)] = None

    def n_tokens(self, X: Any) -> np.ndarray:
        """Tokens of each string, its end included, (n,): for
        :func:`densekit.metrics.nats_per_token` and :func:`densekit.metrics.perplexity`."""
        check_is_fitted(self)
        rows, _ = self.codec_.documents(codecs.for_scoring(X))
        return np.array([len(row) for row in rows])


class TokenModel(TextModel):
    """A model of strings, token after token. Abstract: ``_distribution`` is a ``TokenSequence``."""

    _drawn: ClassVar[tuple[float, int | None, float | None] | None] = (
        None  # set on copies that draw
    )

    def sample(
        self,
        n_samples: int = 1,
        *,
        context: Any = None,
        random_state: Any = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Any:
        r"""Draw strings: after a prompt, what follows it; from a source, what is written from it.

        Any ``temperature`` but 1, ``top_k`` and ``top_p`` change the density that is drawn from:
        ``score_samples`` is then not the score of what was drawn.
        :class:`~densekit.distributions.tempered.Tempered` is that density.

        Parameters
        ----------
        n_samples : int
        context : str or list of str, optional
            One prompt, or source, for all draws, or one for each.
        random_state : int, RandomState, Generator or None
            Its own seed: None draws anew at every call.
        temperature : float
            Each token is drawn from :math:`p^{1/\tau}`, normalized: above 1 flatter, below 1
            sharper, and 1 is the model.
        top_k : int, optional
            Only from the ``top_k`` likeliest tokens; 1 takes the likeliest.
        top_p : float, optional
            Only from the fewest tokens that have ``top_p`` of the mass between them.

        Raises
        ------
        TypeError, ValueError
            A ``temperature`` that is not above 0, ``top_k`` below 1, ``top_p`` not in (0, 1].
        """
        _check_temper(temperature, top_k, top_p)
        tempered = temperature != 1 or top_k is not None or top_p is not None
        drawn = self._copy_with(_drawn=(temperature, top_k, top_p)) if tempered else self
        return super(TokenModel, drawn).sample(
            n_samples, context=context, random_state=random_state
        )

    def _over_typed(self, context: Tensor | None) -> TorchDistribution:
        dist = super()._over_typed(context)
        if self._drawn is None:
            return dist
        assert isinstance(dist, TokenSequence)
        return dist.by(Tempered(dist.model, *self._drawn))


class NeuralTokenModel(TokenModel, NeuralDensity):
    """A :class:`TokenModel` that is a network. Abstract."""

    def _size(self, events: Tensor) -> Tensor:
        """The mean is per token: the size of a step does not depend on how long the strings are."""
        return (events != PADDING).sum(1)


class LanguageModel(TokenModel):
    """A :class:`TokenModel` that reads on from wherever a string begins. Abstract."""

    def score_documents(
        self, X: Any, *, window: int | None = None, overlap: int | None = None
    ) -> np.ndarray:
        """Log-mass of strings of any length in nats, (n,), read in windows that overlap.

        A token sees at least the ``overlap`` tokens before it and fewer than ``window``; each is
        predicted once. It is a mass over all strings, and that of ``score_samples`` where a string
        has fewer than ``window`` tokens.

        Parameters
        ----------
        X : list, Series or array of str
        window : int, optional
            Tokens read at a time; None takes ``max_length``, and no network has seen more.
        overlap : int, optional
            How many of them were in the window before; None takes half. The more, the better the
            score and the longer it takes: as much as ``window / (window - overlap)`` readings.

        Raises
        ------
        TypeError, ValueError
            ``window`` below 1, ``overlap`` not in 0 ... ``window - 1``; X as in ``fit``.

        Examples
        --------
        >>> from densekit import NGram
        >>> model = NGram(order=2, max_length=8).fit(["abab", "ba", "babab"])
        >>> model.score_documents(["ab" * 100], overlap=4).shape
        (1,)
        """
        self._check_fitted()
        window = self.schema_.event_shape[0] - 1 if window is None else window
        check_integer("window", window, 1)
        overlap = window // 2 if overlap is None else overlap
        check_integer("overlap", overlap, 0)
        if overlap >= window:
            raise ValueError(
                f"overlap={overlap} must be below window={window}, or no window has a new token"
            )
        rows, ladj = self.codec_.documents(codecs.for_scoring(X))
        model = self._token_sequence().model
        with torch.no_grad():
            logp = [
                score_in_windows(model, row.to(self.device_), window, overlap).cpu()
                for row in rows
            ]
        return (torch.stack(logp).double() + ladj).numpy().astype(self.dtype_)

    def _score_events(self, typed: Tensor, context: Tensor | None) -> Iterator[Scores]:
        """Scores; too long with its prompt is an error, as too long without one is."""
        most = self.schema_.event_shape[0] - 1
        if context is not None:
            lengths = (typed > END).sum(1) + (context != PADDING).sum(1)
            if (lengths > most).any():
                row = int((lengths > most).nonzero()[0])
                text = next(iter(self.codec_.decode(typed[row : row + 1])))
                raise ValueError(
                    f"with its prompt, {str(text)[:20]!r}... of X has {int(lengths[row])} tokens; "
                    f"max_length is {most}: shorten it or the prompt, or fit with a larger max_length"
                )
        yield from super()._score_events(typed, context)

    def _token_sequence(self) -> TokenSequence:
        dist = self._as_fitted()._distribution(None)
        assert isinstance(dist, TokenSequence)
        return dist


def _check_temper(temperature: float, top_k: int | None, top_p: float | None) -> None:
    for name, value in (("temperature", temperature), ("top_p", top_p)):
        if not (_is_number(value) or (value is None and name == "top_p")):
            raise TypeError(f"{name} must be a number, got {type(value).__name__} {value!r}")
    if not (0 < temperature < math.inf):
        raise ValueError(
            f"temperature={temperature!r} must be above 0 and finite; top_k=1 takes the likeliest "
            "token"
        )
    if top_k is not None:
        check_integer("top_k", top_k, 1)
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p!r} must be in (0, 1]: it is a share of the mass")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(
        value, bool
    )
