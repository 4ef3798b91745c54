"""A bound on the work that loading a file causes: torch's operations and tensor sizes are counted.

Numbers in a file become sizes of networks and numbers of steps. :class:`Budget` stops operations
that take more work than the size of the file justifies.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

_FREE_ENTRIES = 2**22
"""Entries that may be allocated whatever the size of the file: 32 MB in float64."""
_SETUP_OPERATIONS, _OPERATIONS_PER_WEIGHT = 1000, 60


class OverBudgetError(ValueError):
    """More operations or memory than a file may ask for."""


class Budget(TorchDispatchMode):
    """Context manager that counts torch's operations and raises if there are too many or too large ones.

    Parameters
    ----------
    operations : int
        Largest number of operations, which bounds time: a loop of a billion rounds stops here.
    entries : int
        Largest number of entries of one result, and of all tensors together that are created
        without a tensor argument. It is compared with an upper bound from the arguments, before
        anything is allocated.

    Attributes
    ----------
    spent : int
        Operations so far.

    Raises
    ------
    OverBudgetError
        Raised by the operation that exceeds a limit.

    Examples
    --------
    >>> with Budget(operations=10, entries=100):
    ...     torch.zeros(10**9, 10**9)
    Traceback (most recent call last):
    densekit.budget.OverBudgetError: an operation (aten.zeros) makes up to 1e+18 entries; ...
    """

    def __init__(self, operations: int, entries: int) -> None:
        super().__init__()
        self.operations, self.entries = operations, entries
        self.spent = self._entries_created = 0

    @classmethod
    def for_weights(cls, weights: dict[str, np.ndarray]) -> "Budget":
        """The budget for building a module with these weights."""
        entries = sum(w.size for w in weights.values())
        operations = _SETUP_OPERATIONS + _OPERATIONS_PER_WEIGHT * len(weights)
        return cls(operations, _FREE_ENTRIES + 4 * entries)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.spent += 1
        if self.spent > self.operations:
            raise OverBudgetError(
                f"it takes more than {self.operations} operations, which is more than such a file "
                "can need"
            )
        exact = _SIZES.get(func.overloadpacket)
        size, from_nothing = (exact(*args), False) if exact else _largest_result(args, kwargs)
        self._entries_created += size if from_nothing else 0
        if max(size, self._entries_created) > self.entries:
            raise OverBudgetError(
                f"an operation ({func.overloadpacket}) makes up to {float(size):.4g} entries; with "
                f"those before, more than the {self.entries} that such a file can need"
            )
        return func(*args, **kwargs)


def _largest_result(args: Any, kwargs: Any) -> tuple[int, bool]:
    """Upper bound of the number of entries of a result, and whether no argument is a tensor."""
    shapes: list[torch.Size] = []
    sizes, numbers = [0], [0]
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor):
            shapes.append(value.shape)
        elif isinstance(value, list | tuple):
            shapes += [v.shape for v in value if isinstance(v, torch.Tensor)]
            if all(type(v) is int for v in value):
                sizes.append(abs(math.prod(value)))
        elif type(value) is int:
            numbers.append(abs(value))
    if not shapes:
        return max(*sizes, *numbers), True
    return max(*sizes, _broadcast_size(shapes)), False


def _broadcast_size(shapes: list[torch.Size]) -> int:
    """Entries after broadcasting, the largest size of each axis. A matrix product has no more."""
    wide = max(map(len, shapes))
    padded = [(1,) * (wide - len(s)) + tuple(s) for s in shapes]
    return math.prod(max(axis) for axis in zip(*padded, strict=True))


def _index_size(x: torch.Tensor, indices: Any) -> int:
    """Upper bound of the number of entries of ``x[indices]``: indexed positions times unindexed axes."""
    whole, shapes, axis = [], [], 0
    for index in indices:
        if index is None:
            whole.append(x.shape[axis])
            axis += 1
        elif index.dtype in (
            torch.bool,
            torch.uint8,
        ):  # a mask selects each of its positions at most once
            shapes.append(torch.Size([index.numel()]))
            axis += index.ndim
        else:
            shapes.append(index.shape)
            axis += 1
    return _broadcast_size(shapes) * math.prod([*whole, *x.shape[axis:]])


def _padded_size(x: torch.Tensor, pad: list[int], *_: Any) -> int:
    """Entries of ``x`` after padding; ``pad`` has the numbers before and after, from the last axis."""
    more = [before + behind for before, behind in zip(pad[::2], pad[1::2], strict=True)]
    more = [0] * (x.ndim - len(more)) + more[::-1]
    return math.prod(n + extra for n, extra in zip(x.shape, more, strict=True))


_SIZES: dict[Any, Callable[..., int]] = {
    torch.ops.aten.index: _index_size,
    torch.ops.aten.constant_pad_nd: _padded_size,
    torch.ops.aten.embedding: lambda weight, ids, *_: ids.numel() * weight.shape[-1],
    torch.ops.aten.index_select: lambda x, axis, index: (
        x.numel() // max(1, x.shape[axis]) * index.numel()
    ),
    torch.ops.aten.nll_loss_forward: lambda logp, *_: logp.numel(),
    torch.ops.aten.repeat: lambda x, times: x.numel() * math.prod(times),
    torch.ops.aten.cat: lambda parts, *_: sum(x.numel() for x in parts),
    torch.ops.aten.stack: lambda parts, *_: sum(x.numel() for x in parts),
}
"""Sizes of results of operations that do not follow the rule of broadcasting."""
