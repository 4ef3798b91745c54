"""A recorded computation on columns, with its gradient, for ``machine.py``.

A tape depends on shapes only: it refers to memory by a tensor's name and an offset, and each call
provides the tensors. Each operation records its instruction and a function that records those of
its gradient; :meth:`Tape.close` calls these functions in reverse order. Importing this module
imports numba.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densekit.kernels import machine
from densekit.kernels.instructions import HEAVY, Instructions, MemoryBlock, Rows
from densekit.kernels.layers import ACTIVATIONS

_NONE = -1
_FARTHEST = 1e30
Steps = Sequence[tuple[int, int, int]]


@dataclass(frozen=True, eq=False)
class Matrix:
    """A weight times its mask, (rows, columns), stored among the matrices."""

    start: int
    rows: int
    columns: int
    record_gradient: Callable[[Instructions, int], None]
    """Records how the weight's gradient follows from a sum at the given offset."""


def _as_three_axes(t: Tensor) -> tuple[list[int], list[int]]:
    """Shape (A, B, K) of a weight, bias or mask, and its strides along A and B, 0 where an axis
    broadcasts.
    """
    A, B, K = t.shape if t.ndim == 3 else (t.shape[0], 1, t.shape[1])
    return [A, B, K], [t.stride(0) if A > 1 else 0, t.stride(1) if B > 1 else 0]


def _ones(n: int) -> Tensor:
    return torch.ones(n, n, dtype=torch.float32, device="cpu")


def _bits(x: float) -> int:
    return int(np.float32(x).view(np.int32))


class Tape:
    """Operations on rows of samples, with gradients.

    Parameters
    ----------
    given : sequence of Tensor
        Weights and biases. Later calls pass others with the same shapes and strides.
    keep : bool
        Whether gradients are needed. Otherwise :meth:`release` lets memory be reused.
    """

    def __init__(self, given: Sequence[Tensor], keep: bool) -> None:
        self.keep = keep
        self.forward_ops, self.backward_ops = Instructions(), Instructions()
        self.constants: list[Tensor] = []
        self.given = {id(t): (f"given{i}", t) for i, t in enumerate(given)}
        self.n_given, self.used = len(given), set[str]()
        self._inputs, self._differentiated = dict[str, int](), set[str]()
        self._asinh_inputs = dict[Rows, Rows]()
        self._backward_steps: list[Callable[[Instructions], None]] = []
        self._gradients: dict[Rows, Rows] = {}

    # Memory.

    def rows(self, n: int, name: str = "kept") -> Rows:
        """Allocate ``n`` rows. The memory of "kept" is shared; any other name is a tensor of its own."""
        if name == "kept":
            return Rows(name, self.forward_ops.reserve(name, n), n)
        self.forward_ops.size[name] = n
        return Rows(name, 0, n)

    def release(self) -> None:
        """Reuse the memory of previous rows, unless gradients need it."""
        if not self.keep:
            size = self.forward_ops.size
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
        return x.name in self._inputs and x.name not in self._differentiated

    def matrix(
        self, weight: Tensor, mask: Tensor | None = None, transposed: bool = False
    ) -> Matrix:
        """A weight (rows, columns) or (A, B, columns), times a mask that broadcasts against it.

        ``transposed`` changes the order to (B, A, columns) first.
        """
        name, _ = self.given[id(weight)]
        self.used.add(name)
        view = weight.transpose(0, 1) if transposed else weight
        (A, B, K), steps = _as_three_axes(view)
        start = self.forward_ops.reserve("matrices", A * B * K)
        dense_steps, m_steps, m_name = [B * K, K], [0, 0], ""
        if mask is not None:
            self.constants.append(mask)
            m_name, m_steps = f"constant{len(self.constants) - 1}", _as_three_axes(mask)[1]

        def scale(
            i: Instructions,
            to: int,
            to_steps: list[int],
            of: int,
            of_steps: list[int],
            summed: int,
        ) -> None:
            m = i.address(m_name) if m_name else _NONE
            i.once.append(
                [machine.SCALE, to, of, m, A, B, K, *to_steps, *of_steps, *m_steps, summed]
            )

        scale(
            self.forward_ops,
            self.forward_ops.address("matrices", number=start),
            dense_steps,
            self.forward_ops.address(name),
            steps,
            0,
        )

        def record_gradient(i: Instructions, of: int) -> None:
            scale(i, i.address("g_" + name), steps, i.address("sums", number=of), dense_steps, 1)

        return Matrix(start, A * B, K, record_gradient)

    def _record_vector_gradient(
        self, i: Instructions, vector: Tensor, of: int, transposed: bool = False
    ) -> None:
        """Record a sum as the gradient of a bias (A, B, 1) or (rows, 1)."""
        (A, B, K), steps = _as_three_axes(vector.transpose(0, 1) if transposed else vector)
        to, source = i.address("g_" + self.given[id(vector)][0]), i.address("sums", number=of)
        i.once.append([machine.SCALE, to, source, _NONE, A, B, K, *steps, B * K, K, 0, 0, 1])

    def _vector(self, vector: Tensor) -> int:
        name = self.given[id(vector)][0]
        self.used.add(name)
        return self.forward_ops.address(name)

    # Gradients.

    def gradient(self, i: Instructions, of: Rows) -> tuple[int, bool]:
        """Where the gradient of rows is stored, and whether it has to be added to what is there."""
        exists = of in self._gradients
        if not exists and of.name in self._differentiated:
            self._gradients[of] = Rows("g_" + of.name, 0, of.n)
        elif not exists:
            self._gradients[of] = Rows("columns", i.reserve("columns", of.n), of.n)
        return i.ref(self._gradients[of]), exists

    # Operations.

    def asinh(self, x: Rows, name: str = "kept", into: Rows | None = None) -> Rows:
        """asinh of each number."""
        a = self.rows(x.n, name) if into is None else into
        self._asinh_inputs[a] = x
        self.forward_ops.append(
            machine.ASINH, self.forward_ops.ref(x), self.forward_ops.ref(a), x.n
        )

        def backward(i: Instructions) -> None:
            if self._is_constant(x):
                return
            ga = i.ref(self._gradients[a])
            gx, add = self.gradient(i, x)
            i.append(machine.ASINH_SLOPE, i.ref(x), ga, gx, x.n, int(add))

        self._backward_steps.append(backward)
        return a

    def product(
        self, matrix: Matrix, a: Rows, steps: Steps | None = None, onto: Rows | None = None,
        before: Callable[[int, int], None] | None = None,
    ) -> Rows:  # fmt: skip
        """W a, or y + W a with ``onto`` = y.

        ``steps`` skip zeros of W. ``before`` is called before each step, to record the initial
        values of its rows.
        """
        y = self.rows(matrix.rows) if onto is None else onto
        steps = list(steps or [(0, matrix.rows, matrix.columns)])
        K, i = matrix.columns, self.forward_ops
        at, read, to = i.address("matrices", number=matrix.start), i.ref(a), i.ref(y)
        for first, stop, k in steps:
            i.products += (stop - first) * k
            if before is not None:
                before(first, stop)
            i.append(machine.PUSH, at, K, first, stop, k, read, to, int(onto is not None))

        def backward(i: Instructions) -> None:
            g, read, own = (
                i.ref(self._gradients[y]),
                i.ref(a),
                i.reserve("sums", matrix.rows * K),
            )
            for first, stop, k in steps:
                i.products += 2 * (stop - first) * k
                i.append(machine.PULL, g, read, K, first, stop, k, i.address("sums", number=own))
            matrix.record_gradient(i, own)
            if self._is_constant(a):
                return
            below, add = self.gradient(i, a)
            at = i.address("matrices", number=matrix.start)
            for j, (first, stop, k) in enumerate(sorted(steps, key=lambda step: -step[2])):
                i.append(machine.BACK, at, K, first, stop, k, g, below, int(add or j > 0))
                if j == 0 and k < K and not add:
                    i.append(
                        machine.ZERO,
                        i.address(self._gradients[a].name, self._gradients[a].first + k),
                        K - k,
                    )

        self._backward_steps.append(backward)
        return y

    def activate(
        self, name: str, h: Rows, bias: Tensor | None, residual: Rows | None = None
    ) -> Rows:
        """h becomes h + bias + residual; returns its activation."""
        i, a, kind = self.forward_ops, self.rows(h.n), ACTIVATIONS[name]
        b = _NONE if bias is None else self._vector(bias)
        under = _NONE if residual is None else i.ref(residual)
        i.append(machine.ACTIVATE, kind, i.ref(h), b, under, i.ref(a), h.n)

        def backward(i: Instructions) -> None:
            g = self._gradients[a]
            over = i.ref(self._gradients[h]) if h in self._gradients else _NONE
            i.append(machine.SLOPE, kind, i.ref(h), i.ref(g), over, h.n)
            self._gradients[h] = g
            if bias is not None:
                own = i.reserve("sums", h.n)
                i.append(machine.SUM, i.ref(g), i.address("sums", number=own), h.n)
                self._record_vector_gradient(i, bias, own)
            if residual is not None:
                if residual.name in self._differentiated:
                    self.gradient(i, residual)
                    for r in range(h.n):
                        i.append(
                            machine.MOVE,
                            i.address(g.name, g.first + r),
                            i.address("g_" + residual.name, r),
                        )
                else:
                    self._gradients[residual] = g

        self._backward_steps.append(backward)
        return a

    def output(
        self, matrix: Matrix, a: Rows, bias: Tensor, steps: Steps | None = None,
        transposed: bool = False, name: str = "kept",
    ) -> Rows:  # fmt: skip
        """W a + b, with a bias (rows, 1) or (A, B, 1), which ``transposed`` reorders to (B, A, 1)."""
        (A, B, _), strides = _as_three_axes(bias.transpose(0, 1) if transposed else bias)
        y, at = self.rows(A * B, name), self._vector(bias)

        def fill(first: int, stop: int) -> None:
            self.forward_ops.append(
                machine.FILL, self.forward_ops.ref(y), at, B, *strides, first, stop
            )

        def backward(i: Instructions) -> None:
            own = i.reserve("sums", y.n)
            i.append(machine.SUM, i.ref(self._gradients[y]), i.address("sums", number=own), y.n)
            self._record_vector_gradient(i, bias, own, transposed)

        self._backward_steps.append(backward)
        return self.product(matrix, a, steps, onto=y, before=fill)

    def zero(self, n: int, name: str) -> Rows:
        """Rows of zeros, as a start of sums."""
        y = self.rows(n, name)
        self.forward_ops.append(machine.ZERO, self.forward_ops.ref(y), n)
        return y

    def take(self, x: Rows, index: Sequence[int]) -> Rows:
        """Some rows of x. Several calls together must take each row of x exactly once."""
        y = self.rows(len(index))
        for to, of in enumerate(index):
            self.forward_ops.append(
                machine.MOVE,
                self.forward_ops.address(x.name, x.first + of),
                self.forward_ops.address(y.name, y.first + to),
            )

        def backward(i: Instructions) -> None:
            if self._is_constant(x):
                return
            self.gradient(i, x)
            gx, gy = self._gradients[x], self._gradients[y]
            for to, of in enumerate(index):
                i.append(
                    machine.MOVE,
                    i.address(gy.name, gy.first + to),
                    i.address(gx.name, gx.first + of),
                )

        self._backward_steps.append(backward)
        return y

    def join(
        self, parts: Sequence[Rows], indices: Sequence[Sequence[int]], name: str = "kept"
    ) -> Rows:
        """Combine parts: row j of a part becomes row ``index[j]``."""
        y = self.rows(sum(p.n for p in parts), name)
        for p, index in zip(parts, indices, strict=True):
            for of, to in enumerate(index):
                self.forward_ops.append(
                    machine.MOVE,
                    self.forward_ops.address(p.name, p.first + of),
                    self.forward_ops.address(y.name, y.first + to),
                )

        def backward(i: Instructions) -> None:
            gy = self._gradients[y]
            for p, index in zip(parts, indices, strict=True):
                self.gradient(i, p)
                gp = self._gradients[p]
                for of, to in enumerate(index):
                    i.append(
                        machine.MOVE,
                        i.address(gy.name, gy.first + to),
                        i.address(gp.name, gp.first + of),
                    )

        self._backward_steps.append(backward)
        return y

    def affine(
        self,
        x: Rows,
        raw: Rows,
        steps: tuple[int, int],
        limit: float,
        total: Rows,
        name: str = "kept",
    ) -> Rows:
        """The affine element; adds its log-slopes to ``total``.

        ``steps`` are the numbers of rows of ``raw`` from one feature and from one parameter to the
        next.
        """
        z, i, bits = self.rows(x.n, name), self.forward_ops, _bits(limit)
        i.append(
            machine.AFFINE,
            i.ref(x),
            i.ref(raw),
            i.ref(z),
            i.ref(total),
            x.n,
            *steps,
            bits,
        )

        def backward(i: Instructions) -> None:
            gz, gt = i.ref(self._gradients[z]), i.ref(self._gradients[total])
            gx, graw = self.gradient(i, x)[0], self.gradient(i, raw)[0]
            i.append(
                machine.AFFINE_SLOPE,
                i.ref(x),
                i.ref(raw),
                gz,
                gt,
                gx,
                graw,
                x.n,
                *steps,
                bits,
            )

        self._backward_steps.append(backward)
        return z

    def spline(
        self, x: Rows, raw: Rows, steps: tuple[int, int], n_bins: int, bound: float, total: Rows,
        name: str = "kept",
    ) -> Rows:  # fmt: skip
        """The rational-quadratic spline, with the same ``steps`` as :meth:`affine`."""
        z, log_slopes, i, bits = (
            self.rows(x.n, name),
            self.rows(x.n),
            self.forward_ops,
            _bits(bound),
        )
        i.products += x.n * HEAVY
        i.append(
            machine.SPLINE, i.ref(x), i.ref(raw), i.ref(z), i.ref(log_slopes), i.ref(total), x.n, n_bins,
            *steps, bits,
        )  # fmt: skip

        def backward(i: Instructions) -> None:
            gz, gt = i.ref(self._gradients[z]), i.ref(self._gradients[total])
            gx, graw = self.gradient(i, x)[0], self.gradient(i, raw)[0]
            i.products += x.n * HEAVY
            i.append(
                machine.SPLINE_SLOPE, i.ref(x), i.ref(raw), gz, gt, gx, graw, x.n, n_bins, *steps,
                bits,
            )  # fmt: skip

        self._backward_steps.append(backward)
        return z

    def diagonal(
        self, x: Rows, log_scale: Tensor, shift: Tensor, total: Rows, name: str = "kept"
    ) -> Rows:
        """e^s x + b, with a scale and a shift (rows, 1) per row."""
        z, i = self.rows(x.n, name), self.forward_ops
        s, b = self._vector(log_scale), self._vector(shift)
        i.append(machine.DIAGONAL, i.ref(x), i.ref(z), s, b, i.ref(total), x.n)

        def backward(i: Instructions) -> None:
            gz, gt = i.ref(self._gradients[z]), i.ref(self._gradients[total])
            gx, _ = self.gradient(i, x)
            own = i.reserve("sums", 2 * x.n)
            scales, shifts = i.address("sums", number=own), i.address("sums", number=own + x.n)
            name = self.given[id(log_scale)][0]
            i.append(
                machine.DIAGONAL_SLOPE,
                i.ref(x),
                i.address(name),
                gz,
                gt,
                gx,
                scales,
                shifts,
                x.n,
            )
            self._record_vector_gradient(i, log_scale, own)
            self._record_vector_gradient(i, shift, own + x.n)

        self._backward_steps.append(backward)
        return z

    # Noise to data, without gradients.

    def affine_inverse(
        self, z: Rows, raw: Rows, steps: tuple[int, int], limit: float, total: Rows, x: Rows
    ) -> None:
        """The inverse of :meth:`affine`, from z to x."""
        i = self.forward_ops
        places = i.ref(z), i.ref(raw), i.ref(x), i.ref(total)
        i.append(machine.AFFINE_INVERSE, *places, z.n, *steps, _bits(limit))

    def spline_inverse(
        self, z: Rows, raw: Rows, steps: tuple[int, int], n_bins: int, bound: float, total: Rows,
        x: Rows,
    ) -> None:  # fmt: skip
        """The inverse of :meth:`spline`, from z to x."""
        i, log_slopes = self.forward_ops, self.rows(z.n)
        i.products += z.n * HEAVY
        places = (
            i.ref(z),
            i.ref(raw),
            i.ref(x),
            i.ref(log_slopes),
            i.ref(total),
        )
        i.append(machine.SPLINE_INVERSE, *places, z.n, n_bins, *steps, _bits(bound))

    def diagonal_inverse(
        self, z: Rows, log_scale: Tensor, shift: Tensor, total: Rows, name: str
    ) -> Rows:
        """(z - b) e^-s."""
        x, i = self.rows(z.n, name), self.forward_ops
        s, b = self._vector(log_scale), self._vector(shift)
        i.append(
            machine.DIAGONAL_INVERSE,
            i.ref(z),
            i.ref(x),
            s,
            b,
            i.ref(total),
            z.n,
        )
        return x

    def lu_inverse(
        self, z: Rows, lower: Tensor, upper: Tensor, log_diagonal: Tensor, shift: Tensor,
        total: Rows, name: str,
    ) -> Rows:  # fmt: skip
        """The inverse of :meth:`lu`: both triangular systems solved row by row."""
        D, i = z.n, self.forward_ops
        # The signs are reversed because products are added.
        L = self.matrix(lower, -_ones(D).tril(-1)).start
        U = self.matrix(upper, -_ones(D).triu(1)).start
        self.constants.append(_ones(D)[0] * 0)
        zero = i.address(f"constant{len(self.constants) - 1}")
        b, sums = self._vector(shift), i.ref(total)
        y, x = self.rows(D), self.rows(D, name)
        i.append(machine.DIAGONAL_INVERSE, i.ref(z), i.ref(y), zero, b, sums, D)
        i.products += D * D
        for d in range(1, D):
            row = i.address("matrices", number=L + d * D)
            i.append(machine.PUSH, row, D, 0, 1, d, i.ref(y), i.ref(y.part(d, 1)), 1)
        name_s = self.given[id(log_diagonal)][0]
        for d in range(D - 1, -1, -1):
            own, after = i.ref(y.part(d, 1)), D - 1 - d
            if after:
                row = i.address("matrices", number=U + d * D + d + 1)
                i.append(machine.PUSH, row, D, 0, 1, after, i.ref(x.part(d + 1, after)), own, 1)
            scale = i.address(name_s, number=d)
            i.append(machine.DIAGONAL_INVERSE, own, i.ref(x.part(d, 1)), scale, zero, sums, 1)
        return x

    def partial_product(
        self, matrix: Matrix, first: int, stop: int, reads: int, a: Rows, y: Rows, add: bool
    ) -> None:
        """Rows first ... stop - 1 of y (+)= W a, using the first ``reads`` rows of a."""
        i = self.forward_ops
        i.products += (stop - first) * reads
        at = i.address("matrices", number=matrix.start)
        i.append(
            machine.PUSH,
            at,
            matrix.columns,
            first,
            stop,
            reads,
            i.ref(a),
            i.ref(y),
            int(add),
        )

    def partial_activate(
        self,
        name: str,
        h: Rows,
        bias: Tensor,
        residual: Rows | None,
        a: Rows,
        first: int,
        stop: int,
    ) -> None:
        """Rows first ... stop - 1 of h become h + bias + residual, those of a become their
        activation.
        """
        i, b = self.forward_ops, self.given[id(bias)][0]
        self.used.add(b)
        under = _NONE if residual is None else i.address(residual.name, residual.first + first)
        places = i.address(h.name, h.first + first), i.address(b, number=first), under
        out = i.address(a.name, a.first + first)
        i.append(machine.ACTIVATE, ACTIVATIONS[name], *places, out, stop - first)

    def fill(self, bias: Tensor, first: int, stop: int, transposed: bool, y: Rows) -> None:
        """Set rows first ... stop - 1 of y to those of a bias."""
        (_, B, _), strides = _as_three_axes(bias.transpose(0, 1) if transposed else bias)
        self.forward_ops.append(
            machine.FILL,
            self.forward_ops.ref(y),
            self._vector(bias),
            B,
            *strides,
            first,
            stop,
        )

    def lu(
        self, x: Rows, lower: Tensor, upper: Tensor, log_diagonal: Tensor, shift: Tensor,
        total: Rows, name: str = "kept",
    ) -> Rows:  # fmt: skip
        """L U x + b.

        L has ones on its diagonal and the entries of ``lower`` below it. U has e^s (D,) on its
        diagonal and the entries of ``upper`` above it. b is (D, 1).
        """
        D, once = x.n, self.forward_ops.once
        L = self.matrix(lower, _ones(D).tril(-1))
        U = self.matrix(upper, _ones(D).triu(1))
        s = self._vector(log_diagonal)
        for matrix, diagonal in ((L, _NONE), (U, s)):
            place = self.forward_ops.address("matrices", number=matrix.start)
            once.append([machine.SET_DIAGONAL, place, diagonal, D, *[0] * (machine.WIDTH - 4)])
        self.forward_ops.append(machine.SHARE, s, D, self.forward_ops.ref(total))
        sums: list[int] = []
        name_s = self.given[id(log_diagonal)][0]

        def backward(i: Instructions) -> None:
            own = i.reserve("sums", 1)
            i.append(machine.SUM, i.ref(self._gradients[total]), i.address("sums", number=own), 1)
            places = [
                i.address("g_" + name_s),
                i.address("sums", number=sums[0]),
                i.address("sums", number=own),
            ]
            row = [machine.DIAGONAL_GRADIENT, *places, i.address(name_s), D]
            i.once.append([*row, *[0] * (machine.WIDTH - len(row))])

        def record_gradient(i: Instructions, of: int) -> None:
            sums.append(of)
            U.record_gradient(i, of)

        self._backward_steps.append(backward)  # the last of the way back: it needs the product's
        # Overflow would give infinity times zero or infinity minus infinity. No density is that wide.
        limited = self.take(x, range(D))
        self.forward_ops.append(machine.LIMIT, self.forward_ops.ref(limited), D, _bits(_FARTHEST))
        y = self.product(Matrix(U.start, D, D, record_gradient), limited)
        self.forward_ops.append(machine.LIMIT, self.forward_ops.ref(y), D, _bits(_FARTHEST))
        return self.output(L, y, shift, name=name)

    # Execution.

    def close(self, outputs: Sequence[Rows], inputs: Sequence[str]) -> "Tape":
        """Finish the recording with its outputs, and record gradients of the named ``inputs``."""
        self._differentiated = set(inputs)
        self.outputs = [rows.name for rows in outputs]
        size = self.forward_ops.size
        size["kept"] = max(size.get("most", 0), size.get("kept", 0))
        self._own = [name for name in size if name not in ("most", "kept", "matrices")]
        self.forward_ops.close()
        if self.keep:
            for rows in outputs:
                self._gradients[rows] = Rows("g_" + rows.name, 0, rows.n)
            for backward in reversed(self._backward_steps):
                backward(self.backward_ops)
            self.backward_ops.close()
        self.given, self._backward_steps, self._gradients = (
            {},
            [],
            {},
        )  # what the first call was about
        return self

    def forward(
        self, tensors: dict[str, Tensor], given: Sequence[Tensor], like: Tensor
    ) -> tuple[list[Tensor], MemoryBlock]:
        """Outputs, and the memory that the backward pass needs."""
        n, size = like.shape[1], self.forward_ops.size
        own = {name: like.new_empty(size[name], n) for name in self._own}
        memory = MemoryBlock(size["kept"] * n, size.get("matrices", 0))
        own["kept"], own["matrices"] = memory.parts
        self._check(tensors, n)
        self.forward_ops.run(n, {**self._common(given), **tensors, **own}, [memory], last=False)
        return [own[name] for name in self.outputs], memory

    def backward(
        self, tensors: dict[str, Tensor], given: Sequence[Tensor], gradients: Sequence[Tensor],
        kept: MemoryBlock,
    ) -> tuple[dict[str, Tensor], list[Tensor | None]]:  # fmt: skip
        """Gradients of the inputs by name, and of the given weights."""
        n = gradients[0].shape[1]
        gradients_of_given = [torch.empty_like(t) for t in given]
        outer = {name: torch.empty_like(tensors[name]) for name in self._differentiated}
        memory = MemoryBlock(self.backward_ops.size.get("columns", 0) * n)
        tensors = {**self._common(given), **tensors, "columns": memory.parts[0]}
        tensors["kept"], tensors["matrices"] = kept.parts
        tensors.update({f"g_given{i}": t for i, t in enumerate(gradients_of_given)})
        tensors.update({"g_" + name: t for name, t in outer.items()})
        pairs = zip(self.outputs, gradients, strict=True)
        tensors.update({"g_" + name: g.contiguous() for name, g in pairs})
        self.backward_ops.run(n, tensors, [memory, kept], last=True)
        used = [t if f"given{i}" in self.used else None for i, t in enumerate(gradients_of_given)]
        return outer, used

    def _common(self, given: Sequence[Tensor]) -> dict[str, Any]:
        names = {f"constant{i}": t for i, t in enumerate(self.constants)}
        return {**names, **{f"given{i}": t for i, t in enumerate(given)}}
