"""Transforms of Pyro and torch as column transforms."""

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
    r"""A transform of Pyro or torch on vectors, noise to data as in these libraries.

    .. math:: x = T(z; c), \qquad
              \log\left|\frac{dz}{dx}\right| = -\log\left|\frac{dT}{dz}\right| \text{ at } z = T^{-1}(x)

    Compositions, inverses (``t.inv``) and conditional transforms are split into parts, each of
    which is evaluated once per pass. Pyro's cache is cleared after each pass; otherwise scores of
    a tensor could come from older weights, and the cache would keep the last batch in memory.
    Tensors of a part that is not a module (a permutation, the scale of an ``AffineTransform``)
    become buffers, or parameters if they require gradients, so that they follow the device and are
    part of ``state_dict``.

    Parameters
    ----------
    transform : Transform or ConditionalTransform
        A bijective transform from D numbers to D numbers. Inner parts may have any event shape.
    n_features : int
        D.
    n_context : int
        C; conditional parts are conditioned on (N, C).

    Raises
    ------
    ValueError
        If the transform is not bijective, is conditional without a context, or holds a tensor
        computed from a parameter, which training would not update.
    NotImplementedError
        When it is evaluated in a direction that Pyro lacks. Six transforms of Pyro have a single
        direction; the ``.inv`` of one that can sample can score.

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
                    f"{title(part)} is conditional, but there is no context: fit with context=, or "
                    "remove the transform"
                )
            if isinstance(part, Transform) and not part.bijective:
                raise ValueError(f"{title(part)} is not bijective, so a row has no unique noise")
        for part in _inside([part for part, _ in self._parts]):
            if isinstance(part, nn.Module) and not _holds(modules, part):
                modules.append(part)
            if isinstance(part, Transform):
                _clear_cache(part, 0)
                self._keep_tensors(part)
        self.held = nn.ModuleList(modules)

    def _keep_tensors(self, part: Transform) -> None:
        for name, value in list(vars(part).items()):
            if not isinstance(value, Tensor) or name.startswith("_cache"):
                continue
            if value.requires_grad and not value.is_leaf:
                raise ValueError(
                    f"{name} of {title(part)} is computed from a parameter only once: pass the "
                    "parameter itself, or write a TransformModule that computes it"
                )
            key = f"{name}_{len(self._places)}"
            if value.requires_grad:
                parameter = value if isinstance(value, nn.Parameter) else nn.Parameter(value)
                self.register_parameter(key, parameter)
            else:
                self.register_buffer(key, value.clone())
            self._places.append((part, name, key))

    def _run(self, rows: Tensor, context: Tensor | None, to_noise: bool) -> tuple[Tensor, Tensor]:
        """Apply all parts to (N, D); also returns the log-determinant of the direction taken, (N,)."""
        for part, name, key in self._places:
            setattr(part, name, getattr(self, key))
        total = rows.new_zeros(len(rows))
        for part, is_inverse in reversed(self._parts) if to_noise else self._parts:
            if isinstance(part, ConditionalTransform):
                part = part.condition(context)
            # Between value and log-determinant a part may use its cache.
            _clear_cache(part, 1)
            # Data to noise through the inverse of a transform is the transform itself.
            if to_noise == is_inverse:
                result = self._apply_part(part, part, rows, to_noise)
                total = total + _log_det(part, rows, result)
            else:
                result = self._apply_part(part, part.inv, rows, to_noise)
                total = total - _log_det(part, result, rows)
            _clear_cache(part, 0)
            rows = result
        return rows, total

    def _apply_part(
        self, part: Any, function: Callable[[Tensor], Tensor], rows: Tensor, to_noise: bool
    ) -> Tensor:
        try:
            return function(rows)
        except (NotImplementedError, KeyError) as error:
            # Pyro raises KeyError if a value is not in the cache of the missing direction.
            available, missing = ("noise to data", "data to noise")[:: -1 if not to_noise else 1]
            purpose = "learn or score" if to_noise else "sample"
            raise NotImplementedError(
                f"{title(part)} maps {available} and not {missing}, which is needed to {purpose}: use a "
                "transform with both directions (densekit has its own), or its .inv if the other "
                "direction is enough"
            ) from error

    def to_noise(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data to noise, and log|dz/dx|."""
        given = None if context is None else context.t()
        z, ladj = self._run(x.t().contiguous(), given, to_noise=True)
        return to_columns(z), ladj

    def to_data(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Noise to data, and log|dx/dz|."""
        given = None if context is None else context.t()
        x, ladj = self._run(z.t().contiguous(), given, to_noise=False)
        return to_columns(x), ladj


def _clear_cache(part: Any, cache_size: int) -> None:
    """Clear the cache of a transform and set its size; most of Pyro's transforms lack ``with_cache``."""
    part._cache_size, part._cached_x_y = cache_size, (None, None)
    # Most also store a log-determinant or a scale of the last pass, with its graph.
    for name, value in list(vars(part).items()):
        if name.startswith("_cache") and isinstance(value, Tensor):
            setattr(part, name, None)


def _log_det(part: Transform, x: Tensor, y: Tensor) -> Tensor:
    """log|dy/dx| of each row, (N,); Pyro may omit axes along which it is constant."""
    ladj = part.log_abs_det_jacobian(x, y)
    batch = x.shape[: x.dim() - part.domain.event_dim]
    return ladj.expand(batch).reshape(len(x), math.prod(batch[1:])).sum(1)


def title(transform: Any) -> str:
    """Name of the class of a transform, for messages.

    >>> from torch.distributions.transforms import TanhTransform
    >>> title(TanhTransform().inv)
    'TanhTransform.inv'
    """
    if isinstance(transform, _InverseTransform | _ConditionalInverseTransformModule):
        return f"{title(transform.inv)}.inv"
    return type(transform).__name__


def _flat(transform: Any, flipped: bool) -> Iterator[tuple[Any, bool]]:
    """Yield the parts of a transform, noise to data, each with whether it is inverted."""
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
    """The transforms and all transforms they contain, each once."""
    found: dict[int, Any] = {}
    remaining = list(transforms)
    while remaining:
        part = remaining.pop(0)
        if id(part) in found:
            continue
        found[id(part)] = part
        values = [*vars(part).values(), *(part.children() if isinstance(part, nn.Module) else ())]
        for value in values:
            candidates = value if isinstance(value, list | tuple) else (value,)
            remaining += [v for v in candidates if isinstance(v, Transform | ConditionalTransform)]
    return list(found.values())


def _holds(modules: list[nn.Module], part: nn.Module) -> bool:
    return any(part is inner for module in modules for inner in module.modules())
