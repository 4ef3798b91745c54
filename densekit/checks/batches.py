"""Does a row depend on how many there are, on its place among them, or on part of a seed only."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from densekit.checks.agreement import keys_of, samples
from densekit.checks.data import take
from densekit.checks.effort import cost_of
from densekit.checks.power import Finding, two_means
from densekit.checks.sampled import Sampled
from densekit.checks.states import close
from densekit.checks.subject import Subject, check, expect

_SIZES = (2, 7, 63, 64, 65, 257, 1000, 1025, 4097, 5003, 20_011, 131_075, 2**20 + 5)
"""Just above what batches are cut to: an incomplete last one is the usual victim."""
_SEEDS = (0, 1, 2, 3, 4, 7, 8, 16, 100, 255, 256, 257, 1000, 2**15, 2**16, 2**16 + 1, 2**24, 2**31 - 1,
          2**31, 2**32 - 1)  # fmt: skip
_MAIN = 3


def _tables(subject: Subject) -> bool:
    return subject.takes("table")


@check(
    cause="the last, incomplete batch is padded or normalized with what is in it, rows beyond a limit "
    "are left out or computed in another way, or each batch begins anew where it should not",
    when=lambda s: _tables(s) and s.scores,
)
def scores_do_not_depend_on_the_number_of_rows(subject: Subject) -> None:
    """Rows score the same among 2 to 1,048,581 rows, wherever they are, as 64 at a time; as many as the
    effort allows."""
    for name in ("columns3", "line"):
        data = subject.load(name)
        fitted = subject.fitted(data)
        few = data.new[:1009]
        base = np.concatenate(
            [np.asarray(fitted.score_samples(few[i : i + 64])) for i in range(0, len(few), 64)]
        )
        cost = _cost_of_scores(fitted, few)
        most = int(subject.effort.seconds / cost) if name == "columns3" else 20_100
        most = min(most, _SIZES[-1])
        for n in _SIZES:
            if n > max(most, 1100):
                break
            place = np.arange(n) % len(few)
            scores = np.asarray(fitted.score_samples(few[place]))
            expect(scores.shape == (n,), f"scores of shape ({n},)", f"{scores.shape}")
            if not close(scores, base[place]):
                gap = np.abs(scores.astype(float) - base[place])
                i = int(np.nan_to_num(gap, nan=np.inf).argmax())
                expect(
                    False,
                    f"{base[place[i]]:.6g}, the score of the row among 64, at place {i} of {n}",
                    f"{scores[i]:.6g}",
                )
        subject.note("scores compared in one call", most)


def _cost_of_scores(fitted: Any, few: np.ndarray) -> float:
    return cost_of(lambda n: fitted.score_samples(few[np.arange(n) % len(few)]))


@check(
    cause="sample goes by n: a last batch that is made otherwise, a first draw that is special, "
    "stratified or antithetic noise that is laid out by n",
    when=_tables,
    chance=6 * 2 * 3 * 1e-8,
)
def the_law_of_a_row_does_not_depend_on_n(subject: Subject) -> None:
    """The first and the last rows of samples of 1, 4,099 and 5,003 rows, and those beyond 2^20 where
    they are cheap, are of one law, that of a long sample.

    Chance of a false alarm: 1e-8 for each of 36 differences of means, corrected for their skewness.
    """
    for found in samples(subject, (_MAIN,)):
        reference = found.normal_scores(found.draws)
        parts = {"rows beyond 1,048,576": _beyond_a_million(found)}
        for n in (1, 4099, 5003):
            first, last = _ends(found, n)
            parts |= {f"the first row of {n}": first, f"the last 3 rows of {n}": last}
        for what, rows in parts.items():
            if rows is not None:
                s = found.normal_scores(rows)
                subject.judge(_unlike(what, s, reference), f"{what} to be of the law of all draws")


def _unlike(what: str, one: np.ndarray, two: np.ndarray) -> Iterator[Finding]:
    for j in range(one.shape[1]):
        for kind, f in (("shift", _same), ("temperature", _half_square)):
            yield two_means(f"{kind} of column {j} in {what}", f(one[:, j]), f(two[:, j]))


_LONG, _REST = 2**20, 3005
"""A length that batches and counters of 20 bits end at, and how many rows are drawn beyond it."""


def _beyond_a_million(found: Sampled) -> np.ndarray | None:
    """The last rows of a sample of more than 2^20; None where it would cost more than the effort."""
    n = _LONG + _REST

    def some(k: int) -> np.ndarray:
        return np.asarray(found.subject.draw(found.fitted, k, seed=29), dtype=float).reshape(k, -1)

    if cost_of(some) * n > 2 * found.subject.effort.seconds:
        return None
    return some(n)[_LONG:]


def _same(s: np.ndarray) -> np.ndarray:
    return s


def _half_square(s: np.ndarray) -> np.ndarray:
    return s**2 / 2


def _ends(found: Sampled, n: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """First and last rows of as many samples of n as the effort allows; None where they are too few."""
    subject = found.subject

    def some(seed: int) -> np.ndarray:
        return np.asarray(subject.draw(found.fitted, n, seed=seed), dtype=float).reshape(n, -1)

    cost = cost_of(
        lambda k: [some(900 + i) for i in range(max(1, k // 100))] if k > 2 else some(0)
    )
    times = int(min(1500 if n == 1 else 400, subject.effort.seconds / 5 / max(100 * cost, 1e-9)))
    if times < 30:
        return None, None
    found_rows = [some(10_000 + i) for i in range(times)]
    first = np.stack([rows[0] for rows in found_rows])
    return first, None if n == 1 else np.concatenate([rows[-3:] for rows in found_rows])


@check(
    cause="only some bits of the seed are used, or it reaches some columns or some batches only",
    when=_tables,
    chance=1e-9,
)
def every_bit_of_the_seed_counts(subject: Subject) -> None:
    """Twenty seeds from 0 to 4,294,967,295 give samples without a number in common, in any row and in
    any column.

    Chance of a false alarm: that of equal numbers of 32 bits, in more than 1 of 200, below 1e-9.
    """
    data = subject.load("columns3")
    fitted = subject.fitted(data)
    n = 66 if subject.effort.name == "quick" else 200
    made = [np.asarray(subject.draw_with(fitted, n, seed), dtype=float) for seed in _SEEDS]
    for j in range(made[0].shape[1]):
        known: dict[float, int] = {}
        for seed, rows in zip(_SEEDS, made, strict=True):
            shared: dict[int, int] = {}
            for value in set(rows[:, j].tolist()):
                if value in known:
                    shared[known[value]] = shared.get(known[value], 0) + 1
                known[value] = seed
            for other, count in shared.items():
                expect(
                    count <= max(2, n // 50),
                    f"other numbers in column {j} for random_state={seed} than for {other}",
                    f"{count} of {n} the same",
                )


@check(
    cause="training rows are handed out among the draws, or found in a table when they are scored",
    when=_tables,
    chance=1e-9,
)
def no_row_is_remembered(subject: Subject) -> None:
    """No training row is among the draws of the effort, and none scores above a row next to it.

    Chance of a false alarm: none to speak of, as continuous draws do not repeat.
    """
    for found in samples(subject, (_MAIN,)):
        X = found.data.X
        single = np.concatenate([X, X.astype(np.float32).astype(float)])
        copies = int(np.isin(keys_of(found.draws), keys_of(single)).sum())
        expect(copies == 0, f"no training row among {len(found.draws)} draws", f"{copies}")
        subject.note("draws compared with the training rows", len(found.draws))
        if subject.scores:
            _expect_no_peaks(subject, found.fitted, X)


def _expect_no_peaks(subject: Subject, fitted: Any, X: np.ndarray) -> None:
    # A step toward the middle, so that it does not leave the range of the data.
    step = 1e-5 * (np.median(X, 0) - X)
    at, _ = subject.log_density(fitted, X)
    beside, _ = subject.log_density(fitted, X + step)
    rise = at - beside
    i = int(np.nan_to_num(rise).argmax())
    # Rows at the edge of a bin may score higher: two of each column are.
    high = int((np.nan_to_num(rise) > 0.05).sum())
    expect(
        high <= 2 * X.shape[1],
        "training rows that score as rows 1e-5 of the way to the median do",
        f"{high} that score higher, by up to {rise[i]:.3g} nats",
    )


@check(
    cause="float16 on the way, scores that are rounded or looked up in a table, a difference of large "
    "numbers in float32",
    when=lambda s: _tables(s) and s.scores and s.density != "estimate",
)
def scores_are_smooth_to_their_precision(subject: Subject) -> None:
    """Along a line of 2,000 rows half a spread long, scores do not jitter: second differences are those
    of float32 at most."""
    data = subject.load("columns3")
    fitted = subject.fitted(data)
    base, spread = np.median(data.X, 0), data.X.std(0)
    place = np.linspace(-0.25, 0.25, 2000)[:, None]
    for way in (np.eye(3)[0], np.ones(3) / 3**0.5):
        scores, _ = subject.log_density(fitted, base + place * way * spread)
        scores = scores[np.isfinite(scores)]
        if len(scores) < 1000:
            continue
        # The mean would be moved by the one step of a histogram, and not by rounding.
        jumps = np.sort(np.abs(np.diff(scores, 2)))[: int(0.995 * len(scores))]
        size = float(jumps.mean())
        allowed = 4e-5 + 2e-6 * float(np.abs(scores).max())
        expect(
            size < allowed,
            f"second differences of scores below {allowed:.2g} on average along {way.round(2)}",
            f"{size:.2g}",
        )


@check(
    cause="rows are scored under the context of another row, or all under the first one",
    when=lambda s: s.scores and s.context == "features" and s.takes("table"),
)
def rows_keep_their_contexts(subject: Subject) -> None:
    """Each row is scored under its own context: among others as alone, in any order, and one context
    for all as the same one repeated."""
    data = subject.load("contextual")
    fitted = subject.fitted(data, 300)
    n = 300
    rows, given = data.new[:n], take(data.new_context, slice(0, n))
    whole = fitted.score_samples(rows, context=given)
    order = np.random.default_rng(subject.seeded(3)).permutation(n)
    mixed = fitted.score_samples(rows[order], context=given.iloc[order].reset_index(drop=True))
    expect(close(whole[order], mixed), "scores that go with their context in any order", "others")
    for i in (0, 1, 17):
        alone = fitted.score_samples(rows[i : i + 1], context=given.iloc[i : i + 1])
        expect(
            close(whole[i : i + 1], alone), f"row {i} to score alone as among others", "otherwise"
        )
    one = given.iloc[[5] * n].reset_index(drop=True)
    a = fitted.score_samples(rows, context=one)
    b = fitted.score_samples(rows, context=given.iloc[[5]])
    expect(close(a, b), "one context for all rows to be that context repeated", "other scores")
    big = np.arange(5003) % n
    many = fitted.score_samples(rows[big], context=given.iloc[big].reset_index(drop=True))
    expect(close(many, whole[big]), "rows among 5,003 to keep their context", "other scores")
