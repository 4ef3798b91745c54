"""Instructions for ``machine.py``, and the memory that they work in. Importing this imports numba."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from densekit.kernels import machine
from densekit.kernels.blas import alone
from densekit.kernels.loops import share_out, shares

HEAVY = 512
"""So many products of numbers take as long as one number of a spline, by which work is shared out."""
LINE = 16
"""Numbers of a line of the cache. Whatever begins at a multiple of it lies alike in every call: a matrix
product may round by where its operands lie, which MKL's does on AMD processors."""
_MOST_SPARE = 6
_LARGEST_SPARE = 2**24


def _lines(n: int) -> int:
    return -(-n // LINE) * LINE


@dataclass(frozen=True, eq=False)
class Rows:
    """``n`` rows of samples of a tensor, from row ``first`` on."""

    name: str
    first: int
    n: int

    def part(self, first: int, n: int) -> "Rows":
        """Some of these."""
        return Rows(self.name, self.first + first, n)


class Instructions:
    """Some are done once, the others by each thread for its own samples; a thread has a row of its own
    of the tensor "sums"."""

    def __init__(self) -> None:
        self.once: list[list[int]] = []
        self.each: list[list[int]] = []
        self.names: list[str] = []
        self.places: list[tuple[int, int, int]] = []
        self.size: dict[str, int] = {}
        self.products = 0  # of numbers, for each sample

    def at(self, name: str, row: int = 0, number: int = 0) -> int:
        """A place: ``row`` rows of samples and ``number`` numbers behind the start of a tensor."""
        if name not in self.names:
            self.names.append(name)
        self.places.append((self.names.index(name), row, number))
        return len(self.places) - 1

    def of(self, rows: Rows) -> int:
        return self.at(rows.name, rows.first)

    def more(self, name: str, n: int) -> int:
        """Where the next ``n`` of a tensor that grows begin: at a line, for any number of samples."""
        start = self.size.get(name, 0)
        self.size[name] = start + _lines(n)
        return start

    def do(self, op: int, *arguments: int) -> None:
        self.each.append([op, *arguments, *[0] * (machine.WIDTH - 1 - len(arguments))])

    def close(self) -> None:
        self.table = np.array(self.once + self.each, dtype=np.int64).reshape(-1, machine.WIDTH)
        self.base, rows, numbers = np.array(self.places, dtype=np.int64).T
        self.by_row, self.by_number = 4 * rows, 4 * numbers

    def run(self, n: int, tensors: dict[str, Tensor], rooms: Sequence["Room"], last: bool) -> None:
        """For ``n`` samples; what is done once is done ``last``, or first. ``rooms`` hold some of the
        tensors."""
        parts = shares(n, n * self.products // HEAVY, 16)
        stride = self.size.get("sums", 0)
        sums = Room(len(parts) * stride)
        (tensors["sums"],) = sums.parts
        addresses = [tensors[name].data_ptr() for name in self.names]
        at = np.array(addresses)[self.base] + self.by_row * n + self.by_number
        cut, end, rest = len(self.once), len(self.table), (len(parts), stride)
        with alone():
            if not last:
                machine.run(self.table, 0, cut, at, n, 0, n, 0, *rest)
            calls = [(self.table, cut, end, at, n, *p, i, *rest) for i, p in enumerate(parts)]
            share_out(machine.run, calls, keep=(tensors, sums, rooms))
            if last:
                machine.run(self.table, 0, cut, at, n, 0, n, 0, *rest)


class Room:
    """Memory that is used again once nobody holds it: from a new one the system takes the pages back
    after each step, and giving them out costs as much as a third of the work."""

    _spare: ClassVar[list[Tensor]] = []

    def __init__(self, *sizes: int) -> None:
        edges = [0, *itertools.accumulate(map(_lines, sizes))]
        size, others = edges[-1], []
        whole = None
        # One at a time, since another thread may take or bring one in between.
        while whole is None:
            try:
                found = self._spare.pop()
            except IndexError:
                whole = torch.empty(size, dtype=torch.float32, device="cpu")
                break
            if size <= len(found) <= 2 * size + 1024:
                whole = found
            else:
                others.append(found)
        self._spare.extend(others)
        self._whole = whole
        self.parts = [whole[a:b] for a, b in itertools.pairwise(edges)]

    def __del__(self) -> None:
        whole = getattr(self, "_whole", None)  # None where there was not enough memory
        if whole is not None and len(self._spare) < _MOST_SPARE and len(whole) <= _LARGEST_SPARE:
            self._spare.append(whole)
