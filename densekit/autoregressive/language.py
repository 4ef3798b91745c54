"""Base classes of models of strings: tokens, sampling at a temperature, and scores of long documents.

References
----------
Y. Bengio, R. Ducharme, P. Vincent and C. Jauvin. A Neural Probabilistic Language Model. JMLR 2003.
https://www.jmlr.org/papers/v3/bengio03a.html
"""

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

_MAX_LOGITS = 2**24


def log_probs_of(
    to_logits: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor, vocab_size: int
) -> Tensor:
    """Log-probabilities (m,) of ``targets`` given hidden states (m, width).

    ``to_logits`` maps hidden states to logits. Without gradients, rows go through it in pieces,
    which bounds the memory of the logits.
    """
    rows = len(hidden) if torch.is_grad_enabled() else _MAX_LOGITS // vocab_size
    pieces = zip(hidden.split(max(rows, 1)), targets.split(max(rows, 1)), strict=True)
    return torch.cat([-F.cross_entropy(to_logits(h), y, reduction="none") for h, y in pieces])


class NextTokenNet(nn.Module):
    """A network as a :class:`~densekit.distributions.sequence.NextToken`.

    ``net`` has ``embed``, ``hidden`` and ``to_logits``, and for sampling ``start`` and ``step``,
    whose states have ``keep``.
    """

    net: Any

    def __init__(self, net: Any, vocab_size: int, max_length: int):
        super().__init__()
        self.net, self.vocab_size, self.max_length = net, vocab_size, max_length

    def forward(self, context: Tensor | None = None) -> TokenSequence:
        """The distribution of token sequences, given encoded prompts or sources."""
        return TokenSequence(self, self.max_length, context)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.net.embed.weight.device

    def log_probs(self, given: Tensor, tokens: Tensor) -> Tensor:
        """Log-probabilities of ``tokens`` after ``given``, one per token."""
        return self.log_probs_and_state(given, tokens)[0]

    def log_probs_and_state(
        self, given: Tensor, tokens: Tensor, *state: Any
    ) -> tuple[Tensor, Any]:
        """Log-probabilities of ``tokens`` after ``given``, and the state of the network after them.

        ``state``, if given, is the state of the network before.
        """
        # The input at position t predicts position t + 1. An input that predicts padding is left out.
        is_token = tokens != PADDING
        inputs = torch.cat([given, tokens[:, :-1] * is_token[:, 1:]], 1)
        hidden, new_state = self.net.hidden(inputs, *state)
        predicts = torch.cat([is_token.new_zeros(len(given), given.shape[1] - 1), is_token], 1)
        hidden, targets = hidden[predicts[inputs != PADDING]], tokens[is_token]
        logp = log_probs_of(self.net.to_logits, hidden, targets, self.vocab_size)
        out = torch.zeros(tokens.shape, dtype=logp.dtype, device=tokens.device)
        return out.masked_scatter(is_token, logp), new_state

    def start(self, given: Tensor) -> tuple[Tensor, Any]:
        """Logits of the first token after ``given``, and the state of the network."""
        return self.net.start(given)

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Logits of the next token after ``tokens``, and the new state."""
        return self.net.step(tokens, state)

    def keep(self, state: Any, rows: Tensor) -> Any:
        """The state of some rows only."""
        return state.keep(rows)


class TextModel(DensityEstimator):
    """A model of strings as sequences of tokens. Abstract.

    Parameters
    ----------
    tokens : {"character", "byte", "bpe", "word"}
        **Text.** Type of the tokens; see :class:`~densekit.codecs.text.TextCodec`.
    vocab_size : int or None
        Number of BPE tokens, or number of characters or words to keep; others become the unknown
        symbol.
    max_length : int or None
        Largest number of tokens of a string, prompt included. None uses twice the longest in
        ``fit``.
    """

    tokens: Annotated[str, OneOf("character", "byte", "bpe", "word")] = "character"
    vocab_size: Annotated[int | None, Interval(ge=4)] = None
    max_length: Annotated[int | None, Interval(ge=1)] = None

    def n_tokens(self, X: Any) -> np.ndarray:
        """Count the tokens of each string, its end included.

        The counts are an argument of :func:`densekit.metrics.nats_per_token` and
        :func:`densekit.metrics.perplexity`.

        Parameters
        ----------
        X : list, Series or array of str
            Strings of any length.

        Returns
        -------
        ndarray of shape (n,)
        """
        check_is_fitted(self)
        rows, _ = self.codec_.documents(codecs.for_scoring(X))
        return np.array([len(row) for row in rows])


class TokenModel(TextModel):
    """A model that generates strings token by token. Abstract: ``_distribution`` is a
    ``TokenSequence``.
    """

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
        r"""Draw strings: continuations of a prompt, or targets of a source.

        Any ``temperature`` other than 1, ``top_k`` and ``top_p`` change the distribution that is
        sampled, to :class:`~densekit.distributions.tempered.Tempered`; ``score_samples`` does not
        score it.

        Parameters
        ----------
        n_samples : int
            Number of strings.
        context : str or list of str, optional
            One prompt or source for all strings, or one for each.
        random_state : int, RandomState, Generator or None
            Seed of this call; None draws new strings at every call.
        temperature : float
            Tokens are drawn from :math:`p^{1/\tau}`, normalized. Values above 1 flatten the
            distribution, values below 1 sharpen it.
        top_k : int, optional
            Draw only among the ``top_k`` most probable tokens; 1 is greedy.
        top_p : float, optional
            Draw only among the fewest tokens whose total probability is at least ``top_p``.

        Returns
        -------
        like X of ``fit``
            ``n_samples`` strings.

        Raises
        ------
        TypeError, ValueError
            If ``temperature`` is not above 0, ``top_k`` is below 1 or ``top_p`` is not in (0, 1].
        """
        _check_temperature(temperature, top_k, top_p)
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
        return dist.with_model(Tempered(dist.model, *self._drawn))


class NeuralTokenModel(TokenModel, NeuralDensity):
    """A :class:`TokenModel` that is a network. Abstract."""

    def _size(self, events: Tensor) -> Tensor:
        """Number of tokens: the loss is a mean per token, so that steps do not depend on the strings'
        lengths.
        """
        return (events != PADDING).sum(1)


class LanguageModel(TokenModel):
    """A :class:`TokenModel` that can continue any string. Abstract."""

    def score_documents(
        self, X: Any, *, window: int | None = None, overlap: int | None = None
    ) -> np.ndarray:
        """Log-probability of strings of any length, computed in overlapping windows.

        A token is predicted once, from at least ``overlap`` and fewer than ``window`` tokens
        before it. The result is a probability over all strings. For a string of fewer than
        ``window`` tokens it equals ``score_samples``.

        Parameters
        ----------
        X : list, Series or array of str
            Documents.
        window : int, optional
            Number of tokens of a window. None uses ``max_length``, the longest context seen in
            training.
        overlap : int, optional
            Number of tokens shared with the window before; None uses half of ``window``. A larger
            overlap scores better and takes longer, in proportion to ``window / (window -
            overlap)``.

        Returns
        -------
        ndarray of shape (n,)
            Log-probabilities in nats.

        Raises
        ------
        TypeError, ValueError
            If ``window`` is below 1, ``overlap`` is not in 0 ... ``window - 1``, or X is not valid
            in ``fit``.

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
                f"overlap={overlap} must be below window={window}, or a window has no new token"
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
        """Scores of events; a string that is too long together with its prompt is an error."""
        max_tokens = self.schema_.event_shape[0] - 1
        if context is not None:
            lengths = (typed > END).sum(1) + (context != PADDING).sum(1)
            if (lengths > max_tokens).any():
                row = int((lengths > max_tokens).nonzero()[0])
                text = next(iter(self.codec_.decode(typed[row : row + 1])))
                raise ValueError(
                    f"{str(text)[:20]!r}... of X has {int(lengths[row])} tokens with its prompt; "
                    f"max_length is {max_tokens}: shorten it or the prompt, or fit with a larger "
                    "max_length"
                )
        yield from super()._score_events(typed, context)

    def _token_sequence(self) -> TokenSequence:
        dist = self._as_fitted()._distribution(None)
        assert isinstance(dist, TokenSequence)
        return dist


def _check_temperature(temperature: float, top_k: int | None, top_p: float | None) -> None:
    for name, value in (("temperature", temperature), ("top_p", top_p)):
        if not (_is_number(value) or (value is None and name == "top_p")):
            raise TypeError(f"{name} must be a number, got {type(value).__name__} {value!r}")
    if not (0 < temperature < math.inf):
        raise ValueError(
            f"temperature={temperature!r} must be above 0 and finite; top_k=1 draws the most probable "
            "token"
        )
    if top_k is not None:
        check_integer("top_k", top_k, 1)
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p!r} must be in (0, 1]: it is a total probability")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(
        value, bool
    )
