"""A transformer over tokens: the mass of a string by the chain rule."""

from typing import Annotated, ClassVar

from torch import nn

from densekit.autoregressive.language import LanguageModel, NeuralTokenModel, NextTokenNet
from densekit.base import Capabilities
from densekit.codecs.schema import Schema
from densekit.nets.transformer import Transformer
from densekit.params import Interval


class TransformerLanguageModel(LanguageModel, NeuralTokenModel):
    r"""A decoder-only transformer language model (Vaswani et al. 2017; Radford et al. 2018).

    .. math:: \log P(x) = \sum_{t=1}^{T} \log \operatorname{softmax}(E\, h_t)_{x_t},
              \qquad h_t = \text{transformer}(x_{<t}), \qquad x_T = \text{end}

    with rotary positions (Su et al. 2021), RMSNorm, SwiGLU (Shazeer 2020) and one matrix E that
    reads and writes tokens (Press and Wolf 2017). ``score_samples`` is the exact log-mass of each
    string in nats, end of string included; the masses of all strings of at most ``max_length``
    tokens sum to one. With ``tokens="bpe"`` it is the mass of the one tokenization that the codec
    writes, a lower bound on that of the string.

    Text goes in as a list or Series of strings, one sample each: split long documents into lines
    or paragraphs. Prompts need no special fit: ``score_samples(X, context=prompts)`` is log P(X
    follows | prompt), which is log P(prompt + X) - log P(a string begins with prompt), and
    ``sample(n, context="Once upon")`` draws what follows. Sampling keeps keys and values of the
    tokens before, (n, n_kv_heads, t, width / n_heads) per layer, and reads one token per step.

    Parameters
    ----------
    width : int
        Width of the residual stream, a multiple of ``2 * n_heads``.
    n_layers : int
        Blocks.
    n_heads : int
        Heads of each block.
    n_kv_heads : int, optional
        Heads of keys and values, each for a group of ``n_heads / n_kv_heads`` heads of queries
        (Ainslie et al. 2023): a smaller cache. None has one for each.
    dropout : float
        Probability that an entry of what a block adds is dropped in training.
    max_steps : int, optional
        None takes 3000 steps, unless ``max_epochs`` or ``max_time`` is given.

    Examples
    --------
    >>> from densekit import TransformerLanguageModel
    >>> model = TransformerLanguageModel(width=8, n_layers=1, n_heads=2, max_steps=5)
    >>> model.fit(["abba", "baab", "abab", "bb"] * 5).score_samples(["ab", "ba"]).shape
    (2,)
    >>> len(model.sample(2, context="ab", random_state=0))
    2
    """

    width: Annotated[int, Interval(ge=4)] = 192
    n_layers: Annotated[int, Interval(ge=1)] = 4
    n_heads: Annotated[int, Interval(ge=1)] = 4
    n_kv_heads: Annotated[int | None, Interval(ge=1)] = None
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    batch_size: Annotated[int, Interval(ge=1)] = 8
    learning_rate: Annotated[float, Interval(gt=0)] = 2e-3
    weight_decay: Annotated[float, Interval(ge=0)] = 0.1

    _default_steps: ClassVar[int] = 3000
    _capabilities: ClassVar[Capabilities] = Capabilities(
        density="exact",
        view="typed",
        modalities=("text",),
        context="prompt",
        flat=False,
        weights=True,
    )

    def _build(self, schema: Schema, context_schema: Schema | None) -> nn.Module:
        net = Transformer(
            schema.vocab_size,
            self.width,
            self.n_layers,
            self.n_heads,
            dropout=self.dropout,
            n_kv_heads=self.n_kv_heads,
        )
        return NextTokenNet(net, schema.vocab_size, schema.event_shape[0] - 1)
