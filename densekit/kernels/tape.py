"""A computation on columns written down once, with its way back, for ``machine.py``.

A tape depends on shapes alone: it names memory by tensor and place in it, and where the tensors are
each call says anew. Each operation writes its instruction and remembers those of its gradient; after the
last one :meth:`Tape.close` asks for them in reverse order. Importing this imports numba.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densekit.kernels import machine
from densekit.kernels.instructions import HEAVY, Instructions, Room, Rows
from densekit.kernels.layers import ACTIVATIONS

_NONE = -1
_FARTHEST = 1e30
Steps = Sequence[tuple[int, int, int]]


@dataclass(frozen=True, eq=False)
class Matrix:
    """A weight times its mask, (rows, columns), as it stands among the matrices."""

    start: int
    rows: int
    columns: int
    give: Callable[[Instructions, int], None]
    """Writes what makes the weight's gradient of a sum of that place."""


def _three(t: Tensor) -> tuple[list[int], list[int]]:
    """A weight, bias or mask as (A, B, K), and numbers from one A and one B to the next: 0 where one
    serves all."""
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
        Weights and biases: the next calls give others of the same shapes and strides.
    keep : bool
        Whether gradients will be asked for. Without, memory is used again after :meth:`release`.
    """

    def __init__(self, given: Sequence[Tensor], keep: bool) -> None:
        self.keep = keep
        self.ins, self.outs = Instructions(), Instructions()
        self.constants: list[Tensor] = []
        self.given = {id(t): (f"given{i}", t) for i, t in enumerate(given)}
        self.n_given, self.used = len(given), set[str]()
        self._inputs, self._outside = dict[str, int](), set[str]()
        self._read = dict[Rows, Rows]()
        self._backs: list[Callable[[Instructions], None]] = []
        self._gradients: dict[Rows, Rows] = {}

    # What there is.

    def rows(self, n: int, name: str = "kept") -> Rows:
        """Room for ``n`` rows; of all but "kept" the tensor is these."""
        if name == "kept":
            return Rows(name, self.ins.more(name, n), n)
        self.ins.size[name] = n
        return Rows(name, 0, n)

    def release(self) -> None:
        """Use the memory of rows again, unless gradients need it."""
        if not self.keep:
            size = self.ins.size
            size["most"] = max(size.get("most", 0), size.get("kept", 0))
            size["kept"] = 0

    def input(self, name: str, n: int) -> Rows:
        """Rows from outside."""
        self._inputs[name] = n
        return Rows(name, 0, n)

    def _check(self, tensors: dict[str, Tensor], n: int) -> None:
        """Addresses know no shapes."""
        for name, rows in self._inputs.items():
            if tensors[name].shape != (rows, n):
                raise ValueError(
                    f"{name} has shape {tuple(tensors[name].shape)} where ({rows}, {n}) is needed: "
                    "features first, samples last"
                )

    def _fixed(self, x: Rows) -> bool:
        """Whether it is from outside, and its gradient is not asked for."""
        x = self._read.get(x, x)
        return x.name in self._inputs and x.name not in self._outside

    def matrix(self, weight: Tensor, mask: Tensor | None = None, turned: bool = False) -> Matrix:
        """A weight (rows, columns) or (A, B, columns), ``turned`` to (B, A, columns), times a mask
        that broadcasts against it then."""
        name, _ = self.given[id(weight)]
        self.used.add(name)
        view = weight.transpose(0, 1) if turned else weight
        (A, B, K), steps = _three(view)
        start = self.ins.more("matrices", A * B * K)
        inside, m_steps, m_name = [B * K, K], [0, 0], ""
        if mask is not None:
            self.constants.append(mask)
            m_name, m_steps = f"constant{len(self.constants) - 1}", _three(mask)[1]

        def scale(
            i: Instructions,
            to: int,
            to_steps: list[int],
            of: int,
            of_steps: list[int],
            summed: int,
        ) -> None:
            m = i.at(m_name) if m_name else _NONE
            i.once.append(
                [machine.SCALE, to, of, m, A, B, K, *to_steps, *of_steps, *m_steps, summed]
            )

        scale(self.ins, self.ins.at("matrices", number=start), inside, self.ins.at(name), steps, 0)

        def give(i: Instructions, of: int) -> None:
            scale(i, i.at("g_" + name), steps, i.at("sums", number=of), inside, 1)

        return Matrix(start, A * B, K, give)

    def _give(self, i: Instructions, vector: Tensor, of: int, turned: bool = False) -> None:
        """A sum is the gradient of a bias (A, B, 1) or (rows, 1)."""
        (A, B, K), steps = _three(vector.transpose(0, 1) if turned else vector)
        to, source = i.at("g_" + self.given[id(vector)][0]), i.at("sums", number=of)
        i.once.append([machine.SCALE, to, source, _NONE, A, B, K, *steps, B * K, K, 0, 0, 1])

    def _vector(self, vector: Tensor) -> int:
        name = self.given[id(vector)][0]
        self.used.add(name)
        return self.ins.at(name)

    # Gradients.

    def gradient(self, i: Instructions, of: Rows) -> tuple[int, bool]:
        """Where it is to be written, and whether something is there to be added to."""
        there = of in self._gradients
        if not there and of.name in self._outside:
            self._gradients[of] = Rows("g_" + of.name, 0, of.n)
        elif not there:
            self._gradients[of] = Rows("columns", i.more("columns", of.n), of.n)
        return i.of(self._gradients[of]), there

    # Operations.

    def asinh(self, x: Rows, name: str = "kept", into: Rows | None = None) -> Rows:
        """Of each number."""
        a = self.rows(x.n, name) if into is None else into
        self._read[a] = x
        self.ins.do(machine.ASINH, self.ins.of(x), self.ins.of(a), x.n)

        def back(i: Instructions) -> None:
            if self._fixed(x):
                return
            ga = i.of(self._gradients[a])
            gx, add = self.gradient(i, x)
            i.do(machine.ASINH_SLOPE, i.of(x), ga, gx, x.n, int(add))

        self._backs.append(back)
        return a

    def product(
        self, matrix: Matrix, a: Rows, steps: Steps | None = None, onto: Rows | None = None,
        before: Callable[[int, int], None] | None = None,
    ) -> Rows:  # fmt: skip
        """W a, or y + W a where it goes ``onto`` y; in steps where parts of W are zero, ``before``
        each of which its rows of y are written."""
        y = self.rows(matrix.rows) if onto is None else onto
        steps = list(steps or [(0, matrix.rows, matrix.columns)])
        K, i = matrix.columns, self.ins
        at, read, to = i.at("matrices", number=matrix.start), i.of(a), i.of(y)
        for first, stop, k in steps:
            i.products += (stop - first) * k
            if before is not None:
                before(first, stop)
            i.do(machine.PUSH, at, K, first, stop, k, read, to, int(onto is not None))

        def back(i: Instructions) -> None:
            g, read, own = i.of(self._gradients[y]), i.of(a), i.more("sums", matrix.rows * K)
            for first, stop, k in steps:
                i.products += 2 * (stop - first) * k
                i.do(machine.PULL, g, read, K, first, stop, k, i.at("sums", number=own))
            matrix.give(i, own)
            if self._fixed(a):
                return
            below, add = self.gradient(i, a)
            at = i.at("matrices", number=matrix.start)
            for j, (first, stop, k) in enumerate(sorted(steps, key=lambda step: -step[2])):
                i.do(machine.BACK, at, K, first, stop, k, g, below, int(add or j > 0))
                if j == 0 and k < K and not add:
                    i.do(
                        machine.ZERO,
                        i.at(self._gradients[a].name, self._gradients[a].first + k),
                        K - k,
                    )

        self._backs.append(back)
        return y

    def activate(
        self, name: str, h: Rows, bias: Tensor | None, residual: Rows | None = None
    ) -> Rows:
        """h becomes h + bias + residual; what comes back is its activation."""
        i, a, kind = self.ins, self.rows(h.n), ACTIVATIONS[name]
        b = _NONE if bias is None else self._vector(bias)
        under = _NONE if residual is None else i.of(residual)
        i.do(machine.ACTIVATE, kind, i.of(h), b, under, i.of(a), h.n)

        def back(i: Instructions) -> None:
            g = self._gradients[a]
            over = i.of(self._gradients[h]) if h in self._gradients else _NONE
            i.do(machine.SLOPE, kind, i.of(h), i.of(g), over, h.n)
            self._gradients[h] = g
            if bias is not None:
                own = i.more("sums", h.n)
                i.do(machine.SUM, i.of(g), i.at("sums", number=own), h.n)
                self._give(i, bias, own)
            if residual is not None:
                if residual.name in self._outside:
                    self.gradient(i, residual)
                    for r in range(h.n):
                        i.do(
                            machine.MOVE, i.at(g.name, g.first + r), i.at("g_" + residual.name, r)
                        )
                else:
                    self._gradients[residual] = g

        self._backs.append(back)
        return a

    def output(
        self, matrix: Matrix, a: Rows, bias: Tensor, steps: Steps | None = None,
        turned: bool = False, name: str = "kept",
    ) -> Rows:  # fmt: skip
        """W a + b, with a bias (rows, 1) or (A, B, 1), ``turned`` to (B, A, 1)."""
        (A, B, _), strides = _three(bias.transpose(0, 1) if turned else bias)
        y, at = self.rows(A * B, name), self._vector(bias)

        def fill(first: int, stop: int) -> None:
            self.ins.do(machine.FILL, self.ins.of(y), at, B, *strides, first, stop)

        def back(i: Instructions) -> None:
            own = i.more("sums", y.n)
            i.do(machine.SUM, i.of(self._gradients[y]), i.at("sums", number=own), y.n)
            self._give(i, bias, own, turned)

        self._backs.append(back)
        return self.product(matrix, a, steps, onto=y, before=fill)

    def zero(self, n: int, name: str) -> Rows:
        """Rows of zeros, to be added to."""
        y = self.rows(n, name)
        self.ins.do(machine.ZERO, self.ins.of(y), n)
        return y

    def take(self, x: Rows, index: Sequence[int]) -> Rows:
        """Some rows of x. What is taken in several calls must be all of x, each row once."""
        y = self.rows(len(index))
        for to, of in enumerate(index):
            self.ins.do(
                machine.MOVE, self.ins.at(x.name, x.first + of), self.ins.at(y.name, y.first + to)
            )

        def back(i: Instructions) -> None:
            if self._fixed(x):
                return
            self.gradient(i, x)
            gx, gy = self._gradients[x], self._gradients[y]
            for to, of in enumerate(index):
                i.do(machine.MOVE, i.at(gy.name, gy.first + to), i.at(gx.name, gx.first + of))

        self._backs.append(back)
        return y

    def join(
        self, parts: Sequence[Rows], indices: Sequence[Sequence[int]], name: str = "kept"
    ) -> Rows:
        """Rows put together: the j-th of a part becomes row ``index[j]``."""
        y = self.rows(sum(p.n for p in parts), name)
        for p, index in zip(parts, indices, strict=True):
            for of, to in enumerate(index):
                self.ins.do(
                    machine.MOVE,
                    self.ins.at(p.name, p.first + of),
                    self.ins.at(y.name, y.first + to),
                )

        def back(i: Instructions) -> None:
            gy = self._gradients[y]
            for p, index in zip(parts, indices, strict=True):
                self.gradient(i, p)
                gp = self._gradients[p]
                for of, to in enumerate(index):
                    i.do(machine.MOVE, i.at(gy.name, gy.first + to), i.at(gp.name, gp.first + of))

        self._backs.append(back)
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
        """The affine element; ``steps`` are rows from one feature and one parameter to the next. Its
        log-slopes are added to ``total``."""
        z, i, bits = self.rows(x.n, name), self.ins, _bits(limit)
        i.do(machine.AFFINE, i.of(x), i.of(raw), i.of(z), i.of(total), x.n, *steps, bits)

        def back(i: Instructions) -> None:
            gz, gt = i.of(self._gradients[z]), i.of(self._gradients[total])
            gx, graw = self.gradient(i, x)[0], self.gradient(i, raw)[0]
            i.do(machine.AFFINE_SLOPE, i.of(x), i.of(raw), gz, gt, gx, graw, x.n, *steps, bits)

        self._backs.append(back)
        return z

    def spline(
        self, x: Rows, raw: Rows, steps: tuple[int, int], n_bins: int, bound: float, total: Rows,
        name: str = "kept",
    ) -> Rows:  # fmt: skip
        """The rational-quadratic spline, with the same steps."""
        z, logs, i, bits = self.rows(x.n, name), self.rows(x.n), self.ins, _bits(bound)
        i.products += x.n * HEAVY
        i.do(
            machine.SPLINE, i.of(x), i.of(raw), i.of(z), i.of(logs), i.of(total), x.n, n_bins,
            *steps, bits,
        )  # fmt: skip

        def back(i: Instructions) -> None:
            gz, gt = i.of(self._gradients[z]), i.of(self._gradients[total])
            gx, graw = self.gradient(i, x)[0], self.gradient(i, raw)[0]
            i.products += x.n * HEAVY
            i.do(
                machine.SPLINE_SLOPE, i.of(x), i.of(raw), gz, gt, gx, graw, x.n, n_bins, *steps,
                bits,
            )  # fmt: skip

        self._backs.append(back)
        return z

    def diagonal(
        self, x: Rows, log_scale: Tensor, shift: Tensor, total: Rows, name: str = "kept"
    ) -> Rows:
        """e^s x + b, a scale and a shift (rows, 1) for each row."""
        z, i = self.rows(x.n, name), self.ins
        s, b = self._vector(log_scale), self._vector(shift)
        i.do(machine.DIAGONAL, i.of(x), i.of(z), s, b, i.of(total), x.n)

        def back(i: Instructions) -> None:
            gz, gt = i.of(self._gradients[z]), i.of(self._gradients[total])
            gx, _ = self.gradient(i, x)
            own = i.more("sums", 2 * x.n)
            scales, shifts = i.at("sums", number=own), i.at("sums", number=own + x.n)
            name = self.given[id(log_scale)][0]
            i.do(machine.DIAGONAL_SLOPE, i.of(x), i.at(name), gz, gt, gx, scales, shifts, x.n)
            self._give(i, log_scale, own)
            self._give(i, shift, own + x.n)

        self._backs.append(back)
        return z

    # The way from noise to data, which has no gradients here.

    def affine_inverse(
        self, z: Rows, raw: Rows, steps: tuple[int, int], limit: float, total: Rows, x: Rows
    ) -> None:
        """What :meth:`affine` made z of goes to x."""
        i = self.ins
        places = i.of(z), i.of(raw), i.of(x), i.of(total)
        i.do(machine.AFFINE_INVERSE, *places, z.n, *steps, _bits(limit))

    def spline_inverse(
        self, z: Rows, raw: Rows, steps: tuple[int, int], n_bins: int, bound: float, total: Rows,
        x: Rows,
    ) -> None:  # fmt: skip
        """What :meth:`spline` made z of goes to x."""
        i, logs = self.ins, self.rows(z.n)
        i.products += z.n * HEAVY
        places = i.of(z), i.of(raw), i.of(x), i.of(logs), i.of(total)
        i.do(machine.SPLINE_INVERSE, *places, z.n, n_bins, *steps, _bits(bound))

    def diagonal_inverse(
        self, z: Rows, log_scale: Tensor, shift: Tensor, total: Rows, name: str
    ) -> Rows:
        """(z - b) e^-s."""
        x, i = self.rows(z.n, name), self.ins
        s, b = self._vector(log_scale), self._vector(shift)
        i.do(machine.DIAGONAL_INVERSE, i.of(z), i.of(x), s, b, i.of(total), z.n)
        return x

    def lu_inverse(
        self, z: Rows, lower: Tensor, upper: Tensor, log_diagonal: Tensor, shift: Tensor,
        total: Rows, name: str,
    ) -> Rows:  # fmt: skip
        """What :meth:`lu` made z of: both triangles solved, a row at a time."""
        D, i = z.n, self.ins
        # Subtracted, where a product adds.
        L = self.matrix(lower, -_ones(D).tril(-1)).start
        U = self.matrix(upper, -_ones(D).triu(1)).start
        self.constants.append(_ones(D)[0] * 0)
        zero = i.at(f"constant{len(self.constants) - 1}")
        b, sums = self._vector(shift), i.of(total)
        y, x = self.rows(D), self.rows(D, name)
        i.do(machine.DIAGONAL_INVERSE, i.of(z), i.of(y), zero, b, sums, D)
        i.products += D * D
        for d in range(1, D):
            row = i.at("matrices", number=L + d * D)
            i.do(machine.PUSH, row, D, 0, 1, d, i.of(y), i.of(y.part(d, 1)), 1)
        name_s = self.given[id(log_diagonal)][0]
        for d in range(D - 1, -1, -1):
            own, after = i.of(y.part(d, 1)), D - 1 - d
            if after:
                row = i.at("matrices", number=U + d * D + d + 1)
                i.do(machine.PUSH, row, D, 0, 1, after, i.of(x.part(d + 1, after)), own, 1)
            scale = i.at(name_s, number=d)
            i.do(machine.DIAGONAL_INVERSE, own, i.of(x.part(d, 1)), scale, zero, sums, 1)
        return x

    def some(
        self, matrix: Matrix, first: int, stop: int, reads: int, a: Rows, y: Rows, add: bool
    ) -> None:
        """Rows first ... stop - 1 of y (+)= W a, of which W reads the first ``reads`` rows."""
        i = self.ins
        i.products += (stop - first) * reads
        at = i.at("matrices", number=matrix.start)
        i.do(machine.PUSH, at, matrix.columns, first, stop, reads, i.of(a), i.of(y), int(add))

    def activate_some(
        self,
        name: str,
        h: Rows,
        bias: Tensor,
        residual: Rows | None,
        a: Rows,
        first: int,
        stop: int,
    ) -> None:
        """These rows of h become h + bias + residual, those of a their activation."""
        i, b = self.ins, self.given[id(bias)][0]
        self.used.add(b)
        under = _NONE if residual is None else i.at(residual.name, residual.first + first)
        places = i.at(h.name, h.first + first), i.at(b, number=first), under
        out = i.at(a.name, a.first + first)
        i.do(machine.ACTIVATE, ACTIVATIONS[name], *places, out, stop - first)

    def fill(self, bias: Tensor, first: int, stop: int, turned: bool, y: Rows) -> None:
        """Rows first ... stop - 1 of y become those of a bias."""
        (_, B, _), strides = _three(bias.transpose(0, 1) if turned else bias)
        self.ins.do(machine.FILL, self.ins.of(y), self._vector(bias), B, *strides, first, stop)

    def lu(
        self, x: Rows, lower: Tensor, upper: Tensor, log_diagonal: Tensor, shift: Tensor,
        total: Rows, name: str = "kept",
    ) -> Rows:  # fmt: skip
        """L U x + b: what is below the diagonal of ``lower`` with ones on it, what is above that of
        ``upper`` with e^s (D,) on it, and b (D, 1)."""
        D, once = x.n, self.ins.once
        L = self.matrix(lower, _ones(D).tril(-1))
        U = self.matrix(upper, _ones(D).triu(1))
        s = self._vector(log_diagonal)
        for matrix, diagonal in ((L, _NONE), (U, s)):
            place = self.ins.at("matrices", number=matrix.start)
            once.append([machine.SET_DIAGONAL, place, diagonal, D, *[0] * (machine.WIDTH - 4)])
        self.ins.do(machine.SHARE, s, D, self.ins.of(total))
        sums: list[int] = []
        name_s = self.given[id(log_diagonal)][0]

        def back(i: Instructions) -> None:
            own = i.more("sums", 1)
            i.do(machine.SUM, i.of(self._gradients[total]), i.at("sums", number=own), 1)
            places = [i.at("g_" + name_s), i.at("sums", number=sums[0]), i.at("sums", number=own)]
            row = [machine.DIAGONAL_GRADIENT, *places, i.at(name_s), D]
            i.once.append([*row, *[0] * (machine.WIDTH - len(row))])

        def give(i: Instructions, of: int) -> None:
            sums.append(of)
            U.give(i, of)

        self._backs.append(back)  # the last of the way back: it needs the product's
        # What overflows would be infinity times zero or less infinity; no density reaches out there.
        near = self.take(x, range(D))
        self.ins.do(machine.LIMIT, self.ins.of(near), D, _bits(_FARTHEST))
        y = self.product(Matrix(U.start, D, D, give), near)
        self.ins.do(machine.LIMIT, self.ins.of(y), D, _bits(_FARTHEST))
        return self.output(L, y, shift, name=name)

    # The end.

    def close(self, outputs: Sequence[Rows], inputs: Sequence[str]) -> "Tape":
        """Outputs are tensors of their own, by name; of the named inputs gradients are found."""
        self._outside = set(inputs)
        self.outputs = [rows.name for rows in outputs]
        size = self.ins.size
        size["kept"] = max(size.get("most", 0), size.get("kept", 0))
        self._own = [name for name in size if name not in ("most", "kept", "matrices")]
        self.ins.close()
        if self.keep:
            for rows in outputs:
                self._gradients[rows] = Rows("g_" + rows.name, 0, rows.n)
            for back in reversed(self._backs):
                back(self.outs)
            self.outs.close()
        self.given, self._backs, self._gradients = {}, [], {}  # what the first call was about
        return self

    def forward(
        self, tensors: dict[str, Tensor], given: Sequence[Tensor], like: Tensor
    ) -> tuple[list[Tensor], Room]:
        """Outputs, and what the way back needs."""
        n, size = like.shape[1], self.ins.size
        own = {name: like.new_empty(size[name], n) for name in self._own}
        room = Room(size["kept"] * n, size.get("matrices", 0))
        own["kept"], own["matrices"] = room.parts
        self._check(tensors, n)
        self.ins.run(n, {**self._common(given), **tensors, **own}, [room], last=False)
        return [own[name] for name in self.outputs], room

    def backward(
        self, tensors: dict[str, Tensor], given: Sequence[Tensor], gradients: Sequence[Tensor],
        kept: Room,
    ) -> tuple[dict[str, Tensor], list[Tensor | None]]:  # fmt: skip
        """Gradients of the inputs by name, and of what was given."""
        n = gradients[0].shape[1]
        found = [torch.empty_like(t) for t in given]
        outer = {name: torch.empty_like(tensors[name]) for name in self._outside}
        room = Room(self.outs.size.get("columns", 0) * n)
        tensors = {**self._common(given), **tensors, "columns": room.parts[0]}
        tensors["kept"], tensors["matrices"] = kept.parts
        tensors.update({f"g_given{i}": t for i, t in enumerate(found)})
        tensors.update({"g_" + name: t for name, t in outer.items()})
        pairs = zip(self.outputs, gradients, strict=True)
        tensors.update({"g_" + name: g.contiguous() for name, g in pairs})
        self.outs.run(n, tensors, [room, kept], last=True)
        used = [t if f"given{i}" in self.used else None for i, t in enumerate(found)]
        return outer, used

    def _common(self, given: Sequence[Tensor]) -> dict[str, Any]:
        names = {f"constant{i}": t for i, t in enumerate(self.constants)}
        return {**names, **{f"given{i}": t for i, t in enumerate(given)}}
