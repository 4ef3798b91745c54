"""Masked diffusion: a transformer that finds hidden tokens, and a bound on the mass of a string."""

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

_LENGTHS_FASTER = 10.0
"""The law of the length is so many times its weights, which Adam moves by the learning rate a step."""
_FEWEST_EVALUATED = 256


class MaskedDiffusion(TextModel, NeuralDensity):
    r"""Masked diffusion language model, MDLM (Sahoo et al. 2024): text by a diffusion that hides tokens.

    Until the time t each of the n tokens of a string has been hidden with probability t; a
    transformer without a causal mask predicts the hidden ones from those that are seen, :math:`z_t`,
    and gives no mass to the mask (SUBS parameterization). ``score_samples`` is the bound

    .. math:: \log P(x) \ge \log \pi(n) + \int_0^1 \frac1t\,
              E\Big[\sum_{i \text{ hidden}} \log p(x_i \mid z_t)\Big] dt

    in nats, a **lower bound** over counting measure, by ``n_draws`` fixed draws that all strings
    share; ``return_std=True`` says how far off these draws may be. Given how many tokens are hidden,
    t is integrated exactly (:class:`~densekit.distributions.absorbing.AbsorbingDiffusion`). All
    strings having the draws in common, their errors do not average out over many strings.

    The length n has a law of its own, :math:`\pi`, a categorical one on 0 ... ``max_length``, that is
    learned beside; the network sees where a string begins and ends. The masses P of all
    strings of at most ``max_length`` tokens sum to one, P being the law of ``sample`` with
    ``n_steps=None``, and their bounds to at most one, in expectation over the draws.

    Draws begin with a length and nothing but hidden tokens, which are uncovered in an order at random,
    by Gumbel noise in float64: with float32 draws are sharper than the model (Zheng et al. 2024).
    There are no prompts, since tokens do not come in order, and no temperature.

    Parameters
    ----------
    width : int
        Width of the residual stream, a multiple of ``2 * n_heads``.
    n_layers : int
        Blocks.
    n_heads : int
        Heads of each block.
    dropout : float
        Probability that an entry of what a block adds is dropped in training.
    n_draws : int
        Draws behind each score, made even; a score reads the string as many times.
    n_steps : int, optional
        Readings of a draw. Tokens uncovered in one step do not see each other: fewer steps than
        tokens are faster, and draw from another law than the one that is scored. None takes one token
        a step, the limit of many steps.
    max_steps : int, optional
        None takes 3000 steps, unless ``max_epochs`` or ``max_time`` is given.

    References
    ----------
    Sahoo et al. 2024, "Simple and Effective Masked Diffusion Language Models". Zheng et al. 2024,
    "Masked Diffusion Models are Secretly Time-Agnostic Masked Models and Exploit Inaccurate
    Categorical Sampling".

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
        """Minus the bound, by one draw a string, with levels spread over the batch."""
        rows = len(events)
        if not module.training:
            # A few held-out strings meet many levels, so that their loss is worth comparing.
            events = events.repeat(math.ceil(_FEWEST_EVALUATED / rows), 1)
        n, dist = len(events), module(context)
        noise = torch.rand(n, events.shape[1], device=events.device)
        strata = torch.randperm(n, device=events.device)
        bound = dist.uncover(events, (strata + noise[:, -1]) / n, noise)
        bound = bound + dist.log_lengths[(events > END).sum(1)]
        return -bound.view(-1, rows).mean(0)

    def _size(self, events: Tensor) -> Tensor:
        return (events != PADDING).sum(1)

    def _build(self, schema: Schema, context_schema: Schema | None) -> nn.Module:
        vocab_size = schema.vocab_size
        # One id more than there are tokens: the mask.
        embed = nn.Embedding(vocab_size + 1, self.width)
        net = Encoder(embed, self.width, self.n_layers, self.n_heads, self.dropout)
        levels, noise = _bank(self.n_draws, schema.event_shape[0] - 1)
        return _Uncovering(net, vocab_size, levels, noise)

    def _distribution(self, context: Tensor | None) -> TorchDistribution:
        return self.module_(context, self.n_draws, self.n_steps)


def _bank(n_draws: int, length: int) -> tuple[Tensor, Tensor]:
    """Levels (K,) and noise (K, length) of K draws, ``n_draws`` made even."""
    half = math.ceil(n_draws / 2)
    levels = (torch.arange(half).repeat_interleave(2) + torch.rand(2 * half)) / half
    return levels.clamp(max=1 - 1e-6), torch.rand(2 * half, length)


class _Uncovering(nn.Module):
    """The network as a :class:`~densekit.distributions.absorbing.Denoiser`, with the law of the length
    and the noise behind the scores."""

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
        """The law of strings, scored by its bank of noise, or by one of so many draws."""
        log_lengths = (_LENGTHS_FASTER * self.lengths).log_softmax(0)
        levels, noise = self.levels, self.noise
        if n_draws is not None and 2 * math.ceil(n_draws / 2) != len(levels):
            with drawn_from(noise):
                levels, noise = (t.to(noise) for t in _bank(n_draws, noise.shape[1]))
        return AbsorbingDiffusion(self, log_lengths, levels, noise, n_steps)

    def log_probs(self, seen: Tensor, tokens: Tensor) -> Tensor:
        hidden = seen == self.vocab_size
        states, symbols = self._read(seen, hidden), tokens[hidden] - END - 1
        logp = log_probs_of(self._write, states, symbols, self.vocab_size)
        out = torch.zeros(seen.shape, dtype=states.dtype, device=seen.device)
        return out.masked_scatter(hidden, logp)

    def logits(self, seen: Tensor, places: Tensor) -> Tensor:
        return F.pad(self._write(self._read(seen, places)), (END + 1, 0), value=-torch.inf)

    def _read(self, seen: Tensor, places: Tensor) -> Tensor:
        """Hidden states at ``places``, (m, width); a mark before each string, as END is behind it."""
        seen = F.pad(seen, (1, 0), value=END)
        states, _ = self.net.read(self.net.embed(seen[seen != PADDING]), Layout.of(seen))
        return states[F.pad(places, (1, 0))[seen != PADDING]]

    def _write(self, states: Tensor) -> Tensor:
        """Logits of the symbols that a string has: neither padding nor END nor the mask."""
        return F.linear(states, self.net.embed.weight[END + 1 : self.vocab_size])
