"""The state of a tape: memory, matrices, gradients, execution. Importing this module imports numba."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from densekit.kernels import machine
from densekit.kernels.instructions import Instructions, MemoryBlock, Rows

NONE = -1
"""Reference of an argument that is absent."""


@dataclass(frozen=True, eq=False)
class Matrix:
    """A weight times its mask, (rows, columns), stored among the matrices."""

    start: int
    rows: int
    columns: int
    gradient_from: Callable[[Instructions, int], None]
    """Records how the weight's gradient follows from a sum at the given offset."""


def as_three_axes(t: Tensor) -> tuple[list[int], list[int]]:
    """Shape (A, B, K) of a weight, bias or mask, and its strides along A and B, 0 where an axis
    broadcasts.
    """
    A, B, K = t.shape if t.ndim == 3 else (t.shape[0], 1, t.shape[1])
    return [A, B, K], [t.stride(0) if A > 1 else 0, t.stride(1) if B > 1 else 0]


class Recording:
    """Memory, matrices, gradients and execution of a tape. Abstract: ``Tape`` has the operations."""

    def __init__(self, given: Sequence[Tensor], keep: bool) -> None:
        self.keep = keep
        self.ops, self.gradient_ops = Instructions(), Instructions()
        self.constants: list[Tensor] = []
        self.given = {id(t): (f"given{i}", t) for i, t in enumerate(given)}
        self.n_given, self.used = len(given), set[str]()
        self._inputs, self._with_gradient = dict[str, int](), set[str]()
        self._asinh_inputs = dict[Rows, Rows]()
        self._gradient_steps: list[Callable[[Instructions], None]] = []
        self._gradients: dict[Rows, Rows] = {}

    def rows(self, n: int, name: str = "kept") -> Rows:
        """Allocate ``n`` rows. The memory of "kept" is shared; any other name is a tensor of its own."""
        if name == "kept":
            return Rows(name, self.ops.reserve(name, n), n)
        self.ops.size[name] = n
        return Rows(name, 0, n)

    def release(self) -> None:
        """Reuse the memory of previous rows, unless gradients need it."""
        if not self.keep:
            size = self.ops.size
            size["most"] = max(size.get("most", 0), size.get("kept", 0))
            size["kept"] = 0

    def input(self, name: str, n: int) -> Rows:
        """Rows that the caller provides."""
        self._inputs[name] = n
        return Rows(name, 0, n)

    def _check(self, tensors: dict[str, Tensor], n: int) -> None:
        """Check the shapes of inputs, since addresses have none."""
        for name, rows in self._inputs.items():
            if tensors[name].shape != (rows, n):
                raise ValueError(
                    f"{name} has shape {tuple(tensors[name].shape)}, but ({rows}, {n}) is required: "
                    "features first, samples last"
                )

    def _is_constant(self, x: Rows) -> bool:
        """Whether rows are an input whose gradient is not needed."""
        x = self._asinh_inputs.get(x, x)
        return x.name in self._inputs and x.name not in self._with_gradient

    def matrix(
        self, weight: Tensor, mask: Tensor | None = None, transposed: bool = False
    ) -> Matrix:
        """A weight (rows, columns) or (A, B, columns), times a mask that broadcasts against it.

        ``transposed`` changes the order to (B, A, columns) first.
        """
        name, _ = self.given[id(weight)]
        self.used.add(name)
        view = weight.transpose(0, 1) if transposed else weight
        (A, B, K), steps = as_three_axes(view)
        start = self.ops.reserve("matrices", A * B * K)
        dense_steps, m_steps, m_name = [B * K, K], [0, 0], ""
        if mask is not None:
            self.constants.append(mask)
            m_name, m_steps = f"constant{len(self.constants) - 1}", as_three_axes(mask)[1]

        def scale(
            i: Instructions,
            to: int,
            to_steps: list[int],
            of: int,
            of_steps: list[int],
            summed: int,
        ) -> None:
            m = i.at(m_name) if m_name else NONE
            i.once.append(
                [machine.SCALE, to, of, m, A, B, K, *to_steps, *of_steps, *m_steps, summed]
            )

        scale(
            self.ops,
            self.ops.at("matrices", number=start),
            dense_steps,
            self.ops.at(name),
            steps,
            0,
        )

        def gradient_from(i: Instructions, of: int) -> None:
            scale(i, i.at("g_" + name), steps, i.at("sums", number=of), dense_steps, 1)

        return Matrix(start, A * B, K, gradient_from)

    def _vector_gradient(
        self, i: Instructions, vector: Tensor, of: int, transposed: bool = False
    ) -> None:
        """Record a sum as the gradient of a bias (A, B, 1) or (rows, 1)."""
        (A, B, K), steps = as_three_axes(vector.transpose(0, 1) if transposed else vector)
        to, source = i.at("g_" + self.given[id(vector)][0]), i.at("sums", number=of)
        i.once.append([machine.SCALE, to, source, NONE, A, B, K, *steps, B * K, K, 0, 0, 1])

    def _vector(self, vector: Tensor) -> int:
        name = self.given[id(vector)][0]
        self.used.add(name)
        return self.ops.at(name)

    def gradient(self, i: Instructions, of: Rows) -> tuple[int, bool]:
        """Where the gradient of rows is stored, and whether it has to be added to what is there."""
        exists = of in self._gradients
        if not exists and of.name in self._with_gradient:
            self._gradients[of] = Rows("g_" + of.name, 0, of.n)
        elif not exists:
            self._gradients[of] = Rows("columns", i.reserve("columns", of.n), of.n)
        return i.ref(self._gradients[of]), exists

    def close(self, outputs: Sequence[Rows], inputs: Sequence[str]) -> Self:
        """Finish the recording with its outputs, and record gradients of the named ``inputs``."""
        self._with_gradient = set(inputs)
        self.outputs = [rows.name for rows in outputs]
        size = self.ops.size
        size["kept"] = max(size.get("most", 0), size.get("kept", 0))
        self._own = [name for name in size if name not in ("most", "kept", "matrices")]
        self.ops.close()
        if self.keep:
            for rows in outputs:
                self._gradients[rows] = Rows("g_" + rows.name, 0, rows.n)
            for backward in reversed(self._gradient_steps):
                backward(self.gradient_ops)
            self.gradient_ops.close()
        self.given, self._gradient_steps, self._gradients = (
            {},
            [],
            {},
        )  # what the first call was about
        return self

    def forward(
        self, tensors: dict[str, Tensor], given: Sequence[Tensor], like: Tensor
    ) -> tuple[list[Tensor], MemoryBlock]:
        """Outputs, and the memory that the backward pass needs."""
        n, size = like.shape[1], self.ops.size
        own = {name: like.new_empty(size[name], n) for name in self._own}
        memory = MemoryBlock(size["kept"] * n, size.get("matrices", 0))
        own["kept"], own["matrices"] = memory.parts
        self._check(tensors, n)
        self.ops.run(n, {**self._common(given), **tensors, **own}, [memory], last=False)
        return [own[name] for name in self.outputs], memory

    def backward(
        self, tensors: dict[str, Tensor], given: Sequence[Tensor], gradients: Sequence[Tensor],
        kept: MemoryBlock,
    ) -> tuple[dict[str, Tensor], list[Tensor | None]]:  # fmt: skip
        """Gradients of the inputs by name, and of the given weights."""
        n = gradients[0].shape[1]
        own_gradients = [torch.empty_like(t) for t in given]
        outer = {name: torch.empty_like(tensors[name]) for name in self._with_gradient}
        memory = MemoryBlock(self.gradient_ops.size.get("columns", 0) * n)
        tensors = {**self._common(given), **tensors, "columns": memory.parts[0]}
        tensors["kept"], tensors["matrices"] = kept.parts
        tensors.update({f"g_given{i}": t for i, t in enumerate(own_gradients)})
        tensors.update({"g_" + name: t for name, t in outer.items()})
        pairs = zip(self.outputs, gradients, strict=True)
        tensors.update({"g_" + name: g.contiguous() for name, g in pairs})
        self.gradient_ops.run(n, tensors, [memory, kept], last=True)
        used = [t if f"given{i}" in self.used else None for i, t in enumerate(own_gradients)]
        return outer, used

    def _common(self, given: Sequence[Tensor]) -> dict[str, Any]:
        names = {f"constant{i}": t for i, t in enumerate(self.constants)}
        return {**names, **{f"given{i}": t for i, t in enumerate(given)}}
