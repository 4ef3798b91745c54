"""Elements of several kinds in one layer."""

from collections.abc import Sequence

import torch
from torch import Tensor

from densekit.transforms.columns import Element


class Mixed:
    """A different element for each feature.

    Parameters
    ----------
    elements : sequence of Element
        One element per feature. Features that share an object are evaluated together.

    Notes
    -----
    Values have the shape (D, N) and parameters (n_params, D, N), where n_params is the largest
    number that an element needs; other elements use the first ones.

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
        self._kinds = [
            (e, [i for i, other in enumerate(elements) if other is e]) for e in set(elements)
        ]
        self._kinds.sort(key=lambda kind: kind[1])
        self._original_order = (
            torch.tensor([i for _, index in self._kinds for i in index]).argsort().tolist()
        )

    def start(self) -> Tensor:
        """Initial raw parameters (n_params, D)."""
        start = torch.zeros(self.n_params, len(self.elements))
        for i, element in enumerate(self.elements):
            start[: element.n_params, i] = element.start()
        return start

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Data to noise, and the log-slopes."""
        return self._each("forward", x, raw)

    def inverse(self, z: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Noise to data, and the log-slopes of the inverse."""
        return self._each("inverse", z, raw)

    def _each(self, direction: str, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        parts = [getattr(e, direction)(x[i], raw[: e.n_params, i]) for e, i in self._kinds]
        if len(parts) == 1:
            return parts[0]
        y, log_slope = (torch.cat(part)[self._original_order] for part in zip(*parts, strict=True))
        return y, log_slope


def of_features(element: Element, features: Sequence[int]) -> Element:
    """Restrict an element to some features."""
    if isinstance(element, Mixed):
        return Mixed([element.elements[i] for i in features])
    return element


def of_feature(element: Element, feature: int) -> Element:
    """The element of a single feature, for values (N,)."""
    return element.elements[feature] if isinstance(element, Mixed) else element
