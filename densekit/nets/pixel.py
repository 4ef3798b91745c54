"""A convolutional network whose features of a pixel depend on exactly the pixels before it."""

from collections.abc import Callable
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densekit.nets.residual import squash, uniform_weight
from densekit.nets.tokenwise import KERNEL, glu

_ABOVE, _LEFT, _WIDE = 3, 3, 7
"""Filters of the first layers: three rows above, seven pixels wide, and three pixels to the left."""
_DILATIONS = (1, 2, 4)
"""Each is at least as large as the sum of those before, so that the layers leave no gap."""


class _Layer(nn.Module):
    """One layer of both stacks: weights only, shared by single pixels, rows and whole images."""

    loops: ClassVar[str] = KERNEL

    def __init__(self, width: int, dilation: int, n_context: int) -> None:
        super().__init__()
        self.dilation, W = dilation, width
        self.above = nn.Parameter(
            uniform_weight(2 * W, 6 * W, 6 * W).detach().view(2 * W, W, 2, 3)
        )
        self.above_bias = nn.Parameter(torch.zeros(2 * W))
        self.left = nn.Parameter(uniform_weight(2 * W, 2 * W, 3 * W).detach().view(2 * W, W, 1, 2))
        self.down = uniform_weight(2 * W, W, 3 * W)
        self.left_bias = nn.Parameter(torch.zeros(2 * W))
        self.context = uniform_weight(2 * W, n_context, n_context)
        # Initially each layer is the identity.
        self.add_above, self.add_left = (nn.Parameter(torch.zeros(W, W)) for _ in range(2))

    def context_term(self, context: Tensor | None) -> Tensor | None:
        """The contribution of the context to both stacks, (N, 2 width, 1, 1)."""
        return None if context is None else (squash(context) @ self.context.t())[:, :, None, None]

    def rows(self, v: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """The vertical stack, for rows (N, width, H + dilation, W) that start with ``dilation``
        preceding rows.

        Returns its H new rows and the input of the horizontal stack.
        """
        d = self.dilation
        y = F.conv2d(v, self.above, self.above_bias, padding=(0, d), dilation=d)
        given = self.context_term(context)
        v = v[:, :, d:] + _pointwise(glu(_add_optional(y, given)), self.add_above)
        return v, _add_optional(_pointwise(v, self.down, self.left_bias), given)

    def columns(self, h: Tensor, horizontal_input: Tensor) -> Tensor:
        """The horizontal stack, (N, width, H, W)."""
        y = F.conv2d(F.pad(h, (self.dilation, 0)), self.left, dilation=(1, self.dilation))
        return h + _pointwise(glu(y, horizontal_input), self.add_left)

    def pixel(self, h: Tensor, before: Tensor, horizontal_input: Tensor) -> Tensor:
        """One pixel of the horizontal stack, (N, width), from it and the pixel ``dilation`` to its
        left.
        """
        y = torch.addmm(horizontal_input, before, self.left[:, :, 0, 0].t())
        y = torch.addmm(y, h, self.left[:, :, 0, 1].t())
        return torch.addmm(h, F.glu(y, 1), self.add_left.t())


class PixelNet(nn.Module):
    r"""The gated PixelCNN: features of each pixel from all pixels before it in raster order, and a
    context.

    .. math:: v^{l+1} = v^l + A\, g(W_{2 \times 3} * v^l + V c), \qquad
              h^{l+1} = h^l + B\, g(W_{1 \times 2} * h^l + D v^{l+1} + V c), \qquad
              g(a, b) = a\, \sigma(b)

    A vertical stack v sees the rows above the pixel; a horizontal stack h sees v and the pixels to
    the left. Unlike masked square filters, they leave no blind spot. The filters of layer l are
    dilated by 1, 2, 4, 1, ... pixels, and the first layers see 3 x 7 pixels above and 3 to the
    left. A and B start at zero. A learned vector per row and per column is added to the first
    layer.

    Parameters
    ----------
    n_in : int
        Number of values per pixel.
    size : (int, int)
        H, W.
    width, n_layers : int
        Features per pixel, and layers of each stack. Three layers see 10 rows up, six see 17.
    n_context : int
        Number of context features; 0 for none.

    Notes
    -----
    :meth:`draw` computes one pixel after another, and only the new values of each layer: those of
    the vertical stack once per row, those of the horizontal stack once per pixel (Ramachandran et
    al.).

    References
    ----------
    A. van den Oord, N. Kalchbrenner, O. Vinyals, L. Espeholt, A. Graves and K. Kavukcuoglu.
    Conditional Image Generation with PixelCNN Decoders. NeurIPS 2016.
    https://arxiv.org/abs/1606.05328

    P. Ramachandran et al. Fast Generation for Convolutional Autoregressive Models. 2017.
    https://arxiv.org/abs/1704.06001

    Examples
    --------
    >>> PixelNet(1, (5, 4), width=8, n_layers=2)(torch.ones(10, 1, 5, 4)).shape
    torch.Size([10, 8, 5, 4])
    """

    def __init__(
        self, n_in: int, size: tuple[int, int], width: int, n_layers: int, n_context: int = 0
    ) -> None:
        super().__init__()
        self.size, self.n_in, self.width = size, n_in, width
        n = n_in + 1  # The additional channel is 1 inside the image and 0 in its padding.
        above, left = n * _ABOVE * _WIDE, n * _LEFT
        self.above = nn.Parameter(
            uniform_weight(width, above, above).detach().view(width, n, _ABOVE, _WIDE)
        )
        self.left = nn.Parameter(
            uniform_weight(width, left, left).detach().view(width, n, 1, _LEFT)
        )
        self.row = nn.Parameter(0.1 * torch.randn(2, width, size[0], 1))
        self.column = nn.Parameter(0.1 * torch.randn(2, width, 1, size[1]))
        self.layers = nn.ModuleList(
            _Layer(width, _DILATIONS[i % len(_DILATIONS)], n_context) for i in range(n_layers)
        )

    def _stack(self) -> list["_Layer"]:
        return cast("list[_Layer]", list(self.layers))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Images (N, n_in, H, W) and context (N, n_context) to features (N, width, H, W)."""
        x = F.pad(x, (0, 0, 0, 0, 0, 1), value=1.0).contiguous(memory_format=torch.channels_last)
        place = self.row + self.column
        side = _WIDE // 2
        v = F.conv2d(F.pad(x, (side, side, _ABOVE, 0))[:, :, :-1], self.above) + place[0]
        h = F.conv2d(F.pad(x, (_LEFT, 0))[..., :-1], self.left) + place[1]
        for layer in self._stack():
            v, horizontal_input = layer.rows(F.pad(v, (0, 0, layer.dilation, 0)), context)
            h = layer.columns(h, horizontal_input)
        return h

    @torch.no_grad()
    def draw(
        self, pixel: Callable[[Tensor], Tensor], n: int, context: Tensor | None = None
    ) -> Tensor:
        """Sample images (n, n_in, H, W).

        ``pixel`` takes the features (n, width) of a pixel and returns its values (n, n_in).
        """
        (H, W), side, like, layers = self.size, _WIDE // 2, self.row, self._stack()
        x = like.new_zeros(n, self.n_in + 1, H + _ABOVE, W + 2 * side)
        x[:, -1, _ABOVE:, side : W + side] = 1.0
        place = self.row + self.column
        # For each layer its last rows, and the pixels of the current row after zero padding.
        rows = [like.new_zeros(n, self.width, layer.dilation, W) for layer in layers]
        row_so_far = [like.new_zeros(W + layer.dilation, n, self.width) for layer in layers]
        left = self.left.flatten(1).t()
        for i in range(H):
            v = F.conv2d(x[:, :, i : i + _ABOVE], self.above) + place[0][:, i : i + 1]
            horizontal_input = []
            for k, layer in enumerate(layers):
                both = torch.cat([rows[k], v], 2)
                rows[k] = both[:, :, 1:]
                # The layer uses the row ``dilation`` above and this one; later rows use the others.
                v, to_left = layer.rows(both, context)
                horizontal_input.append(to_left[:, :, 0].permute(2, 0, 1).contiguous())
            start = place[1][:, i].t()
            for j in range(W):
                seen = x[:, :, i + _ABOVE, j + side - _LEFT : j + side]
                h = torch.addmm(start[j], seen.flatten(1), left)
                for k, layer in enumerate(layers):
                    row_so_far[k][j + layer.dilation] = h
                    h = layer.pixel(h, row_so_far[k][j], horizontal_input[k][j])
                x[:, :-1, i + _ABOVE, j + side] = pixel(h)
        return x[:, :-1, _ABOVE:, side : W + side].contiguous()


def _add_optional(y: Tensor, given: Tensor | None) -> Tensor:
    """y plus the context term; without a context no pass over y is needed."""
    return y if given is None else y + given


def _pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A matrix applied to the channels of each pixel."""
    return F.conv2d(x, weight[:, :, None, None], bias)
