"""Each feature through an element of its own."""

from collections.abc import Sequence

from torch import Tensor, nn

from densekit.nets.residual import ResidualNet
from densekit.transforms.columns import ColumnTransform, Element


class ElementwiseTransform(ColumnTransform):
    r"""Each feature through an element whose parameters depend on nothing but the context.

    .. math:: z_d = f(x_d;\ \theta_d + \theta_d(c)), \qquad
              \log\left|\frac{dz}{dx}\right| = \sum_d \log f'(x_d;\ \theta_d + \theta_d(c))

    Without a context the parameters are one column, (P, D, 1), for all samples, and what an element
    makes of them is computed once: that is what sets it apart from a coupling that keeps nothing.

    Parameters
    ----------
    n_features : int
        D.
    element : Element
        One whose parameters broadcast against its numbers, for example
        :class:`~densekit.transforms.gaussianize.GaussianizeElement`.
    hidden_sizes : sequence of int
        Hidden layers of the context's network, one at least; without a context there is none.
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

    def _parameters_given(self, columns: Tensor, context: Tensor | None) -> Tensor:
        """(P, D, 1), or (P, D, N) where there is a context."""
        if self.net is None:
            return self.raw
        return self.raw + self.net(columns[:0], context).view(
            *self.raw.shape[:2], columns.shape[1]
        )

    def to_noise(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data to noise, and log|dz/dx|."""
        z, ladj = self.element.forward(x, self._parameters_given(x, context))
        return z, ladj.sum(0)

    def to_data(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Noise to data, and log|dx/dz|."""
        x, ladj = self.element.inverse(z, self._parameters_given(z, context))
        return x, ladj.sum(0)
