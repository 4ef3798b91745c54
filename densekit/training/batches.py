"""Rows in batches of a reproducible order, with the held-out rows apart."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

_MAX_HELD_OUT = 4096


class Batches:
    """Events batched by index, in memory on the device or read when they are asked for; the
    held-out rows kept apart.

    Parameters
    ----------
    events : (n, \\*event_shape)
        A tensor, or what is indexed like one (``densekit.codecs.ondisk.EncodedRows``).
    context : (n, n_context), optional
    weights : (n,), optional
        Of the rows, in float64 and positive; only their ratios matter.
    view : callable
        Events as the model takes them; called on every batch, so that dequantization draws anew.
    in_order : bool
        Rows follow each other: each place of a batch goes through a part of them from its beginning,
        and the held-out rows are the last.
    fold : (int, int), optional
        (k, K): hold out part k of K parts of the rows instead of ``validation_fraction`` of them.
    """

    def __init__(
        self,
        events: Any,
        context: Tensor | None,
        view: Callable[[Tensor], Tensor],
        *,
        validation_fraction: float,
        seed: int,
        in_order: bool = False,
        fold: tuple[int, int] | None = None,
        weights: Tensor | None = None,
    ):
        n = len(events)
        held = 0
        if validation_fraction > 0:
            held = min(max(1, round(validation_fraction * n)), _MAX_HELD_OUT, n - 1)
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
        if in_order:
            order = torch.arange(n).roll(held)
        if fold is not None:
            cuts = [n * k // fold[1] for k in range(fold[1] + 1)]
            held = cuts[fold[0] + 1] - cuts[fold[0]]
            order = order.roll(-cuts[fold[0]])
        self._in_order = in_order
        self._valid = order[:held].to(events.device)
        self._train = order[held:].to(events.device)
        self._events, self._context, self._view, self._seed = events, context, view, seed
        self._weights = None if weights is None else weights / weights.mean()

    @property
    def n_train(self) -> int:
        """Rows that are trained on."""
        return len(self._train)

    @property
    def n_valid(self) -> int:
        """Rows held out."""
        return len(self._valid)

    def take(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """The rows of ``index``, as the model takes them."""
        context = None if self._context is None else self._context[index]
        return self._view(self._events[index]), context

    def first(self, n: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """At most ``n`` of the rows that are trained on, in random order, as the model takes them, with
        their contexts and weights."""
        index = self._train[:n]
        return *self.take(index), self.weights(index)

    def weights(self, index: Tensor) -> Tensor | None:
        """The weights of the rows of ``index``; None where all are alike."""
        return None if self._weights is None else self._weights[index]

    def epochs(self, size: int, done: int = 0) -> Iterator[Tensor]:
        """Index batches without end, from the one after the ``done`` first: the order is a function
        of the seed and the epoch alone, and a ragged last batch is left to the next shuffle."""
        epoch, first = divmod(done, self.n_train // size)
        while True:
            generator = torch.Generator().manual_seed((self._seed + epoch) % 2**63)
            order = torch.randperm(self.n_train, generator=generator).to(self._train.device)
            if self._in_order:
                whole = torch.arange(size * (self.n_train // size), device=order.device)
                order = whole.view(size, -1).T.flatten()
            for start in range(first * size, self.n_train - size + 1, size):
                yield self._train[order[start : start + size]]
            epoch, first = epoch + 1, 0

    def held_out(self, n: int, size: int) -> Iterator[Tensor]:
        """Index batches of the first ``n`` held-out rows."""
        yield from self._valid[:n].split(size)
