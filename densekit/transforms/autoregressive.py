"""The masked autoregressive transform."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from densekit.nets.masked import MaskedNet
from densekit.transforms.columns import ColumnTransform, Element, WrittenElement
from densekit.transforms.mixed import of_feature


class AutoregressiveTransform(ColumnTransform):
    r"""Each feature through an element whose parameters depend on the features before it.

    .. math:: z_d = f(x_d;\ \theta_d(x_{<d}, c)), \qquad
              \log\left|\frac{dz}{dx}\right| = \sum_d \log f'(x_d;\ \theta_d)

    Papamakarios, Pavlakou and Murray, Masked Autoregressive Flow (2017); with splines Durkan
    et al. (2019). Data to noise is one pass of the network; noise to data finds the features one after
    another and computes every hidden unit once.

    Parameters
    ----------
    n_features : int
        D; 1 is allowed and needs no other feature.
    element : Element
        For example :class:`~densekit.transforms.spline.SplineElement`, or
        :class:`~densekit.transforms.mixed.Mixed` for features that are not all alike.
    hidden_sizes : sequence of int
        Hidden layers of the network.
    n_context : int
        Number of context features.
    reverse : bool
        Take the features in reversed order.
    activation, dropout, angles
        Of the network: :class:`~densekit.nets.masked.MaskedNet`.

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
        self.element, self._known = element, isinstance(element, WrittenElement)
        P = element.n_params
        self.net = MaskedNet(
            n_features, P, hidden_sizes, n_context, reverse, activation, dropout, angles
        )
        with torch.no_grad():
            self.net.last_bias.add_(element.start().view(P, -1, 1))

    def written(self) -> bool:
        """Whether :meth:`write` can."""
        return self._known and self.net.written()

    def write(self, tape: Any, x: Any, total: Any, context: Any, name: str) -> Any:
        """The way to noise on a ``kernels.tape.Tape``."""
        raw, element = self.net.write(tape, x, context), cast(WrittenElement, self.element)
        return element.write(tape, x, raw, (element.n_params, 1), total, name)

    def write_data(self, tape: Any, z: Any, total: Any, context: Any, name: str) -> Any:
        """The way to data on a tape."""
        x, element = tape.rows(z.n, name), cast(WrittenElement, self.element)

        def step(d: int, raw: Any) -> Any:
            element.write_inverse(tape, z.part(d, 1), raw, (raw.n, 1), total, x.part(d, 1))
            return x.part(d, 1)

        self.net.write_solve(tape, step, context)
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
