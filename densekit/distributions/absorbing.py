"""Discrete diffusion that hides tokens: a bound on the mass of a string, and draws by uncovering it."""

from typing import Any, ClassVar, Protocol

import torch
from pyro.distributions import constraints
from torch import Tensor

from densekit.distributions.montecarlo import MonteCarloDistribution
from densekit.distributions.sequence import END, PADDING, are_strings

_TOKENS_AT_ONCE = 2**14


class Denoiser(Protocol):
    """What a model of hidden tokens offers. In ``seen``, strings (n, L) closed by END and padded, the
    id ``vocab_size`` stands for a hidden token."""

    vocab_size: int

    def log_probs(self, seen: Tensor, tokens: Tensor) -> Tensor:
        """log p(tokens[:, i] | seen) where token i is hidden, 0 elsewhere: (n, L)."""

    def logits(self, seen: Tensor, places: Tensor) -> Tensor:
        """Logits of the hidden tokens at ``places`` (n, L), in reading order: (m, vocab_size); -inf
        for what is no symbol of a string."""


class AbsorbingDiffusion(MonteCarloDistribution):
    r"""Strings whose tokens were hidden one by one, in an order at random, and are found again.

    A string has the length n with probability :math:`\pi(n)`. Until the time t in (0, 1) each of its
    tokens has been hidden with probability t (the log-linear schedule), and hidden tokens are
    predicted independently from what is seen, :math:`z_t`. What is seen stays as it is, and no
    token is ever predicted to be the mask (SUBS). The mass of a string is then bounded by

    .. math:: \log P(x) \ge \log \pi(n) + \int_0^1 \frac1t\, E\Big[\sum_{i \text{ hidden}}
              \log p(x_i \mid z_t)\Big] dt
              = \log \pi(n) + \sum_{k=1}^n \frac1k\, E_{|S| = k}\Big[\sum_{i \in S}
              \log p(x_i \mid x_{-S})\Big]

    where S runs over all sets of k tokens: given how many are hidden, t integrates away,
    :math:`\int \frac1t \binom nk t^k (1 - t)^{n - k} dt = \frac1k`. That is what any-order
    models are trained by, and every term is a draw of k and S: :math:`n / k \sum_{i \in S} \log p`
    with k uniform on 1 ... n. The bank of noise has two draws for each of K / 2 strata of k, the same
    for all rows, and the standard error is that of stratified sampling,
    :math:`s^2 = \sum_{\text{strata}} (a - b)^2 / K^2`.

    With each P the law of :meth:`sample` one token at a time, the masses of all strings sum to one and
    their bounds to no more.

    Parameters
    ----------
    model : Denoiser
    log_lengths : Tensor
        log pi, (max_length + 1,). Events have shape ``(max_length + 1,)``.
    levels, noise : Tensor
        The bank: (K,) in [0, 1), two for each of K / 2 equal parts of it in turn, and (K, max_length).
    n_steps : int, optional
        Steps of a draw. The tokens that one step uncovers do not see each other, so that fewer steps
        than tokens draw from another law than the one that is scored. None uncovers one token a
        step, which is the limit of infinitely many steps.

    Examples
    --------
    >>> class Fair:  # two symbols, alike whatever is seen
    ...     vocab_size = 4
    ...     def log_probs(self, seen, tokens):
    ...         return torch.where(seen == 4, torch.tensor(0.5).log(), 0.0)
    >>> lengths = torch.tensor([0.5, 0.25, 0.25]).log()
    >>> d = AbsorbingDiffusion(Fair(), lengths, torch.tensor([0.1, 0.9]), torch.rand(2, 2))
    >>> d.log_prob(torch.tensor([[1, 0, 0], [3, 1, 0], [2, 3, 1]])).exp()
    tensor([0.5000, 0.1250, 0.0625])

    References
    ----------
    Sahoo et al. 2024, "Simple and Effective Masked Diffusion Language Models". Zheng et al. 2024,
    "Masked Diffusion Models are Secretly Time-Agnostic Masked Models and Exploit Inaccurate
    Categorical Sampling": the sum over k, one token at a time, and why Gumbel noise is drawn in float64:
    that of float32 is cut off above, which lowers the temperature of what is drawn.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.independent(constraints.nonnegative_integer, 1)

    def __init__(
        self,
        model: Denoiser,
        log_lengths: Tensor,
        levels: Tensor,
        noise: Tensor,
        n_steps: int | None = None,
        batch_shape: torch.Size = torch.Size(),
    ) -> None:
        self.model, self.log_lengths, self.n_steps = model, log_lengths, n_steps
        self.levels, self.noise = levels, noise
        super().__init__(batch_shape, log_lengths.shape, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "AbsorbingDiffusion":
        """The same, independently for each place of a larger batch."""
        return AbsorbingDiffusion(
            self.model,
            self.log_lengths,
            self.levels,
            self.noise,
            self.n_steps,
            torch.Size(batch_shape),
        )

    # Scores.

    def log_prob_and_error(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """The bound on the log-mass of strings, (\\*shape, L) to (\\*shape,), in nats, and its standard
        error; -inf for a row that is no string of at most ``max_length`` tokens."""
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        tokens = value.long().expand(*shape, -1).reshape(shape.numel(), value.shape[-1])
        legal = are_strings(tokens, self.model.vocab_size)
        legal &= (tokens > END).sum(1) < len(self.log_lengths)
        place = torch.arange(tokens.shape[1], device=tokens.device)
        tokens = torch.where(legal[:, None], tokens, END * (place == 0))
        tokens = tokens[:, : int((tokens != PADDING).sum(1).max()) if len(tokens) else 1]
        # (string, draw) pairs in pieces that bound the memory.
        draws = len(self.levels)
        pairs = torch.arange(len(tokens) * draws, device=tokens.device)
        pieces = pairs.split(max(1, _TOKENS_AT_ONCE // (tokens.shape[1] + 1)))
        found = [
            self.uncover(tokens[p // draws], self.levels[p % draws], self.noise[p % draws])
            for p in pieces
        ]
        terms = torch.cat(found).view(len(tokens), draws // 2, 2)
        error = (terms[..., 0] - terms[..., 1]).square().sum(1).sqrt() / draws
        logp = self.log_lengths[(tokens > END).sum(1)] + terms.mean((1, 2))
        logp, error = torch.where(legal, logp, -torch.inf), torch.where(legal, error, 0)
        return logp.reshape(shape), error.reshape(shape)

    def uncover(self, tokens: Tensor, level: Tensor, noise: Tensor) -> Tensor:
        r"""One draw's :math:`n / k \sum_{i \in S} \log p(x_i \mid x_{-S})` for strings (n, L): (n,).

        ``level`` (n,) says how many tokens are hidden, ``noise`` (n, at least L - 1) which.
        """
        inside = tokens > END
        n = inside.sum(1)
        k = torch.minimum(1 + (level * n).long(), n)
        order = torch.where(inside[:, :-1], noise[:, : tokens.shape[1] - 1], 2).argsort(1)
        hidden = torch.zeros_like(inside)
        hidden[:, :-1] = order.argsort(1) < k[:, None]
        seen = torch.where(hidden, self.model.vocab_size, tokens)
        return n / k.clamp(min=1) * self.model.log_probs(seen, tokens).sum(1)

    # Samples.

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw strings, (\\*sample_shape, \\*batch_shape, max_length + 1)."""
        shape = torch.Size(sample_shape) + self.batch_shape
        lengths = self.log_lengths.exp().expand(shape.numel(), -1).multinomial(1)
        rows = max(1, _TOKENS_AT_ONCE // len(self.log_lengths))
        return torch.cat([self._draw(n) for n in lengths.split(rows)]).reshape(
            *shape, len(self.log_lengths)
        )

    def _draw(self, lengths: Tensor) -> Tensor:
        """Strings of these lengths, (n, 1): each token is uncovered at a time at random."""
        place = torch.arange(len(self.log_lengths), device=lengths.device)
        hidden = place < lengths
        tokens = torch.where(hidden, self.model.vocab_size, END * (place == lengths))
        time = torch.rand(tokens.shape, dtype=torch.float64, device=tokens.device)
        if self.n_steps is None:
            step = torch.where(hidden, time, 2).argsort(1).argsort(1)
        else:
            step = (self.n_steps * time).long()
        for i in step[hidden].unique().tolist():
            now = hidden & (step == i)
            rows = now.any(1)
            width = int(lengths[rows].max()) + 1
            logits = self.model.logits(tokens[rows, :width], now[rows, :width]).double()
            tokens[now] = (logits - (-torch.rand_like(logits).log()).log()).argmax(1)
        return tokens
