"""The masked autoregressive transform."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from densekit.nets.masked import MaskedNet
from densekit.transforms.columns import ColumnTransform, Element, RecordableElement
from densekit.transforms.mixed import of_feature


class AutoregressiveTransform(ColumnTransform):
    r"""An autoregressive transform: the parameters of each feature depend on the features before it.

    .. math:: z_d = f(x_d;\ \theta_d(x_{<d}, c)), \qquad
              \log\left|\frac{dz}{dx}\right| = \sum_d \log f'(x_d;\ \theta_d)

    Data to noise is one pass of the network. Noise to data computes the features one after another
    and every hidden unit once.

    Parameters
    ----------
    n_features : int
        D, at least 1.
    element : Element
        The function f, for example :class:`~densekit.transforms.spline.SplineElement`, or
        :class:`~densekit.transforms.mixed.Mixed` for features of different kinds.
    hidden_sizes : sequence of int
        Hidden layers of the network.
    n_context : int
        Number of context features.
    reverse : bool
        Reverse the order of the features.
    activation, dropout, angles
        Arguments of the network, :class:`~densekit.nets.masked.MaskedNet`.

    References
    ----------
    G. Papamakarios, T. Pavlakou and I. Murray. Masked Autoregressive Flow for Density Estimation.
    NeurIPS 2017. https://arxiv.org/abs/1705.07057

    C. Durkan, A. Bekasov, I. Murray and G. Papamakarios. Neural Spline Flows. NeurIPS 2019.
    https://arxiv.org/abs/1906.04032

    Examples
    --------
    >>> import torch
    >>> from densekit.transforms.spline import SplineElement
    >>> transform = AutoregressiveTransform(3, SplineElement(), (16, 16))
    >>> z = torch.randn(5, 3)
    >>> bool(torch.allclose(transform.inv(transform(z)), z, atol=1e-5))
    True
    """

    def __init__(
        self,
        n_features: int,
        element: Element,
        hidden_sizes: Sequence[int],
        n_context: int = 0,
        reverse: bool = False,
        activation: str = "silu",
        dropout: float = 0.0,
        angles: Sequence[int] = (),
    ) -> None:
        super().__init__(n_features, n_context)
        self.element, self._element_can_record = element, isinstance(element, RecordableElement)
        P = element.n_params
        self.net = MaskedNet(
            n_features, P, hidden_sizes, n_context, reverse, activation, dropout, angles
        )
        with torch.no_grad():
            self.net.last_bias.add_(element.start().view(P, -1, 1))

    def can_record(self) -> bool:
        """Whether :meth:`record` is available."""
        return self._element_can_record and self.net.can_record()

    def record(self, tape: Any, x: Any, total: Any, context: Any, name: str) -> Any:
        """Record data to noise on a ``kernels.tape.Tape``."""
        raw, element = self.net.record(tape, x, context), cast(RecordableElement, self.element)
        return element.record(tape, x, raw, (element.n_params, 1), total, name)

    def record_data(self, tape: Any, z: Any, total: Any, context: Any, name: str) -> Any:
        """Record noise to data on a tape."""
        x, element = tape.rows(z.n, name), cast(RecordableElement, self.element)

        def step(d: int, raw: Any) -> Any:
            element.record_inverse(tape, z.part(d, 1), raw, (raw.n, 1), total, x.part(d, 1))
            return x.part(d, 1)

        self.net.record_solve(tape, step, context)
        return x

    def to_noise(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data to noise, and log|dz/dx|."""
        z, ladj = self.element.forward(x, self.net(x, context))
        return z, ladj.sum(0)

    def to_data(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Noise to data, and log|dx/dz|."""
        total = z.new_zeros(z.shape[1])

        def step(d: int, raw: Tensor) -> Tensor:
            nonlocal total
            element = of_feature(self.element, d)
            x, ladj = element.inverse(z[d], raw[: element.n_params])
            total = total + ladj
            return x

        return self.net.solve(step, z.shape[1], context), total
