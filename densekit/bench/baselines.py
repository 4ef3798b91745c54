"""Comparison of scores with the baseline of their data set."""

import math
from collections.abc import Iterable

from densekit.bench.records import Record

MARK = "†"


def below_baseline(records: Iterable[Record]) -> dict[str, str]:
    """Records that score below a baseline: the label of the best such baseline by the record's id.

    A score is below a baseline with the same data, kind and measure if it is lower by more than two
    standard errors of the difference, where the two scores are treated as independent. An exact score
    is also compared with a lower bound, because the baseline's exact score can only be higher.
    """
    records = [r for r in records if r.status == "ok" and (r.score or {}).get("value") is not None]
    labels: dict[str, str] = {}
    for record in records:
        baselines = [b for b in records if b.run.get("baseline") and b is not record]
        better = [b for b in baselines if _comparable(record, b) and _is_below(record, b)]
        if better:
            best = max(better, key=lambda b: b.score["value"])  # type: ignore[index]
            labels[record.id] = str(best.run["label"])
    return labels


def _measure(score: dict[str, object]) -> str:
    """The measure of each column, or the base measure if a record has no more."""
    return str(score.get("measure") or score["base_measure"])


def _comparable(record: Record, baseline: Record) -> bool:
    score, reference = record.score, baseline.score
    assert score is not None
    assert reference is not None
    kinds = score["kind"], reference["kind"]
    same_data = record.run["data"] == baseline.run["data"]
    if not same_data or _measure(score) != _measure(reference) or "unstated" in kinds:
        return False
    return kinds[0] == kinds[1] or kinds == ("exact", "lower_bound")


def _is_below(record: Record, baseline: Record) -> bool:
    score, reference = record.score or {}, baseline.score or {}
    errors = (s.get("standard_error") or 0.0 for s in (score, reference))
    spread = math.hypot(*(e if math.isfinite(e) else 0.0 for e in errors))
    return bool(score["value"] < reference["value"] - 2 * spread)
