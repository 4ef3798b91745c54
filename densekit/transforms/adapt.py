"""Adapters for transforms of other libraries, and a check of their properties."""

import sys
from collections.abc import Mapping
from typing import Any

import torch
from pyro.distributions.conditional import ConditionalTransform
from torch import Tensor
from torch.distributions.transforms import Transform

from densekit.transforms.columns import ColumnTransform
from densekit.transforms.pyro import FromPyro

_N_CHECK_ROWS = 16
_MAX_RELATIVE_ERROR = 1e-2
"""Largest relative error of a transform and its inverse in float32."""


def as_columns(transform: Any, n_features: int, n_context: int = 0) -> ColumnTransform:
    """Adapt a transform of Pyro, torch, nflows or densekit to a
    :class:`~densekit.transforms.columns.ColumnTransform`.

    Parameters
    ----------
    transform : Transform
    n_features, n_context : int
        Number of features and of context features.

    Returns
    -------
    ColumnTransform

    Raises
    ------
    TypeError
        If it is not a transform of these libraries.
    ValueError
        If it is not bijective, or was made for other numbers of features.

    Examples
    --------
    >>> from torch.distributions.transforms import AffineTransform
    >>> type(as_columns(AffineTransform(1.0, 2.0), 3)).__name__
    'FromPyro'
    """
    # A transform of nflows can only exist if the package has been imported.
    nflows_transforms = sys.modules.get("nflows.transforms")
    if isinstance(transform, ColumnTransform):
        columns = transform
    elif isinstance(transform, Transform | ConditionalTransform):
        columns = FromPyro(transform, n_features, n_context)
    elif nflows_transforms is not None and isinstance(transform, nflows_transforms.Transform):
        from densekit.transforms.nflows import FromNflows

        columns = FromNflows(transform, n_features, n_context)
    else:
        raise TypeError(
            f"it is a {type(transform).__name__}, not a transform of Pyro, torch or nflows or a "
            "ColumnTransform of densekit"
        )
    if columns.n_features != n_features or columns.n_context not in (0, n_context):
        raise ValueError(
            f"it takes {columns.n_features} features and a context of {columns.n_context}, but the data "
            f"have {n_features} and {n_context}: create it with the arguments of the factory"
        )
    return columns


def check_transforms(
    transforms: Mapping[str, ColumnTransform],
    n_features: int,
    n_context: int = 0,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Check transforms, noise to data, in both directions on a few random rows.

    The transforms are frozen in the process and cannot be trained afterward.

    Parameters
    ----------
    transforms : mapping
        Transforms by the names that messages use.
    n_features, n_context : int
        Number of features and of context features.
    dtype : torch.dtype
        Dtype of the check.

    Raises
    ------
    ValueError
        With the name of the first transform that does not map R^D to itself or whose inverse is
        wrong, or if no transform uses the context.
    NotImplementedError
        If a transform does not map data to noise. The other direction may be missing.

    Examples
    --------
    >>> from torch.distributions.transforms import ExpTransform
    >>> check_transforms({"the only one": as_columns(ExpTransform(), 2)}, 2)
    Traceback (most recent call last):
    ValueError: the only one returns values that are not finite for standardized rows: ...
    """
    for transform in transforms.values():
        transform.to(dtype).eval().requires_grad_(False)
    context = torch.randn(n_context, _N_CHECK_ROWS, dtype=dtype).requires_grad_()
    given = context if n_context else None
    x = torch.randn(n_features, _N_CHECK_ROWS, dtype=dtype)
    uses_context = False
    for name, transform in reversed(list(transforms.items())):
        z, ladj = _apply(name, transform.to_noise, x, given)
        uses_context = uses_context or z.requires_grad or ladj.requires_grad
        round_trip = _apply_if_available(name, transform.to_data, z, given)
        _expect_same(name, x, round_trip, "data to noise and back")
        x = z.detach()
    if n_context and not uses_context:
        raise ValueError(
            f"none of {', '.join(transforms)} uses the context of {n_context} features: make one of "
            "them conditional, or fit without context="
        )
    _check_noise_to_data(transforms, torch.randn(n_features, _N_CHECK_ROWS, dtype=dtype), given)


def _check_noise_to_data(
    transforms: Mapping[str, ColumnTransform], z: Tensor, context: Tensor | None
) -> None:
    """Map noise (D, N) to data and back, up to the first transform that lacks this direction."""
    for name, transform in transforms.items():
        x = _apply_if_available(name, transform.to_data, z, context)
        if x is None:
            return
        round_trip = _apply(name, transform.to_noise, x, context)[0]
        _expect_same(name, z, round_trip, "noise to data and back")
        z = x.detach()


def _apply(
    name: str, function: Any, rows: Tensor, context: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Apply a transform to columns and check shape and values of the result."""
    try:
        result, ladj = function(rows, context)
    except NotImplementedError as error:
        raise NotImplementedError(f"{name}: {error}") from error
    except Exception as error:
        raise ValueError(
            f"{name} does not take rows of {len(rows)} real numbers"
            f"{'' if context is None else f' and contexts of {len(context)}'}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if result.shape != rows.shape or ladj.shape != rows.shape[1:]:
        raise ValueError(
            f"{name} returns (n, {len(result)}) and log-determinants {tuple(ladj.shape)} for n = "
            f"{rows.shape[1]} rows (n, {len(rows)}): it must keep the number of features"
        )
    if not (torch.isfinite(result).all() and torch.isfinite(ladj).all()):
        raise ValueError(
            f"{name} returns values that are not finite for standardized rows: it must accept all real "
            "numbers (declare columns of bounded support by support=)"
        )
    return result, ladj


def _apply_if_available(
    name: str, function: Any, rows: Tensor, context: Tensor | None
) -> Tensor | None:
    """The result of a transform, or None if it lacks this direction."""
    try:
        return _apply(name, function, rows, context)[0]
    except NotImplementedError:
        return None


def _expect_same(name: str, rows: Tensor, round_trip: Tensor | None, direction: str) -> None:
    """Raise an error if a round trip changes the rows."""
    if round_trip is None:
        return
    error = ((round_trip - rows).abs() / (1 + rows.abs())).max().item()
    if not error < _MAX_RELATIVE_ERROR:
        raise ValueError(
            f"{name} does not return to the same rows, {direction} (error {error:.2g}): it must be a "
            "bijection of the real numbers (declare columns of bounded support by support=)"
        )
