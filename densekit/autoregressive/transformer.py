"""A transformer language model."""

from typing import Annotated, ClassVar

from torch import nn

from densekit.autoregressive.language import LanguageModel, NeuralTokenModel, NextTokenNet
from densekit.base import Capabilities
from densekit.codecs.schema import Schema
from densekit.nets.transformer import Transformer
from densekit.params import Interval


class TransformerLanguageModel(LanguageModel, NeuralTokenModel):
    r"""A decoder-only transformer language model.

    .. math:: \log P(x) = \sum_{t=1}^{T} \log \operatorname{softmax}(E\, h_t)_{x_t},
              \qquad h_t = \text{transformer}(x_{<t}), \qquad x_T = \text{end}

    The network has rotary positions, RMSNorm and SwiGLU, and one matrix E both embeds tokens and
    computes logits. ``score_samples`` is the exact log-probability of each string in nats,
    including the end of the string; the probabilities of all strings of at most ``max_length``
    tokens sum to one. With ``tokens="bpe"`` it is the log-probability of the codec's tokenization,
    a lower bound on that of the string.

    X is a list or Series of strings, one per sample; split long documents into lines or
    paragraphs. Prompts need no special training: ``score_samples(X, context=prompts)`` is the
    log-probability that a string that begins with the prompt continues as X, and ``sample(n,
    context="Once upon")`` draws continuations.

    Parameters
    ----------
    width : int
        Width of the residual stream, a multiple of ``2 * n_heads``.
    n_layers : int
        Number of transformer blocks.
    n_heads : int
        Number of attention heads of each block.
    n_kv_heads : int, optional
        Number of heads of keys and values. Each serves a group of ``n_heads / n_kv_heads`` query
        heads, and the cache shrinks by the same factor. None uses ``n_heads``.
    dropout : float
        Probability with which training drops an entry of a block's output.

    Notes
    -----
    Without a budget, training takes 3000 steps. Sampling computes one token per step; it caches
    keys and values of the tokens before, (n, n_kv_heads, t, width / n_heads) per layer.

    References
    ----------
    A. Vaswani et al. Attention Is All You Need. NeurIPS 2017. https://arxiv.org/abs/1706.03762

    J. Su et al. RoFormer: Enhanced Transformer with Rotary Position Embedding. 2021.
    https://arxiv.org/abs/2104.09864

    N. Shazeer. GLU Variants Improve Transformer. 2020. https://arxiv.org/abs/2002.05202

    O. Press and L. Wolf. Using the Output Embedding to Improve Language Models. EACL 2017.
    https://arxiv.org/abs/1608.05859

    J. Ainslie et al. GQA: Training Generalized Multi-Query Transformer Models from Multi-Head
    Checkpoints. EMNLP 2023. https://arxiv.org/abs/2305.13245

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
