"""A causal transformer over vectors that outputs parameters of each from those before it."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from densekit.nets.chain import squash
from densekit.nets.residual import uniform_weight
from densekit.nets.transformer import Decoder, Layout

_MAX_SQUASHED = 100.0
"""Bound of squashed inputs. No finite number reaches it, but overflow can produce infinities."""
_BATCH_TOKENS = 2**14


class CausalNet(Decoder):
    r"""Parameters of each of T tokens, vectors of P numbers, given the tokens before it.

    .. math:: h_t = A \operatorname{asinh}(x_{t-1}) + p_t + V \operatorname{asinh}(c), \qquad
              \theta_t = W_t\, \text{decoder}(h_{\le t}) + b_t

    Each position has a vector p and a matrix W of its own, because columns and patches are not a
    shift-invariant sequence; a shared W loses half a nat on a table of nine columns. There is no
    :math:`x_0`: the first parameters depend on the context only.

    Parameters
    ----------
    n_tokens, n_numbers : int
        T and P.
    n_params : int
        Number of parameters per token.
    width, n_layers, n_heads : int
        As in :class:`~densekit.nets.transformer.Transformer`.
    n_context : int
        Number of context features, which are added at every position.

    Notes
    -----
    Tokens (N, T, P) and context (N, C) to (N, T, n_params). The last layer starts at zero.

    Examples
    --------
    >>> CausalNet(3, 2, 4, width=16, n_layers=1, n_heads=2)(torch.ones(10, 3, 2)).shape
    torch.Size([10, 3, 4])
    """

    def __init__(
        self,
        n_tokens: int,
        n_numbers: int,
        n_params: int,
        width: int,
        n_layers: int,
        n_heads: int,
        n_context: int = 0,
    ) -> None:
        super().__init__(nn.Linear(n_numbers, width, bias=False), width, n_layers, n_heads)
        self.place = nn.Parameter(torch.randn(n_tokens, width))
        self.context = uniform_weight(width, n_context, n_context)
        self.last = nn.Parameter(torch.zeros(n_tokens, width, n_params))
        self.last_bias = nn.Parameter(torch.zeros(n_tokens, 1, n_params))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Tokens (N, T, P) and context (N, C) to parameters (N, T, n_params)."""
        if not torch.is_grad_enabled() and len(x) > (at_once := self._batch_rows):
            given = [None] * len(x) if context is None else context.split(at_once)
            return torch.cat([self(a, c) for a, c in zip(x.split(at_once), given, strict=False)])
        previous = self.embed(self._squash(x[:, :-1]))
        h = torch.nn.functional.pad(previous, (0, 0, 1, 0)) + self._position_embedding(context)
        hidden, _ = self.run(h.flatten(0, 1), Layout.full(h.shape[0], h.shape[1], h.device))
        by_place = hidden.view(h.shape).transpose(0, 1)
        return torch.baddbmm(self.last_bias, by_place, self.last).transpose(0, 1)

    def solve(
        self, step: Callable[[int, Tensor], Tensor], n: int, context: Tensor | None = None
    ) -> Tensor:
        """Compute tokens (n, T, P) one after another, with cached keys and values.

        ``step(t, parameters)`` takes the parameters (n, n_params) of token t and returns the
        token, (n, P). The result is differentiable.
        """
        base, cache = self._position_embedding(context), self.begin(n, len(self.place))
        tokens: list[Tensor] = []
        for t in range(len(self.place)):
            h = base[:, t].expand(n, -1)
            if tokens:
                h = h + self.embed(self._squash(tokens[-1]))
            hidden = self.advance(h, cache)
            tokens.append(step(t, torch.addmm(self.last_bias[t], hidden, self.last[t])))
        return torch.stack(tokens, 1)

    @property
    def _batch_rows(self) -> int:
        """Number of rows per batch without gradients; multiples of 32 make rounding independent of
        the batch.
        """
        return 32 * max(1, _BATCH_TOKENS // (32 * len(self.place)))

    def _squash(self, x: Tensor) -> Tensor:
        return squash(x).clamp(-_MAX_SQUASHED, _MAX_SQUASHED)

    def _position_embedding(self, context: Tensor | None) -> Tensor:
        """The embedding of each position and of the context, (N or 1, T, width)."""
        if context is None:
            return self.place[None]
        return self.place + (self._squash(context) @ self.context.t())[:, None]
