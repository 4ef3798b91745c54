"""A recurrent network over token ids."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from densekit.nets.transformer import Layout


@dataclass
class State:
    """State of each layer after the tokens so far: (n, width) tensors.

    An LSTM layer has two, its hidden and its cell state, and a GRU layer has one.
    """

    layers: list[tuple[Tensor, ...]]

    def keep(self, rows: Tensor) -> "State":
        """The state of some rows."""
        return State([tuple(s[rows] for s in layer) for layer in self.layers])

    def detach(self) -> "State":
        """The state without gradients."""
        return State([tuple(s.detach() for s in layer) for layer in self.layers])

    def forget(self, rows: Tensor) -> "State":
        """Reset the rows of a mask (n,) to the initial state, zero."""
        new = rows.unsqueeze(1)
        return State([tuple(s.masked_fill(new, 0) for s in layer) for layer in self.layers])


class Recurrent(nn.Module):
    r"""Layers of LSTM or GRU cells.

    .. math:: h^0_t = E_{x_t}, \qquad h^l_t, s^l_t = \text{cell}_l(h^{l-1}_t, s^l_{t-1}), \qquad
              \text{logits}_t = E\, h^L_t + b

    One matrix E both embeds tokens and computes logits. Dropout is variational: the same entries
    of :math:`h^l` are dropped at all positions of a string.

    Parameters
    ----------
    vocab_size : int
        Number of token ids; id 0 is padding and is never predicted.
    width, n_layers : int
        Width of every layer, and number of layers.
    cell : {"lstm", "gru"}
    dropout : float
        Probability with which training drops an entry.
    tied : bool
        Use one matrix E; otherwise there are two.

    References
    ----------
    S. Hochreiter and J. Schmidhuber. Long Short-Term Memory. Neural Computation, 1997.
    https://doi.org/10.1162/neco.1997.9.8.1735

    K. Cho et al. Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine
    Translation. EMNLP 2014. https://arxiv.org/abs/1406.1078

    O. Press and L. Wolf. Using the Output Embedding to Improve Language Models. EACL 2017.
    https://arxiv.org/abs/1608.05859

    Y. Gal and Z. Ghahramani. A Theoretically Grounded Application of Dropout in Recurrent Neural
    Networks. NeurIPS 2016. https://arxiv.org/abs/1512.05287

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
            # A forget gate that starts open (Jozefowicz et al. 2015).
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
        """Logits after each token of ``tokens``, (n, T), in reading order and without padding: (m,
        vocab_size).

        Padding (0) may be on either side of a row, not inside.
        """
        return self.to_logits(self.hidden(tokens)[0])

    def hidden(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Hidden states (m, width), and the state after the last token of each row.

        ``state`` is the initial state, zero by default. Each row has at least one token.
        """
        layout = Layout.of(tokens)
        x = self._drop(layout.pad(self.embed(tokens[tokens != 0])))
        lengths = None if layout.slots is None else (tokens != 0).sum(1).cpu()
        layers = []
        for i, cell in enumerate(self.cells):
            state_before = None if state is None else self._as_torch_state(state.layers[i])
            if lengths is None:
                x, state_after = cell(x, state_before)
            else:
                packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
                packed, state_after = cell(packed, state_before)
                x, _ = pad_packed_sequence(packed, batch_first=True, total_length=layout.n_columns)
            layers.append(
                tuple(s.squeeze(0) for s in (state_after if self.is_lstm else (state_after,)))
            )
            x = self._drop(x)
        return layout.unpad(x), State(layers)

    def start(self, tokens: Tensor) -> tuple[Tensor, State]:
        """Logits after the last token of each row of ``tokens``, (n, T), and the state."""
        _, state = self.hidden(tokens)
        return self.to_logits(state.layers[-1][0]), state

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits after one more token per row, ``tokens`` (n,), and the new state."""
        x, layers = self.embed(tokens).unsqueeze(1), []
        for cell, state_before in zip(self.cells, state.layers, strict=True):
            x, state_after = cell(x, self._as_torch_state(state_before))
            layers.append(
                tuple(s.squeeze(0) for s in (state_after if self.is_lstm else (state_after,)))
            )
        return self.to_logits(x.squeeze(1)), State(layers)

    def _as_torch_state(self, layer: tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
        """The state with the axis of layers that torch's cells expect."""
        found = tuple(s.unsqueeze(0).contiguous() for s in layer)
        return found if self.is_lstm else found[0]

    def _drop(self, x: Tensor) -> Tensor:
        """Drop the same entries at all positions of a row, (n, T, width)."""
        if not (self.training and self.dropout):
            return x
        return x * F.dropout(x.new_ones(len(x), 1, x.shape[2]), self.dropout)
