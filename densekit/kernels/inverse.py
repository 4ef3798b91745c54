"""Operations of a tape without gradients, for the direction from noise to data.

Importing this module imports numba.
"""

import numpy as np
import torch
from torch import Tensor

from densekit.kernels import machine
from densekit.kernels.instructions import HEAVY, Rows
from densekit.kernels.layers import ACTIVATIONS
from densekit.kernels.recording import NONE, Matrix, Recording, as_three_axes


def ones(n: int) -> Tensor:
    """A matrix (n, n) of ones."""
    return torch.ones(n, n, dtype=torch.float32, device="cpu")


def bits(x: float) -> int:
    """The bits of a float32 as an integer argument."""
    return int(np.float32(x).view(np.int32))


class InverseOperations(Recording):
    """Operations without gradients. Abstract: a tape has those with gradients as well."""

    def affine_inverse(
        self, z: Rows, raw: Rows, steps: tuple[int, int], limit: float, total: Rows, x: Rows
    ) -> None:
        """The inverse of :meth:`affine`, from z to x."""
        i = self.ops
        places = i.ref(z), i.ref(raw), i.ref(x), i.ref(total)
        i.add(machine.AFFINE_INVERSE, *places, z.n, *steps, bits(limit))

    def spline_inverse(
        self, z: Rows, raw: Rows, steps: tuple[int, int], n_bins: int, bound: float, total: Rows,
        x: Rows,
    ) -> None:  # fmt: skip
        """The inverse of :meth:`spline`, from z to x."""
        i, logs = self.ops, self.rows(z.n)
        i.products += z.n * HEAVY
        places = i.ref(z), i.ref(raw), i.ref(x), i.ref(logs), i.ref(total)
        i.add(machine.SPLINE_INVERSE, *places, z.n, n_bins, *steps, bits(bound))

    def diagonal_inverse(
        self, z: Rows, log_scale: Tensor, shift: Tensor, total: Rows, name: str
    ) -> Rows:
        """(z - b) e^-s."""
        x, i = self.rows(z.n, name), self.ops
        s, b = self._vector(log_scale), self._vector(shift)
        i.add(machine.DIAGONAL_INVERSE, i.ref(z), i.ref(x), s, b, i.ref(total), z.n)
        return x

    def lu_inverse(
        self, z: Rows, lower: Tensor, upper: Tensor, log_diagonal: Tensor, shift: Tensor,
        total: Rows, name: str,
    ) -> Rows:  # fmt: skip
        """The inverse of :meth:`lu`: both triangular systems solved row by row."""
        D, i = z.n, self.ops
        # The signs are reversed because products are added.
        L = self.matrix(lower, -ones(D).tril(-1)).start
        U = self.matrix(upper, -ones(D).triu(1)).start
        self.constants.append(ones(D)[0] * 0)
        zero = i.at(f"constant{len(self.constants) - 1}")
        b, sums = self._vector(shift), i.ref(total)
        y, x = self.rows(D), self.rows(D, name)
        i.add(machine.DIAGONAL_INVERSE, i.ref(z), i.ref(y), zero, b, sums, D)
        i.products += D * D
        for d in range(1, D):
            row = i.at("matrices", number=L + d * D)
            i.add(machine.PUSH, row, D, 0, 1, d, i.ref(y), i.ref(y.part(d, 1)), 1)
        name_s = self.given[id(log_diagonal)][0]
        for d in range(D - 1, -1, -1):
            own, after = i.ref(y.part(d, 1)), D - 1 - d
            if after:
                row = i.at("matrices", number=U + d * D + d + 1)
                i.add(machine.PUSH, row, D, 0, 1, after, i.ref(x.part(d + 1, after)), own, 1)
            scale = i.at(name_s, number=d)
            i.add(machine.DIAGONAL_INVERSE, own, i.ref(x.part(d, 1)), scale, zero, sums, 1)
        return x

    def partial_product(
        self, matrix: Matrix, first: int, stop: int, reads: int, a: Rows, y: Rows, add: bool
    ) -> None:
        """Rows first ... stop - 1 of y (+)= W a, using the first ``reads`` rows of a."""
        i = self.ops
        i.products += (stop - first) * reads
        at = i.at("matrices", number=matrix.start)
        i.add(machine.PUSH, at, matrix.columns, first, stop, reads, i.ref(a), i.ref(y), int(add))

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
        i, b = self.ops, self.given[id(bias)][0]
        self.used.add(b)
        under = NONE if residual is None else i.at(residual.name, residual.first + first)
        places = i.at(h.name, h.first + first), i.at(b, number=first), under
        out = i.at(a.name, a.first + first)
        i.add(machine.ACTIVATE, ACTIVATIONS[name], *places, out, stop - first)

    def fill(self, bias: Tensor, first: int, stop: int, transposed: bool, y: Rows) -> None:
        """Set rows first ... stop - 1 of y to those of a bias."""
        (_, B, _), strides = as_three_axes(bias.transpose(0, 1) if transposed else bias)
        self.ops.add(machine.FILL, self.ops.ref(y), self._vector(bias), B, *strides, first, stop)
