"""A transform of the channels, applied at every pixel."""

from torch import Tensor

from densekit.transforms.columns import ColumnTransform


class Pixelwise(ColumnTransform):
    r"""A transform of vectors that is applied to the channels of each pixel.

    .. math:: z_{ij} = t(x_{ij}), \qquad
              \log\left|\frac{dz}{dx}\right| = \sum_{ij} \log\left|\frac{dz_{ij}}{dx_{ij}}\right|

    With :class:`~densekit.transforms.linear.LULinear` it is the invertible 1 x 1 convolution, with
    :class:`~densekit.transforms.linear.Diagonal` the scale and shift per channel of actnorm
    (Kingma and Dhariwal). The inner transform treats pixels as additional samples. Since samples
    are on the last axis, the reshape from (C H W, N) to (C, H W N) copies nothing.

    Parameters
    ----------
    transform : ColumnTransform
        The transform t of C features, without context.
    n_pixels : int
        H W.

    References
    ----------
    D. P. Kingma and P. Dhariwal. Glow: Generative Flow with Invertible 1x1 Convolutions. NeurIPS
    2018. https://arxiv.org/abs/1807.03039

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
        z, ladj = self.transform.to_noise(self._pixels_as_samples(x))
        return z.reshape(x.shape), ladj.reshape(self.n_pixels, x.shape[1]).sum(0)

    def to_data(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Noise to data, and log|dx/dz|."""
        x, ladj = self.transform.to_data(self._pixels_as_samples(z))
        return x.reshape(z.shape), ladj.reshape(self.n_pixels, z.shape[1]).sum(0)

    def _pixels_as_samples(self, x: Tensor) -> Tensor:
        """Reshape (C H W, N) to (C, H W N)."""
        return x.reshape(self.transform.n_features, self.n_pixels * x.shape[1])
