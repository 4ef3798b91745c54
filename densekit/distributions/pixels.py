r"""Heads for pixels: from what a network knows of a pixel to the law of its C channels.

*Few levels*: a softmax for each channel, which reads the channels before it,

.. math:: P(x_c = k \mid x_{<c}) = \operatorname{softmax}_k\big(W_c\, \sigma(f + \textstyle\sum_{b<c}
          E_{b}[x_b]) + b_c\big), \qquad \text{the logit of } k = 0 \text{ fixed at } 0

(one logit for two levels: Bernoulli). *Many levels* 0..K-1, and *float pixels*: a mixture of M
logistics, the components' means shifted by the channels before (Salimans, Karpathy, Chen & Kingma
2017, PixelCNN++, section 2.1 and 2.2),

.. math::
    P(x) = \sum_m \pi_m \prod_c \big[F((e_{x_c + 1} - \mu_{mc}) / s_{mc})
            - F((e_{x_c} - \mu_{mc}) / s_{mc})\big], \qquad
    \mu_{mc} = \mu^0_{mc} + \sum_{b<c} a_{mcb}\, x_b

with :math:`F(x) = 1 / (1 + e^{-x})` and edges :math:`e_k = (2k - K) / (K - 1)` half way between levels
scaled to [-1, 1], but :math:`e_0 = -\infty, e_K = \infty`: the masses sum to one. For float pixels
the difference of F is its derivative.
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
"""Up to so many levels have a logit each, where nothing else is asked for."""
_ROWS_AT_ONCE = 2**15
"""Pixels scored at a time where no gradient is asked for."""
_DRAWN_AT_ONCE = 256


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
        """Log-mass of pixels (M, C) given features (M, n_features): (M,)."""
        legal = (x >= 0) & (x < self.levels) & (x == x.floor())
        codes = torch.where(legal, x, 0).long()
        logp = features.new_zeros(len(x))
        for c, k in enumerate(codes.unbind(1)):
            logp = logp - F.cross_entropy(self._logits(c, features), k, reduction="none")
            features = self._after(c, features, k)
        return torch.where(legal.all(1), logp, -torch.inf)

    def sample(self, features: Tensor) -> Tensor:
        """Pixels (M, C)."""
        drawn = []
        for c in range(len(self.last)):
            k = torch.multinomial(self._logits(c, features).softmax(1), 1).squeeze(1)
            features = self._after(c, features, k)
            drawn.append(k)
        return torch.stack(drawn, 1).to(features.dtype)

    def _logits(self, c: int, features: Tensor) -> Tensor:
        others = torch.addmm(self.bias[c], F.silu(features), self.last[c].t())
        return F.pad(others, (1, 0))

    def _after(self, c: int, features: Tensor, k: Tensor) -> Tensor:
        return features + self.before[c](k) if c < len(self.before) else features


class LogisticPixels(nn.Module):
    """A mixture of logistics over ``channels`` of ``levels`` each, or of floats where ``levels=0``.

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
        # Side by side over the range of the pixels (three standard deviations of floats) and as wide
        # as the gaps: a mixture that is nearly flat.
        reach = 1.0 if levels else 3.0
        loc = torch.linspace(-1, 1, M + 2)[1:-1] * reach
        log_scale = torch.full((C * M,), math.log(reach / (M + 1)))
        start = [torch.zeros(M), loc.repeat(C), log_scale, torch.zeros(self.sizes[-1])]
        self.bias = nn.Parameter(torch.cat(start))

    def _parameters_of(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """log pi (R, M), means and scales (R, C, M), and couplings (R, C (C - 1) / 2, M)."""
        out = torch.addmm(self.bias, F.silu(features), self.last.t())
        weight, loc, log_scale, pull = out.split(self.sizes, 1)
        M = self.sizes[0]
        # Narrower than a tenth of a level no mass is gained, and floats that repeat have no bound.
        least = math.log(0.1 / self.levels) if self.levels else math.log(0.01)
        scale = log_scale.clamp(least, 10.0).exp()
        loc, scale, pull = (p.unflatten(1, (p.shape[1] // M, M)) for p in (loc, scale, pull))
        return weight.log_softmax(1), loc, scale, pull

    def _loc(self, c: int, loc: Tensor, pull: Tensor, before: list[Tensor]) -> Tensor:
        """Means of channel c given the scaled channels before, (R, M)."""
        first, mean = c * (c - 1) // 2, loc[:, c]
        for b, t in enumerate(before):
            mean = mean + pull[:, first + b] * t[:, None]
        return mean

    def log_prob(self, features: Tensor, x: Tensor) -> Tensor:
        """Log-mass, or log-density of floats, of pixels (R, C) given features: (R,)."""
        logp, loc, scale, pull = self._parameters_of(features)
        before: list[Tensor] = []
        for c in range(self.channels):
            t = self._scaled(x[:, c])
            each = self._log_mass(x[:, c], t, self._loc(c, loc, pull, before), scale[:, c])
            logp = logp + each
            before.append(t)
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
        """Pixels (R, C)."""
        logp, loc, scale, pull = self._parameters_of(features)
        m = torch.multinomial(logp.exp(), 1)
        tiny = torch.finfo(loc.dtype).eps
        drawn: list[Tensor] = []
        before: list[Tensor] = []
        for c in range(self.channels):
            mean = self._loc(c, loc, pull, before).gather(1, m).squeeze(1)
            u = torch.rand_like(mean).clamp(tiny, 1 - tiny)
            x = mean + scale[:, c].gather(1, m).squeeze(1) * u.logit()
            if self.levels:
                x = ((x + 1) / 2 * (self.levels - 1)).round().clamp(0, self.levels - 1)
            drawn.append(x)
            before.append(self._scaled(x))
        return torch.stack(drawn, 1)

    def _scaled(self, x: Tensor) -> Tensor:
        return 2 * x / (self.levels - 1) - 1 if self.levels else x


PixelHead = CategoricalPixels | LogisticPixels


def pixel_head(
    likelihood: str, n_features: int, channels: int, levels: int, n_components: int
) -> PixelHead:
    """The head that ``likelihood`` names: ``"categorical"``, ``"logistic"`` or ``"auto"``, which is
    the first where there are few levels (and ever at two, which have one logit).

    Raises
    ------
    ValueError
        ``"categorical"`` of float pixels.
    """
    if likelihood == "categorical" and not levels:
        raise ValueError(
            "likelihood='categorical' wants pixels with levels, and these are floats: give integers "
            "in 0..255, or likelihood='auto'"
        )
    few = likelihood == "categorical" or (likelihood == "auto" and levels <= FEW_LEVELS)
    if levels == 2 or (few and levels):
        return CategoricalPixels(n_features, channels, levels)
    return LogisticPixels(n_features, channels, levels, n_components)


class PixelModel(Protocol):
    """What a model of one pixel after another offers. Images are (n, C, H, W)."""

    event_shape: torch.Size

    def log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Log-mass of each image, (n,)."""

    def draw(self, n: int, context: Tensor | None) -> Tensor:
        """n images."""


class RasterImage(TorchDistribution):
    r"""Images whose pixels follow one another: :math:`\log P(x) = \sum_t \log P(x_t \mid x_{<t}, c)`.

    Parameters
    ----------
    model : PixelModel
        Scores images in one go and draws them pixel by pixel.
    context : Tensor, optional
        (\*batch_shape, n_context).

    Notes
    -----
    Event shape (C, H, W). Scoring goes in pieces of some ten thousand pixels where no gradient is
    asked for.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.independent(constraints.real, 3)
    has_rsample = False

    def __init__(self, model: PixelModel, context: Tensor | None = None) -> None:
        self.model, self.context = model, context
        batch_shape = torch.Size() if context is None else context.shape[:-1]
        super().__init__(batch_shape, model.event_shape, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "RasterImage":
        """The same, independently for each place of a larger batch."""
        context = self.context
        new = RasterImage(
            self.model, None if context is None else context.expand(*batch_shape, -1)
        )
        new._batch_shape = torch.Size(batch_shape)
        return new

    def _given(self, shape: torch.Size, piece: int) -> tuple[Tensor | None, ...]:
        n = shape.numel()
        if self.context is None:
            return (None,) * max(1, math.ceil(n / piece))
        rows = self.context.expand(*shape, self.context.shape[-1])
        return rows.reshape(n, self.context.shape[-1]).split(piece)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-mass (of float pixels the log-density) of images (..., C, H, W): (...), in nats."""
        shape = torch.broadcast_shapes(value.shape[:-3], self.batch_shape)
        x = value.expand(*shape, *self.event_shape).reshape(-1, *self.event_shape)
        pixels = self.event_shape[1] * self.event_shape[2]
        piece = 32 * max(1, _ROWS_AT_ONCE // pixels // 32)
        if torch.is_grad_enabled():
            piece = max(1, len(x))
        pieces = zip(x.split(piece), self._given(shape, piece), strict=True)
        return torch.cat([self.model.log_prob(a, c) for a, c in pieces]).reshape(shape)

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Images (\\*sample_shape, \\*batch_shape, C, H, W)."""
        shape = torch.Size(sample_shape) + self.batch_shape
        left, drawn = shape.numel(), []
        for c in self._given(shape, _DRAWN_AT_ONCE):
            n = min(left, _DRAWN_AT_ONCE)
            drawn.append(self.model.draw(n, c))
            left -= n
        return torch.cat(drawn).reshape(shape + self.event_shape)
