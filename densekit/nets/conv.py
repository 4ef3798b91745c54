"""A convolutional network on columns: channels and pixels first, samples last."""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densekit.nets.chain import squash
from densekit.nets.mlp import activation_layer
from densekit.nets.residual import check_hidden, uniform_weight

_MAX_HIDDEN = 2**20
"""Number of hidden values computed at once without gradients, so that they fit into the cache."""


class ConvNet(nn.Module):
    r"""A network from images of ``n_in`` channels, and a context, to images of ``n_out`` channels.

    .. math:: h_1 = W_1 * \operatorname{asinh}(x) + V \operatorname{asinh}(c) + b_1, \quad
              h_{i+1} = h_i + W_{i+1}\,\sigma(h_i) + b_{i+1}, \quad y = W * \sigma(h_k) + b

    :math:`W_1 *` and :math:`W *` are convolutions over 3 x 3 pixels with zero padding (a side of
    one pixel has no neighbors). The other weights act on the channels of each pixel. Consecutive
    layers of different width have no sum. W and b start at zero. It is the network of Glow,
    section 4, with residual connections.

    Parameters
    ----------
    n_in, n_out, n_context : int
        Numbers of channels and of context features; ``n_in`` and ``n_context`` may be 0.
    size : (int, int)
        H, W.
    hidden_sizes : sequence of int
        Channels of each hidden layer, at least one layer.
    activation : str
        Activation, see :func:`densekit.nets.mlp.activation_layer`.

    Notes
    -----
    Input (n_in H W, N) and context (n_context, N), output (n_out H W, N). Images are converted to
    channels-last for the convolutions, which costs little compared with these.

    References
    ----------
    D. P. Kingma and P. Dhariwal. Glow: Generative Flow with Invertible 1x1 Convolutions. NeurIPS
    2018. https://arxiv.org/abs/1807.03039

    Examples
    --------
    >>> ConvNet(1, 2, (4, 4), (8, 8))(torch.ones(16, 10)).shape
    torch.Size([32, 10])
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        size: tuple[int, int],
        hidden_sizes: Sequence[int],
        n_context: int = 0,
        activation: str = "silu",
    ) -> None:
        super().__init__()
        check_hidden(hidden_sizes)
        self.activation = activation_layer(activation)
        self.n_in, self.n_out, self.size = n_in, n_out, size
        kernel = (3 if size[0] > 1 else 1, 3 if size[1] > 1 else 1)
        self.padding = (kernel[0] // 2, kernel[1] // 2)
        area = kernel[0] * kernel[1]
        fan_in = [n_in * area + n_context, *hidden_sizes[:-1]]
        first = uniform_weight(hidden_sizes[0], n_in * area, fan_in[0])
        self.first = nn.Parameter(first.detach().view(hidden_sizes[0], n_in, *kernel))
        self.context = uniform_weight(hidden_sizes[0], n_context, fan_in[0])
        self.hidden = nn.ParameterList(
            uniform_weight(b, a, a) for a, b in itertools.pairwise(hidden_sizes)
        )
        self.bias = nn.ParameterList(
            uniform_weight(h, 1, fan) for h, fan in zip(hidden_sizes, fan_in, strict=True)
        )
        self.last = nn.Parameter(torch.zeros(n_out, hidden_sizes[-1], *kernel))
        self.last_bias = nn.Parameter(torch.zeros(n_out, 1))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Columns (n_in H W, N) and (n_context, N) to (n_out H W, N)."""
        H, W = self.size
        images = x.t().view(x.shape[1], self.n_in, H, W)
        images = images.contiguous(memory_format=torch.channels_last)
        rows = None if context is None else squash(context).t()
        if torch.is_grad_enabled():
            y = self._images(images, rows)
        else:
            n = max(1, _MAX_HIDDEN // (H * W * max(map(len, self.bias))))
            parts = [None] * max(1, -(-len(images) // n)) if rows is None else rows.split(n)
            y = torch.cat(
                [self._images(i, r) for i, r in zip(images.split(n), parts, strict=True)]
            )
        return y.permute(1, 2, 3, 0).reshape(self.n_out * H * W, x.shape[1])

    def _images(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Images (N, n_in, H, W) and rows (N, n_context) to (N, n_out, H, W)."""
        if self.n_in:
            # A preceding matrix may produce inf - inf from numbers near the largest float.
            h = F.conv2d(
                squash(x).nan_to_num(), self.first, self.bias[0][:, 0], padding=self.padding
            )
        else:
            h = self.bias[0].view(1, -1, 1, 1).expand(len(x), -1, *self.size)
        if context is not None:
            h = h + (context @ self.context.t())[:, :, None, None]
        for weight, bias in zip(self.hidden, self.bias[1:], strict=True):
            step = F.conv2d(self.activation(h), weight[:, :, None, None], bias[:, 0])
            h = h + step if h.shape == step.shape else step
        return F.conv2d(self.activation(h), self.last, self.last_bias[:, 0], padding=self.padding)
