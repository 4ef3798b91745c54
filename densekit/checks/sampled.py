"""Draws of a fitted estimator and rows with importance weights, made once and shared by the checks."""

import math
from collections import OrderedDict
from collections.abc import Iterator
from functools import cached_property, partial
from typing import Any

import numpy as np
from scipy import special

from densekit.checks.data import Data, take
from densekit.checks.effort import cost_of
from densekit.checks.power import can_be_averaged
from densekit.checks.proposals import Proposal
from densekit.checks.subject import Subject, expect

_PILOT = 4000
"""Draws that place the proposal and the normal scores; no statistic is made of them."""
_CROSS = 4000
"""Draws that are weighed too, to see whether the proposal misses a part of the density."""
_MEMORY = 2**23
"""Numbers of one sample at most."""
_MADE: "OrderedDict[Any, Sampled]" = OrderedDict()
_KEEP = 6


def sampled(subject: Subject, fitted: Any, data: Data, share: float = 1.0) -> "Sampled":
    """The samples of a fit that checks share; ``share`` of the effort goes into them."""
    key = (id(fitted), data.name, subject.effort, subject.seed, share)
    if key not in _MADE:
        _MADE[key] = Sampled(subject, fitted, data, share)
        while len(_MADE) > _KEEP:
            _MADE.popitem(last=False)
    return _MADE[key]


class Sampled:
    """Draws, and rows of a proposal with weights p/q, as many as the effort allows.

    Under a context each row has another one, drawn from those of the held-out rows. Normal scores of a
    column are the normal quantiles of the ranks among a pilot sample: they have moments whatever the
    density's tails are, and see what the density's own units would hide.
    """

    def __init__(self, subject: Subject, fitted: Any, data: Data, share: float) -> None:
        self.subject, self.fitted, self.data, self.share = subject, fitted, data, share
        self.d = np.shape(data.X)[1]
        self.single = "max_steps" in subject.params

    def given(self, n: int, seed: int) -> Any:
        """n rows of context, or None."""
        if self.data.new_context is None:
            return None
        rng = np.random.default_rng(self.subject.seeded(seed))
        rows = rng.integers(0, len(self.data.new_context), n)
        return take(self.data.new_context, rows).reset_index(drop=True)

    def _draw(self, n: int, given: Any, seed: int) -> np.ndarray:
        options = {} if given is None else {"context": given}
        drawn = self.subject.draw(self.fitted, n, seed=seed, **options)
        x = np.asarray(drawn, dtype=float).reshape(n, self.d)
        odd = int((~np.isfinite(x)).any(1).sum())
        expect(not odd, "finite draws", f"{odd} of {n} that are not, in {self.d} columns")
        return x

    def _rows(self, cost: float) -> int:
        n = self.subject.effort.rows(cost / self.share)
        return max(min(n, _MEMORY // self.d, int(n * self.share) + 500), 200)

    @cached_property
    def pilot_given(self) -> Any:
        """Contexts of the pilot."""
        return self.given(min(_PILOT, 2 * self.subject.effort.least), 21)

    @cached_property
    def pilot(self) -> np.ndarray:
        """Draws (m, d) apart from all others."""
        n = min(_PILOT, 2 * self.subject.effort.least)
        return self._draw(n, self.pilot_given, 22)

    @cached_property
    def draws_given(self) -> Any:
        """Contexts of the draws."""
        return self.given(self.n_draws, 23)

    @cached_property
    def n_draws(self) -> int:
        """Number of draws, by what one costs."""
        some = self.given(16_000, 20)

        def act(n: int) -> Any:
            return self._draw(n, None if some is None else take(some, slice(0, n)), 20)

        return self._rows(cost_of(act))

    @cached_property
    def draws(self) -> np.ndarray:
        """Draws (n, d) of the fitted estimator that the statistics are made of, as many as the effort
        allows."""
        return self._draw(self.n_draws, self.draws_given, 24)

    # Normal scores

    @cached_property
    def _ranked(self) -> list[tuple[np.ndarray, np.ndarray]]:
        found = []
        for column in self.pilot.T:
            values, counts = np.unique(column, return_counts=True)
            ranks = np.cumsum(counts) - counts / 2
            found.append((values, special.ndtri(ranks / len(column))))
        return found

    def normal_scores(self, x: np.ndarray) -> np.ndarray:
        """Normal scores (n, d) of rows (n, d)."""
        parts = zip(x.T, self._ranked, strict=True)
        return np.stack([np.interp(v, *known) for v, known in parts], 1)

    # Importance sampling

    @cached_property
    def proposal(self) -> Proposal:
        """A law with a density from which rows like the pilot can be drawn."""
        rng = np.random.default_rng(self.subject.seeded(25))
        return Proposal.of(self.pilot, self._features(self.pilot_given), rng)

    def _features(self, given: Any) -> np.ndarray | None:
        return None if given is None else context_features(given)

    def _weigh(self, n: int, given: Any, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng = np.random.default_rng(self.subject.seeded(seed))
        x, log_q = self.proposal.draw(n, self._features(given), rng)
        options = {} if given is None else {"context": given}
        logp, error = self.subject.log_density(self.fitted, x, **options)
        return x, logp - log_q, error

    @cached_property
    def n_weighed(self) -> int:
        """Number of rows of the proposal, by what proposing and scoring one costs."""
        some = self.given(16_000, 26)

        def act(n: int) -> Any:
            return self._weigh(n, None if some is None else take(some, slice(0, n)), 26)

        return self._rows(cost_of(act))

    @cached_property
    def weighed_given(self) -> Any:
        """Contexts of the weighed rows."""
        return self.given(self.n_weighed, 27)

    @cached_property
    def weighed(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows (n, d) of the proposal, log p - log q, (n,), and standard errors of log p, (n,)."""
        return self._weigh(self.n_weighed, self.weighed_given, 28)

    @cached_property
    def weights(self) -> np.ndarray:
        """p/q of the weighed rows, (n,)."""
        with np.errstate(over="ignore"):
            weights: np.ndarray = np.exp(self.weighed[1])
        return weights

    @cached_property
    def can_be_averaged(self) -> bool:
        r"""Whether means under these weights have a standard error that can be trusted.

        Their tail must be light, and no part of the density may be missing from the proposal. The mass
        of rows whose weight exceeds t is :math:`E_q[w; w > t] = P_p(w > t)`, so that draws of p heavier
        than the heaviest row of q count the mass that the weighed rows did not see.
        """
        weights = self.weights
        if not can_be_averaged(weights):
            return False
        most, n = float(weights.max()), len(weights)
        some = slice(0, _CROSS)
        x = self.draws[some]
        given = None if self.draws_given is None else take(self.draws_given, some)
        options = {} if given is None else {"context": given}
        logp, _ = self.subject.log_density(self.fitted, x, **options)
        log_w = logp - self.proposal.log_density(x, self._features(given))
        heavier = int((log_w > np.log(most)).sum())
        return heavier <= 5 + 3 * len(x) * most / n


def context_features(given: Any) -> np.ndarray:
    """Columns of a context as numbers, (n, k): categories as indicators of all but the first."""
    columns = []
    for name in given.columns:
        column = given[name]
        if hasattr(column, "cat"):
            codes = np.asarray(column.cat.codes)
            columns += [(codes == k).astype(float) for k in range(1, len(column.cat.categories))]
        else:
            columns.append(np.asarray(column, dtype=float))
    return np.stack(columns, 1)


def features(s: np.ndarray) -> Iterator[tuple[str, partial[np.ndarray]]]:
    """What a sample of (nearly) standard normal columns (n, d) is compared by: a defect in words, and
    the function of rows whose mean moves by the size of the defect."""
    d = s.shape[1]
    for j in range(d):
        yield f"shift of column {j}, in spreads", partial(_column, j)
        yield f"temperature of column {j}, its spread less one", partial(_square, j)
        share = float(special.ndtr(-2))
        for side, name in ((-1, "lower"), (1, "upper")):
            what = f"{name} tail of column {j} beyond 2 spreads, share of it less one"
            yield what, partial(_tail, j, side, 2.0, share)
        for k in (1, 2):
            yield f"wave sin({2 * k} pi u) in column {j}, its height", partial(_wave, j, k, np.sin)
            yield f"wave cos({2 * k} pi u) in column {j}, its height", partial(_wave, j, k, np.cos)
    for i in range(d):
        for j in range(i):
            yield f"correlation of columns {j} and {i}", partial(_product, i, j)


def _column(j: int, s: np.ndarray) -> np.ndarray:
    return s[:, j]


def _square(j: int, s: np.ndarray) -> np.ndarray:
    return s[:, j] ** 2 / 2


def _product(i: int, j: int, s: np.ndarray) -> np.ndarray:
    return s[:, i] * s[:, j]


def _tail(j: int, side: int, at: float, share: float, s: np.ndarray) -> np.ndarray:
    return np.where(side * s[:, j] > at, 1 / share, 0.0)


def _wave(j: int, k: int, f: Any, s: np.ndarray) -> np.ndarray:
    terms: np.ndarray = 2 * f(2 * math.pi * k * special.ndtr(s[:, j]))
    return terms


def expected_of(what: str) -> float:
    """The mean of a feature over standard normal columns."""
    if what.startswith(("lower", "upper")):
        return 1.0
    return 0.5 if what.startswith("temperature") else 0.0
