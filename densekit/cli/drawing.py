"""Rows drawn a piece at a time, so that a file may hold more of them than the memory."""

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
"""Entries of a piece: some megabytes, and enough rows that writing them is quick."""
_PROBE = 1000
"""Rows that say how much room all of them will take."""


@dataclass
class Draws:
    """n rows of a model, in pieces.

    The first piece has the seed, and a further one a seed made of this and its number: where all rows
    fit into one piece they are those of ``estimator.sample(n, random_state=seed)``.
    """

    estimator: Any
    n: int
    context: Any = None
    seed: int | None = None
    done: int = 0
    """Rows of the pieces that were drawn, and taken."""

    def __post_init__(self) -> None:
        each = self._one_each
        if each and self.n == 1:
            self.n = codecs.n_rows(self.context)

    @property
    def _one_each(self) -> bool:
        """Whether the context has a row for each draw."""
        context = self.context
        return context is not None and not isinstance(context, str | Mapping)

    @property
    def size(self) -> int:
        """Rows of a piece: whole batches of the model's."""
        batch = densekit.capabilities(self.estimator).sample_batch
        entries = max(1, math.prod(self.estimator.schema_.event_shape))
        return batch * max(1, _ENTRIES // (entries * batch))

    def probe(self) -> Any:
        """A few rows like those to come; None where all come in one piece."""
        if self.n <= self.size:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they come again with the first piece
            return self._piece(0, min(self.size, _PROBE), self.seed)

    def pieces(self) -> Iterator[Any]:
        """The rows."""
        for start in range(0, self.n, self.size):
            with warnings.catch_warnings():
                if start:  # the first piece warned of all pieces
                    warnings.simplefilter("ignore")
                rows = self._piece(start, min(self.n, start + self.size), self._seed_at(start))
            yield rows
            self.done = start + codecs.n_rows(rows)

    def _piece(self, start: int, stop: int, seed: int | None) -> Any:
        given = self.context
        if self._one_each:
            given = part_of(given, self.n, start, stop)
        return self.estimator.sample(stop - start, context=given, random_state=seed)

    def _seed_at(self, start: int) -> int | None:
        if not start or self.seed is None:
            return self.seed
        return int(np.random.SeedSequence([self.seed, start]).generate_state(1)[0])
