"""One transform of channels at every pixel."""

from torch import Tensor

from densekit.transforms.columns import ColumnTransform


class Pixelwise(ColumnTransform):
    r"""A transform of vectors, applied to the channels of each pixel alike.

    .. math:: z_{ij} = t(x_{ij}), \qquad
              \log\left|\frac{dz}{dx}\right| = \sum_{ij} \log\left|\frac{dz_{ij}}{dx_{ij}}\right|

    Of a :class:`~densekit.transforms.linear.LULinear` it makes the invertible 1 x 1 convolution,
    and of a :class:`~densekit.transforms.linear.Diagonal` the scale and the shift per channel that
    actnorm is: Kingma and Dhariwal, Glow (2018). Pixels are more samples to the inner transform, and
    with samples last this moves no number: (C H W, N) is read as (C, H W N).

    Parameters
    ----------
    transform : ColumnTransform
        t, of C features and without context.
    n_pixels : int
        H W.

    Examples
    --------
    >>> import torch
    >>> from densekit.transforms.linear import Reverse
    >>> Pixelwise(Reverse(2), 3)(torch.tensor([1.0, 2.0, 3.0, 7.0, 8.0, 9.0])).tolist()
    [7.0, 8.0, 9.0, 1.0, 2.0, 3.0]
    """

    def __init__(self, transform: ColumnTransform, n_pixels: int) -> None:
        super().__init__(transform.n_features * n_pixels)
        self.transform, self.n_pixels = transform, n_pixels

    def to_noise(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data to noise, and log|dz/dx|."""
        z, ladj = self.transform.to_noise(self._apart(x))
        return z.reshape(x.shape), ladj.reshape(self.n_pixels, x.shape[1]).sum(0)

    def to_data(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Noise to data, and log|dx/dz|."""
        x, ladj = self.transform.to_data(self._apart(z))
        return x.reshape(z.shape), ladj.reshape(self.n_pixels, z.shape[1]).sum(0)

    def _apart(self, x: Tensor) -> Tensor:
        """(C H W, N) to (C, H W N)."""
        return x.reshape(self.transform.n_features, self.n_pixels * x.shape[1])
