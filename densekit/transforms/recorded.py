"""Adjacent transforms of a stack as one compiled pass and one node of autograd.

Between the matrix products of a flow there are short passes over few numbers, and calling each of
them takes longer than computing it. Recorded once on a ``kernels.tape.Tape``, a whole flow is a
single call.
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
_SAMPLES_PER_THREAD = 512
_GROUPS: WeakKeyDictionary[nn.Module, tuple[Any, list[Any]]] = WeakKeyDictionary()


class Part(Protocol):
    """A part of a stack: a :class:`~densekit.transforms.columns.ColumnTransform`, or several recorded
    as one.
    """

    n_features: int
    n_context: int

    def to_noise(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]: ...

    def to_data(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]: ...


class RecordablePart(Part, Protocol):
    """A part that may be recorded on a tape."""

    def can_record(self) -> bool: ...

    def record(self, tape: Any, x: Any, total: Any, context: Any, name: str) -> Any: ...

    def record_data(self, tape: Any, z: Any, total: Any, context: Any, name: str) -> Any: ...


@functools.cache
def _recording_is_current(kind: Any, pairs: tuple[tuple[str, str], ...]) -> bool:
    """Whether recorded methods match computed ones: no subclass overrides a computation without its
    recording.
    """
    order = kind.__mro__

    def owner(name: str) -> int:
        return next((i for i, k in enumerate(order) if name in vars(k)), len(order))

    return all(owner(can_record) <= owner(plain) for plain, can_record in pairs)


_OF_A_PART = (("to_noise", "record"), ("to_data", "record_data"))
_OF_A_NET = (("forward", "record"),)
_OF_AN_ELEMENT = (("forward", "record"), ("inverse", "record_inverse"))


def _recording_key(part: RecordablePart) -> tuple[Any, ...]:
    """The objects that determine a part's recording; if one is replaced, the part must be recorded
    again.
    """
    children = vars(part).get("_modules", {}).values()
    element = vars(part).get("element")
    return part.can_record(), part, element, *children, *map(type, children)


def _is_recordable(part: RecordablePart) -> bool:
    children, element = vars(part).get("_modules", {}).values(), vars(part).get("element")
    hooks = any(m._forward_hooks or m._forward_pre_hooks for m in cast(nn.Module, part).modules())
    changed = any(is_parametrized(m) for m in cast(nn.Module, part).modules())
    return (
        part.can_record()
        and not hooks
        and not changed
        and _recording_is_current(type(part), _OF_A_PART)
        and all(_recording_is_current(cast(Any, type(net)), _OF_A_NET) for net in children)
        and (element is None or _recording_is_current(cast(Any, type(element)), _OF_AN_ELEMENT))
    )


def group_recordable(
    stack: nn.Module, parts: Sequence[RecordablePart], x: Tensor
) -> Sequence[Part]:
    """Group adjacent recordable parts of a stack.

    Parts with hooks or parametrized weights are not recorded. Nothing is recorded if two parts
    share a parameter, because autograd then has to add the gradients of its uses.
    """
    if compiled(_KERNEL, x) is None or torch.is_autocast_enabled("cpu"):
        return parts
    key = tuple(_recording_key(part) for part in parts)
    cached = _GROUPS.get(stack)
    if cached is None or cached[0] != key:
        all_of_them = [p for part in parts for p in cast(nn.Module, part).parameters()]
        no_shared_parameters = len(all_of_them) == len(set(map(id, all_of_them)))
        runs = itertools.groupby(
            parts, key=lambda part: no_shared_parameters and _is_recordable(part)
        )
        groups: list[Part] = []
        for recordable, run in runs:
            groups += [RecordedRun(list(run))] if recordable else list(run)
        cached = _GROUPS[stack] = (key, groups)
    return cached[1]


def apply_in_order(
    parts: Iterable[Part],
    direction: Literal["to_noise", "to_data"],
    x: Tensor,
    context: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Apply parts one after another and sum their log-determinants; the context goes to parts that
    take one.
    """
    total = x.new_zeros(x.shape[1])
    for part in parts:
        x, ladj = getattr(part, direction)(x, context if part.n_context else None)
        total = total + ladj
    return x, total


class _Plain(nn.Module):
    """The same parts computed in torch."""

    def __init__(self, parts: Sequence[RecordablePart]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(cast(list[nn.Module], parts))

    def forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return apply_in_order(cast(list[Part], list(self.parts)), "to_noise", x, context)


class RecordedRun:
    """Adjacent transforms with their tapes.

    Parameters
    ----------
    parts : sequence of ColumnTransform
    """

    def __init__(self, parts: Sequence[RecordablePart]) -> None:
        self.parts, self.plain = parts, _Plain(parts)
        self.n_features = parts[0].n_features
        self.n_context = max(part.n_context for part in parts)
        self.names = [name for name, _ in self.plain.named_parameters()]
        # Parameters are looked up at each call, because they may be replaced temporarily.
        paths = [name.rpartition(".") for name in self.names]
        self._owners = [(self.plain.get_submodule(path), name) for path, _, name in paths]
        self._tapes: dict[Any, Any] = {}

    def to_noise(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data to noise, and log|dz/dx|."""
        parameters = [cast(Tensor, module._parameters[name]) for module, name in self._owners]
        context = self._expanded(x, context)
        tensors = parameters if context is None else [context, *parameters]
        if compiled(_KERNEL, x, *tensors) is None or not all(
            t.is_contiguous() for t in parameters
        ):
            z, total = self.plain(x, context)
            return z, total
        z, total = _Pass.apply(self, torch.is_grad_enabled(), x, context, *parameters)
        return z, total

    def _expanded(self, x: Tensor, context: Tensor | None) -> Tensor | None:
        """The context expanded to all samples."""
        if context is not None and context.shape[-1] == 1 != x.shape[1]:
            return context.expand(-1, x.shape[1])
        return context

    def to_data(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Noise to data, and log|dx/dz|; compiled if no gradients are needed."""
        parameters = [cast(Tensor, module._parameters[name]) for module, name in self._owners]
        context = self._expanded(z, context)
        tensors = [t for t in (z, context, *parameters) if t is not None]
        if (
            (torch.is_grad_enabled() and any(t.requires_grad for t in tensors))
            or compiled(_KERNEL, *tensors) is None
            or not all(t.is_contiguous() for t in parameters)
        ):
            return apply_in_order(reversed(self.parts), "to_data", z, context)
        tape = self.tape(parameters, z, context, None, to_data=True)
        x, total = torch.empty_like(z), z.new_empty(z.shape[1])
        # Samples are processed in pieces whose intermediate results fit into the cache.
        size = _SAMPLES_PER_THREAD * torch.get_num_threads()
        for start in range(0, z.shape[1], size):
            piece = slice(start, start + size)
            inputs = _inputs(z[:, piece], None if context is None else context[:, piece])
            (x[:, piece], total[None, piece]), _ = tape.forward(inputs, parameters, inputs["x"])
        return x, total

    def tape(
        self, given: Sequence[Tensor], x: Tensor, context: Tensor | None, needs: Any,
        to_data: bool = False,
    ) -> Any:  # fmt: skip
        """The tape for tensors like these.

        ``needs`` are the inputs whose gradients are needed, or None without gradients. ``back``
        selects noise to data.
        """
        key = needs, context is None, to_data
        if key not in self._tapes:
            self._tapes[key] = self._record_tape(given, x, context, needs, to_data)
        return self._tapes[key]

    def _record_tape(
        self, given: Sequence[Tensor], x: Tensor, context: Tensor | None, needs: Any, to_data: bool
    ) -> Any:
        tapes = compiled(_KERNEL, x)
        assert tapes is not None
        tape = tapes.Tape(given, keep=needs is not None)
        rows, total, context_rows = tape.input("x", self.n_features), tape.zero(1, "total"), None
        if context is not None:
            name = "kept" if needs is not None else "read"
            context_rows = tape.asinh(tape.input("context", self.n_context), name)
        for i, part in enumerate(reversed(self.parts) if to_data else self.parts):
            name = "kept" if needs is not None else f"turn{i % 2}"
            name = "z" if i + 1 == len(self.parts) else name
            record = part.record_data if to_data else part.record
            rows = record(tape, rows, total, context_rows if part.n_context else None, name)
            tape.release()
        return tape.close([rows, total], needs or ())


class _Pass(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, run: RecordedRun, kept: bool, x: Tensor, context: Tensor | None, *given: Tensor
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
            return _differentiable_gradients(ctx, gz, gt, x, context, given)
        inputs = _inputs(x, context)
        outer, found = ctx.tape.backward(inputs, given, [gz, gt[None]], ctx.kept)
        found = [outer.get("x"), outer.get("context"), *found]
        needs = ctx.needs_input_grad[2:]
        return None, None, *(t if need else None for t, need in zip(found, needs, strict=True))


def _inputs(x: Tensor, context: Tensor | None) -> dict[str, Tensor]:
    inputs = {"x": x.contiguous()}
    return inputs if context is None else {**inputs, "context": context.contiguous()}


def _differentiable_gradients(
    ctx: Any, gz: Tensor, gt: Tensor, x: Tensor, context: Tensor | None, given: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """The gradients as a differentiable graph, for second derivatives."""
    # Views are used because some tensors may depend on others.
    x, context = x.view_as(x), None if context is None else context.view_as(context)
    given = [t.view_as(t) for t in given]
    named = dict(zip(ctx.run.names, given, strict=True))
    value = torch.func.functional_call(ctx.run.plain, named, (x, context))
    needs = ctx.needs_input_grad[2:]
    pairs = zip((x, context, *given), needs, strict=True)
    wanted = [t for t, need in pairs if t is not None and need]
    gradients = iter(
        torch.autograd.grad(value, wanted, (gz, gt), create_graph=True, allow_unused=True)
    )
    return None, None, *(next(gradients) if need else None for need in needs)
