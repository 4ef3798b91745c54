"""Transformers over token ids or vectors: encoders, and decoders with a key-value cache."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densekit.nets.tokenwise import KERNEL, rms_norm, rotary, swiglu


@dataclass
class Layout:
    """Positions of the tokens of a padded (n, T) matrix. Only attention uses padding."""

    n_rows: int
    n_columns: int
    slots: Tensor | None
    """Index of each token in the left-aligned (n * T,) matrix; None without padding."""
    positions: Tensor
    """Position of each token in its row, (m,)."""

    @classmethod
    def of(cls, tokens: Tensor) -> "Layout":
        """The layout of ``tokens``, (n, T), where 0 is padding on either side."""
        n, width = tokens.shape
        real = tokens != 0
        if bool(real.all()):
            return cls.full(n, width, tokens.device)
        place = real.cumsum(1) - 1
        slots = place + width * torch.arange(n, device=tokens.device).unsqueeze(1)
        return cls(n, width, slots[real], place[real])

    @classmethod
    def full(cls, n_rows: int, n_columns: int, device: torch.device) -> "Layout":
        """The layout of rows of equal length without padding."""
        return cls(n_rows, n_columns, None, torch.arange(n_columns, device=device).repeat(n_rows))

    def pad(self, x: Tensor) -> Tensor:
        r"""Tokens (m, \*) to rows (n, T, \*), left-aligned and padded with zeros."""
        if self.slots is not None:
            full = x.new_zeros(self.n_rows * self.n_columns, *x.shape[1:])
            x = full.index_copy(0, self.slots, x)
        return x.view(self.n_rows, self.n_columns, *x.shape[1:])

    def unpad(self, x: Tensor) -> Tensor:
        """The inverse of :meth:`pad`."""
        x = x.flatten(0, 1)
        return x if self.slots is None else x[self.slots]


@dataclass
class Cache:
    """Keys and values of the tokens so far: per layer (n, n_kv_heads, capacity, head_dim)."""

    keys: list[Tensor]
    values: list[Tensor]
    lengths: Tensor
    """Number of tokens of each row, (n,)."""
    longest: int
    ragged: bool
    """Whether rows may differ in length, so that attention needs a mask."""

    def grow(self) -> None:
        """Add space for one more token per row; the capacity doubles when it is exhausted."""
        if self.longest == self.keys[0].shape[2]:
            extra = (0, 0, 0, max(self.longest, 16))
            self.keys = [F.pad(k, extra) for k in self.keys]
            self.values = [F.pad(v, extra) for v in self.values]
        self.longest += 1

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store the keys and values of one token per row, and attend to it and all tokens before it.

        Queries, keys and values are (n, n_heads or n_kv_heads, head_dim).
        """
        rows, keys, values = torch.arange(len(q), device=q.device), self.keys, self.values
        if torch.is_grad_enabled():  # Tensors saved by autograd must not be changed in place.
            keys[layer], values[layer] = keys[layer].clone(), values[layer].clone()
        keys[layer][rows, :, self.lengths] = k
        values[layer][rows, :, self.lengths] = v
        mask = None
        if self.ragged:
            seen = torch.arange(self.longest, device=q.device) <= self.lengths.unsqueeze(1)
            mask = seen[:, None, None]
        k, v = (expand_groups(u[layer][:, :, : self.longest], q.shape[1]) for u in (keys, values))
        return F.scaled_dot_product_attention(q.unsqueeze(2), k, v, attn_mask=mask).squeeze(2)

    def keep(self, rows: Tensor) -> "Cache":
        """The cache of some rows."""
        used = slice(0, self.longest)
        return Cache(
            [k[rows, :, used] for k in self.keys],
            [v[rows, :, used] for v in self.values],
            self.lengths[rows],
            self.longest,
            self.ragged,
        )


def expand_groups(x: Tensor, n_heads: int) -> Tensor:
    """Repeat keys or values (n, n_kv_heads, T, head_dim) for n_heads queries, as each serves a group
    of them.
    """
    return x if x.shape[1] == n_heads else x.repeat_interleave(n_heads // x.shape[1], 1)


Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Function from the query (m, n_heads, head_dim), key and value (m, n_kv_heads, head_dim) of each
token to the result of attention, (m, n_heads, head_dim).
"""


AfterAttention = Callable[[int, Tensor], Tensor]
"""Function of a block's number and tokens (m, width) to tokens (m, width), applied after
self-attention.
"""


class Block(nn.Module):
    """Attention and SwiGLU as residual branches, each on the RMS-normalized stream."""

    loops: ClassVar[str] = KERNEL

    def __init__(self, width: int, n_heads: int, n_kv_heads: int, dropout: float):
        super().__init__()
        self.n_heads, self.n_kv_heads, self.dropout = n_heads, n_kv_heads, dropout
        # The factor 8/3 gives as many parameters as a usual layer of 4 * width. Multiples of 16 are
        # fast.
        hidden = 16 * math.ceil(8 * width / 3 / 16)
        self.qkv = nn.Linear(width, width + 2 * n_kv_heads * (width // n_heads), bias=False)
        self.sharpness = nn.Parameter(torch.ones(n_heads, 1))
        self.merge = nn.Linear(width, width, bias=False)
        self.gate = nn.Linear(width, 2 * hidden, bias=False)
        self.out = nn.Linear(hidden, width, bias=False)

    def forward(
        self,
        x: Tensor,
        rotation: tuple[Tensor, Tensor],
        attend: Attend,
        after_attention: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Tokens (m, width) to tokens (m, width); ``after_attention`` is applied between attention
        and SwiGLU.
        """
        qkv = self.qkv(rms_norm(x)).unflatten(1, (self.n_heads + 2 * self.n_kv_heads, -1))
        gain = torch.cat([self.sharpness.squeeze(1), self.sharpness.new_ones(self.n_kv_heads)])
        qk, v = rotary(qkv, rotation, gain)
        q, k = qk.split([self.n_heads, self.n_kv_heads], 1)
        x = x + F.dropout(self.merge(attend(q, k, v).flatten(1)), self.dropout, self.training)
        x = x if after_attention is None else after_attention(x)
        added = self.out(swiglu(self.gate(rms_norm(x))))
        return x + F.dropout(added, self.dropout, self.training)


class Encoder(nn.Module):
    """Blocks in which each token attends to all tokens of its row; inputs and outputs are those of
    its users.

    Parameters
    ----------
    embed : Module
        Embedding of tokens as vectors (m, width): ``nn.Embedding`` or ``nn.Linear``.
    width, n_layers, n_heads, dropout, n_kv_heads
        As in :class:`Transformer`.
    """

    speeds: Tensor
    causal: ClassVar[bool] = False

    def __init__(
        self,
        embed: nn.Embedding | nn.Linear,
        width: int,
        n_layers: int,
        n_heads: int,
        dropout: float = 0.0,
        n_kv_heads: int | None = None,
    ):
        super().__init__()
        n_kv_heads = n_heads if n_kv_heads is None else n_kv_heads
        if n_heads % n_kv_heads:
            raise ValueError(
                f"n_kv_heads={n_kv_heads} must divide n_heads={n_heads}: each head of keys and values "
                "serves the same number of query heads"
            )
        if width % (2 * n_heads):
            raise ValueError(
                f"width={width} must be a multiple of 2 * n_heads = {2 * n_heads}: rotary "
                "positions rotate pairs of entries within each head"
            )
        self.embed, self.n_heads, self.n_kv_heads = embed, n_heads, n_kv_heads
        self.blocks = nn.ModuleList(
            Block(width, n_heads, n_kv_heads, dropout) for _ in range(n_layers)
        )
        half = width // n_heads // 2
        self.register_buffer("speeds", 1e4 ** (-torch.arange(half) / half), persistent=False)
        # Residual branches start at zero. A short training of a language model then ends 0.2 nats per
        # character lower than with small random weights.
        for name, weight in self.named_parameters():
            if name.endswith("weight"):
                adds = name.endswith(("merge.weight", "out.weight"))
                ids = name == "embed.weight" and isinstance(embed, nn.Embedding)
                std = 0.06 if ids else weight.shape[1] ** -0.5
                nn.init.normal_(weight, std=0.0 if adds else std)

    def rotation(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the angles of rotary positions, (m, head_dim / 2) each."""
        angles = positions.unsqueeze(1) * self.speeds
        return angles.cos(), angles.sin()

    def run(
        self,
        x: Tensor,
        layout: Layout,
        cached: bool = False,
        after_attention: AfterAttention | None = None,
    ) -> tuple[Tensor, Cache | None]:
        """Map vectors of tokens to hidden states, both (m, width).

        With ``cached`` it also returns the keys and values, with which a decoder can continue.
        """
        keys, values = [], []
        mask = None  # A causal mask already hides padding on the right.
        if not self.causal and layout.slots is not None:
            mask = layout.pad(torch.ones_like(layout.positions)).bool()[:, None, None]

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            q, k, v = (layout.pad(u).transpose(1, 2) for u in (q, k, v))
            if cached:
                keys.append(k)
                values.append(v)
            k, v = expand_groups(k, self.n_heads), expand_groups(v, self.n_heads)
            y = F.scaled_dot_product_attention(q, k, v, mask, is_causal=self.causal)
            return layout.unpad(y.transpose(1, 2))

        rotation = self.rotation(layout.positions)
        for i, block in enumerate(self.blocks):
            x = block(x, rotation, attend, after_attention and partial(after_attention, i))
        lengths = layout.pad(torch.ones_like(layout.positions)).sum(1)
        cache = (
            Cache(keys, values, lengths, layout.n_columns, layout.slots is not None)
            if cached
            else None
        )
        return rms_norm(x), cache


class Decoder(Encoder):
    """An :class:`Encoder` in which each token attends to itself and those before it, so that it can
    continue rows.
    """

    causal: ClassVar[bool] = True

    def begin(self, n_rows: int, capacity: int) -> Cache:
        """An empty cache of rows with space for ``capacity`` tokens before it grows."""
        like = self.speeds
        empty = like.new_zeros(n_rows, self.n_kv_heads, capacity, 2 * len(like))
        keys, values = ([empty.clone() for _ in self.blocks] for _ in range(2))
        lengths = torch.zeros(n_rows, dtype=torch.long, device=like.device)
        return Cache(keys, values, lengths, 0, ragged=False)

    def advance(
        self, x: Tensor, cache: Cache, after_attention: AfterAttention | None = None
    ) -> Tensor:
        """Map one more token per row to its hidden state, both (n, width); the cache is changed in
        place.
        """
        cache.grow()
        rotation = self.rotation(cache.lengths)
        for i, block in enumerate(self.blocks):
            x = block(
                x,
                rotation,
                partial(cache.attend, i),
                after_attention and partial(after_attention, i),
            )
        cache.lengths = cache.lengths + 1
        return rms_norm(x)


class Transformer(Decoder):
    """Rotary positions (Su et al. 2021), RMSNorm (Zhang and Sennrich 2019), on queries and keys too
    (Henry et al. 2020), SwiGLU (Shazeer 2020), and one matrix for reading and writing tokens (Press
    and Wolf 2017).

    Parameters
    ----------
    vocab_size : int
        Number of token ids; id 0 is padding and is never predicted.
    width : int
        Width of the residual stream; a multiple of ``2 * n_heads``.
    n_layers, n_heads : int
        Blocks, and attention heads in each.
    dropout : float
        Probability that an entry of what a block adds is dropped in training.
    n_kv_heads : int, optional
        Heads of keys and values, a divisor of ``n_heads``: each serves a group of queries (Ainslie et
        al. 2023), and the cache is smaller in proportion. None has one for each.

    Examples
    --------
    >>> net = Transformer(10, width=16, n_layers=2, n_heads=2)
    >>> net(torch.tensor([[1, 4, 5], [0, 1, 3]])).shape  # five tokens, one place of padding
    torch.Size([5, 10])
    """

    never: Tensor

    def __init__(
        self,
        vocab_size: int,
        width: int,
        n_layers: int,
        n_heads: int,
        dropout: float = 0.0,
        n_kv_heads: int | None = None,
    ):
        embed = nn.Embedding(vocab_size, width)
        super().__init__(embed, width, n_layers, n_heads, dropout, n_kv_heads)
        never = torch.zeros(vocab_size)
        never[0] = -torch.inf
        self.register_buffer("never", never, persistent=False)

    def to_logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (m, width) to logits (m, vocab_size), -inf for padding."""
        return F.linear(hidden, self.embed.weight, self.never)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits after each token of ``tokens``, (n, T), in reading order and without padding: (m,
        vocab_size).

        Padding (0) may be on either side of a row, not inside.
        """
        return self.to_logits(self.hidden(tokens)[0])

    def hidden(self, tokens: Tensor, cached: bool = False) -> tuple[Tensor, Cache | None]:
        """Hidden states (m, width), and with ``cached`` the state that :meth:`step` continues from."""
        return self.run(self.embed(tokens[tokens != 0]), Layout.of(tokens), cached)

    def start(self, tokens: Tensor) -> tuple[Tensor, Cache]:
        """Logits after the last token of each row of ``tokens``, (n, T), and the cache."""
        x, cache = self.hidden(tokens, cached=True)
        assert cache is not None
        return self.to_logits(x[cache.lengths.cumsum(0) - 1]), cache

    def step(self, tokens: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """Logits after one more token per row, ``tokens`` (n,); the cache is changed in place."""
        return self.to_logits(self.advance(self.embed(tokens), cache)), cache
