r"""Heads for pixels: from features of a pixel to the distribution of its C channels.

*Few levels*: a softmax for each channel, given the channels before it,

.. math:: P(x_c = k \mid x_{<c}) = \operatorname{softmax}_k\big(W_c\, \sigma(f + \textstyle\sum_{b<c}
          E_{b}[x_b]) + b_c\big), \qquad \text{the logit of } k = 0 \text{ fixed at } 0

With two levels this is one logit, a Bernoulli distribution. *Many levels* 0..K-1, and *float
pixels*: a mixture of M logistics, whose means are shifted by the channels before (PixelCNN++,
sections 2.1 and 2.2),

.. math::
    P(x) = \sum_m \pi_m \prod_c \big[F((e_{x_c + 1} - \mu_{mc}) / s_{mc})
            - F((e_{x_c} - \mu_{mc}) / s_{mc})\big], \qquad
    \mu_{mc} = \mu^0_{mc} + \sum_{b<c} a_{mcb}\, x_b

with :math:`F(x) = 1 / (1 + e^{-x})`. The edges :math:`e_k = (2k - K) / (K - 1)` are midpoints
between levels scaled to [-1, 1], except :math:`e_0 = -\infty, e_K = \infty`, so that the
probabilities sum to one. For float pixels the difference of F is replaced by its derivative.

References
----------
T. Salimans, A. Karpathy, X. Chen and D. P. Kingma. PixelCNN++: Improving the PixelCNN with
Discretized Logistic Mixture Likelihood and Other Modifications. ICLR 2017.
https://arxiv.org/abs/1701.05517
"""

import math
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from densekit.distributions.logistic import log_mass_between

FEW_LEVELS = 32
"""Largest number of levels for which ``likelihood="auto"`` is categorical."""
_MAX_SCORED_PIXELS = 2**15
"""Number of pixels that are scored at once without gradients."""
_MAX_SAMPLED_IMAGES = 256


class CategoricalPixels(nn.Module):
    """A softmax over ``levels`` for each of ``channels``, from ``n_features`` per pixel.

    >>> head = CategoricalPixels(8, 3, 4)
    >>> x = head.sample(torch.ones(5, 8))
    >>> x.shape, head.log_prob(torch.ones(5, 8), x).shape
    (torch.Size([5, 3]), torch.Size([5]))
    """

    def __init__(self, n_features: int, channels: int, levels: int) -> None:
        super().__init__()
        self.levels = levels
        self.last = nn.Parameter(torch.zeros(channels, levels - 1, n_features))
        self.bias = nn.Parameter(torch.zeros(channels, levels - 1))
        self.before = nn.ModuleList(nn.Embedding(levels, n_features) for _ in range(channels - 1))

    def log_prob(self, features: Tensor, x: Tensor) -> Tensor:
        """Log-probability (M,) of pixels (M, C) given features (M, n_features)."""
        legal = (x >= 0) & (x < self.levels) & (x == x.floor())
        codes = torch.where(legal, x, 0).long()
        logp = features.new_zeros(len(x))
        for c, k in enumerate(codes.unbind(1)):
            logp = logp - F.cross_entropy(self._logits(c, features), k, reduction="none")
            features = self._after(c, features, k)
        return torch.where(legal.all(1), logp, -torch.inf)

    def sample(self, features: Tensor) -> Tensor:
        """Sample pixels (M, C)."""
        drawn = []
        for c in range(len(self.last)):
            k = torch.multinomial(self._logits(c, features).softmax(1), 1).squeeze(1)
            features = self._after(c, features, k)
            drawn.append(k)
        return torch.stack(drawn, 1).to(features.dtype)

    def _logits(self, c: int, features: Tensor) -> Tensor:
        logits = torch.addmm(self.bias[c], F.silu(features), self.last[c].t())
        return F.pad(logits, (1, 0))

    def _after(self, c: int, features: Tensor, k: Tensor) -> Tensor:
        return features + self.before[c](k) if c < len(self.before) else features


class LogisticPixels(nn.Module):
    """A mixture of logistics over ``channels`` with ``levels`` each, or over floats if ``levels=0``.

    >>> head = LogisticPixels(8, 3, 256, 5)
    >>> x = head.sample(torch.ones(5, 8))
    >>> x.shape, head.log_prob(torch.ones(5, 8), x).shape
    (torch.Size([5, 3]), torch.Size([5]))
    """

    def __init__(self, n_features: int, channels: int, levels: int, n_components: int) -> None:
        super().__init__()
        self.levels, self.channels = levels, channels
        C, M = channels, n_components
        self.sizes = [M, C * M, C * M, C * (C - 1) // 2 * M]
        self.last = nn.Parameter(torch.zeros(sum(self.sizes), n_features))
        # The mixture starts nearly flat: components are spread evenly over the range of the pixels
        # (three standard deviations of floats) and are as wide as the gaps between them.
        reach = 1.0 if levels else 3.0
        loc = torch.linspace(-1, 1, M + 2)[1:-1] * reach
        log_scale = torch.full((C * M,), math.log(reach / (M + 1)))
        start = [torch.zeros(M), loc.repeat(C), log_scale, torch.zeros(self.sizes[-1])]
        self.bias = nn.Parameter(torch.cat(start))

    def _parameters_of(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """log pi (R, M), means and scales (R, C, M), and couplings (R, C (C - 1) / 2, M)."""
        out = torch.addmm(self.bias, F.silu(features), self.last.t())
        weight, loc, log_scale, coupling = out.split(self.sizes, 1)
        M = self.sizes[0]
        # A smaller scale than a tenth of a level does not raise a probability, and without a smallest
        # scale the density of repeated floats would be unbounded.
        min_log_scale = math.log(0.1 / self.levels) if self.levels else math.log(0.01)
        scale = log_scale.clamp(min_log_scale, 10.0).exp()
        loc, scale, coupling = (
            p.unflatten(1, (p.shape[1] // M, M)) for p in (loc, scale, coupling)
        )
        return weight.log_softmax(1), loc, scale, coupling

    def _loc(self, c: int, loc: Tensor, coupling: Tensor, previous: list[Tensor]) -> Tensor:
        """Means (R, M) of channel c given the scaled channels before it."""
        first, mean = c * (c - 1) // 2, loc[:, c]
        for b, t in enumerate(previous):
            mean = mean + coupling[:, first + b] * t[:, None]
        return mean

    def log_prob(self, features: Tensor, x: Tensor) -> Tensor:
        """Log-probability, or log-density of floats, of pixels (R, C) given features: (R,)."""
        logp, loc, scale, coupling = self._parameters_of(features)
        previous: list[Tensor] = []
        for c in range(self.channels):
            t = self._scaled(x[:, c])
            each = self._log_mass(x[:, c], t, self._loc(c, loc, coupling, previous), scale[:, c])
            logp = logp + each
            previous.append(t)
        logp = logp.logsumexp(1)
        if not self.levels:
            return logp
        legal = (x >= 0) & (x < self.levels) & (x == x.floor())
        return torch.where(legal.all(1), logp, -torch.inf)

    def _log_mass(self, x: Tensor, t: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
        z = (t[:, None] - loc) / scale
        if not self.levels:
            return logsigmoid(z) + logsigmoid(-z) - scale.log()
        half = 1 / (self.levels - 1) / scale
        first, last = (x <= 0)[:, None], (x >= self.levels - 1)[:, None]
        return log_mass_between(z - half, z + half, 2 * half, first, last)

    def sample(self, features: Tensor) -> Tensor:
        """Sample pixels (R, C)."""
        logp, loc, scale, coupling = self._parameters_of(features)
        m = torch.multinomial(logp.exp(), 1)
        tiny = torch.finfo(loc.dtype).eps
        drawn: list[Tensor] = []
        previous: list[Tensor] = []
        for c in range(self.channels):
            mean = self._loc(c, loc, coupling, previous).gather(1, m).squeeze(1)
            u = torch.rand_like(mean).clamp(tiny, 1 - tiny)
            x = mean + scale[:, c].gather(1, m).squeeze(1) * u.logit()
            if self.levels:
                x = ((x + 1) / 2 * (self.levels - 1)).round().clamp(0, self.levels - 1)
            drawn.append(x)
            previous.append(self._scaled(x))
        return torch.stack(drawn, 1)

    def _scaled(self, x: Tensor) -> Tensor:
        return 2 * x / (self.levels - 1) - 1 if self.levels else x


PixelHead = CategoricalPixels | LogisticPixels


def pixel_head(
    likelihood: str, n_features: int, channels: int, levels: int, n_components: int
) -> PixelHead:
    """Make the head that ``likelihood`` names.

    ``"auto"`` is categorical for few levels and logistic otherwise. Two levels always have a
    single logit.

    Raises
    ------
    ValueError
        If ``likelihood`` is ``"categorical"`` and the pixels are floats.
    """
    if likelihood == "categorical" and not levels:
        raise ValueError(
            "likelihood='categorical' requires pixels with levels, but these are floats: pass integers "
            "in 0..255, or set likelihood='auto'"
        )
    few = likelihood == "categorical" or (likelihood == "auto" and levels <= FEW_LEVELS)
    if levels == 2 or (few and levels):
        return CategoricalPixels(n_features, channels, levels)
    return LogisticPixels(n_features, channels, levels, n_components)


class PixelModel(Protocol):
    """Interface of an autoregressive model of images (n, C, H, W)."""

    event_shape: torch.Size

    def log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Log-probability of each image, (n,)."""

    def draw(self, n: int, context: Tensor | None) -> Tensor:
        """Sample n images."""


class RasterImage(TorchDistribution):
    r"""Images whose pixels are modeled in raster order: :math:`\log P(x) = \sum_t \log P(x_t \mid
    x_{<t}, c)`.

    Parameters
    ----------
    model : PixelModel
        Scores images in one pass and samples them pixel by pixel.
    context : Tensor, optional
        (\*batch_shape, n_context).

    Notes
    -----
    Event shape (C, H, W). Without gradients, scoring proceeds in pieces of some ten thousand
    pixels.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.independent(constraints.real, 3)
    has_rsample = False

    def __init__(self, model: PixelModel, context: Tensor | None = None) -> None:
        self.model, self.context = model, context
        batch_shape = torch.Size() if context is None else context.shape[:-1]
        super().__init__(batch_shape, model.event_shape, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "RasterImage":
        """The distribution with its batch shape expanded."""
        context = self.context
        new = RasterImage(
            self.model, None if context is None else context.expand(*batch_shape, -1)
        )
        new._batch_shape = torch.Size(batch_shape)
        return new

    def _contexts(self, shape: torch.Size, piece: int) -> tuple[Tensor | None, ...]:
        """The contexts of pieces of a flattened batch of this shape; None for each piece without a
        context.
        """
        n = shape.numel()
        if self.context is None:
            return (None,) * max(1, math.ceil(n / piece))
        rows = self.context.expand(*shape, self.context.shape[-1])
        return rows.reshape(n, self.context.shape[-1]).split(piece)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability (log-density of float pixels) of images (..., C, H, W) in nats: (...)."""
        shape = torch.broadcast_shapes(value.shape[:-3], self.batch_shape)
        x = value.expand(*shape, *self.event_shape).reshape(-1, *self.event_shape)
        pixels = self.event_shape[1] * self.event_shape[2]
        piece = 32 * max(1, _MAX_SCORED_PIXELS // pixels // 32)
        if torch.is_grad_enabled():
            piece = max(1, len(x))
        pieces = zip(x.split(piece), self._contexts(shape, piece), strict=True)
        return torch.cat([self.model.log_prob(a, c) for a, c in pieces]).reshape(shape)

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        r"""Sample images (\*sample_shape, \*batch_shape, C, H, W)."""
        shape = torch.Size(sample_shape) + self.batch_shape
        remaining, drawn = shape.numel(), []
        for c in self._contexts(shape, _MAX_SAMPLED_IMAGES):
            n = min(remaining, _MAX_SAMPLED_IMAGES)
            drawn.append(self.model.draw(n, c))
            remaining -= n
        return torch.cat(drawn).reshape(shape + self.event_shape)
