"""What a statistical check found, and the smallest defect that it would have seen.

A check estimates a defect (draws too cold by 3 %, a mass that is 1 % too large) with a standard error,
and fails where the estimate is more than ``limit`` from zero. The limit is the normal quantile of the
level, 1e-8 unless stated otherwise, times the error. A defect that is 2.33 errors larger than the limit
exceeds it with a probability of 99 %: that is ``smallest``, and it is reported whether or not the check
fails.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 1e-8
"""How often one test fails an estimator that is right."""
POWER = 0.99
_MOST_OF_A_TAIL = 0.4
"""Index of a tail (Hill 1975) over which a mean of importance weights is not tested."""


@dataclass(frozen=True)
class Finding:
    """An estimated defect and what could have been seen of it."""

    what: str
    """The defect, in words."""
    effect: float
    """Its estimate; zero where there is none."""
    limit: float
    """An estimate further from zero than this fails."""
    smallest: float
    """A defect of this size fails with a probability of 99 %."""
    n: int
    """Draws or rows behind the estimate."""

    @property
    def failed(self) -> bool:
        """Whether the defect is there."""
        return not abs(self.effect) <= self.limit

    def __str__(self) -> str:
        if not self.smallest:
            return f"{self.what}: {self.n}"
        seen = f"smallest seen with 99 % power {self.smallest:.2g}"
        return f"{self.what}: {self.effect:+.4g} of {self.n} ({seen})"


def finding(
    what: str,
    effect: float,
    error: float,
    n: int,
    *,
    skewness: float = 0.0,
    sides: int = 2,
    slack: float = 0.0,
    level: float = LEVEL,
) -> Finding:
    r"""Judge an estimate by its standard error.

    Parameters
    ----------
    what : str
    effect, error : float
        The estimate of a defect and its standard error, in the same unit.
    n : int
        Independent terms behind the estimate.
    skewness : float
        Of one term. A studentized mean of skewed terms exceeds the quantile q of a normal more often
        than a normal does; to first order it takes :math:`q + |\gamma| (2 q^2 + 1) / (6 \sqrt n)`
        (Hall 1992, section 2.6).
    sides : {1, 2}
        Whether defects of either sign count, or positive ones only; a negative effect is then zero.
    slack : float
        A numerical error that is no defect.
    level : float

    Examples
    --------
    >>> found = finding("draws too cold", 0.03, 0.5**0.5 / 35_000**0.5, 35_000)
    >>> found.failed, round(found.smallest, 3)
    (True, 0.03)
    """
    q = float(stats.norm.isf(level / sides))
    q += abs(skewness) * (2 * q**2 + 1) / (6 * math.sqrt(n))
    if sides == 1 and not math.isnan(effect):
        effect = max(effect, 0.0)
    limit = q * error + slack
    smallest = limit + float(stats.norm.isf(1 - POWER)) * error
    return Finding(what, float(effect), limit, smallest, n)


def mean_of(what: str, terms: np.ndarray, expected: float = 0.0, unit: float = 1.0) -> Finding:
    """Judge a mean of independent terms, (n,), whose expectation is known; defects are in ``unit``."""
    n = len(terms)
    middle, spread = float(terms.mean()), float(terms.std())
    if spread == 0:
        return finding(what, (middle - expected) / unit, 0.0, n, slack=1e-9)
    skewness = float((((terms - middle) / spread) ** 3).mean())
    error = spread / math.sqrt(n)
    return finding(what, (middle - expected) / unit, error / unit, n, skewness=skewness)


def two_means(what: str, one: np.ndarray, two: np.ndarray) -> Finding:
    """Judge the difference of the means of two independent samples, (n,) and (m,)."""
    n, m = len(one), len(two)
    error = math.sqrt(one.var() / n + two.var() / m)
    spread = math.sqrt(max(one.var(), two.var())) or 1.0
    skewness = max(float(np.abs((((x - x.mean()) / spread) ** 3).mean())) for x in (one, two))
    effect = float(one.mean() - two.mean())
    return finding(what, effect, error, min(n, m), skewness=skewness, slack=1e-12)


def tail_index(weights: np.ndarray) -> float:
    """Hill's estimate of the index of the tail of positive weights: 1/a where P(w > t) falls like
    t^-a. The variance is finite below 1/2.

    >>> rng = np.random.default_rng(0)
    >>> bool(tail_index(rng.pareto(1.0, 10_000)) > 0.8), bool(tail_index(rng.random(10_000)) < 0.1)
    (True, True)
    """
    n = len(weights)
    top = max(10, min(n // 50, int(3 * math.sqrt(n))))
    if n <= top:
        return math.inf
    largest = np.partition(weights, n - top - 1)[n - top - 1 :]
    least = largest.min()
    if least <= 0:
        # More than 98 of 100 weights are zero: nothing is known of the rest.
        return math.inf
    return float(np.log(largest / least).sum() / top)


def can_be_averaged(weights: np.ndarray) -> bool:
    """Whether the mean of importance weights has a standard error that can be trusted."""
    return tail_index(weights) < _MOST_OF_A_TAIL


def weighted_mean(weights: np.ndarray, terms: np.ndarray) -> tuple[float, float]:
    """Self-normalized mean of terms under importance weights, and its standard error."""
    total = weights.sum()
    mean = float(weights @ terms / total)
    error = math.sqrt(float((weights**2) @ (terms - mean) ** 2)) / float(total)
    return mean, error
