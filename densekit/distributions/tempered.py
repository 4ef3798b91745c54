"""Next-token probabilities with a temperature, top-k and nucleus truncation."""

from typing import Any

import torch
from torch import Tensor

from densekit.distributions.sequence import PADDING, NextToken


class Tempered:
    r"""A next-token model with a temperature and truncation.

    .. math:: q(w \mid h) \propto p(w \mid h)^{1 / \tau}\; [w \in K(h)] \; [w \in N(h)]

    K are the ``top_k`` most probable tokens, and N is the nucleus, the fewest of them whose total
    probability is at least ``top_p``; both use the probabilities after the temperature. The result
    is again a :class:`~densekit.distributions.sequence.NextToken`: in a
    :class:`~densekit.distributions.sequence.TokenSequence`, strings that q cannot draw score -inf.
    Scoring goes token by token, because q needs the probabilities of all tokens at every position.

    Parameters
    ----------
    model : NextToken
        The model p.
    temperature : float
        :math:`\tau` > 0. Values below 1 sharpen the distribution; greedy choice is ``top_k=1``.
    top_k : int, optional
        At least 1. Among equally probable tokens the smaller id comes first.
    top_p : float, optional
        In (0, 1]. The most probable token is always kept.

    References
    ----------
    A. Fan, M. Lewis and Y. Dauphin. Hierarchical Neural Story Generation. ACL 2018.
    https://arxiv.org/abs/1805.04833

    A. Holtzman, J. Buys, L. Du, M. Forbes and Y. Choi. The Curious Case of Neural Text
    Degeneration. ICLR 2020. https://arxiv.org/abs/1904.09751

    Examples
    --------
    >>> from densekit.distributions.backoff import BackoffTable
    >>> model = BackoffTable(torch.tensor([0.0, 0.5, 0.3, 0.2]), [])
    >>> logits, _ = Tempered(model, top_k=2).start(torch.tensor([[1]]))
    >>> logits.softmax(-1)
    tensor([[0.0000, 0.6250, 0.3750, 0.0000]])
    """

    def __init__(
        self,
        model: NextToken,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ):
        self.model, self.vocab_size = model, model.vocab_size
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p

    @property
    def device(self) -> torch.device:
        """Device of the model's tensors."""
        return self.model.device

    def conditioned_on(self, source: Tensor) -> "Tempered":
        """The tempered model of the next token given sources (n, S)."""
        model = self.model.conditioned_on(source)  # type: ignore[attr-defined]
        return Tempered(model, self.temperature, self.top_k, self.top_p)

    def log_probs(self, given: Tensor, tokens: Tensor) -> Tensor:
        """log q(tokens[:, t] | given, tokens[:, :t]), (n, L); 0 where ``tokens`` is padding."""
        logits, state = self.start(given)
        parts: list[Tensor] = []
        for t, token in enumerate(tokens.T):
            if t:
                logits, state = self.step(tokens[:, t - 1], state)
            logp = logits.log_softmax(-1).gather(1, token.unsqueeze(1)).squeeze(1)
            parts.append(torch.where(token != PADDING, logp, 0))
        return torch.stack(parts, 1)

    def start(self, given: Tensor) -> tuple[Tensor, Any]:
        """Logits of the first token, (n, vocab_size), and the state after ``given``."""
        logits, state = self.model.start(given)
        return self._truncated(logits), state

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Logits after one more token per row, ``tokens`` (n,), and the new state."""
        logits, state = self.model.step(tokens, state)
        return self._truncated(logits), state

    def keep(self, state: Any, rows: Tensor) -> Any:
        """The state of the rows with these indices."""
        return self.model.keep(state, rows)

    def _truncated(self, logits: Tensor) -> Tensor:
        logits = logits / self.temperature
        if self.top_k is None and self.top_p is None:
            return logits
        ranked, order = torch.sort(logits, stable=True, dim=-1, descending=True)
        kept = ranked > -torch.inf
        if self.top_k is not None:
            kept[:, self.top_k :] = False
        if self.top_p is not None:
            p = ranked.masked_fill(~kept, -torch.inf).softmax(-1)
            kept &= p.cumsum(-1) - p < self.top_p
            kept[:, 0] = True  # Rounding could otherwise drop every token.
        return logits.masked_fill(~kept.gather(1, order.argsort(-1)), -torch.inf)
