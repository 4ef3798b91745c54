"""What is counted of the values of a column that come in pieces: moments, and rows of each value.

Rows may have weights: a row of weight w counts as w rows.
"""

import math
from typing import Any

import numpy as np

_MOST_VALUES = 2**20
"""Largest number of distinct values counted at a time; rare ones are dropped for new ones."""
_SCREENED = 2**15
"""Size of a piece from which a sample is first searched for values that repeat."""


class Moments:
    """Mean and standard deviation of values that come in pieces, each in two passes: safe at large
    offsets and at extreme scales. Joined as by Chan, Golub & LeVeque 1983."""

    def __init__(self) -> None:
        self.n, self.loc, self.scale = 0.0, 0.0, 0.0
        self.low, self.high = math.inf, -math.inf

    def add(self, y: np.ndarray, weights: np.ndarray | None = None) -> None:
        """Take in more values (n,), in float64, with their weights (n,)."""
        if not len(y):
            return
        low, high = float(y.min()), float(y.max())
        middle, reach = _span(low, high)
        loc, scale = middle, 0.0
        if 0 < reach < math.inf:
            d = (y - middle) / reach
            mean = _mean(d, weights)
            loc = middle + reach * mean
            scale = reach * math.sqrt(_mean((d - mean) ** 2, weights))
        n = len(y) if weights is None else float(weights.sum())
        self.n += n
        new, apart = n / self.n, loc - self.loc
        if new == 1:
            self.loc, self.scale = loc, scale
        else:
            between = math.sqrt(new * (1 - new)) * apart
            parts = math.sqrt(1 - new) * self.scale, math.sqrt(new) * scale, between
            self.loc, self.scale = self.loc + new * apart, math.hypot(*parts)
        self.low, self.high = min(self.low, low), max(self.high, high)

    def result(self) -> tuple[float, float]:
        """Mean and standard deviation; a scale is never zero."""
        middle, reach = _span(self.low, self.high)
        if reach == 0 or not math.isfinite(reach):
            return middle, 1.0
        if not (math.isfinite(self.loc) and math.isfinite(self.scale)):
            return middle, reach
        return self.loc, self.scale if self.scale > 0 else reach


def _mean(d: np.ndarray, weights: np.ndarray | None) -> float:
    return float(d.mean()) if weights is None else float((d * weights).sum() / weights.sum())


def _span(low: float, high: float) -> tuple[float, float]:
    # Halved before adding: the sum of two large numbers may overflow.
    middle = low / 2 + high / 2
    return middle, max(high - middle, middle - low)


class Tally:
    """How many rows have each value.

    Parameters
    ----------
    share : float
        Values that fewer of the rows have are of no interest: they may be left out to save memory.
    every : bool
        Keep rare values too, up to about a million of them.

    Attributes
    ----------
    values, rows : ndarray (K,)
        Distinct values in order, and the rows (the sum of weights) of each.
    n : float
        All rows.
    whole : bool
        Whether no value was left out.
    """

    def __init__(self, share: float = 0.0, every: bool = True) -> None:
        self.values: np.ndarray = np.zeros(0)
        self.rows: np.ndarray = np.zeros(0)
        self.n, self.whole, self._share, self._every = 0.0, True, share, every

    def add(self, values: np.ndarray, weights: np.ndarray | None = None) -> None:
        """Take in more values (n,), with their weights (n,)."""
        if not len(values):
            return
        self.n += len(values) if weights is None else float(weights.sum())
        if not self._every and len(values) > _SCREENED and not self._repeats(values):
            self.whole = False
            return
        found, rows = tally(values, weights)
        if not self._every and len(values) >= 1000:
            often = rows > 1 if weights is None else rows >= 1e-4 * self._share * rows.sum()
            self.whole &= bool(often.all())
            found, rows = found[often], rows[often]
        if len(self.values):
            found, place = np.unique(np.concatenate([self.values, found]), return_inverse=True)
            rows = np.bincount(place, np.concatenate([self.rows, rows]), len(found))
        if len(found) > _MOST_VALUES:
            # A value that has the share loses at most a tenth of it.
            often = rows > 0.1 * self._share * self.n
            found, rows, self.whole = found[often], rows[often], False
        self.values, self.rows = found, rows

    def _repeats(self, values: np.ndarray) -> bool:
        """Whether, by a sample of the values, one of them may have the share."""
        size = min(len(values), max(4096, int(40 / max(self._share, 1e-3))))
        sample = values[np.random.default_rng(0).integers(0, len(values), size)]
        rows = np.unique(sample, return_counts=True)[1]
        return bool(rows.max() >= 0.4 * self._share * size)

    def common(self, share: float, fewest: float, most: int) -> np.ndarray:
        """Which of ``values`` at least a share of the rows has and ``fewest`` of them, the ``most``
        most frequent ones: (K,)."""
        often = self.rows >= max(fewest, share * self.n)
        if often.sum() > most:
            order = np.argsort(-np.where(often, self.rows, 0), kind="stable")
            often = np.zeros_like(often)
            often[order[:most]] = True
        return often


def tally(values: np.ndarray, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values in order, and the rows, or the sum of the weights, of each."""
    if weights is None:
        found, counts = np.unique(values, return_counts=True)
        return found, counts.astype(np.float64)
    found, place = np.unique(values, return_inverse=True)
    return found, np.bincount(place, weights, len(found))


def counted(found: np.ndarray, rows: np.ndarray) -> dict[Any, float]:
    """Distinct values and their numbers of rows as a mapping of Python values."""
    return dict(zip(found.tolist(), rows.tolist(), strict=True))
