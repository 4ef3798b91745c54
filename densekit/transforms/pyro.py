"""Transforms of Pyro and torch as transforms of columns."""

import math
from collections.abc import Callable, Iterator
from typing import Any

from pyro.distributions.conditional import (
    ConditionalComposeTransformModule,
    ConditionalTransform,
    ConstantConditionalTransform,
    _ConditionalInverseTransformModule,
)
from torch import Tensor, nn
from torch.distributions.transforms import ComposeTransform, Transform, _InverseTransform

from densekit.transforms.columns import ColumnTransform, to_columns


class FromPyro(ColumnTransform):
    r"""A transform of Pyro or of torch on vectors, noise to data as there.

    .. math:: x = T(z; c), \qquad
              \log\left|\frac{dz}{dx}\right| = -\log\left|\frac{dT}{dz}\right| \text{ at } z = T^{-1}(x)

    Compositions, inverses (``t.inv``) and conditional transforms are taken apart, and each part is run
    once a way. Pyro's cache lives no longer than that: kept, it would give a tensor that it has met
    the scores of older weights, and hold on to the last batch. Tensors that a part holds without
    being a module (a permutation, the scale of an ``AffineTransform``) become buffers here, or
    parameters where
    they ask for a gradient, so that they follow the device and are in ``state_dict``.

    Parameters
    ----------
    transform : Transform or ConditionalTransform
        Pyro's or torch's, bijective, from D numbers to D numbers. In between it may have any
        shape: a batch (N, D) goes through its parts as they leave it.
    n_features : int
        D.
    n_context : int
        C; conditional parts are conditioned on (N, C).

    Raises
    ------
    ValueError
        A transform that is not bijective, one that is conditional where there is no context, or
        a tensor computed from a parameter, which would be as old as the transform.
    NotImplementedError
        When it is run: the way that was asked for does not exist in Pyro. Six of its transforms
        have but one; ``.inv`` of one that samples can score.

    Examples
    --------
    >>> import torch
    >>> from torch.distributions.transforms import AffineTransform
    >>> transform = FromPyro(AffineTransform(torch.tensor([0.0, 1.0]), 2.0), 2)
    >>> transform(torch.tensor([1.0, 2.0])).tolist()
    [2.0, 5.0]
    """

    held: nn.ModuleList

    def __init__(
        self, transform: Transform | ConditionalTransform, n_features: int, n_context: int = 0
    ) -> None:
        super().__init__(n_features, n_context)
        self._parts = list(_flat(transform, False))
        self._places: list[tuple[Any, str, str]] = []
        modules: list[nn.Module] = []
        for part, _ in self._parts:
            if isinstance(part, ConditionalTransform) and not n_context:
                raise ValueError(
                    f"{title(part)} is conditional, and there is no context: fit with context=, or "
                    "leave it out"
                )
            if isinstance(part, Transform) and not part.bijective:
                raise ValueError(f"{title(part)} is not bijective: to a row belongs no one noise")
        for part in _inside([part for part, _ in self._parts]):
            if isinstance(part, nn.Module) and not _holds(modules, part):
                modules.append(part)
            if isinstance(part, Transform):
                _forget(part, 0)
                self._keep_tensors(part)
        self.held = nn.ModuleList(modules)

    def _keep_tensors(self, part: Transform) -> None:
        for name, value in list(vars(part).items()):
            if not isinstance(value, Tensor) or name.startswith("_cache"):
                continue
            if value.requires_grad and not value.is_leaf:
                raise ValueError(
                    f"{name} of {title(part)} is computed from a parameter, once and for all: "
                    "give the parameter itself, or make a TransformModule that computes it"
                )
            key = f"{name}_{len(self._places)}"
            if value.requires_grad:
                parameter = value if isinstance(value, nn.Parameter) else nn.Parameter(value)
                self.register_parameter(key, parameter)
            else:
                self.register_buffer(key, value.clone())
            self._places.append((part, name, key))

    def _run(self, rows: Tensor, context: Tensor | None, back: bool) -> tuple[Tensor, Tensor]:
        """(N, D) through all parts, and the log-determinant of the way taken, (N,)."""
        for part, name, key in self._places:
            setattr(part, name, getattr(self, key))
        total = rows.new_zeros(len(rows))
        for part, flipped in reversed(self._parts) if back else self._parts:
            if isinstance(part, ConditionalTransform):
                part = part.condition(context)
            # The log-determinant may take what the value left, and nobody after it.
            _forget(part, 1)
            # What runs backwards through the inverse of a transform runs forwards through it.
            if back == flipped:
                after = self._one_way(part, part, rows, back)
                total = total + _log_det(part, rows, after)
            else:
                after = self._one_way(part, part.inv, rows, back)
                total = total - _log_det(part, after, rows)
            _forget(part, 0)
            rows = after
        return rows, total

    def _one_way(
        self, part: Any, way: Callable[[Tensor], Tensor], rows: Tensor, back: bool
    ) -> Tensor:
        try:
            return way(rows)
        except (NotImplementedError, KeyError) as error:
            # Pyro's say KeyError: a value that is not in the cache of the other way.
            have, lack = ("noise to data", "data to noise")[:: -1 if not back else 1]
            needed = "learn or score" if back else "sample"
            raise NotImplementedError(
                f"{title(part)} goes from {have} and cannot go from {lack}, which is needed to "
                f"{needed}: take a transform with both ways (densekit has its own), or its .inv where "
                "the other way is enough"
            ) from error

    def to_noise(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data to noise, and log|dz/dx|."""
        given = None if context is None else context.t()
        z, ladj = self._run(x.t().contiguous(), given, back=True)
        return to_columns(z), ladj

    def to_data(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Noise to data, and log|dx/dz|."""
        given = None if context is None else context.t()
        x, ladj = self._run(z.t().contiguous(), given, back=False)
        return to_columns(x), ladj


def _forget(part: Any, cache_size: int) -> None:
    """Empty the cache, and give it this size; ``with_cache`` is what most of Pyro's lack."""
    part._cache_size, part._cached_x_y = cache_size, (None, None)
    # Beside it most keep a log-determinant or a scale of the last pass, with the graph behind it.
    for name, value in list(vars(part).items()):
        if name.startswith("_cache") and isinstance(value, Tensor):
            setattr(part, name, None)


def _log_det(part: Transform, x: Tensor, y: Tensor) -> Tensor:
    """log|dy/dx| of each row, (N,); Pyro's may leave out axes along which it is the same."""
    ladj = part.log_abs_det_jacobian(x, y)
    batch = x.shape[: x.dim() - part.domain.event_dim]
    return ladj.expand(batch).reshape(len(x), math.prod(batch[1:])).sum(1)


def title(transform: Any) -> str:
    """The class of a transform, for messages.

    >>> from torch.distributions.transforms import TanhTransform
    >>> title(TanhTransform().inv)
    'TanhTransform.inv'
    """
    if isinstance(transform, _InverseTransform | _ConditionalInverseTransformModule):
        return f"{title(transform.inv)}.inv"
    return type(transform).__name__


def _flat(transform: Any, flipped: bool) -> Iterator[tuple[Any, bool]]:
    """The parts of a transform, noise to data, each with whether it is turned round."""
    if isinstance(transform, _InverseTransform | _ConditionalInverseTransformModule):
        yield from _flat(transform.inv, not flipped)
    elif isinstance(transform, ConstantConditionalTransform):
        yield from _flat(transform.transform, flipped)
    elif isinstance(transform, ComposeTransform | ConditionalComposeTransformModule):
        composed = isinstance(transform, ComposeTransform)
        parts: list[Any] = list(getattr(transform, "parts" if composed else "transforms"))
        for part in reversed(parts) if flipped else parts:
            yield from _flat(part, flipped)
    else:
        yield transform, flipped


def _inside(transforms: list[Any]) -> list[Any]:
    """The transforms and those that they are made of, each once."""
    found: dict[int, Any] = {}
    left = list(transforms)
    while left:
        part = left.pop(0)
        if id(part) in found:
            continue
        found[id(part)] = part
        values = [*vars(part).values(), *(part.children() if isinstance(part, nn.Module) else ())]
        for value in values:
            some = value if isinstance(value, list | tuple) else (value,)
            left += [v for v in some if isinstance(v, Transform | ConditionalTransform)]
    return list(found.values())


def _holds(modules: list[nn.Module], part: nn.Module) -> bool:
    return any(part is inner for module in modules for inner in module.modules())
