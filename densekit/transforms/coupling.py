"""The coupling transform."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from densekit.nets.angles import expand_angles
from densekit.nets.residual import ResidualNet
from densekit.transforms.columns import ColumnTransform, Element, RecordableElement
from densekit.transforms.mixed import of_features


def binary_split(n_features: int, layer: int) -> Tensor:
    """Mask (n_features,) of the features that layer number ``layer`` keeps.

    Layers 2 b and 2 b + 1 split by binary digit b of the feature's number, so that after 2 log2(D)
    layers every two features have been on opposite sides (Müller et al.).

    References
    ----------
    T. Müller, B. McWilliams, F. Rousselle, M. Gross and J. Novák. Neural Importance Sampling. ACM
    Transactions on Graphics, 2019. https://arxiv.org/abs/1808.03856

    Examples
    --------
    >>> binary_split(4, 0).int().tolist(), binary_split(4, 3).int().tolist()
    ([1, 0, 1, 0], [0, 0, 1, 1])
    """
    digits = max(1, (n_features - 1).bit_length())
    digit = torch.arange(n_features) >> (layer // 2 % digits) & 1
    return digit == layer % 2


class CouplingTransform(ColumnTransform):
    r"""A coupling transform: half of the features are transformed with parameters that depend on the
    other half.

    .. math:: z_A = x_A, \qquad z_B = f(x_B;\ \theta(x_A, c))

    Both directions take one pass of the network. With a single feature, or if ``kept`` selects
    none, the parameters depend on the context only.

    Parameters
    ----------
    kept : Tensor of shape (D,)
        Boolean mask of the features A, which are not changed.
    element : Element
        The function f, for example :class:`~densekit.transforms.affine.AffineElement`, or
        :class:`~densekit.transforms.mixed.Mixed` for features of different kinds.
    hidden_sizes : sequence of int
        Hidden layers of the network.
    n_context : int
        Number of context features.
    activation, dropout
        Arguments of the network, :class:`~densekit.nets.residual.ResidualNet`.
    angles : sequence of int
        Features that are half turns in [-1, 1), of which the network reads cosine and sine.

    References
    ----------
    L. Dinh, J. Sohl-Dickstein and S. Bengio. Density estimation using Real NVP. ICLR 2017.
    https://arxiv.org/abs/1605.08803

    Examples
    --------
    >>> from densekit.transforms.affine import AffineElement
    >>> transform = CouplingTransform(binary_split(3, 0), AffineElement(), (16,))
    >>> transform(torch.tensor([1.0, 2.0, 3.0]))
    tensor([1., 2., 3.], grad_fn=...)
    """

    kept: Tensor
    moved: Tensor
    back: Tensor

    def __init__(
        self,
        kept: Tensor,
        element: Element,
        hidden_sizes: Sequence[int],
        n_context: int = 0,
        activation: str = "silu",
        dropout: float = 0.0,
        angles: Sequence[int] = (),
    ) -> None:
        super().__init__(len(kept), n_context)
        if len(kept) == 1:
            kept = torch.zeros(1, dtype=torch.bool)
        order = torch.cat([kept.nonzero()[:, 0], (~kept).nonzero()[:, 0]])
        n_kept = int(kept.sum())
        # These buffers follow from the arguments and are not part of the state.
        self.register_buffer("kept", order[:n_kept], persistent=False)
        self.register_buffer("moved", order[n_kept:], persistent=False)
        self.register_buffer("back", order.argsort(), persistent=False)
        self.element = of_features(element, self.moved.tolist())
        self.angles = tuple(i for i, d in enumerate(self.kept.tolist()) if d in angles)
        self._element_can_record = isinstance(self.element, RecordableElement) and not self.angles
        P, M, n_in = self.element.n_params, len(self.moved), n_kept + len(self.angles)
        self.net = ResidualNet(n_in, P * M, hidden_sizes, n_context, activation, dropout)
        with torch.no_grad():
            start = self.element.start()
            self.net.last_bias.add_(start.view(P, -1).expand(P, M).reshape(-1, 1))

    def _apply_element(
        self, direction: str, columns: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        kept, moved = columns[self.kept], columns[self.moved]
        raw = self.net(expand_angles(kept, self.angles), context).view(
            self.element.n_params, *moved.shape
        )
        moved, ladj = getattr(self.element, direction)(moved, raw)
        return torch.cat([kept, moved])[self.back], ladj.sum(0)

    def can_record(self) -> bool:
        """Whether :meth:`record` is available."""
        return self._element_can_record and self.net.can_record()

    def record(self, tape: Any, x: Any, total: Any, context: Any, name: str) -> Any:
        """Record data to noise on a ``kernels.tape.Tape``."""
        indices = [self.kept.tolist(), self.moved.tolist()]
        kept, moved = (tape.take(x, index) for index in indices)
        raw, element = self.net.record(tape, kept, context), cast(RecordableElement, self.element)
        z = element.record(tape, moved, raw, (1, moved.n), total, "kept")
        return tape.join([kept, z], indices, name)

    def record_data(self, tape: Any, z: Any, total: Any, context: Any, name: str) -> Any:
        """Record noise to data on a tape."""
        indices = [self.kept.tolist(), self.moved.tolist()]
        kept, moved = (tape.take(z, index) for index in indices)
        raw, element = self.net.record(tape, kept, context), cast(RecordableElement, self.element)
        x = tape.rows(moved.n)
        element.record_inverse(tape, moved, raw, (1, moved.n), total, x)
        return tape.join([kept, x], indices, name)

    def to_noise(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data to noise, and log|dz/dx|."""
        return self._apply_element("forward", x, context)

    def to_data(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Noise to data, and log|dx/dz|."""
        return self._apply_element("inverse", z, context)
