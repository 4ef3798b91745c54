"""The codec contract: fit, encode, decode, and a state that is only plain values."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor

from densekit.codecs.schema import Modality, Schema


class Codec(ABC):
    """Data space to typed events and back, with the Jacobian of the way.

    After :meth:`fit` every attribute is a plain value (None, bool, int, float, str, tuple, list,
    dict, NumPy array, :class:`Schema`), so that saving needs no code of the codec's own.
    """

    modality: ClassVar[Modality]
    options: ClassVar[tuple[str, ...]] = ()
    """Hyper-parameters of an estimator that are handed to the codec's constructor, by name."""

    schema: Schema

    @abstractmethod
    def fit(self, X: Any) -> "Codec":
        """Learn columns, levels, location and scale, in float64."""

    @abstractmethod
    def encode(self, X: Any) -> tuple[Tensor, Tensor]:
        """Encode rows as typed events (n, \\*event_shape), with log|d typed / d x|, (n,).

        Both are float64; events of text are int64. A row outside the support has a log-Jacobian of
        -inf and an arbitrary event inside the support."""

    @abstractmethod
    def decode(self, typed: Tensor) -> Any:
        """Decode typed events to rows with the container, columns, dtypes and shapes of ``fit``."""
