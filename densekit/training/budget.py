"""How long a run may take, how far it is, and the learning rate that follows from that."""

import math
from dataclasses import dataclass
from typing import Any, Self

from densekit import clock
from densekit.processes import Group

_MANY = 10_000
"""Steps of a run for the first one of a warm-up, where the number is not known."""


@dataclass(frozen=True)
class Budget:
    """How long a run may take.

    >>> from types import SimpleNamespace
    >>> given = {"max_steps": None, "max_epochs": None, "max_time": 9.0, "batch_size": 5}
    >>> Budget.of(SimpleNamespace(**given), 20, 2000)
    Budget(steps=inf, seconds=9.0, default=False)
    >>> Budget.of(SimpleNamespace(**given | {"max_epochs": 3, "max_steps": 100}), 20, 2000)
    Budget(steps=12, seconds=9.0, default=False)
    """

    steps: float
    """A whole number, or infinity."""
    seconds: float | None
    default: bool
    """Whether none was given."""

    @classmethod
    def of(cls, options: Any, n_train: int, default_steps: int) -> Self:
        """What the options say, for so many rows to train on."""
        default = options.max_steps is options.max_epochs is options.max_time is None
        steps = math.inf if options.max_steps is None else options.max_steps
        if options.max_epochs is not None:
            per_epoch = max(1, n_train // min(options.batch_size, n_train))
            steps = min(steps, options.max_epochs * per_epoch)
        return cls(default_steps if default else steps, options.max_time, default)


class Schedule:
    """Where a run stands in its budget.

    Parameters
    ----------
    budget : Budget
    warmup : float
        Share of the budget over which the learning rate rises.
    constant : bool
        Whether the learning rate stays as it is, without warm-up and decay.
    group : Group
        Rank 0 alone reads the clock.
    """

    def __init__(self, budget: Budget, warmup: float, constant: bool, group: Group):
        self.clock, self.budget, self.group = clock.current(), budget, group
        self.begun = self.clock.elapsed()
        self.warmup, self.constant = warmup, constant
        self.pace = 0.0
        """Seconds of the last step."""

    def rate(self, step: int) -> float:
        """Share of the full learning rate: linear warm-up, then half a cosine over the budget."""
        if self.constant:
            return 1.0
        done, warm = self.done(step), self.warmup
        if done < warm:
            # The first step already moves: it counts as one.
            return min(1.0, max(done, 1 / min(self.budget.steps, _MANY)) / warm)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (done - warm) / max(1e-9, 1 - warm))))

    def done(self, step: int) -> float:
        """Share of the budget that is spent after so many steps."""
        return max(step / self.budget.steps, self.share_of_time())

    def share_of_time(self) -> float:
        """How much of the time that was left when the run began is over."""
        if self.budget.seconds is None:
            return 0.0
        left = max(self.budget.seconds - self.begun, 1e-9)
        return max(0.0, self.elapsed() - self.begun) / left

    def elapsed(self) -> float:
        """Seconds by the clock of rank 0, which all ranks ask for at the same time."""
        seconds: float = self.group.broadcast(self.clock.elapsed())
        return seconds

    @property
    def out_of_time(self) -> str:
        """Why a run ends whose time is over."""
        return f"max_time={self.budget.seconds:g} seconds are over"
