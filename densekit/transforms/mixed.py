"""Elements of several kinds side by side."""

from collections.abc import Sequence

import torch
from torch import Tensor

from densekit.transforms.columns import Element


class Mixed:
    """An element of its own for each feature, for layers whose features are not all alike.

    Parameters
    ----------
    elements : sequence of Element
        One per feature. Those that are one object are evaluated together.

    Notes
    -----
    Numbers (D, N), parameters (n_params, D, N) with as many as the neediest element has; the others
    read their first ones.

    Examples
    --------
    >>> from densekit.transforms.affine import AffineElement
    >>> from densekit.transforms.spline import SplineElement
    >>> both = Mixed([SplineElement(4), AffineElement()])
    >>> both.n_params, both.start().shape
    (11, torch.Size([11, 2]))
    """

    def __init__(self, elements: Sequence[Element]) -> None:
        self.elements = tuple(elements)
        self.n_params = max(e.n_params for e in elements)
        self._kinds = [(e, [i for i, o in enumerate(elements) if o is e]) for e in set(elements)]
        self._kinds.sort(key=lambda kind: kind[1])
        self._back = (
            torch.tensor([i for _, index in self._kinds for i in index]).argsort().tolist()
        )

    def start(self) -> Tensor:
        """Raw parameters (n_params, D) to begin learning from."""
        start = torch.zeros(self.n_params, len(self.elements))
        for i, element in enumerate(self.elements):
            start[: element.n_params, i] = element.start()
        return start

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Data to noise, and the log-slopes."""
        return self._each("forward", x, raw)

    def inverse(self, z: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Noise to data, and the log-slopes of that way."""
        return self._each("inverse", z, raw)

    def _each(self, way: str, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        parts = [getattr(e, way)(x[i], raw[: e.n_params, i]) for e, i in self._kinds]
        if len(parts) == 1:
            return parts[0]
        y, log_slope = (torch.cat(part)[self._back] for part in zip(*parts, strict=True))
        return y, log_slope


def of_features(element: Element, features: Sequence[int]) -> Element:
    """The element of some features only."""
    if isinstance(element, Mixed):
        return Mixed([element.elements[i] for i in features])
    return element


def of_feature(element: Element, feature: int) -> Element:
    """The element of one feature, whose numbers are (N,)."""
    return element.elements[feature] if isinstance(element, Mixed) else element
