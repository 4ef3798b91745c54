"""How much a statistical check may cost, and what it therefore draws."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Effort:
    """Limits of one sample of draws or rows."""

    name: str
    seconds: float
    """What one sample may take, by the measured cost of a row."""
    least: int
    """Rows that are drawn whatever they cost."""
    most: int
    """Rows that are enough however little they cost."""

    def rows(self, cost: float) -> int:
        """How many rows, where one takes ``cost`` seconds.

        >>> EFFORTS["standard"].rows(1e-7), EFFORTS["standard"].rows(1.0)
        (262144, 2000)
        """
        return int(min(self.most, max(self.least, self.seconds / max(cost, 1e-12))))


EFFORTS = {
    "quick": Effort("quick", 0.03, 500, 20_000),
    "standard": Effort("standard", 2.0, 2000, 2**18),
    "thorough": Effort("thorough", 30.0, 20_000, 2**21),
}


def effort_named(name: str) -> Effort:
    """The effort of that name; ValueError where there is none."""
    if name not in EFFORTS:
        known = ", ".join(repr(n) for n in EFFORTS)
        raise ValueError(f"effort={name!r} is not one of {known}")
    return EFFORTS[name]


def cost_of(act: Callable[[int], Any]) -> float:
    """Seconds of this process that ``act`` takes for one row, of as many as take long enough to time,
    after a first call that may have compiled. Time of the process, so that what else a machine does
    changes no number of draws."""
    act(2)
    n, most = 500, 8000
    while True:
        start = time.process_time()
        act(n)
        spent = time.process_time() - start
        if spent > 0.1 or n >= most:
            return max(spent, 1e-6) / n
        n *= 4
