"""The coupling transform of images."""

from collections.abc import Sequence

import torch
from torch import Tensor

from densekit.nets.conv import ConvNet
from densekit.transforms.columns import ColumnTransform, Element


class ConvCoupling(ColumnTransform):
    r"""A coupling transform of images: a network reads the first half of the channels and transforms
    the second.

    .. math:: z_A = x_A, \qquad z_B = f(x_B;\ \theta(x_A, c))

    A is the first half of the channels and :math:`\theta` a convolutional network, which sees the
    neighbors of a pixel. With an affine f, and later layers that act on A only, it is Glow's
    split, in which :math:`p(x_B \mid x_A)` is normal with a mean and a scale from a network. If
    there is a single channel, f transforms it with parameters that depend on the context only.

    Parameters
    ----------
    shape : (C, H, W)
        Shape of an image.
    element : Element
        The function f, for example :class:`~densekit.transforms.affine.AffineElement`.
    hidden_sizes : sequence of int
        Channels of the network's hidden layers.
    n_context : int
        Number of context features.
    activation : str
        Activation of the network.

    References
    ----------
    L. Dinh, J. Sohl-Dickstein and S. Bengio. Density estimation using Real NVP. ICLR 2017.
    https://arxiv.org/abs/1605.08803

    Examples
    --------
    >>> from densekit.transforms.affine import AffineElement
    >>> ConvCoupling((2, 1, 2), AffineElement(), (4,))(torch.arange(4.0)).tolist()
    [0.0, 1.0, 2.0, 3.0]
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        element: Element,
        hidden_sizes: Sequence[int],
        n_context: int = 0,
        activation: str = "silu",
    ) -> None:
        C, H, W = shape
        super().__init__(C * H * W, n_context)
        kept = C // 2
        self.n_kept, self.element = kept * H * W, element
        n_out = element.n_params * (C - kept)
        self.net = ConvNet(kept, n_out, (H, W), hidden_sizes, n_context, activation)
        with torch.no_grad():
            self.net.last_bias.add_(element.start().repeat_interleave(C - kept)[:, None])

    def _apply_element(
        self, direction: str, columns: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        kept, transformed = columns[: self.n_kept], columns[self.n_kept :]
        raw = self.net(kept, context).view(self.element.n_params, *transformed.shape)
        transformed, ladj = getattr(self.element, direction)(transformed, raw)
        return torch.cat([kept, transformed]), ladj.sum(0)

    def to_noise(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data to noise, and log|dz/dx|."""
        return self._apply_element("forward", x, context)

    def to_data(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Noise to data, and log|dx/dz|."""
        return self._apply_element("inverse", z, context)
