"""Neighboring transforms of a stack as one compiled pass and one node of autograd.

Between a flow's matrix products lie short passes over few numbers, and calling them one by one takes
longer than they do. Written down once on a ``kernels.tape.Tape``, a whole flow is one
call.
"""

import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import Any, Literal, Protocol, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from densekit.kernels.compiled import compiled

_KERNEL = "densekit.kernels.tape"
_AT_A_TIME = 512
_KNOWN: WeakKeyDictionary[nn.Module, tuple[Any, list[Any]]] = WeakKeyDictionary()


class Part(Protocol):
    """What a stack is made of: a :class:`~densekit.transforms.columns.ColumnTransform`, or several
    written as one."""

    n_features: int
    n_context: int

    def to_noise(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]: ...

    def to_data(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]: ...


class Writable(Part, Protocol):
    """One that may be written on a tape."""

    def written(self) -> bool: ...

    def write(self, tape: Any, x: Any, total: Any, context: Any, name: str) -> Any: ...

    def write_data(self, tape: Any, z: Any, total: Any, context: Any, name: str) -> Any: ...


@functools.cache
def _same(kind: Any, pairs: tuple[tuple[str, str], ...]) -> bool:
    """Whether what is written is what is computed: no subclass has a way of its own that it does not
    write."""
    order = kind.__mro__

    def owner(name: str) -> int:
        return next((i for i, k in enumerate(order) if name in vars(k)), len(order))

    return all(owner(written) <= owner(plain) for plain, written in pairs)


_OF_A_PART = (("to_noise", "write"), ("to_data", "write_data"))
_OF_A_NET = (("forward", "write"),)
_OF_AN_ELEMENT = (("forward", "write"), ("inverse", "write_inverse"))


def _identity(part: Writable) -> tuple[Any, ...]:
    """What a part was written from: another one of these, and it is another."""
    children = vars(part).get("_modules", {}).values()
    element = vars(part).get("element")
    return part.written(), part, element, *children, *map(type, children)


def _writes(part: Writable) -> bool:
    children, element = vars(part).get("_modules", {}).values(), vars(part).get("element")
    hooks = any(m._forward_hooks or m._forward_pre_hooks for m in cast(nn.Module, part).modules())
    changed = any(is_parametrized(m) for m in cast(nn.Module, part).modules())
    return (
        part.written()
        and not hooks
        and not changed
        and _same(type(part), _OF_A_PART)
        and all(_same(cast(Any, type(net)), _OF_A_NET) for net in children)
        and (element is None or _same(cast(Any, type(element)), _OF_AN_ELEMENT))
    )


def together(stack: nn.Module, parts: Sequence[Writable], x: Tensor) -> Sequence[Part]:
    """The parts of a stack, neighbors that can be written on a tape as one.

    Where two of them share a parameter, its gradient is the sum of both uses, and that is autograd's
    to find: such a stack is not written, nor is a part with hooks or parametrized weights.
    """
    if compiled(_KERNEL, x) is None or torch.is_autocast_enabled("cpu"):
        return parts
    identity = tuple(_identity(part) for part in parts)
    known = _KNOWN.get(stack)
    if known is None or known[0] != identity:
        all_of_them = [p for part in parts for p in cast(nn.Module, part).parameters()]
        alone = len(all_of_them) == len(set(map(id, all_of_them)))
        runs = itertools.groupby(parts, key=lambda part: alone and _writes(part))
        made: list[Part] = []
        for yes, run in runs:
            made += [Written(list(run))] if yes else list(run)
        known = _KNOWN[stack] = (identity, made)
    return known[1]


def in_turn(
    parts: Iterable[Part], way: Literal["to_noise", "to_data"], x: Tensor, context: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Parts one after another, and the sum of their log-determinants; the context to those that take
    one."""
    total = x.new_zeros(x.shape[1])
    for part in parts:
        x, ladj = getattr(part, way)(x, context if part.n_context else None)
        total = total + ladj
    return x, total


class _Plain(nn.Module):
    """The same in plain torch."""

    def __init__(self, parts: Sequence[Writable]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(cast(list[nn.Module], parts))

    def forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return in_turn(cast(list[Part], list(self.parts)), "to_noise", x, context)


class Written:
    """Transforms that can be written on a tape, and the tapes.

    Parameters
    ----------
    parts : sequence of ColumnTransform
    """

    def __init__(self, parts: Sequence[Writable]) -> None:
        self.parts, self.plain = parts, _Plain(parts)
        self.n_features = parts[0].n_features
        self.n_context = max(part.n_context for part in parts)
        self.names = [name for name, _ in self.plain.named_parameters()]
        # Where the parameters are: they may be exchanged for others for a while.
        paths = [name.rpartition(".") for name in self.names]
        self._owners = [(self.plain.get_submodule(path), name) for path, _, name in paths]
        self._tapes: dict[Any, Any] = {}

    def to_noise(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data to noise, and log|dz/dx|."""
        given = [cast(Tensor, module._parameters[name]) for module, name in self._owners]
        context = self._whole(x, context)
        beside = given if context is None else [context, *given]
        if compiled(_KERNEL, x, *beside) is None or not all(t.is_contiguous() for t in given):
            z, total = self.plain(x, context)
            return z, total
        z, total = _Pass.apply(self, torch.is_grad_enabled(), x, context, *given)
        return z, total

    def _whole(self, x: Tensor, context: Tensor | None) -> Tensor | None:
        """The context for each sample."""
        if context is not None and context.shape[-1] == 1 != x.shape[1]:
            return context.expand(-1, x.shape[1])
        return context

    def to_data(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Noise to data, and log|dx/dz|; compiled where no gradients are asked for."""
        given = [cast(Tensor, module._parameters[name]) for module, name in self._owners]
        context = self._whole(z, context)
        beside = [t for t in (z, context, *given) if t is not None]
        if (
            (torch.is_grad_enabled() and any(t.requires_grad for t in beside))
            or compiled(_KERNEL, *beside) is None
            or not all(t.is_contiguous() for t in given)
        ):
            return in_turn(reversed(self.parts), "to_data", z, context)
        tape = self.tape(given, z, context, None, back=True)
        x, total = torch.empty_like(z), z.new_empty(z.shape[1])
        # So few at a time that all that was computed of them stays near the processor.
        size = _AT_A_TIME * torch.get_num_threads()
        for start in range(0, z.shape[1], size):
            some = slice(start, start + size)
            inputs = _inputs(z[:, some], None if context is None else context[:, some])
            (x[:, some], total[None, some]), _ = tape.forward(inputs, given, inputs["x"])
        return x, total

    def tape(
        self, given: Sequence[Tensor], x: Tensor, context: Tensor | None, needs: Any,
        back: bool = False,
    ) -> Any:  # fmt: skip
        """For tensors like these; ``needs`` are the inputs whose gradients are asked for, or None
        where no gradients are; ``back`` is the way to data."""
        key = needs, context is None, back
        if key not in self._tapes:
            self._tapes[key] = self._write(given, x, context, needs, back)
        return self._tapes[key]

    def _write(
        self, given: Sequence[Tensor], x: Tensor, context: Tensor | None, needs: Any, back: bool
    ) -> Any:
        tapes = compiled(_KERNEL, x)
        assert tapes is not None
        tape = tapes.Tape(given, keep=needs is not None)
        rows, total, read = tape.input("x", self.n_features), tape.zero(1, "total"), None
        if context is not None:
            name = "kept" if needs is not None else "read"
            read = tape.asinh(tape.input("context", self.n_context), name)
        for i, part in enumerate(reversed(self.parts) if back else self.parts):
            name = "kept" if needs is not None else f"turn{i % 2}"
            name = "z" if i + 1 == len(self.parts) else name
            write = part.write_data if back else part.write
            rows = write(tape, rows, total, read if part.n_context else None, name)
            tape.release()
        return tape.close([rows, total], needs or ())


class _Pass(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, run: Written, kept: bool, x: Tensor, context: Tensor | None, *given: Tensor
    ) -> tuple[Tensor, Tensor]:
        needs = None
        if kept and any(ctx.needs_input_grad):
            pairs = zip(("x", "context"), ctx.needs_input_grad[2:4], strict=True)
            needs = tuple(name for name, need in pairs if need)
        ctx.tape, ctx.run = run.tape(given, x, context, needs), run
        (z, total), ctx.kept = ctx.tape.forward(_inputs(x, context), given, x)
        if needs is not None:
            ctx.save_for_backward(x, context, *given)
        else:
            ctx.kept = None
        return z, total[0]

    @staticmethod
    def backward(ctx: Any, gz: Tensor, gt: Tensor) -> tuple[Tensor | None, ...]:
        x, context, *given = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _again(ctx, gz, gt, x, context, given)
        inputs = _inputs(x, context)
        outer, found = ctx.tape.backward(inputs, given, [gz, gt[None]], ctx.kept)
        found = [outer.get("x"), outer.get("context"), *found]
        needs = ctx.needs_input_grad[2:]
        return None, None, *(t if need else None for t, need in zip(found, needs, strict=True))


def _inputs(x: Tensor, context: Tensor | None) -> dict[str, Tensor]:
    inputs = {"x": x.contiguous()}
    return inputs if context is None else {**inputs, "context": context.contiguous()}


def _again(
    ctx: Any, gz: Tensor, gt: Tensor, x: Tensor, context: Tensor | None, given: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """The gradients as a graph of their own, where they shall be differentiated again."""
    # Views, since some may depend on others.
    x, context = x.view_as(x), None if context is None else context.view_as(context)
    given = [t.view_as(t) for t in given]
    named = dict(zip(ctx.run.names, given, strict=True))
    value = torch.func.functional_call(ctx.run.plain, named, (x, context))
    needs = ctx.needs_input_grad[2:]
    pairs = zip((x, context, *given), needs, strict=True)
    wanted = [t for t, need in pairs if t is not None and need]
    found = iter(
        torch.autograd.grad(value, wanted, (gz, gt), create_graph=True, allow_unused=True)
    )
    return None, None, *(next(found) if need else None for need in needs)
