"""Transforms of vectors that compute with samples on the last axis.

In Pyro events are on the last axis, (..., D). Elementwise operations are fastest with the opposite
layout, (D, N): they then run over contiguous samples, whatever number of parameters a feature
needs. A :class:`ColumnTransform` transposes a batch once. A :class:`Stack` of transforms is one
itself, so that it transposes the batch once for all of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, cast, runtime_checkable

from pyro.distributions import constraints
from pyro.distributions.torch_transform import TransformModule
from torch import Tensor, nn
from torch.distributions.transforms import Transform

from densekit.transforms.recorded import apply_in_order, group_recordable


class Element(Protocol):
    r"""Interface of a strictly increasing function of one variable with ``n_params`` raw parameters.

    Values have any shape S, and parameters (n_params, \*S). Zeros give the identity. Both
    directions also return the logarithm of their derivative, (\*S,).
    """

    n_params: int

    def start(self) -> Tensor:
        """Initial raw parameters (n_params,), at which the function is the identity as well."""

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Data to noise."""

    def inverse(self, z: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Noise to data."""


@runtime_checkable
class RecordableElement(Element, Protocol):
    """Interface of an element that can be recorded on a ``kernels.tape.Tape``."""

    def record(
        self, tape: Any, x: Any, raw: Any, steps: tuple[int, int], total: Any, name: str
    ) -> Any:
        """Record data to noise, from rows x to rows called ``name``, and add the log-derivatives to
        ``total``.

        ``steps`` are the numbers of rows of ``raw`` from one feature and from one parameter to the
        next.
        """

    def record_inverse(
        self, tape: Any, z: Any, raw: Any, steps: tuple[int, int], total: Any, x: Any
    ) -> None:
        """Record noise to data, from rows z to rows x, without gradients."""


def to_columns(rows: Tensor) -> Tensor:
    """Rows (..., D) as contiguous columns (D, N)."""
    return rows.reshape(-1, rows.shape[-1]).t().contiguous()


def to_rows(columns: Tensor, shape: Sequence[int]) -> Tensor:
    r"""Columns (D, N) as rows (\*shape, D)."""
    return columns.t().reshape(*shape, columns.shape[0])


class ColumnTransform(TransformModule, ABC):
    """A bijection of vectors, noise to data, that may be conditioned on a context.

    As a Pyro transform it maps noise (..., D) to data. Nothing is cached, so a score never comes
    from older weights. If ``n_context > 0``, :meth:`condition` has to provide the context first.
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, n_features: int, n_context: int = 0) -> None:
        super().__init__(cache_size=0)
        self.n_features, self.n_context = n_features, n_context

    @abstractmethod
    def to_noise(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map data (D, N) to noise (D, N) given a context (C, N) or None; also returns log|dz/dx|,
        (N,).
        """

    @abstractmethod
    def to_data(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map noise (D, N) to data (D, N) given a context (C, N) or None; also returns log|dx/dz|,
        (N,).
        """

    def can_record(self) -> bool:
        """Whether :meth:`record` is available in the current state."""
        return False

    def record(self, tape: Any, x: Any, total: Any, context: Any, name: str) -> Any:
        """Record data to noise on a ``kernels.tape.Tape``.

        Maps rows x (D) and asinh of the context (C) to rows z (D) called ``name``, and adds the
        log-determinant to ``total`` (1).
        """
        raise NotImplementedError(f"{type(self).__name__} has no compiled map from data to noise")

    def record_data(self, tape: Any, z: Any, total: Any, context: Any, name: str) -> Any:
        """Record noise to data on a tape, without gradients."""
        raise NotImplementedError(f"{type(self).__name__} has no compiled map from noise to data")

    def condition(self, context: Tensor) -> "ConditionedTransform":
        """The transform with a context (..., C) that broadcasts against the batch."""
        return ConditionedTransform(self, context)

    def _call(self, z: Tensor) -> Tensor:
        return to_rows(self.to_data(to_columns(z))[0], z.shape[:-1])

    def _inverse(self, x: Tensor) -> Tensor:
        return to_rows(self.to_noise(to_columns(x))[0], x.shape[:-1])

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log|dy/dx|, (...), computed from the data y, which is the cheap direction."""
        return -self.to_noise(to_columns(y))[1].reshape(y.shape[:-1])


class ConditionedTransform(Transform):
    """A :class:`ColumnTransform` with a given context, noise to data."""

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
        """log|dy/dx|, (...), computed from the data y."""
        return -self.transform.to_noise(*self._columns(y))[1].reshape(y.shape[:-1])


class Stack(ColumnTransform):
    """A composition of transforms; the first one is next to the data.

    The context is passed to the transforms that take one.

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
        return apply_in_order(group_recordable(self, self._parts(), x), "to_noise", x, context)

    def to_data(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Noise to data, and log|dx/dz|."""
        return apply_in_order(
            reversed(group_recordable(self, self._parts(), z)), "to_data", z, context
        )


class Inverse(ColumnTransform):
    """The inverse of a transform: data and noise change places.

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
