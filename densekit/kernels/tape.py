"""A recorded computation on columns, with its gradient, for ``machine.py``.

A tape depends on shapes only: it refers to memory by a tensor's name and an offset, and each call
provides the tensors. Each operation records its instruction and a function that records those of
its gradient; :meth:`Tape.close` calls these functions in reverse order. Importing this module
imports numba.
"""

from collections.abc import Callable, Sequence

from torch import Tensor

from densekit.kernels import machine
from densekit.kernels.instructions import HEAVY, Instructions, Rows
from densekit.kernels.inverse import InverseOperations, bits, ones
from densekit.kernels.layers import ACTIVATIONS
from densekit.kernels.recording import NONE, Matrix, as_three_axes

_FARTHEST = 1e30
Steps = Sequence[tuple[int, int, int]]


class Tape(InverseOperations):
    """Operations on rows of samples, with gradients.

    Parameters
    ----------
    given : sequence of Tensor
        Weights and biases. Later calls pass others with the same shapes and strides.
    keep : bool
        Whether gradients are needed. Otherwise :meth:`release` lets memory be reused.
    """

    def asinh(self, x: Rows, name: str = "kept", into: Rows | None = None) -> Rows:
        """asinh of each number."""
        a = self.rows(x.n, name) if into is None else into
        self._asinh_inputs[a] = x
        self.ops.add(machine.ASINH, self.ops.ref(x), self.ops.ref(a), x.n)

        def backward(i: Instructions) -> None:
            if self._is_constant(x):
                return
            ga = i.ref(self._gradients[a])
            gx, add = self.gradient(i, x)
            i.add(machine.ASINH_SLOPE, i.ref(x), ga, gx, x.n, int(add))

        self._gradient_steps.append(backward)
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
        K, i = matrix.columns, self.ops
        at, read, to = i.at("matrices", number=matrix.start), i.ref(a), i.ref(y)
        for first, stop, k in steps:
            i.products += (stop - first) * k
            if before is not None:
                before(first, stop)
            i.add(machine.PUSH, at, K, first, stop, k, read, to, int(onto is not None))

        def backward(i: Instructions) -> None:
            g, read, own = i.ref(self._gradients[y]), i.ref(a), i.reserve("sums", matrix.rows * K)
            for first, stop, k in steps:
                i.products += 2 * (stop - first) * k
                i.add(machine.PULL, g, read, K, first, stop, k, i.at("sums", number=own))
            matrix.gradient_from(i, own)
            if self._is_constant(a):
                return
            below, add = self.gradient(i, a)
            at = i.at("matrices", number=matrix.start)
            for j, (first, stop, k) in enumerate(sorted(steps, key=lambda step: -step[2])):
                i.add(machine.BACK, at, K, first, stop, k, g, below, int(add or j > 0))
                if j == 0 and k < K and not add:
                    i.add(
                        machine.ZERO,
                        i.at(self._gradients[a].name, self._gradients[a].first + k),
                        K - k,
                    )

        self._gradient_steps.append(backward)
        return y

    def activate(
        self, name: str, h: Rows, bias: Tensor | None, residual: Rows | None = None
    ) -> Rows:
        """h becomes h + bias + residual; returns its activation."""
        i, a, kind = self.ops, self.rows(h.n), ACTIVATIONS[name]
        b = NONE if bias is None else self._vector(bias)
        under = NONE if residual is None else i.ref(residual)
        i.add(machine.ACTIVATE, kind, i.ref(h), b, under, i.ref(a), h.n)

        def backward(i: Instructions) -> None:
            g = self._gradients[a]
            over = i.ref(self._gradients[h]) if h in self._gradients else NONE
            i.add(machine.SLOPE, kind, i.ref(h), i.ref(g), over, h.n)
            self._gradients[h] = g
            if bias is not None:
                own = i.reserve("sums", h.n)
                i.add(machine.SUM, i.ref(g), i.at("sums", number=own), h.n)
                self._vector_gradient(i, bias, own)
            if residual is not None:
                if residual.name in self._with_gradient:
                    self.gradient(i, residual)
                    for r in range(h.n):
                        i.add(
                            machine.MOVE, i.at(g.name, g.first + r), i.at("g_" + residual.name, r)
                        )
                else:
                    self._gradients[residual] = g

        self._gradient_steps.append(backward)
        return a

    def output(
        self, matrix: Matrix, a: Rows, bias: Tensor, steps: Steps | None = None,
        transposed: bool = False, name: str = "kept",
    ) -> Rows:  # fmt: skip
        """W a + b, with a bias (rows, 1) or (A, B, 1), which ``transposed`` reorders to (B, A, 1)."""
        (A, B, _), strides = as_three_axes(bias.transpose(0, 1) if transposed else bias)
        y, at = self.rows(A * B, name), self._vector(bias)

        def fill(first: int, stop: int) -> None:
            self.ops.add(machine.FILL, self.ops.ref(y), at, B, *strides, first, stop)

        def backward(i: Instructions) -> None:
            own = i.reserve("sums", y.n)
            i.add(machine.SUM, i.ref(self._gradients[y]), i.at("sums", number=own), y.n)
            self._vector_gradient(i, bias, own, transposed)

        self._gradient_steps.append(backward)
        return self.product(matrix, a, steps, onto=y, before=fill)

    def zero(self, n: int, name: str) -> Rows:
        """Rows of zeros, as a start of sums."""
        y = self.rows(n, name)
        self.ops.add(machine.ZERO, self.ops.ref(y), n)
        return y

    def take(self, x: Rows, index: Sequence[int]) -> Rows:
        """Some rows of x. Several calls together must take each row of x exactly once."""
        y = self.rows(len(index))
        for to, of in enumerate(index):
            self.ops.add(
                machine.MOVE, self.ops.at(x.name, x.first + of), self.ops.at(y.name, y.first + to)
            )

        def backward(i: Instructions) -> None:
            if self._is_constant(x):
                return
            self.gradient(i, x)
            gx, gy = self._gradients[x], self._gradients[y]
            for to, of in enumerate(index):
                i.add(machine.MOVE, i.at(gy.name, gy.first + to), i.at(gx.name, gx.first + of))

        self._gradient_steps.append(backward)
        return y

    def join(
        self, parts: Sequence[Rows], indices: Sequence[Sequence[int]], name: str = "kept"
    ) -> Rows:
        """Combine parts: row j of a part becomes row ``index[j]``."""
        y = self.rows(sum(p.n for p in parts), name)
        for p, index in zip(parts, indices, strict=True):
            for of, to in enumerate(index):
                self.ops.add(
                    machine.MOVE,
                    self.ops.at(p.name, p.first + of),
                    self.ops.at(y.name, y.first + to),
                )

        def backward(i: Instructions) -> None:
            gy = self._gradients[y]
            for p, index in zip(parts, indices, strict=True):
                self.gradient(i, p)
                gp = self._gradients[p]
                for of, to in enumerate(index):
                    i.add(machine.MOVE, i.at(gy.name, gy.first + to), i.at(gp.name, gp.first + of))

        self._gradient_steps.append(backward)
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
        z, i, limit_bits = self.rows(x.n, name), self.ops, bits(limit)
        i.add(
            machine.AFFINE, i.ref(x), i.ref(raw), i.ref(z), i.ref(total), x.n, *steps, limit_bits
        )

        def backward(i: Instructions) -> None:
            gz, gt = i.ref(self._gradients[z]), i.ref(self._gradients[total])
            gx, graw = self.gradient(i, x)[0], self.gradient(i, raw)[0]
            i.add(
                machine.AFFINE_SLOPE,
                i.ref(x),
                i.ref(raw),
                gz,
                gt,
                gx,
                graw,
                x.n,
                *steps,
                limit_bits,
            )

        self._gradient_steps.append(backward)
        return z

    def spline(
        self, x: Rows, raw: Rows, steps: tuple[int, int], n_bins: int, bound: float, total: Rows,
        name: str = "kept",
    ) -> Rows:  # fmt: skip
        """The rational-quadratic spline, with the same ``steps`` as :meth:`affine`."""
        z, logs, i, bound_bits = self.rows(x.n, name), self.rows(x.n), self.ops, bits(bound)
        i.products += x.n * HEAVY
        i.add(
            machine.SPLINE, i.ref(x), i.ref(raw), i.ref(z), i.ref(logs), i.ref(total), x.n, n_bins,
            *steps, bound_bits,
        )  # fmt: skip

        def backward(i: Instructions) -> None:
            gz, gt = i.ref(self._gradients[z]), i.ref(self._gradients[total])
            gx, graw = self.gradient(i, x)[0], self.gradient(i, raw)[0]
            i.products += x.n * HEAVY
            i.add(
                machine.SPLINE_SLOPE, i.ref(x), i.ref(raw), gz, gt, gx, graw, x.n, n_bins, *steps,
                bound_bits,
            )  # fmt: skip

        self._gradient_steps.append(backward)
        return z

    def diagonal(
        self, x: Rows, log_scale: Tensor, shift: Tensor, total: Rows, name: str = "kept"
    ) -> Rows:
        """e^s x + b, with a scale and a shift (rows, 1) per row."""
        z, i = self.rows(x.n, name), self.ops
        s, b = self._vector(log_scale), self._vector(shift)
        i.add(machine.DIAGONAL, i.ref(x), i.ref(z), s, b, i.ref(total), x.n)

        def backward(i: Instructions) -> None:
            gz, gt = i.ref(self._gradients[z]), i.ref(self._gradients[total])
            gx, _ = self.gradient(i, x)
            own = i.reserve("sums", 2 * x.n)
            scales, shifts = i.at("sums", number=own), i.at("sums", number=own + x.n)
            name = self.given[id(log_scale)][0]
            i.add(machine.DIAGONAL_SLOPE, i.ref(x), i.at(name), gz, gt, gx, scales, shifts, x.n)
            self._vector_gradient(i, log_scale, own)
            self._vector_gradient(i, shift, own + x.n)

        self._gradient_steps.append(backward)
        return z

    def lu(
        self, x: Rows, lower: Tensor, upper: Tensor, log_diagonal: Tensor, shift: Tensor,
        total: Rows, name: str = "kept",
    ) -> Rows:  # fmt: skip
        """L U x + b.

        L has ones on its diagonal and the entries of ``lower`` below it. U has e^s (D,) on its
        diagonal and the entries of ``upper`` above it. b is (D, 1).
        """
        D, once = x.n, self.ops.once
        L = self.matrix(lower, ones(D).tril(-1))
        U = self.matrix(upper, ones(D).triu(1))
        s = self._vector(log_diagonal)
        for matrix, diagonal in ((L, NONE), (U, s)):
            place = self.ops.at("matrices", number=matrix.start)
            once.append([machine.SET_DIAGONAL, place, diagonal, D, *[0] * (machine.WIDTH - 4)])
        self.ops.add(machine.SHARE, s, D, self.ops.ref(total))
        sums: list[int] = []
        name_s = self.given[id(log_diagonal)][0]

        def backward(i: Instructions) -> None:
            own = i.reserve("sums", 1)
            i.add(machine.SUM, i.ref(self._gradients[total]), i.at("sums", number=own), 1)
            places = [i.at("g_" + name_s), i.at("sums", number=sums[0]), i.at("sums", number=own)]
            row = [machine.DIAGONAL_GRADIENT, *places, i.at(name_s), D]
            i.once.append([*row, *[0] * (machine.WIDTH - len(row))])

        def gradient_from(i: Instructions, of: int) -> None:
            sums.append(of)
            U.gradient_from(i, of)

        # It is the last step of the backward pass, because it needs the gradient of the product.
        self._gradient_steps.append(backward)
        # Overflow would give infinity times zero or infinity minus infinity. No density is that wide.
        limited = self.take(x, range(D))
        self.ops.add(machine.LIMIT, self.ops.ref(limited), D, bits(_FARTHEST))
        y = self.product(Matrix(U.start, D, D, gradient_from), limited)
        self.ops.add(machine.LIMIT, self.ops.ref(y), D, bits(_FARTHEST))
        return self.output(L, y, shift, name=name)
