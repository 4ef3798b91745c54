"""Masked diffusion: a text model that uncovers masked tokens in random order."""

import math
from typing import Annotated, Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.nn import functional as F

from densekit.autoregressive.language import TextModel, log_probs_of
from densekit.base import Capabilities
from densekit.codecs.schema import Schema
from densekit.distributions.absorbing import AbsorbingDiffusion
from densekit.distributions.montecarlo import drawn_from
from densekit.distributions.sequence import END, PADDING
from densekit.nets.transformer import Encoder, Layout
from densekit.neural import NeuralDensity
from densekit.params import Interval

_LENGTH_LOGIT_SCALE = 10.0
"""Factor between the weights and the logits of the length; a step of Adam has a fixed size, and the
logits have to move faster than other weights.
"""
_MIN_VALIDATION_SCORES = 256


class MaskedDiffusion(TextModel, NeuralDensity):
    r"""MDLM, a masked diffusion language model.

    The diffusion masks each of the n tokens of a string independently, with probability t at time
    t. A transformer without a causal mask predicts the masked tokens from :math:`z_t`, the tokens
    that are visible, and never predicts the mask itself (SUBS parametrization). ``score_samples``
    is the bound

    .. math:: \log P(x) \ge \log \pi(n) + \int_0^1 \frac1t\,
              E\Big[\sum_{i \text{ masked}} \log p(x_i \mid z_t)\Big] dt

    in nats: a **lower bound** on the log-probability, estimated from ``n_draws`` fixed random
    maskings that all strings share. ``return_std=True`` returns the standard error of this
    estimate. Because the maskings are shared, the errors do not average out over many strings. The
    integral over t is exact given the number of masked tokens
    (:class:`~densekit.distributions.absorbing.AbsorbingDiffusion`).

    The length n has a learned categorical distribution :math:`\pi` on 0 ... ``max_length``, and
    the network sees where a string begins and ends. The probabilities P of all strings of at most
    ``max_length`` tokens sum to one, where P is the distribution of ``sample`` with
    ``n_steps=None``; the bounds sum to at most one, in expectation over the maskings.

    Sampling draws a length, starts with masked tokens only and uncovers them in random order. It
    uses Gumbel noise in float64, since float32 makes samples less diverse than the model (Zheng et
    al.). Prompts and a temperature are not supported, because the tokens are not generated in
    order.

    Parameters
    ----------
    width : int
        Width of the residual stream, a multiple of ``2 * n_heads``.
    n_layers : int
        Number of transformer blocks.
    n_heads : int
        Number of attention heads of each block.
    dropout : float
        Probability with which training drops an entry of a block's output.
    n_draws : int
        Number of maskings behind each score, rounded up to an even number. A score takes as many
        passes.
    n_steps : int, optional
        Number of passes for a sample. Tokens uncovered in the same step do not depend on each
        other, so fewer steps than tokens are faster but sample from another distribution than the
        one that is scored. None uncovers one token per step, the limit of many steps.

    Notes
    -----
    Without a budget, training takes 3000 steps.

    References
    ----------
    S. S. Sahoo et al. Simple and Effective Masked Diffusion Language Models. NeurIPS 2024.
    https://arxiv.org/abs/2406.07524

    K. Zheng et al. Masked Diffusion Models are Secretly Time-Agnostic Masked Models and Exploit
    Inaccurate Categorical Sampling. ICLR 2025. https://arxiv.org/abs/2409.02908

    Examples
    --------
    >>> from densekit import MaskedDiffusion
    >>> model = MaskedDiffusion(width=8, n_layers=1, n_heads=2, max_steps=5, random_state=0)
    >>> bound, error = model.fit(["abba", "baab", "abab", "bb"] * 5).score_samples(
    ...     ["ab", "ba"], return_std=True
    ... )
    >>> bound.shape, error.shape, len(model.sample(2, random_state=0))
    ((2,), (2,), 2)
    """

    width: Annotated[int, Interval(ge=4)] = 128
    n_layers: Annotated[int, Interval(ge=1)] = 4
    n_heads: Annotated[int, Interval(ge=1)] = 4
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    n_draws: Annotated[int, Interval(ge=2)] = 32
    n_steps: Annotated[int | None, Interval(ge=1)] = None
    batch_size: Annotated[int, Interval(ge=1)] = 32
    learning_rate: Annotated[float, Interval(gt=0)] = 2e-3
    weight_decay: Annotated[float, Interval(ge=0)] = 0.1
    ema_decay: Annotated[float, Interval(ge=0, lt=1)] = 0.995

    _default_steps: ClassVar[int] = 3000
    _at_once: ClassVar[tuple[str, ...]] = ("n_draws", "n_steps")
    _capabilities: ClassVar[Capabilities] = Capabilities(
        density="lower_bound", view="typed", modalities=("text",), flat=False, weights=True
    )

    def _loss(self, module: Any, events: Tensor, context: Tensor | None) -> Tensor:
        """Minus the bound, from one masking per string whose levels are stratified over the batch."""
        rows = len(events)
        if not module.training:
            # A small held-out set is repeated, so that its loss averages over enough masking levels.
            events = events.repeat(math.ceil(_MIN_VALIDATION_SCORES / rows), 1)
        n, dist = len(events), module(context)
        noise = torch.rand(n, events.shape[1], device=events.device)
        strata = torch.randperm(n, device=events.device)
        bound = dist.masked_term(events, (strata + noise[:, -1]) / n, noise)
        bound = bound + dist.log_lengths[(events > END).sum(1)]
        return -bound.view(-1, rows).mean(0)

    def _size(self, events: Tensor) -> Tensor:
        return (events != PADDING).sum(1)

    def _build(self, schema: Schema, context_schema: Schema | None) -> nn.Module:
        vocab_size = schema.vocab_size
        # The additional id is the mask.
        embed = nn.Embedding(vocab_size + 1, self.width)
        net = Encoder(embed, self.width, self.n_layers, self.n_heads, self.dropout)
        levels, noise = _draw_maskings(self.n_draws, schema.event_shape[0] - 1)
        return _DenoisingNet(net, vocab_size, levels, noise)

    def _distribution(self, context: Tensor | None) -> TorchDistribution:
        return self.module_(context, self.n_draws, self.n_steps)


def _draw_maskings(n_draws: int, length: int) -> tuple[Tensor, Tensor]:
    """Draw levels (K,) and noise (K, length), where K is ``n_draws`` rounded up to an even number."""
    half = math.ceil(n_draws / 2)
    levels = (torch.arange(half).repeat_interleave(2) + torch.rand(2 * half)) / half
    return levels.clamp(max=1 - 1e-6), torch.rand(2 * half, length)


class _DenoisingNet(nn.Module):
    """A :class:`~densekit.distributions.absorbing.Denoiser` with a distribution of the length and the
    noise of the scores.
    """

    levels: Tensor
    noise: Tensor

    def __init__(self, net: Encoder, vocab_size: int, levels: Tensor, noise: Tensor):
        super().__init__()
        self.net, self.vocab_size = net, vocab_size
        self.lengths = nn.Parameter(torch.zeros(noise.shape[1] + 1))
        self.register_buffer("levels", levels)
        self.register_buffer("noise", noise)

    def forward(
        self, context: Tensor | None = None, n_draws: int | None = None, n_steps: int | None = None
    ) -> AbsorbingDiffusion:
        """Return the distribution; scores use the stored noise, or new noise if ``n_draws`` differs
        from it.
        """
        log_lengths = (_LENGTH_LOGIT_SCALE * self.lengths).log_softmax(0)
        levels, noise = self.levels, self.noise
        if n_draws is not None and 2 * math.ceil(n_draws / 2) != len(levels):
            with drawn_from(noise):
                levels, noise = (t.to(noise) for t in _draw_maskings(n_draws, noise.shape[1]))
        return AbsorbingDiffusion(self, log_lengths, levels, noise, n_steps)

    def log_probs(self, seen: Tensor, tokens: Tensor) -> Tensor:
        hidden = seen == self.vocab_size
        states, symbols = self._hidden_states(seen, hidden), tokens[hidden] - END - 1
        logp = log_probs_of(self._to_logits, states, symbols, self.vocab_size)
        out = torch.zeros(seen.shape, dtype=states.dtype, device=seen.device)
        return out.masked_scatter(hidden, logp)

    def logits(self, seen: Tensor, places: Tensor) -> Tensor:
        return F.pad(
            self._to_logits(self._hidden_states(seen, places)), (END + 1, 0), value=-torch.inf
        )

    def _hidden_states(self, seen: Tensor, places: Tensor) -> Tensor:
        """Hidden states at ``places``, (m, width). END marks the beginning of each string as well as
        its end.
        """
        seen = F.pad(seen, (1, 0), value=END)
        states, _ = self.net.run(self.net.embed(seen[seen != PADDING]), Layout.of(seen))
        return states[F.pad(places, (1, 0))[seen != PADDING]]

    def _to_logits(self, states: Tensor) -> Tensor:
        """Logits of the tokens a string can contain: not padding, END or the mask."""
        return F.linear(states, self.net.embed.weight[END + 1 : self.vocab_size])
