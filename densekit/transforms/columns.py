"""Transforms of vectors whose arithmetic runs with samples on the last axis.

Pyro wants events on the last axis, (..., D). Element-wise work is fastest the other way round,
(D, N): every operation then streams over contiguous samples, however few numbers a feature needs.
A :class:`ColumnTransform` turns a batch once at its border; a stack of them (:class:`Stack`) is one
too, so that the batch is turned once for the whole stack.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, cast, runtime_checkable

from pyro.distributions import constraints
from pyro.distributions.torch_transform import TransformModule
from torch import Tensor, nn
from torch.distributions.transforms import Transform

from densekit.transforms.written import in_turn, together


class Element(Protocol):
    """A strictly increasing function of a number, with ``n_params`` raw parameters, zero for the
    identity.

    Numbers have any shape S, parameters (n_params, \\*S). Both ways also return the log-derivative
    of the way taken, S.
    """

    n_params: int

    def start(self) -> Tensor:
        """Raw parameters (n_params,) to begin learning from; the identity too."""

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Data to noise."""

    def inverse(self, z: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Noise to data."""


@runtime_checkable
class WrittenElement(Element, Protocol):
    """One that can be written on a ``kernels.tape.Tape``, the way to noise."""

    def write(
        self, tape: Any, x: Any, raw: Any, steps: tuple[int, int], total: Any, name: str
    ) -> Any:
        """Rows x and raw parameters, ``steps`` rows from one feature and one parameter to the next, to
        rows of that name; the log-derivatives are added to ``total``."""

    def write_inverse(
        self, tape: Any, z: Any, raw: Any, steps: tuple[int, int], total: Any, x: Any
    ) -> None:
        """Rows z and raw parameters to the rows x, without gradients."""


def to_columns(rows: Tensor) -> Tensor:
    """(..., D) to a contiguous (D, N)."""
    return rows.reshape(-1, rows.shape[-1]).t().contiguous()


def to_rows(columns: Tensor, shape: Sequence[int]) -> Tensor:
    """(D, N) back to (\\*shape, D)."""
    return columns.t().reshape(*shape, columns.shape[0])


class ColumnTransform(TransformModule, ABC):
    """A bijection of vectors, noise to data, that may be conditioned on a context.

    As a Pyro transform it is called with noise (..., D) and gives data; nothing is cached, so a
    score is never one of older weights. With ``n_context > 0`` it must first be given its context
    by :meth:`condition`.
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, n_features: int, n_context: int = 0) -> None:
        super().__init__(cache_size=0)
        self.n_features, self.n_context = n_features, n_context

    @abstractmethod
    def to_noise(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data (D, N), context (C, N) or None, to noise (D, N) and log|dz/dx|, (N,)."""

    @abstractmethod
    def to_data(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Noise (D, N), context (C, N) or None, to data (D, N) and log|dx/dz|, (N,)."""

    def written(self) -> bool:
        """Whether :meth:`write` can write it on a tape as it is now."""
        return False

    def write(self, tape: Any, x: Any, total: Any, context: Any, name: str) -> Any:
        """The way to noise on a ``kernels.tape.Tape``: rows x (D) and asinh of the
        context (C) to rows z (D) of that name, and the log-determinant added to ``total`` (1)."""
        raise NotImplementedError(f"{type(self).__name__} has no compiled way to noise")

    def write_data(self, tape: Any, z: Any, total: Any, context: Any, name: str) -> Any:
        """The same the other way, without gradients."""
        raise NotImplementedError(f"{type(self).__name__} has no compiled way to data")

    def condition(self, context: Tensor) -> "ConditionedTransform":
        """The transform given a context (..., C) that broadcasts against the batch."""
        return ConditionedTransform(self, context)

    def _call(self, z: Tensor) -> Tensor:
        return to_rows(self.to_data(to_columns(z))[0], z.shape[:-1])

    def _inverse(self, x: Tensor) -> Tensor:
        return to_rows(self.to_noise(to_columns(x))[0], x.shape[:-1])

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log|dy/dx|, (...), found from the data y alone: that is the cheap direction."""
        return -self.to_noise(to_columns(y))[1].reshape(y.shape[:-1])


class ConditionedTransform(Transform):
    """A :class:`ColumnTransform` with its context filled in, noise to data."""

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, transform: ColumnTransform, context: Tensor) -> None:
        super().__init__(cache_size=0)
        self.transform, self.context = transform, context

    def _columns(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        context = self.context.expand(*rows.shape[:-1], self.context.shape[-1])
        return to_columns(rows), to_columns(context)

    def _call(self, z: Tensor) -> Tensor:
        return to_rows(self.transform.to_data(*self._columns(z))[0], z.shape[:-1])

    def _inverse(self, x: Tensor) -> Tensor:
        return to_rows(self.transform.to_noise(*self._columns(x))[0], x.shape[:-1])

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log|dy/dx|, (...), found from the data y alone."""
        return -self.transform.to_noise(*self._columns(y))[1].reshape(y.shape[:-1])


class Stack(ColumnTransform):
    """Transforms one after another; the first is the nearest to the data.

    The context goes to those that take one.

    Examples
    --------
    >>> import torch
    >>> from densekit.transforms.linear import Reverse
    >>> Stack([Reverse(3), Reverse(3)])(torch.tensor([1.0, 2.0, 3.0]))
    tensor([1., 2., 3.])
    """

    def __init__(self, transforms: Iterable[ColumnTransform]) -> None:
        parts = list(transforms)
        super().__init__(parts[0].n_features, max(t.n_context for t in parts))
        self.transforms = nn.ModuleList(parts)

    def _parts(self) -> list[ColumnTransform]:
        return cast("list[ColumnTransform]", list(self.transforms))

    def to_noise(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data to noise, and log|dz/dx|."""
        return in_turn(together(self, self._parts(), x), "to_noise", x, context)

    def to_data(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Noise to data, and log|dx/dz|."""
        return in_turn(reversed(together(self, self._parts(), z)), "to_data", z, context)


class Inverse(ColumnTransform):
    """A transform the other way round: its data are our noise.

    Examples
    --------
    >>> import torch
    >>> from densekit.transforms.linear import Diagonal
    >>> double = Diagonal(1)
    >>> _ = double.log_scale.data.fill_(0.6931472)
    >>> double(torch.ones(1)).item(), Inverse(double)(torch.ones(1)).item()
    (0.5, 2.0)
    """

    def __init__(self, transform: ColumnTransform) -> None:
        super().__init__(transform.n_features, transform.n_context)
        self.transform = transform

    def to_noise(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data to noise, and log|dz/dx|."""
        return self.transform.to_data(x, context)

    def to_data(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Noise to data, and log|dx/dz|."""
        return self.transform.to_noise(z, context)
