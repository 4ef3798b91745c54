"""An encoder-decoder transformer."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densekit.nets.tokenwise import rms_norm, rotary
from densekit.nets.transformer import Cache, Encoder, Layout, Transformer


@dataclass
class Source:
    """Encoded sources: per layer keys and values, (n, n_heads, S, head_dim), of n sources."""

    keys: list[Tensor]
    values: list[Tensor]
    mask: Tensor
    """Which of the S positions hold a token, (n, 1, 1, S)."""

    def keep(self, rows: Tensor) -> "Source":
        """Some of the sources, possibly repeated."""
        keys, values = ([x[rows] for x in xs] for xs in (self.keys, self.values))
        return Source(keys, values, self.mask[rows])


@dataclass
class State:
    """State of sampling."""

    cache: Cache
    source: Source

    def keep(self, rows: Tensor) -> "State":
        """The state of some rows, possibly repeated."""
        return State(self.cache.keep(rows), self.source.keep(rows))


class CrossAttention(nn.Module):
    """Cross-attention of tokens to a source, with rotary positions on both sides."""

    def __init__(self, width: int, n_heads: int, dropout: float):
        super().__init__()
        self.n_heads, self.dropout = n_heads, dropout
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.sharpness = nn.Parameter(torch.ones(n_heads, 1))
        self.merge = nn.Linear(width, width, bias=False)
        for part in (self.query, self.key_value):
            nn.init.normal_(part.weight, std=width**-0.5)
        nn.init.zeros_(self.merge.weight)  # As in a block, it starts by adding nothing.

    def keys_values(
        self, source: Tensor, rotation: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Keys and values (m, n_heads, head_dim) of source tokens (m, width)."""
        both = self.key_value(source).unflatten(1, (2 * self.n_heads, -1))
        return rotary(both, rotation, both.new_ones(self.n_heads))

    def forward(
        self,
        x: Tensor,
        rotation: tuple[Tensor, Tensor],
        layout: Layout,
        source: Source,
        layer: int,
    ) -> Tensor:
        """Tokens (m, width) with the given layout to tokens (m, width)."""
        q = self.query(rms_norm(x)).unflatten(1, (self.n_heads, -1))
        q, _ = rotary(q, rotation, self.sharpness.squeeze(1))
        q = layout.pad(q).transpose(1, 2)
        k, v = source.keys[layer], source.values[layer]
        y = F.scaled_dot_product_attention(q, k, v, source.mask)
        found = self.merge(layout.unpad(y.transpose(1, 2)).flatten(1))
        return x + F.dropout(found, self.dropout, self.training)


class EncoderDecoder(nn.Module):
    """An encoder without a causal mask, and a decoder with cross-attention after each self-attention.

    It has rotary positions, RMSNorm and SwiGLU, as in
    :class:`~densekit.nets.transformer.Transformer`.

    Parameters
    ----------
    source_size, vocab_size : int
        Number of token ids of sources and targets; id 0 is padding.
    width, n_layers, n_heads, dropout
        Of the encoder and of the decoder.

    References
    ----------
    A. Vaswani et al. Attention Is All You Need. NeurIPS 2017. https://arxiv.org/abs/1706.03762

    Examples
    --------
    >>> net = EncoderDecoder(6, 10, width=16, n_layers=2, n_heads=2)
    >>> source = net.encode(torch.tensor([[3, 4, 5, 1], [5, 1, 0, 0]]))
    >>> net.hidden(torch.tensor([[1, 4, 5], [0, 1, 3]]), source)[0].shape  # five tokens
    torch.Size([5, 16])
    """

    def __init__(
        self,
        source_size: int,
        vocab_size: int,
        width: int,
        n_layers: int,
        n_heads: int,
        dropout: float = 0.0,
    ):
        super().__init__()
        embed = nn.Embedding(source_size, width)
        self.encoder = Encoder(embed, width, n_layers, n_heads, dropout)
        self.decoder = Transformer(vocab_size, width, n_layers, n_heads, dropout)
        self.looks = nn.ModuleList(
            CrossAttention(width, n_heads, dropout) for _ in range(n_layers)
        )

    def encode(self, tokens: Tensor) -> Source:
        """Encode sources (n, S), padded with 0 on either side; each has at least one token."""
        layout = Layout.of(tokens)
        x, _ = self.encoder.run(self.encoder.embed(tokens[tokens != 0]), layout)
        rotation = self.encoder.rotation(layout.positions)
        keys, values = [], []
        for look in self.looks:
            k, v = (layout.pad(u).transpose(1, 2) for u in look.keys_values(x, rotation))  # type: ignore[operator]
            keys.append(k)
            values.append(v)
        mask = layout.pad(torch.ones_like(layout.positions)).bool()[:, None, None]
        return Source(keys, values, mask)

    def hidden(
        self, tokens: Tensor, source: Source, cached: bool = False
    ) -> tuple[Tensor, Cache | None]:
        """Hidden states (m, width) of ``tokens`` (n, T), each row given its source."""
        layout = Layout.of(tokens)
        x = self.decoder.embed(tokens[tokens != 0])
        return self.decoder.run(
            x, layout, cached, self._cross_attention(layout.positions, layout, source)
        )

    def to_logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (m, width) to logits (m, vocab_size), -inf for padding."""
        return self.decoder.to_logits(hidden)

    def start(self, tokens: Tensor, source: Source) -> tuple[Tensor, State]:
        """Logits after the last token of each row of ``tokens``, (n, T), and the state."""
        x, cache = self.hidden(tokens, source, cached=True)
        assert cache is not None
        return self.to_logits(x[cache.lengths.cumsum(0) - 1]), State(cache, source)

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits after one more token per row, ``tokens`` (n,); the state is changed in place."""
        layout = Layout.full(len(tokens), 1, tokens.device)
        after_attention = self._cross_attention(state.cache.lengths, layout, state.source)
        x = self.decoder.advance(self.decoder.embed(tokens), state.cache, after_attention)
        return self.to_logits(x), state

    def _cross_attention(self, positions: Tensor, layout: Layout, source: Source) -> Any:
        rotation = self.decoder.rotation(positions)
        return lambda i, x: self.looks[i](x, rotation, layout, source, i)
