"""A transform of some of the features."""

import torch
from torch import Tensor

from densekit.transforms.columns import ColumnTransform


class Part(ColumnTransform):
    r"""The first features through a transform of their own, the others left as they are.

    .. math:: (z_A, z_B) = (t(x_A; c), x_B)

    The others are then done with: what a multi-scale flow does at the end of each level. Dinh,
    Sohl-Dickstein and Bengio, Density estimation using Real NVP (2017), section 3.6.

    Parameters
    ----------
    transform : ColumnTransform
        t, of k features.
    n_features : int
        D, at least k.

    Examples
    --------
    >>> from densekit.transforms.linear import Reverse
    >>> Part(Reverse(2), 3)(torch.tensor([1.0, 2.0, 3.0])).tolist()
    [2.0, 1.0, 3.0]
    """

    def __init__(self, transform: ColumnTransform, n_features: int) -> None:
        super().__init__(n_features, transform.n_context)
        self.transform = transform

    def to_noise(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data to noise, and log|dz/dx|."""
        k = self.transform.n_features
        z, ladj = self.transform.to_noise(x[:k], context)
        return torch.cat([z, x[k:]]), ladj

    def to_data(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Noise to data, and log|dx/dz|."""
        k = self.transform.n_features
        x, ladj = self.transform.to_data(z[:k], context)
        return torch.cat([x, z[k:]]), ladj
