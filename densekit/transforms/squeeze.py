"""The squeeze of images, which turns blocks of pixels into channels."""

from torch import Tensor

from densekit.transforms.columns import ColumnTransform


def block(height: int, width: int) -> tuple[int, int]:
    """Size of the blocks of pixels that a squeeze turns into channels.

    A block has two pixels along each side whose length is even. If both sides are odd, it has
    several pixels along one side, as many as that side's smallest divisor. Any image can thus be
    squeezed to a single pixel without padding.

    Parameters
    ----------
    height, width : int
        Size of the image.

    Returns
    -------
    (int, int)

    Examples
    --------
    >>> block(28, 28), block(5, 4), block(7, 7), block(5, 3), block(1, 1)
    ((2, 2), (1, 2), (7, 1), (1, 3), (1, 1))
    """
    sides = [height, width]
    if any(side % 2 == 0 for side in sides):
        return 2 - height % 2, 2 - width % 2
    # The smallest divisor of each odd side: the side itself if it is prime, 1 for a single pixel.
    divisor = [next((d for d in range(3, side + 1, 2) if side % d == 0), 1) for side in sides]
    axis = 0 if divisor[1] == 1 or 1 < divisor[0] <= divisor[1] else 1
    return (divisor[0], 1) if axis == 0 else (1, divisor[1])


class Squeeze(ColumnTransform):
    """Turn blocks of f x g pixels into f g channels: (C, H, W) to (C f g, H/f, W/g), a permutation.

    Channel c f g + i g + j of the noise holds the pixels of channel c at position (i, j) of their
    block (Dinh et al., section 3.6).

    Parameters
    ----------
    shape : (C, H, W)
        Shape of the data.
    size : (f, g), optional
        Size of a block; f must divide H, and g must divide W. :func:`block` chooses it by default.

    Raises
    ------
    ValueError
        If the blocks do not divide the image.

    References
    ----------
    L. Dinh, J. Sohl-Dickstein and S. Bengio. Density estimation using Real NVP. ICLR 2017.
    https://arxiv.org/abs/1605.08803

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
                f"size={(f, g)} does not divide the image, {H} x {W}: omit size, or use divisors of "
                "the two sides"
            )
        self.noise_shape = (C * f * g, H // f, W // g)
        self._data_blocks = (C, H // f, f, W // g, g)
        self._noise_blocks = (C, f, g, H // f, W // g)

    def to_noise(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data to noise, and log|dz/dx| = 0."""
        pixels = x.reshape(*self._data_blocks, x.shape[1]).permute(0, 2, 4, 1, 3, 5)
        return pixels.reshape(x.shape), x.new_zeros(x.shape[1])

    def to_data(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Noise to data, and log|dx/dz| = 0."""
        pixels = z.reshape(*self._noise_blocks, z.shape[1]).permute(0, 3, 1, 4, 2, 5)
        return pixels.reshape(z.shape), z.new_zeros(z.shape[1])
