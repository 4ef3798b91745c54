"""A transform of a part of the features."""

import torch
from torch import Tensor

from densekit.transforms.columns import ColumnTransform


class Part(ColumnTransform):
    """A transform of the first features that leaves the others unchanged.

    .. math:: (z_A, z_B) = (t(x_A; c), x_B)

    A multi-scale flow uses it at the end of each level, where some features leave the flow (Dinh
    et al., section 3.6).

    Parameters
    ----------
    transform : ColumnTransform
        The transform t of the first k features.
    n_features : int
        Total number of features D, at least k.

    References
    ----------
    L. Dinh, J. Sohl-Dickstein and S. Bengio. Density estimation using Real NVP. ICLR 2017.
    https://arxiv.org/abs/1605.08803

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
