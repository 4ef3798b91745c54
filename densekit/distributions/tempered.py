"""Next-token probabilities made sharper or flatter: what is drawn then has another density."""

from typing import Any

import torch
from torch import Tensor

from densekit.distributions.sequence import PADDING, NextToken


class Tempered:
    r"""A :class:`~densekit.distributions.sequence.NextToken` whose probabilities are those of another,

    .. math:: q(w \mid h) \propto p(w \mid h)^{1 / \tau}\; [w \in K(h)] \; [w \in N(h)],

    with K the ``top_k`` likeliest tokens (Fan et al. 2018) and N the nucleus, the fewest of those
    that have ``top_p`` of the mass between them (Holtzman et al. 2020), both after the temperature.
    It is a density of its own: with :class:`~densekit.distributions.sequence.TokenSequence` around
    it, strings that q cannot draw score -inf. Scoring goes token by token, since q needs the
    probabilities of all tokens at every place.

    Parameters
    ----------
    model : NextToken
    temperature : float
        :math:`\tau` > 0. Below 1 likely tokens become likelier; the likeliest alone is ``top_k=1``.
    top_k : int, optional
        At least 1. Among equally likely tokens the one with the smaller id comes first.
    top_p : float, optional
        In (0, 1]. The likeliest token is always kept.

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
        """Where its tensors are."""
        return self.model.device

    def conditioned_on(self, source: Tensor) -> "Tempered":
        """The same of a model that writes from sources, (n, S)."""
        model = self.model.conditioned_on(source)  # type: ignore[attr-defined]
        return Tempered(model, self.temperature, self.top_k, self.top_p)

    def log_probs(self, given: Tensor, tokens: Tensor) -> Tensor:
        """log q(tokens[:, t] | given, tokens[:, :t]), (n, L); 0 where ``tokens`` is padding."""
        logits, state = self.start(given)
        found: list[Tensor] = []
        for t, now in enumerate(tokens.T):
            if t:
                logits, state = self.step(tokens[:, t - 1], state)
            logp = logits.log_softmax(-1).gather(1, now.unsqueeze(1)).squeeze(1)
            found.append(torch.where(now != PADDING, logp, 0))
        return torch.stack(found, 1)

    def start(self, given: Tensor) -> tuple[Tensor, Any]:
        """Logits of the first token, (n, vocab_size), and the state after."""
        logits, state = self.model.start(given)
        return self._changed(logits), state

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Logits of the token after one more token per row, (n,), and the new state."""
        logits, state = self.model.step(tokens, state)
        return self._changed(logits), state

    def keep(self, state: Any, rows: Tensor) -> Any:
        """The state of the rows with these indices."""
        return self.model.keep(state, rows)

    def _changed(self, logits: Tensor) -> Tensor:
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
            kept[:, 0] = True  # rounding must not leave a row without a token
        return logits.masked_fill(~kept.gather(1, order.argsort(-1)), -torch.inf)
