"""Transforms of any library as transforms of columns, and the trial that tells whether they serve."""

import sys
from collections.abc import Mapping
from typing import Any

import torch
from pyro.distributions.conditional import ConditionalTransform
from torch import Tensor
from torch.distributions.transforms import Transform

from densekit.transforms.columns import ColumnTransform
from densekit.transforms.pyro import FromPyro

_ROWS = 16
_MISS = 1e-2
"""Of a number, that a way forth and back may lose, in float32 too, before it counts as no inverse."""


def as_columns(transform: Any, n_features: int, n_context: int = 0) -> ColumnTransform:
    """A transform of Pyro, torch, nflows or densekit as one of columns.

    Raises
    ------
    TypeError
        It is none of theirs.
    ValueError
        It is not bijective, or was made for other numbers of features or of the context.

    Examples
    --------
    >>> from torch.distributions.transforms import AffineTransform
    >>> type(as_columns(AffineTransform(1.0, 2.0), 3)).__name__
    'FromPyro'
    """
    # Whoever has a transform of nflows has loaded it.
    theirs = sys.modules.get("nflows.transforms")
    if isinstance(transform, ColumnTransform):
        columns = transform
    elif isinstance(transform, Transform | ConditionalTransform):
        columns = FromPyro(transform, n_features, n_context)
    elif theirs is not None and isinstance(transform, theirs.Transform):
        from densekit.transforms.nflows import FromNflows

        columns = FromNflows(transform, n_features, n_context)
    else:
        raise TypeError(
            f"it is a {type(transform).__name__} and no transform of Pyro, torch or nflows, nor a "
            "ColumnTransform of densekit"
        )
    if columns.n_features != n_features or columns.n_context not in (0, n_context):
        raise ValueError(
            f"it takes {columns.n_features} features and a context of {columns.n_context}, and there "
            f"are {n_features} and {n_context}: make it for the numbers that the factory is given"
        )
    return columns


def try_out(
    transforms: Mapping[str, ColumnTransform],
    n_features: int,
    n_context: int = 0,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Run transforms, noise to data, forth and back on a few rows. They are not fit for use after
    it: they are frozen.

    Parameters
    ----------
    transforms : mapping
        By their names, for messages.
    n_features, n_context : int
    dtype : torch.dtype
        What they will compute in.

    Raises
    ------
    ValueError
        With the name of the first that does not map R^D to itself, or whose inverse is none; or
        none reads the context.
    NotImplementedError
        One that does not go from data to noise. The other way may be lacking.

    Examples
    --------
    >>> from torch.distributions.transforms import ExpTransform
    >>> try_out({"the only one": as_columns(ExpTransform(), 2)}, 2)
    Traceback (most recent call last):
    ValueError: the only one gives values that are not finite for standardized rows: ...
    """
    for transform in transforms.values():
        transform.to(dtype).eval().requires_grad_(False)
    every = list(transforms.items())
    context = torch.randn(n_context, _ROWS, dtype=dtype).requires_grad_()
    given = context if n_context else None
    x = torch.randn(n_features, _ROWS, dtype=dtype)
    reads = False
    for name, transform in reversed(every):
        z, ladj = _step(name, transform.to_noise, x, given)
        reads = reads or z.requires_grad or ladj.requires_grad
        back = _step_back(name, transform.to_data, z, given)
        _expect_same(name, x, back, "data to noise and back")
        x = z.detach()
    if n_context and not reads:
        raise ValueError(
            f"the context of {n_context} numbers is read by none of {', '.join(transforms)}: make one "
            "of them conditional, or fit without context="
        )
    z = torch.randn(n_features, _ROWS, dtype=dtype)
    for name, transform in every:
        after = _step_back(name, transform.to_data, z, given)
        if after is None:
            return
        _expect_same(
            name, z, _step(name, transform.to_noise, after, given)[0], "noise to data and back"
        )
        z = after.detach()


def _step(name: str, way: Any, rows: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    try:
        after, ladj = way(rows, context)
    except NotImplementedError as error:
        raise NotImplementedError(f"{name}: {error}") from error
    except Exception as error:
        raise ValueError(
            f"{name} does not take rows of {len(rows)} real numbers"
            f"{'' if context is None else f' and contexts of {len(context)}'}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if after.shape != rows.shape or ladj.shape != rows.shape[1:]:
        raise ValueError(
            f"{name} makes (n, {len(after)}) and log-determinants {tuple(ladj.shape)} of n = "
            f"{rows.shape[1]} rows (n, {len(rows)}): it must keep the number of features"
        )
    if not (torch.isfinite(after).all() and torch.isfinite(ladj).all()):
        raise ValueError(
            f"{name} gives values that are not finite for standardized rows: it must take every real "
            "number (columns of bounded support are given by support=)"
        )
    return after, ladj


def _step_back(name: str, way: Any, rows: Tensor, context: Tensor | None) -> Tensor | None:
    """None where there is no such way."""
    try:
        return _step(name, way, rows, context)[0]
    except NotImplementedError:
        return None


def _expect_same(name: str, rows: Tensor, back: Tensor | None, way: str) -> None:
    if back is None:
        return
    miss = ((back - rows).abs() / (1 + rows.abs())).max().item()
    if not miss < _MISS:
        raise ValueError(
            f"{name} turns rows into others, {way} (by {miss:.2g}): it must be a bijection of the real "
            "numbers (columns of bounded support are given by support=)"
        )
