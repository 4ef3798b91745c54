"""The squeeze of images: pixels become channels."""

from torch import Tensor

from densekit.transforms.columns import ColumnTransform


def block(height: int, width: int) -> tuple[int, int]:
    """The block of pixels that a squeeze makes into channels.

    Two pixels along each side that has an even number; where none has, as many along one side as
    its smallest divisor says, so that an image of any size can be squeezed until one pixel is left,
    without padding.

    Examples
    --------
    >>> block(28, 28), block(5, 4), block(7, 7), block(5, 3), block(1, 1)
    ((2, 2), (1, 2), (7, 1), (1, 3), (1, 1))
    """
    sides = [height, width]
    if any(side % 2 == 0 for side in sides):
        return 2 - height % 2, 2 - width % 2
    # The smallest divisor of an odd side, the whole side where it is prime; none of a single pixel.
    least = [next((d for d in range(3, side + 1, 2) if side % d == 0), 1) for side in sides]
    along = 0 if least[1] == 1 or 1 < least[0] <= least[1] else 1
    return (least[0], 1) if along == 0 else (1, least[1])


class Squeeze(ColumnTransform):
    r"""Blocks of f x g pixels as f g channels: (C, H, W) to (C f g, H/f, W/g); no number changes.

    Dinh, Sohl-Dickstein and Bengio, Density estimation using Real NVP (2017), section 3.6. Channel
    c f g + i g + j of the noise has the pixels of channel c that lie at (i, j) in their block.

    Parameters
    ----------
    shape : (C, H, W)
        Of the data.
    size : (f, g), optional
        :func:`block` of the image where not given; f must divide H, and g must divide W.

    Raises
    ------
    ValueError
        The blocks do not fill the image.

    Examples
    --------
    >>> import torch
    >>> squeeze = Squeeze((1, 2, 4))
    >>> squeeze.noise_shape, squeeze.inv(torch.arange(8.0)).tolist()
    ((4, 1, 2), [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0])
    """

    def __init__(self, shape: tuple[int, int, int], size: tuple[int, int] | None = None) -> None:
        C, H, W = shape
        super().__init__(C * H * W)
        f, g = block(H, W) if size is None else size
        if H % f or W % g:
            raise ValueError(
                f"size={(f, g)} does not divide the image, {H} x {W}: leave size out, or take "
                "divisors of the two"
            )
        self.noise_shape = (C * f * g, H // f, W // g)
        self._apart = (C, H // f, f, W // g, g)
        self._joined = (C, f, g, H // f, W // g)

    def to_noise(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data to noise, and log|dz/dx| = 0."""
        pixels = x.reshape(*self._apart, x.shape[1]).permute(0, 2, 4, 1, 3, 5)
        return pixels.reshape(x.shape), x.new_zeros(x.shape[1])

    def to_data(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Noise to data, and log|dx/dz| = 0."""
        pixels = z.reshape(*self._joined, z.shape[1]).permute(0, 3, 1, 4, 2, 5)
        return pixels.reshape(z.shape), z.new_zeros(z.shape[1])
