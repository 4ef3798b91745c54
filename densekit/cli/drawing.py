"""Drawing of samples in pieces, for output files that are larger than memory."""

import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import densekit
from densekit import codecs
from densekit.codecs.context import part_of

_ENTRIES = 2**20
"""Approximate number of entries of a piece, some megabytes."""
_PROBE = 1000
"""Number of rows from which the size of the output is estimated."""


@dataclass
class Draws:
    """Samples of a fitted model in pieces.

    The first piece uses the seed itself. If all rows fit into it, they equal
    ``estimator.sample(n, random_state=seed)``. The seeds of further pieces are derived from the seed and
    the position of the piece.
    """

    estimator: Any
    n: int
    context: Any = None
    seed: int | None = None
    done: int = 0
    """Number of rows that the consumer of ``pieces`` has received."""

    def __post_init__(self) -> None:
        if self._context_per_row and self.n == 1:
            self.n = codecs.n_rows(self.context)

    @property
    def _context_per_row(self) -> bool:
        """Whether the context has one row for each sample."""
        context = self.context
        return context is not None and not isinstance(context, str | Mapping)

    @property
    def size(self) -> int:
        """Number of rows of a piece, a multiple of the model's batch size."""
        batch = densekit.capabilities(self.estimator).sample_batch
        entries = max(1, math.prod(self.estimator.schema_.event_shape))
        return batch * max(1, _ENTRIES // (entries * batch))

    def probe(self) -> Any:
        """A few rows for a size estimate; None if all rows fit into one piece."""
        if self.n <= self.size:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # The first piece repeats these warnings.
            return self._piece(0, min(self.size, _PROBE), self.seed)

    def pieces(self) -> Iterator[Any]:
        """Draw and yield the pieces."""
        for start in range(0, self.n, self.size):
            with warnings.catch_warnings():
                if start:  # Only the first piece shows warnings.
                    warnings.simplefilter("ignore")
                rows = self._piece(start, min(self.n, start + self.size), self._seed_at(start))
            yield rows
            self.done = start + codecs.n_rows(rows)

    def _piece(self, start: int, stop: int, seed: int | None) -> Any:
        context = self.context
        if self._context_per_row:
            context = part_of(context, self.n, start, stop)
        return self.estimator.sample(stop - start, context=context, random_state=seed)

    def _seed_at(self, start: int) -> int | None:
        if not start or self.seed is None:
            return self.seed
        return int(np.random.SeedSequence([self.seed, start]).generate_state(1)[0])
