"""An elementwise transform, with a function of its own for each feature."""

from collections.abc import Sequence

from torch import Tensor, nn

from densekit.nets.residual import ResidualNet
from densekit.transforms.columns import ColumnTransform, Element


class ElementwiseTransform(ColumnTransform):
    r"""An elementwise transform whose parameters depend on the context only.

    .. math:: z_d = f(x_d;\ \theta_d + \theta_d(c)), \qquad
              \log\left|\frac{dz}{dx}\right| = \sum_d \log f'(x_d;\ \theta_d + \theta_d(c))

    Without a context the parameters have the shape (P, D, 1), so that elements process them once
    for all samples. A coupling transform without kept features would process them once per sample.

    Parameters
    ----------
    n_features : int
        D.
    element : Element
        An element whose parameters broadcast against its values, for example
        :class:`~densekit.transforms.gaussianize.GaussianizeElement`.
    hidden_sizes : sequence of int
        Hidden layers of the network of the context, at least one; without a context there is no
        network.
    n_context : int
        Number of context features.
    activation : str
        Activation of the network.

    Examples
    --------
    >>> import torch
    >>> from densekit.transforms.monotone import MonotoneElement
    >>> ElementwiseTransform(2, MonotoneElement())(torch.tensor([1.0, 2.0])).detach().round()
    tensor([1., 2.])
    """

    def __init__(
        self,
        n_features: int,
        element: Element,
        hidden_sizes: Sequence[int] = (),
        n_context: int = 0,
        activation: str = "silu",
    ) -> None:
        super().__init__(n_features, n_context)
        self.element = element
        self.raw = nn.Parameter(element.start()[:, None, None].repeat(1, n_features, 1))
        n_out = element.n_params * n_features
        self.net = (
            ResidualNet(0, n_out, hidden_sizes, n_context, activation) if n_context else None
        )

    def _params(self, columns: Tensor, context: Tensor | None) -> Tensor:
        """Parameters (P, D, 1), or (P, D, N) with a context."""
        if self.net is None:
            return self.raw
        return self.raw + self.net(columns[:0], context).view(
            *self.raw.shape[:2], columns.shape[1]
        )

    def to_noise(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data to noise, and log|dz/dx|."""
        z, ladj = self.element.forward(x, self._params(x, context))
        return z, ladj.sum(0)

    def to_data(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Noise to data, and log|dx/dz|."""
        x, ladj = self.element.inverse(z, self._params(z, context))
        return x, ladj.sum(0)
