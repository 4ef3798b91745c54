"""An encoder-decoder transformer for translation and dialogue."""

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

_MAX_BEAMS_PER_BATCH = 256


class Seq2Seq(NeuralTokenModel):
    r"""An encoder-decoder transformer, which models a target string given a source string.

    .. math:: \log P(x \mid c) = \sum_{t=1}^{T} \log \operatorname{softmax}(E\, h_t)_{x_t},
              \qquad h_t = \text{decoder}(x_{<t}, \text{encoder}(c)), \qquad x_T = \text{end}

    The encoder has no causal mask. The decoder reads the encoded source c by cross-attention,
    which has rotary positions like self-attention. ``score_samples(X, context=sources)`` is the
    exact log-probability of each target in nats, including the end of the string; for each source,
    the probabilities of all targets of at most ``max_length`` tokens sum to one. With
    ``tokens="bpe"`` the score is a lower bound, as for every model of strings.

    ``fit(targets, context=sources)`` takes lists or Series of strings of the same length. Sources
    are tokenized in the same way, with a vocabulary of their own. A source may be empty, and its
    characters that ``fit`` has not seen become the unknown symbol. ``sample(context=sources)``
    draws a target for each source, and `decode` searches for the most probable one. Without a
    context it is a model of X alone.

    Parameters
    ----------
    max_length : int or None
        Largest number of tokens of a source and of a target; None uses twice the longest of each
        in ``fit``.
    width : int
        Width of the residual stream, a multiple of ``2 * n_heads``.
    n_layers : int
        Number of blocks of the encoder and of the decoder.
    n_heads : int
        Number of attention heads of each block.
    dropout : float
        Probability with which training drops an entry of a block's output.

    Notes
    -----
    Without a budget, training takes 3000 steps.

    References
    ----------
    A. Vaswani et al. Attention Is All You Need. NeurIPS 2017. https://arxiv.org/abs/1706.03762

    J. Su et al. RoFormer: Enhanced Transformer with Rotary Position Embedding. 2021.
    https://arxiv.org/abs/2104.09864

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
        """Search for the most probable target of each source by beam search.

        The result is the best target that ``n_beams`` beams find
        (:func:`~densekit.distributions.beams.beam_search`), which need not be the best of all. It
        never contains the unknown symbol.

        Parameters
        ----------
        context : str or list of str
            Sources.
        n_beams : int
            Number of partial targets kept at every step; 1 is greedy search.
        return_log_prob : bool
            Whether to return log-probabilities as well.

        Returns
        -------
        targets : like the targets of ``fit``
            One target per source.
        log_prob : ndarray of shape (n,), only with ``return_log_prob``
            Log-probability in nats of the tokens found. It equals ``score_samples`` of the
            targets, unless decoding and encoding the target gives other tokens: bytes that are not
            valid UTF-8, or a word that BPE can split in several ways.

        Raises
        ------
        TypeError, ValueError
            If ``n_beams`` is below 1, or ``context`` is not valid in ``sample``.
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
                max(1, _MAX_BEAMS_PER_BATCH // n_beams)
            ):
                given = piece.new_full((len(piece), 1), END)
                found = beam_search(
                    dist.model.conditioned_on(piece),  # type: ignore[attr-defined]
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
        return _ConditionalNet(net, schema.vocab_size, schema.event_shape[0] - 1)


class _ConditionalNet(NextTokenNet):
    """A network that encodes its sources; without a context the source is empty."""

    def forward(self, context: Tensor | None = None) -> TokenSequence:
        source = torch.full((1,), END, device=self.device) if context is None else context
        return TokenSequence(self, self.max_length, source=source)

    @property
    def device(self) -> torch.device:
        return self.net.encoder.embed.weight.device

    def conditioned_on(self, source: Tensor) -> NextTokenNet:
        """The model of the next token of n rows given their sources (n, S)."""
        return NextTokenNet(_EncodedNet(self.net, source), self.vocab_size, self.max_length)


class _EncodedNet:
    """An encoder-decoder whose sources are encoded already, with the interface of a decoder."""

    def __init__(self, net: EncoderDecoder, source: Tensor):
        self.net, self.source = net, net.encode(source)
        self.embed, self.to_logits, self.step = net.decoder.embed, net.to_logits, net.step

    def hidden(self, tokens: Tensor) -> Any:
        return self.net.hidden(tokens, self.source)

    def start(self, tokens: Tensor) -> Any:
        return self.net.start(tokens, self.source)
