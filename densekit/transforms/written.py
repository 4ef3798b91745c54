"""Neighbouring transforms of a stack as one compiled pass and one node of autograd.

Between a flow's matrix products lie short passes over few numbers, and calling them one by one takes
longer than they do. Written down once on a :class:`~densekit.kernels.tape.Tape`, a whole flow is one
call.
"""

import itertools
from collections.abc import Sequence
from typing import Any, Protocol, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from densekit.kernels.compiled import compiled

_KERNEL = "densekit.kernels.tape"
_AT_A_TIME = 512
_KNOWN: WeakKeyDictionary[nn.Module, dict[tuple[bool, ...], list[Any]]] = WeakKeyDictionary()


class Part(Protocol):
    """What a stack is made of: a :class:`~densekit.transforms.columns.ColumnTransform`, or several
    written as one."""

    n_context: int

    def to_noise(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]: ...

    def to_data(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]: ...


class Writable(Part, Protocol):
    """One that may be written on a tape."""

    def written(self) -> bool: ...

    def write(self, tape: Any, x: Any, total: Any, context: Any, name: str) -> Any: ...

    def write_data(self, tape: Any, z: Any, total: Any, context: Any, name: str) -> Any: ...


def together(stack: nn.Module, parts: Sequence[Writable], x: Tensor) -> Sequence[Part]:
    """The parts of a stack, neighbours that can be written on a tape as one."""
    if compiled(_KERNEL, x) is None or torch.is_autocast_enabled("cpu"):
        return parts
    written = tuple(part.written() for part in parts)
    known = _KNOWN.setdefault(stack, {})
    if written not in known:
        runs = itertools.groupby(zip(parts, written, strict=True), key=lambda pair: pair[1])
        known[written] = [
            one
            for yes, run in runs
            for one in ([Written([p for p, _ in run])] if yes else [p for p, _ in run])
        ]
    return known[written]


class _Plain(nn.Module):
    """The same in plain torch."""

    def __init__(self, parts: Sequence[Writable]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(cast(list[nn.Module], parts))

    def forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(x.shape[1])
        for part in cast(list[Part], list(self.parts)):
            x, ladj = part.to_noise(x, context if part.n_context else None)
            total = total + ladj
        return x, total


class Written:
    """Transforms that can be written on a tape, and the tapes.

    Parameters
    ----------
    parts : sequence of ColumnTransform
    """

    def __init__(self, parts: Sequence[Writable]) -> None:
        self.parts, self.plain = parts, _Plain(parts)
        self.n_context = max(part.n_context for part in parts)
        self.names = [name for name, _ in self.plain.named_parameters()]
        # Where the parameters are: they may be exchanged for others for a while.
        paths = [name.rpartition(".") for name in self.names]
        self._owners = [(self.plain.get_submodule(path), name) for path, _, name in paths]
        self._tapes: dict[Any, Any] = {}

    def to_noise(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data to noise, and log|dz/dx|."""
        given = [cast(Tensor, module._parameters[name]) for module, name in self._owners]
        beside = given if context is None else [context, *given]
        if compiled(_KERNEL, x, *beside) is None or not all(t.is_contiguous() for t in given):
            z, total = self.plain(x, context)
            return z, total
        z, total = _Pass.apply(self, torch.is_grad_enabled(), x, context, *given)
        return z, total

    def to_data(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Noise to data, and log|dx/dz|; compiled where no gradients are asked for."""
        given = [cast(Tensor, module._parameters[name]) for module, name in self._owners]
        beside = [t for t in (z, context, *given) if t is not None]
        if (
            (torch.is_grad_enabled() and any(t.requires_grad for t in beside))
            or compiled(_KERNEL, *beside) is None
            or not all(t.is_contiguous() for t in given)
        ):
            return self._plain_to_data(z, context)
        if "data" not in self._tapes:
            self._tapes["data"] = self._write(given, z, context, None, back=True)
        tape, x, total = self._tapes["data"], torch.empty_like(z), z.new_empty(z.shape[1])
        # So few at a time that all that was computed of them stays near the processor.
        size = _AT_A_TIME * torch.get_num_threads()
        for start in range(0, z.shape[1], size):
            some = slice(start, start + size)
            inputs = _inputs(z[:, some], None if context is None else context[:, some])
            (x[:, some], total[None, some]), _ = tape.forward(inputs, given, inputs["x"])
        return x, total

    def _plain_to_data(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        total = z.new_zeros(z.shape[1])
        for part in reversed(self.parts):
            z, ladj = part.to_data(z, context if part.n_context else None)
            total = total + ladj
        return z, total

    def tape(self, given: Sequence[Tensor], x: Tensor, context: Tensor | None, needs: Any) -> Any:
        """For tensors like these; ``needs`` are the inputs whose gradients are asked for, or None
        where no gradients are."""
        if needs not in self._tapes:
            self._tapes[needs] = self._write(given, x, context, needs)
        return self._tapes[needs]

    def _write(
        self, given: Sequence[Tensor], x: Tensor, context: Tensor | None, needs: Any,
        back: bool = False,
    ) -> Any:  # fmt: skip
        tapes = compiled(_KERNEL, x)
        assert tapes is not None
        tape = tapes.Tape(given, keep=needs is not None)
        rows, total, read = tape.input("x", len(x)), tape.zero(1, "total"), None
        if context is not None:
            name = "kept" if needs is not None else "read"
            read = tape.asinh(tape.input("context", len(context)), name)
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
