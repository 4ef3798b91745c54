"""A transformer that writes one string from another: translation, dialogue."""

from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from densekit.autoregressive.language import NeuralTokenModel, NextTokenNet
from densekit.base import Capabilities
from densekit.codecs.schema import Schema
from densekit.codecs.text import UNKNOWN
from densekit.distributions.beams import beam_search
from densekit.distributions.sequence import END, TokenSequence
from densekit.nets.encoder_decoder import EncoderDecoder
from densekit.params import Interval, check_integer

_BEAMS_AT_ONCE = 256


class Seq2Seq(NeuralTokenModel):
    r"""Encoder-decoder transformer (Vaswani et al. 2017): the mass of a string given another.

    .. math:: \log P(x \mid c) = \sum_{t=1}^{T} \log \operatorname{softmax}(E\, h_t)_{x_t},
              \qquad h_t = \text{decoder}(x_{<t}, \text{encoder}(c)), \qquad x_T = \text{end}

    where c, the source, is read without a causal mask, and the decoder looks at it by
    cross-attention; rotary positions (Su et al. 2021), in cross-attention too. ``score_samples(X,
    context=sources)`` is the exact log-mass of each target in nats, end of string included; the
    masses of all targets of at most ``max_length`` tokens sum to one, for each source. With
    ``tokens="bpe"`` it is a lower bound, as everywhere.

    ``fit(targets, context=sources)`` takes lists or Series of strings of the same length. Sources
    have tokens of their own, of the same kind; a character of a source that ``fit`` did not see is read
    as unknown, and a source may be empty. ``sample(context=sources)`` draws a target for each, and
    `decode` searches the likeliest. Fitted without a context it is a model of X alone.

    Parameters
    ----------
    max_length : int or None
        Tokens a source and a target may have; None takes twice the longest of each in ``fit``.
    width : int
        Width of the residual stream, a multiple of ``2 * n_heads``.
    n_layers : int
        Blocks of the encoder, and of the decoder.
    n_heads : int
        Heads of each block.
    dropout : float
        Probability that an entry of what a block adds is dropped in training.
    max_steps : int, optional
        None takes 3000 steps, unless ``max_epochs`` or ``max_time`` is given.

    Examples
    --------
    >>> from densekit import Seq2Seq
    >>> sources, targets = ["ab", "ba", "aab", "b"] * 5, ["BA", "AB", "BAA", "B"] * 5
    >>> model = Seq2Seq(width=8, n_layers=1, n_heads=2, max_steps=5, random_state=0)
    >>> model = model.fit(targets, context=sources)
    >>> model.score_samples(["BA", "A"], context=["ab", "a"]).shape
    (2,)
    >>> len(model.sample(3, context="ab", random_state=0)), len(model.decode(["ab", "b"]))
    (3, 2)
    """

    width: Annotated[int, Interval(ge=4)] = 128
    n_layers: Annotated[int, Interval(ge=1)] = 2
    n_heads: Annotated[int, Interval(ge=1)] = 4
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    batch_size: Annotated[int, Interval(ge=1)] = 32
    learning_rate: Annotated[float, Interval(gt=0)] = 2e-3
    weight_decay: Annotated[float, Interval(ge=0)] = 0.1

    _default_steps: ClassVar[int] = 3000
    _capabilities: ClassVar[Capabilities] = Capabilities(
        density="exact",
        view="typed",
        modalities=("text",),
        context="text",
        flat=False,
        weights=True,
    )
    _instead_of_y: ClassVar[str] = "X are the targets: fit(targets, context=sources)"

    def decode(
        self, context: Any = None, *, n_beams: int = 4, return_log_prob: bool = False
    ) -> Any:
        """The likeliest target of each source, by beam search.

        It is the best of what ``n_beams`` beams find
        (:func:`~densekit.distributions.beams.beam_search`), not for certain the best there is. No
        string with an unknown symbol is found.

        Parameters
        ----------
        context : str or list of str
            Sources.
        n_beams : int
            Beginnings kept at every step; 1 takes the likeliest token each time.
        return_log_prob : bool
            Whether to return log-masses too.

        Returns
        -------
        targets : like the targets of ``fit``
            One for each source.
        log_prob : (n,), only with ``return_log_prob``
            Of the tokens that were found, in nats: what ``score_samples`` says of the targets, where
            the codec reads them as the same tokens (bytes that are not UTF-8 are none, and a word with
            a rare BPE token may be written in several ways).

        Raises
        ------
        TypeError, ValueError
            ``n_beams`` below 1; ``context`` as in ``sample``.
        """
        self._check_fitted()
        check_integer("n_beams", n_beams, 1)
        source = self._context_of_draws(context)
        dist = self._as_fitted()._distribution(source)
        assert isinstance(dist, TokenSequence)
        assert dist.source is not None
        tokens, logp = [], []
        with torch.no_grad():
            for piece in dist.source.reshape(-1, dist.source.shape[-1]).split(
                max(1, _BEAMS_AT_ONCE // n_beams)
            ):
                given = piece.new_full((len(piece), 1), END)
                found = beam_search(
                    dist.model.reading(piece),  # type: ignore[attr-defined]
                    given,
                    dist.max_length,
                    n_beams,
                    (UNKNOWN,),
                )
                tokens.append(found[0][:, 0])
                logp.append(found[1][:, 0])
        targets = self.codec_.decode(torch.cat(tokens))
        if return_log_prob:
            return targets, torch.cat(logp).cpu().numpy().astype(self.dtype_)
        return targets

    def _build(self, schema: Schema, context_schema: Schema | None) -> nn.Module:
        source_size = END + 1 if context_schema is None else context_schema.vocab_size
        net = EncoderDecoder(
            source_size, schema.vocab_size, self.width, self.n_layers, self.n_heads, self.dropout
        )
        return _Writing(net, schema.vocab_size, schema.event_shape[0] - 1)


class _Writing(NextTokenNet):
    """The network, which reads sources: without a context, an empty one."""

    def forward(self, context: Tensor | None = None) -> TokenSequence:
        source = torch.full((1,), END, device=self.device) if context is None else context
        return TokenSequence(self, self.max_length, source=source)

    @property
    def device(self) -> torch.device:
        return self.net.encoder.embed.weight.device

    def reading(self, source: Tensor) -> NextTokenNet:
        """The model of rows that go by these sources, (n, S)."""
        return NextTokenNet(_Given(self.net, source), self.vocab_size, self.max_length)


class _Given:
    """A network that has read its sources."""

    def __init__(self, net: EncoderDecoder, source: Tensor):
        self.net, self.source = net, net.offer(source)
        self.embed, self.write, self.step = net.decoder.embed, net.write, net.step

    def hidden(self, tokens: Tensor) -> Any:
        return self.net.hidden(tokens, self.source)

    def start(self, tokens: Tensor) -> Any:
        return self.net.start(tokens, self.source)
