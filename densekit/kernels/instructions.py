"""Instructions for ``machine.py`` and the memory that they use. Importing this module imports numba."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from densekit.kernels import machine
from densekit.kernels.blas import alone
from densekit.kernels.loops import run_in_threads, split_work

HEAVY = 512
"""Number of multiplications that take as long as one value of a spline, for dividing work between
threads.
"""
LINE = 16
"""Numbers per cache line. Data that start at a multiple of it are aligned alike in every call; a
matrix product may otherwise round differently, as MKL's does on AMD processors.
"""
_MAX_SPARE_BLOCKS = 6
_MAX_SPARE_SIZE = 2**24


def _lines(n: int) -> int:
    return -(-n // LINE) * LINE


@dataclass(frozen=True, eq=False)
class Rows:
    """``n`` rows of samples of a named tensor, starting at row ``first``."""

    name: str
    first: int
    n: int

    def part(self, first: int, n: int) -> "Rows":
        """Some of these rows."""
        return Rows(self.name, self.first + first, n)


class Instructions:
    """A list of instructions.

    Those of ``once`` are executed once, the others by each thread for its part of the samples.
    Each thread has its own row of the tensor "sums".
    """

    def __init__(self) -> None:
        self.once: list[list[int]] = []
        self.per_part: list[list[int]] = []
        self.names: list[str] = []
        self.places: list[tuple[int, int, int]] = []
        self.size: dict[str, int] = {}
        self.products = 0  # Number of multiplications per sample.

    def at(self, name: str, row: int = 0, number: int = 0) -> int:
        """A reference to an address: ``row`` rows of samples and ``number`` numbers after the start
        of a tensor.
        """
        if name not in self.names:
            self.names.append(name)
        self.places.append((self.names.index(name), row, number))
        return len(self.places) - 1

    def ref(self, rows: Rows) -> int:
        """A reference to the address of some rows."""
        return self.at(rows.name, rows.first)

    def reserve(self, name: str, n: int) -> int:
        """Reserve ``n`` rows or numbers of a tensor that grows, and return their start, which is
        aligned to a cache line.
        """
        start = self.size.get(name, 0)
        self.size[name] = start + _lines(n)
        return start

    def add(self, op: int, *arguments: int) -> None:
        """Add an instruction that each thread executes."""
        self.per_part.append([op, *arguments, *[0] * (machine.WIDTH - 1 - len(arguments))])

    def close(self) -> None:
        """Convert the instructions to arrays."""
        self.table = np.array(self.once + self.per_part, dtype=np.int64).reshape(-1, machine.WIDTH)
        self.base, rows, numbers = np.array(self.places, dtype=np.int64).T
        self.row_bytes, self.number_bytes = 4 * rows, 4 * numbers

    def run(
        self, n: int, tensors: dict[str, Tensor], blocks: Sequence["MemoryBlock"], last: bool
    ) -> None:
        """Execute the instructions for ``n`` samples.

        Those of ``once`` come ``last`` or first. ``blocks`` own the memory of some tensors and are
        kept alive.
        """
        parts = split_work(n, n * self.products // HEAVY, 16)
        stride = self.size.get("sums", 0)
        sums = MemoryBlock(len(parts) * stride)
        (tensors["sums"],) = sums.parts
        addresses = [tensors[name].data_ptr() for name in self.names]
        at = np.array(addresses)[self.base] + self.row_bytes * n + self.number_bytes
        n_once, end, part_layout = len(self.once), len(self.table), (len(parts), stride)
        with alone():
            if not last:
                machine.run(self.table, 0, n_once, at, n, 0, n, 0, *part_layout)
            calls = [
                (self.table, n_once, end, at, n, *p, i, *part_layout) for i, p in enumerate(parts)
            ]
            run_in_threads(machine.run, calls, keep=(tensors, sums, blocks))
            if last:
                machine.run(self.table, 0, n_once, at, n, 0, n, 0, *part_layout)


class MemoryBlock:
    """Memory that is reused after it is released.

    The operating system reclaims the pages of new memory after each step, and allocating them
    again takes up to a third of the time.
    """

    _spare: ClassVar[list[Tensor]] = []

    def __init__(self, *sizes: int) -> None:
        edges = [0, *itertools.accumulate(map(_lines, sizes))]
        size, unsuitable = edges[-1], []
        memory = None
        # Blocks are popped one at a time, because other threads use the list as well.
        while memory is None:
            try:
                spare = self._spare.pop()
            except IndexError:
                memory = torch.empty(size, dtype=torch.float32, device="cpu")
                break
            if size <= len(spare) <= 2 * size + 1024:
                memory = spare
            else:
                unsuitable.append(spare)
        self._spare[:0] = reversed(unsuitable)
        self._memory = memory
        self.parts = [memory[a:b] for a, b in itertools.pairwise(edges)]

    def __del__(self) -> None:
        memory = getattr(self, "_memory", None)  # None if the allocation failed.
        if memory is not None and len(memory) <= _MAX_SPARE_SIZE:
            self._spare.append(memory)
            # The oldest go: were the newest dropped, blocks of sizes that are no longer in use would
            # fill the list, and every later step would allocate its memory anew.
            del self._spare[:-_MAX_SPARE_BLOCKS]
