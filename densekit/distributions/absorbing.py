"""Masked (absorbing) diffusion: a bound on the probability of strings, and sampling by uncovering
tokens.
"""

from typing import Any, ClassVar, Protocol

import torch
from pyro.distributions import constraints
from torch import Tensor

from densekit.distributions.montecarlo import MonteCarloDistribution
from densekit.distributions.sequence import END, PADDING, are_strings

_BATCH_TOKENS = 2**14


class Denoiser(Protocol):
    """Interface of a model of masked tokens.

    ``seen`` are strings (n, L) closed by END and padded, in which the id ``vocab_size`` is the
    mask.
    """

    vocab_size: int

    def log_probs(self, seen: Tensor, tokens: Tensor) -> Tensor:
        """log p(tokens[:, i] | seen) where token i is masked, 0 elsewhere: (n, L)."""

    def logits(self, seen: Tensor, places: Tensor) -> Tensor:
        """Logits of the masked tokens at ``places`` (n, L), a mask, in reading order: (m,
        vocab_size), and -inf for ids that are not part of strings.
        """


class AbsorbingDiffusion(MonteCarloDistribution):
    r"""Strings under a diffusion that masks tokens one by one in random order.

    A string has length n with probability :math:`\pi(n)`. At time t in (0, 1) each of its tokens
    is masked with probability t (the log-linear schedule), and the masked tokens are predicted
    independently from :math:`z_t`, the visible ones. Visible tokens stay unchanged, and the mask
    is never predicted (SUBS). The probability of a string then has the bound

    .. math:: \log P(x) \ge \log \pi(n) + \int_0^1 \frac1t\, E\Big[\sum_{i \text{ masked}}
              \log p(x_i \mid z_t)\Big] dt
              = \log \pi(n) + \sum_{k=1}^n \frac1k\, E_{|S| = k}\Big[\sum_{i \in S}
              \log p(x_i \mid x_{-S})\Big]

    where S are the sets of k tokens. The integral over t is exact given the number of masked
    tokens, since :math:`\int \frac1t \binom nk t^k (1 - t)^{n - k} dt = \frac1k`. The right-hand
    side is also the objective of any-order models. It is estimated by draws of k, uniform on 1 ...
    n, and S, with the value :math:`n / k \sum_{i \in S} \log p`. There are two draws for each of K
    / 2 strata of k, the same for all rows, and the standard error is that of stratified sampling,
    :math:`s^2 = \sum_{\text{strata}} (a - b)^2 / K^2`.

    If P is the distribution of :meth:`sample` with one token per step, the probabilities of all
    strings sum to one, and their bounds to at most one.

    Parameters
    ----------
    model : Denoiser
    log_lengths : Tensor of shape (max_length + 1,)
        log pi. Events have the same shape.
    levels : Tensor of shape (K,)
        Levels in [0, 1), two consecutive ones in each of K / 2 equal intervals.
    noise : Tensor of shape (K, max_length)
        Uniform noise that selects the masked tokens.
    n_steps : int, optional
        Number of sampling steps. Tokens uncovered in the same step do not depend on each other, so
        fewer steps than tokens sample from another distribution than the one that is scored. None
        uncovers one token per step, the limit of infinitely many steps.

    References
    ----------
    S. S. Sahoo et al. Simple and Effective Masked Diffusion Language Models. NeurIPS 2024.
    https://arxiv.org/abs/2406.07524

    K. Zheng et al. Masked Diffusion Models are Secretly Time-Agnostic Masked Models and Exploit
    Inaccurate Categorical Sampling. ICLR 2025. https://arxiv.org/abs/2409.02908. The sum over k,
    sampling of one token per step, and the reason for Gumbel noise in float64: in float32 it is
    bounded above, which lowers the temperature of the samples.

    Examples
    --------
    >>> class Fair:  # two equally probable symbols
    ...     vocab_size = 4
    ...     def log_probs(self, seen, tokens):
    ...         return torch.where(seen == 4, torch.tensor(0.5).log(), 0.0)
    >>> lengths = torch.tensor([0.5, 0.25, 0.25]).log()
    >>> d = AbsorbingDiffusion(Fair(), lengths, torch.tensor([0.1, 0.9]), torch.rand(2, 2))
    >>> d.log_prob(torch.tensor([[1, 0, 0], [3, 1, 0], [2, 3, 1]])).exp()
    tensor([0.5000, 0.1250, 0.0625])
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
        """The distribution with its batch shape expanded."""
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
        r"""Bound on the log-probability of strings in nats, and its standard error: (\*shape, L) to
        (\*shape,).

        The bound is -inf for a row that is not a string of at most ``max_length`` tokens.
        """
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        tokens = value.long().expand(*shape, -1).reshape(shape.numel(), value.shape[-1])
        legal = are_strings(tokens, self.model.vocab_size)
        legal &= (tokens > END).sum(1) < len(self.log_lengths)
        place = torch.arange(tokens.shape[1], device=tokens.device)
        tokens = torch.where(legal[:, None], tokens, END * (place == 0))
        tokens = tokens[:, : int((tokens != PADDING).sum(1).max()) if len(tokens) else 1]
        # The pairs of a string and a draw are processed in pieces to bound the memory.
        draws = len(self.levels)
        pairs = torch.arange(len(tokens) * draws, device=tokens.device)
        pieces = pairs.split(max(1, _BATCH_TOKENS // (tokens.shape[1] + 1)))
        terms_of_pieces = [
            self.masked_term(tokens[p // draws], self.levels[p % draws], self.noise[p % draws])
            for p in pieces
        ]
        terms = torch.cat(terms_of_pieces).view(len(tokens), draws // 2, 2)
        error = (terms[..., 0] - terms[..., 1]).square().sum(1).sqrt() / draws
        logp = self.log_lengths[(tokens > END).sum(1)] + terms.mean((1, 2))
        logp, error = torch.where(legal, logp, -torch.inf), torch.where(legal, error, 0)
        return logp.reshape(shape), error.reshape(shape)

    def masked_term(self, tokens: Tensor, level: Tensor, noise: Tensor) -> Tensor:
        r"""One term :math:`n / k \sum_{i \in S} \log p(x_i \mid x_{-S})` for each string (n, L): (n,).

        ``level`` (n,) determines the number of masked tokens, and ``noise`` (n, at least L - 1)
        selects them.
        """
        inside = tokens > END
        n = inside.sum(1)
        k = torch.minimum(1 + (level * n).long(), n)
        order = torch.where(inside[:, :-1], noise[:, : tokens.shape[1] - 1], 2).argsort(1)
        masked = torch.zeros_like(inside)
        masked[:, :-1] = order.argsort(1) < k[:, None]
        seen = torch.where(masked, self.model.vocab_size, tokens)
        return n / k.clamp(min=1) * self.model.log_probs(seen, tokens).sum(1)

    # Samples.

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        r"""Sample strings, (\*sample_shape, \*batch_shape, max_length + 1)."""
        shape = torch.Size(sample_shape) + self.batch_shape
        lengths = self.log_lengths.exp().expand(shape.numel(), -1).multinomial(1)
        rows = max(1, _BATCH_TOKENS // len(self.log_lengths))
        return torch.cat([self._draw(n) for n in lengths.split(rows)]).reshape(
            *shape, len(self.log_lengths)
        )

    def _draw(self, lengths: Tensor) -> Tensor:
        """Sample strings of these lengths, (n, 1), uncovering each token at a random time."""
        place = torch.arange(len(self.log_lengths), device=lengths.device)
        masked = place < lengths
        tokens = torch.where(masked, self.model.vocab_size, END * (place == lengths))
        time = torch.rand(tokens.shape, dtype=torch.float64, device=tokens.device)
        if self.n_steps is None:
            step = torch.where(masked, time, 2).argsort(1).argsort(1)
        else:
            step = (self.n_steps * time).long()
        for i in step[masked].unique().tolist():
            uncovered = masked & (step == i)
            rows = uncovered.any(1)
            width = int(lengths[rows].max()) + 1
            logits = self.model.logits(tokens[rows, :width], uncovered[rows, :width]).double()
            tokens[uncovered] = (logits - (-torch.rand_like(logits).log()).log()).argmax(1)
        return tokens
