"""Which models lose to the baseline of their data set."""

import math
from collections.abc import Iterable

from densekit.bench.records import Record

MARK = "†"


def losers(records: Iterable[Record]) -> dict[str, str]:
    """The baseline that a record's score lies below, by the record's id.

    A score loses to a baseline of the same data, kind and measure if it is lower by more than two
    standard errors of the difference, taken as if the two were independent. An exact score loses to a
    baseline's lower bound too, since that baseline is better still.
    """
    records = [r for r in records if r.status == "ok" and (r.score or {}).get("value") is not None]
    found: dict[str, str] = {}
    for record in records:
        floors = (f for f in records if f.run.get("baseline") and f is not record)
        below = [f for f in floors if _comparable(record, f) and _loses(record, f)]
        if below:
            best = max(below, key=lambda f: f.score["value"])  # type: ignore[index]
            found[record.id] = str(best.run["label"])
    return found


def measure_of(score: dict[str, object]) -> str:
    """What a score is over, column by column where its record says so."""
    return str(score.get("measure") or score["base_measure"])


def _comparable(record: Record, floor: Record) -> bool:
    mine, other = record.score, floor.score
    assert mine is not None
    assert other is not None
    same_data = record.run["data"] == floor.run["data"]
    if (
        not same_data
        or measure_of(mine) != measure_of(other)
        or "unstated" in (mine["kind"], other["kind"])
    ):
        return False
    return mine["kind"] == other["kind"] or (mine["kind"], other["kind"]) == (
        "exact",
        "lower_bound",
    )


def _loses(record: Record, floor: Record) -> bool:
    mine, other = record.score or {}, floor.score or {}
    errors = (s.get("standard_error") or 0.0 for s in (mine, other))
    spread = math.hypot(*(e if math.isfinite(e) else 0.0 for e in errors))
    return bool(mine["value"] < other["value"] - 2 * spread)
