"""A convolutional network that sees, of each pixel, only the pixels before it, and nothing less."""

from collections.abc import Callable
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densekit.nets.residual import squash, uniform_weight
from densekit.nets.tokenwise import KERNEL, glu

_ABOVE, _LEFT, _WIDE = 3, 3, 7
"""What the first layers see: three rows above, seven pixels wide, and three pixels to the left."""
_DILATIONS = (1, 2, 4)
"""Each is one more than all before together, so that the sums leave no pixel out."""


class _Layer(nn.Module):
    """One step of both stacks: weights only, since a pixel, a row and an image use them alike."""

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
        # Each layer adds nothing at first.
        self.add_above, self.add_left = (nn.Parameter(torch.zeros(W, W)) for _ in range(2))

    def given(self, context: Tensor | None) -> Tensor | None:
        """What the context adds to both stacks, (N, 2 width, 1, 1)."""
        return None if context is None else (squash(context) @ self.context.t())[:, :, None, None]

    def rows(self, v: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """The vertical stack from rows (N, width, H + dilation, W), of which the first ``dilation``
        are those before: its H new rows, and what they say to the horizontal stack."""
        d = self.dilation
        y = F.conv2d(v, self.above, self.above_bias, padding=(0, d), dilation=d)
        given = self.given(context)
        v = v[:, :, d:] + _pointwise(glu(_plus(y, given)), self.add_above)
        return v, _plus(_pointwise(v, self.down, self.left_bias), given)

    def columns(self, h: Tensor, said: Tensor) -> Tensor:
        """The horizontal stack, (N, width, H, W)."""
        y = F.conv2d(F.pad(h, (self.dilation, 0)), self.left, dilation=(1, self.dilation))
        return h + _pointwise(glu(y, said), self.add_left)

    def pixel(self, h: Tensor, before: Tensor, said: Tensor) -> Tensor:
        """One pixel of the horizontal stack, (N, width), of it and the one ``dilation`` to its left."""
        y = torch.addmm(said, before, self.left[:, :, 0, 0].t())
        y = torch.addmm(y, h, self.left[:, :, 0, 1].t())
        return torch.addmm(h, F.glu(y, 1), self.add_left.t())


class PixelNet(nn.Module):
    r"""Features of each pixel from all pixels before it in raster order (rows from the top, each from
    the left), and from a context: the gated PixelCNN of van den Oord et al. (2016).

    .. math:: v^{l+1} = v^l + A\, g(W_{2 \times 3} * v^l + V c), \qquad
              h^{l+1} = h^l + B\, g(W_{1 \times 2} * h^l + D v^{l+1} + V c), \qquad
              g(a, b) = a\, \sigma(b)

    A vertical stack v knows the rows above the pixel, a horizontal one h those and the pixels to its
    left, so that no pixel before it is hidden as it is from masked square filters. The filters of
    layer l are spread by 1, 2, 4, 1, ... pixels, and the first layers see 3 x 7 pixels above and 3 to
    the left. A and B start at zero. Rows and columns have a learned vector each, added at first.

    Parameters
    ----------
    n_in : int
        Numbers per pixel.
    size : (int, int)
        H, W.
    width, n_layers : int
        Features per pixel, and layers of each stack. Three layers reach 10 rows up, six 17.
    n_context : int
        Number of context features; 0 for none.

    Notes
    -----
    :meth:`draw` finds the pixels one after another and computes of each layer only the new numbers:
    those of the vertical stack once a row, those of the horizontal one pixel by pixel
    (Ramachandran et al., Fast generation for convolutional autoregressive models, 2017).

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
        n = n_in + 1  # The one more is 1 inside the image, which zeros around it are not.
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
            v, said = layer.rows(F.pad(v, (0, 0, layer.dilation, 0)), context)
            h = layer.columns(h, said)
        return h

    @torch.no_grad()
    def draw(
        self, pixel: Callable[[Tensor], Tensor], n: int, context: Tensor | None = None
    ) -> Tensor:
        """Images (n, n_in, H, W), where ``pixel`` is called with the features (n, width) of each pixel
        and returns its numbers (n, n_in)."""
        (H, W), side, like, layers = self.size, _WIDE // 2, self.row, self._stack()
        x = like.new_zeros(n, self.n_in + 1, H + _ABOVE, W + 2 * side)
        x[:, -1, _ABOVE:, side : W + side] = 1.0
        place = self.row + self.column
        # Of each layer: its last rows, and the pixels of the row so far, zeros before the first.
        rows = [like.new_zeros(n, self.width, layer.dilation, W) for layer in layers]
        line = [like.new_zeros(W + layer.dilation, n, self.width) for layer in layers]
        left = self.left.flatten(1).t()
        for i in range(H):
            v = F.conv2d(x[:, :, i : i + _ABOVE], self.above) + place[0][:, i : i + 1]
            said = []
            for k, layer in enumerate(layers):
                both = torch.cat([rows[k], v], 2)
                rows[k] = both[:, :, 1:]
                # The row that far above and this one; those between are for the rows to come.
                v, to_left = layer.rows(both, context)
                said.append(to_left[:, :, 0].permute(2, 0, 1).contiguous())
            start = place[1][:, i].t()
            for j in range(W):
                seen = x[:, :, i + _ABOVE, j + side - _LEFT : j + side]
                h = torch.addmm(start[j], seen.flatten(1), left)
                for k, layer in enumerate(layers):
                    line[k][j + layer.dilation] = h
                    h = layer.pixel(h, line[k][j], said[k][j])
                x[:, :-1, i + _ABOVE, j + side] = pixel(h)
        return x[:, :-1, _ABOVE:, side : W + side].contiguous()


def _plus(y: Tensor, given: Tensor | None) -> Tensor:
    """Without a context, no pass over y."""
    return y if given is None else y + given


def _pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A matrix on the channels of each pixel."""
    return F.conv2d(x, weight[:, :, None, None], bias)
