"""Tables of records for the terminal, one per data set.

Scores of different density kinds or measures are not comparable. They are in separate parts of the
table, and rows are sorted within a part.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from densekit.bench.baselines import MARK, below_baseline
from densekit.bench.records import Record

_KINDS = {
    "exact": "exact",
    "lower_bound": "lower bound",
    "estimate": "estimate",
    "unstated": "kind not stated",
    "none": "no density",
}
_UNITS = {
    "bits_per_dim": "bits/dim",
    "bits_per_character": "bits/char",
    "two_sample_auc": "two-sample\nAUC",
}

MIN_WIDTH = 110
"""Least width of a table. A narrower terminal wraps lines, but no number is truncated."""


def tables(records: Iterable[Record]) -> RenderableType:
    """A table for each data set, in the order of the records."""
    by_data: dict[str, list[Record]] = {}
    for record in records:
        by_data.setdefault(record.run["data"], []).append(record)
    return Group(*(_table(name, group) for name, group in by_data.items()))


def pm(entry: dict[str, Any] | None) -> str:
    """A value as ``value ± standard error``, rounded to the second digit of the error.

    Examples
    --------
    >>> pm({"value": -12.34567, "standard_error": 0.0321})
    '-12.346 ± 0.032'
    >>> pm({"value": -1234.5, "standard_error": 45.6})
    '-1234 ± 46'
    >>> pm({"value": 146174518.0, "standard_error": 22749442.0})
    '1.46e+08 ± 2.3e+07'
    """
    if entry is None or entry.get("value") is None:
        return "-"
    value, error = entry["value"], entry.get("standard_error")
    if error is None or not math.isfinite(error):
        return f"{value:.4g}"
    if error >= 1e5:
        return f"{value:.3g} ± {error:.2g}"
    if error < 1e-6:
        return f"{value:.4f} ± 0"
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def amount(value: float | None) -> str:
    """A number of seconds or of rows per second with two digits and no exponent.

    Examples
    --------
    >>> amount(0.01234), amount(7.25), amount(123456.0)
    ('0.012', '7.2', '120,000')
    """
    if value is None:
        return "-"
    if value >= 100:
        digits = 10 ** (math.floor(math.log10(value)) - 1)
        return f"{round(value / digits) * digits:,.0f}"
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def result(record: Record) -> str:
    """The result of a run in one line."""
    if record.status == "failed":
        return f"FAILED: {record.reason}"
    if record.score is None:
        return "no density, by design"
    score = record.score
    return f"{pm(score)} {score['unit']} ({score['kind']}, {score['base_measure']})"


def _part(record: Record) -> tuple[int, str]:
    """The position and heading of the part of the table to which a record belongs."""
    if record.status == "failed":
        return len(_KINDS), "failed"
    if record.score is None:
        return len(_KINDS) - 1, _KINDS["none"]
    kind = record.score["kind"]
    measure = record.score.get("measure_in_brief") or record.score["base_measure"]
    position = list(_KINDS).index(kind if kind in _KINDS else "unstated")
    heading = _KINDS.get(kind, kind)
    return position, heading if measure == "unstated" else f"{heading}, {measure}"


def _table(name: str, records: list[Record]) -> Table:
    data = next((r.data for r in records if r.data), {})
    extra = [key for key in _UNITS if any(key in r.metrics for r in records)]
    size = ""
    if data:
        dims = f", {data['n_dims']} dimensions" if data["n_dims"] else ""
        size = f": {data['modality']}, {data['n_train']} training rows, {data['n_test']} held out{dims}"
    title = f"[bold]{escape(name)}[/bold]{size}"
    table = Table(title=title, title_justify="left", title_style="", box=SIMPLE_HEAD)
    table.padding = (0, 1, 0, 0)
    table.add_column("model", no_wrap=True)
    table.add_column("family", no_wrap=True)
    units = (_UNITS[key] for key in extra)
    for head in ("nats per row", *units, "fit\ns", "scored\nrows/s", "sampled\nrows/s"):
        table.add_column(head, justify="right", no_wrap=True)
    parts: dict[tuple[int, str], list[list[str]]] = {}
    names, below = labels(record.run for record in records), below_baseline(records)
    if below:
        table.caption, table.caption_justify = f"{MARK} below the baseline of the data", "left"
    for record in sorted(records, key=_value, reverse=True):
        name = names[record.key] + f" {MARK}" * (record.id in below)
        parts.setdefault(_part(record), []).append(_row(record, name, extra))
    truth = next((r.truth for r in records if r.truth), None)
    if truth:
        row = ["the truth", "", pm(truth), *("" for _ in extra), "", "", ""]
        measure = f"{_KINDS[truth['kind']]}, {truth['base_measure']}"
        parts.setdefault((0, measure), []).insert(0, row)
    blank = [""] * (len(extra) + 5)
    for (_, heading), rows in sorted(parts.items()):
        table.add_row(f"[italic]{escape(heading)}[/italic]", *blank)
        for row in rows:
            table.add_row(*(escape(cell) for cell in ["  " + row[0], *row[1:]]))
    return table


def _value(record: Record) -> float:
    value = (record.score or {}).get("value")
    return -math.inf if value is None else value


def labels(runs: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Names of runs by key: the label, with the seed if several runs of a data set have that label.

    Examples
    --------
    >>> run = {"data": "digits", "label": "VAE"}
    >>> labels([run | {"seed": 0, "key": "a"}, run | {"seed": 1, "key": "b"}])
    {'a': 'VAE, seed 0', 'b': 'VAE, seed 1'}
    """
    runs = list(runs)
    count = Counter((run["data"], run["label"]) for run in runs)
    return {
        run["key"]: f"{run['label']}, seed {run['seed']}"
        if count[run["data"], run["label"]] > 1
        else run["label"]
        for run in runs
    }


def _row(record: Record, label: str, extra: list[str]) -> list[str]:
    times = record.times
    if record.status == "failed":
        score = "failed"
    else:
        score = pm(record.score) if record.score else "none"
    return [
        label,
        record.family,
        score,
        *(pm(record.metrics.get(key)) for key in extra),
        amount(times.get("fit")),
        amount(times.get("scored_rows_per_second")),
        amount(times.get("sampled_rows_per_second")),
    ]
