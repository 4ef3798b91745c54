"""A recurrent network over token ids, with the state that it goes on from."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from densekit.nets.transformer import Layout


@dataclass
class State:
    """What each layer remembers of the tokens so far: (n, width) tensors, two for an LSTM's layer
    (what it shows and what it holds) and one for a GRU's."""

    layers: list[tuple[Tensor, ...]]

    def keep(self, rows: Tensor) -> "State":
        """The state of some rows only."""
        return State([tuple(s[rows] for s in layer) for layer in self.layers])

    def detach(self) -> "State":
        """The same numbers, through which no gradient flows."""
        return State([tuple(s.detach() for s in layer) for layer in self.layers])

    def forget(self, rows: Tensor) -> "State":
        """The state with that of some rows, a mask (n,), at its beginning: zero."""
        new = rows.unsqueeze(1)
        return State([tuple(s.masked_fill(new, 0) for s in layer) for layer in self.layers])


class Recurrent(nn.Module):
    r"""Layers of LSTM (Hochreiter and Schmidhuber 1997) or GRU (Cho et al. 2014) cells,

    .. math:: h^0_t = E_{x_t}, \qquad h^l_t, s^l_t = \text{cell}_l(h^{l-1}_t, s^l_{t-1}), \qquad
              \text{logits}_t = E\, h^L_t + b,

    with one matrix E that reads and writes tokens (Press and Wolf 2017; Inan et al. 2017), and
    variational dropout: the entries of :math:`h^l` that are dropped are the same at all places of a
    string (Gal and Ghahramani 2016).

    Parameters
    ----------
    vocab_size : int
        Number of token ids; id 0 is padding and is never predicted.
    width, n_layers : int
        Width of every layer, and how many.
    cell : {"lstm", "gru"}
    dropout : float
        Probability that an entry is dropped in training.
    tied : bool
        Whether E reads and writes; else there are two matrices.

    Examples
    --------
    >>> net = Recurrent(10, width=16, n_layers=2)
    >>> net(torch.tensor([[1, 4, 5], [0, 1, 3]])).shape  # five tokens, one place of padding
    torch.Size([5, 10])
    """

    never: Tensor

    def __init__(
        self,
        vocab_size: int,
        width: int,
        n_layers: int,
        cell: str = "lstm",
        dropout: float = 0.0,
        tied: bool = True,
    ):
        super().__init__()
        self.dropout, self.is_lstm = dropout, cell == "lstm"
        kind = nn.LSTM if self.is_lstm else nn.GRU
        self.embed = nn.Embedding(vocab_size, width)
        self.cells = nn.ModuleList(kind(width, width, batch_first=True) for _ in range(n_layers))
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        self.out = None if tied else nn.Parameter(torch.empty(vocab_size, width))
        for weight in (self.embed.weight, self.out):
            if weight is not None:
                nn.init.normal_(weight, std=0.1)
        if self.is_lstm:
            # Cells remember at first (Jozefowicz et al. 2015).
            for layer in self.cells:
                bias: Any = layer.bias_hh_l0
                nn.init.ones_(bias[width : 2 * width])
        never = torch.zeros(vocab_size)
        never[0] = -torch.inf
        self.register_buffer("never", never, persistent=False)

    def to_logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (m, width) to logits (m, vocab_size), -inf for padding."""
        matrix = self.embed.weight if self.out is None else self.out
        return F.linear(hidden, matrix, self.bias + self.never)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of what follows each token of ``tokens``, (n, T), in reading order and without
        padding: (m, vocab_size). Padding (0) may lie on either side of a row, not inside."""
        return self.to_logits(self.hidden(tokens)[0])

    def hidden(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Hidden states (m, width) and the state after the last token of each row; it begins with
        ``state``, or at zero. Each row has a token at least."""
        at = Layout.of(tokens)
        x = self._drop(at.pad(self.embed(tokens[tokens != 0])))
        lengths = None if at.slots is None else (tokens != 0).sum(1).cpu()
        layers = []
        for i, cell in enumerate(self.cells):
            before = None if state is None else self._given(state.layers[i])
            if lengths is None:
                x, after = cell(x, before)
            else:
                packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
                packed, after = cell(packed, before)
                x, _ = pad_packed_sequence(packed, batch_first=True, total_length=at.n_columns)
            layers.append(tuple(s.squeeze(0) for s in (after if self.is_lstm else (after,))))
            x = self._drop(x)
        return at.unpad(x), State(layers)

    def start(self, tokens: Tensor) -> tuple[Tensor, State]:
        """Logits after the last token of each row of ``tokens``, (n, T), and the state."""
        _, state = self.hidden(tokens)
        return self.to_logits(state.layers[-1][0]), state

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits after one more token per row, ``tokens`` (n,), and the new state."""
        x, layers = self.embed(tokens).unsqueeze(1), []
        for cell, before in zip(self.cells, state.layers, strict=True):
            x, after = cell(x, self._given(before))
            layers.append(tuple(s.squeeze(0) for s in (after if self.is_lstm else (after,))))
        return self.to_logits(x.squeeze(1)), State(layers)

    def _given(self, layer: tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
        """As torch's cells take it: with an axis of layers, of which each has one."""
        found = tuple(s.unsqueeze(0).contiguous() for s in layer)
        return found if self.is_lstm else found[0]

    def _drop(self, x: Tensor) -> Tensor:
        """Drop the same entries at all places of a row, (n, T, width)."""
        if not (self.training and self.dropout):
            return x
        return x * F.dropout(x.new_ones(len(x), 1, x.shape[2]), self.dropout)
