"""Tables of the report: parts with comparable scores, rows, columns and ranks.

A part contains the runs with one density kind and one measure. Ranks and best marks are within a part.
"""

import json
import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from densekit.bench.baselines import below_baseline
from densekit.bench.records import Record
from densekit.bench.table import amount, pm

Entry = dict[str, Any]
"""A number in a record: ``value`` and optionally ``standard_error``."""

KINDS = {
    "exact": "Exact",
    "lower_bound": "Lower bounds",
    "estimate": "Estimates",
    "none": "No density",
    "unstated": "Unstated",
    "failed": "Failed",
}
_EXPLANATIONS = {
    "lower_bound": "the exact score is at least this",
    "estimate": "by Monte Carlo, with errors in both directions",
    "none": "compare the samples",
    "unstated": "the estimator does not state the kind of its scores, so it has no rank",
}
_MEASURES = {
    "lebesgue": "density in the units of the data (lebesgue)",
    "counting": "probability mass (counting)",
    "product": "mass of discrete and density of real entries (product)",
    "unstated": "",
}

HIGHER, LOWER = math.inf, -math.inf
"""Targets of a column: the best value is the highest, the lowest, or that closest to a finite number."""


@dataclass(frozen=True)
class Part:
    """The density kind and measure of runs whose scores are comparable."""

    kind: str
    measure: str = ""
    columns: str = ""
    """The measure of each column, if records have it."""
    brief: str = ""
    """A short form of the measure."""

    @classmethod
    def of(cls, record: Record) -> "Part":
        """The part to which ``record`` belongs."""
        if record.status != "ok":
            return cls("failed")
        if record.score is None:
            return cls("none")
        score = record.score
        columns, brief = score.get("measure", ""), score.get("measure_in_brief", "")
        return cls(score["kind"], score["base_measure"], columns, brief)

    @property
    def sort_key(self) -> tuple[int, str, str, str]:
        """Key that sorts parts by kind, exact scores first."""
        known = list(KINDS)
        position = known.index(self.kind) if self.kind in known else known.index("unstated")
        return position, self.kind, self.measure, self.columns

    @property
    def heading(self) -> str:
        """Heading of the part in the table.

        Examples
        --------
        >>> Part("exact", "counting").heading
        'Exact: probability mass (counting)'
        """
        measure = _MEASURES.get(self.measure, self.measure)
        if ", atoms in" in self.brief:
            measure += self.brief.removeprefix(self.measure)
        details = "; ".join(text for text in (measure, _EXPLANATIONS.get(self.kind, "")) if text)
        name = KINDS.get(self.kind, self.kind)
        return f"{name}: {details}" if details else name

    @property
    def ranked(self) -> bool:
        """Whether its scores can be ranked."""
        return self.kind in ("exact", "lower_bound", "estimate")


@dataclass(frozen=True)
class Column:
    """A column of numbers."""

    head: str
    entry: Callable[[Record], Entry | None]
    """Returns the number of a record."""
    wanted: float | None = None
    """The target: :data:`HIGHER`, :data:`LOWER` or a number; None if no value is better."""
    quality: bool = False
    """Whether the best values of a part are marked; costs such as times are not."""
    is_score: bool = False
    """Whether it is the score in some unit, and thus comparable only where the score is."""
    show: Callable[[Entry], str] = pm

    @property
    def direction(self) -> str:
        """The direction in which values are better, in words."""
        if self.wanted is None or not self.quality:
            return ""
        if math.isfinite(self.wanted):
            return f"best near {self.wanted:g}"
        return "higher is better" if self.wanted > 0 else "lower is better"

    def badness(self, value: float) -> float:
        """Distance of a value from the target, for sorting; infinite for NaN."""
        if math.isnan(value) or self.wanted is None:
            return math.inf
        if math.isfinite(self.wanted):
            return abs(value - self.wanted)
        return -value if self.wanted > 0 else value


@dataclass
class Cell:
    """A number of a row with its text in the table."""

    text: str
    value: float = math.nan
    error: float = 0.0
    best: bool = False
    title: str = ""


@dataclass
class Row:
    """One model with one choice of settings over all its seeds, or the true density."""

    label: str
    records: list[Record]
    part: Part
    family: str = ""
    cells: list[Cell] = field(default_factory=list)
    rank: int | None = None
    is_truth: bool = False
    below: str = ""
    """The baseline above its score, if there is one."""

    @property
    def baseline(self) -> bool:
        """Whether it is the baseline of the data set."""
        return any(record.run.get("baseline") for record in self.records)

    @property
    def find(self) -> str:
        """The text that the filter of the page searches."""
        runs = (f"{r.run['data']} {r.run['model']} {r.reason}" for r in self.records)
        words = [self.label, self.family, KINDS.get(self.part.kind, ""), self.part.measure, *runs]
        return " ".join([*words, "baseline" if self.baseline else ""]).lower()


_SCORES = (
    "bits_per_dim", "bits_per_character", "bits_per_byte", "nats_per_character", "perplexity"
)  # fmt: skip
_METRICS: dict[str, tuple[str, float]] = {
    "bits_per_dim": ("bits/dim", LOWER),
    "bits_per_character": ("bits/char", LOWER),
    "bits_per_byte": ("bits/byte", LOWER),
    "nats_per_character": ("nats/char", LOWER),
    "perplexity": ("perplexity", LOWER),
    "two_sample_auc": ("two-sample AUC", 0.5),
    "energy_distance": ("energy distance", 0.0),
    "mmd": ("MMD", 0.0),
    "sliced_wasserstein": ("sliced Wasserstein", LOWER),
    "precision": ("precision", HIGHER),
    "recall": ("recall", HIGHER),
    "density": ("density", 1.0),
    "coverage": ("coverage", HIGHER),
    "pit": ("PIT distance", LOWER),
    "hpd": ("HPD distance", LOWER),
}


def columns(records: Iterable[Record]) -> list[Column]:
    """The columns for which the records have values, in the order of the table."""
    records = list(records)
    present = dict.fromkeys(name for record in records for name in record.metrics)
    order = [name for name in _METRICS if name in present]
    order += [name for name in present if name not in _METRICS]
    result = [Column("nats per row", _score, HIGHER, quality=True, is_score=True)]
    for name in order:
        head, wanted = _METRICS.get(name, (name.replace("_", " "), None))
        quality, is_score = wanted is not None, name in _SCORES
        result.append(Column(head, _metric(name), wanted, quality, is_score))
    result += [
        Column("fit, s", _number_of("times", "fit"), LOWER, show=_amount),
        Column(
            "scored, rows/s", _number_of("times", "scored_rows_per_second"), HIGHER, show=_amount
        ),
        Column(
            "sampled, rows/s", _number_of("times", "sampled_rows_per_second"), HIGHER, show=_amount
        ),
        Column("peak memory, MB", _number_of("memory", "peak"), LOWER, show=_whole),
        Column("parameters", _parameters, LOWER, show=_whole),
    ]
    return [result[0], *(c for c in result[1:] if any(c.entry(r) for r in records))]


def parts(records: Iterable[Record], into: list[Column]) -> list[tuple[Part, list[Row]]]:
    """The rows of each part, best first. The seeds of a model with the same settings are one row."""
    records = list(records)
    groups: dict[tuple[Part, str, str], list[Record]] = {}
    for record in records:
        settings = json.dumps(record.run["settings"], sort_keys=True, default=repr)
        group_key = f"{record.run['model']} {settings} {record.run['budget']}"
        groups.setdefault((Part.of(record), record.run["label"], group_key), []).append(record)
    by_part: dict[Part, list[Row]] = {}
    below = below_baseline(records)
    for (part, label, _), group in groups.items():
        baselines = [below[r.id] for r in group if r.id in below]
        row = Row(label, group, part, group[0].family, below=baselines[0] if baselines else "")
        row.cells = [_cell(column, group) for column in into]
        by_part.setdefault(part, []).append(row)
    for part, rows in by_part.items():
        rows.sort(key=lambda row: (into[0].badness(row.cells[0].value), row.label))
        _rank_and_mark(part, rows, into)
    truth = next((record.truth for record in records if record.truth), None)
    if truth:
        part = Part(truth["kind"], truth["base_measure"])
        # Records of models also have the measure of each column, which is that of the true density.
        part = next((p for p in by_part if (p.kind, p.measure) == (part.kind, part.measure)), part)
        by_part.setdefault(part, []).insert(0, _true_row(truth, part, len(into)))
    return sorted(by_part.items(), key=lambda item: item[0].sort_key)


def _rank_and_mark(part: Part, rows: list[Row], into: list[Column]) -> None:
    """Set the ranks of rows, and mark the best cells of each column."""
    if part.ranked:
        scored = (row for row in rows if not math.isnan(row.cells[0].value))
        for rank, row in enumerate(scored, 1):
            row.rank = rank
    for i, column in enumerate(into):
        known = [row.cells[i] for row in rows if not math.isnan(row.cells[i].value)]
        # A single value has no best, and scores of unstated kind are not comparable.
        if not column.quality or len(known) < 2 or (column.is_score and not part.ranked):
            continue
        best = min(known, key=lambda cell: column.badness(cell.value))
        # The tolerance uses the error of the best value; the error of each value would reward noise.
        limit = column.badness(best.value) + 2 * best.error
        for cell in known:
            cell.best = column.badness(cell.value) <= limit < math.inf


def _cell(column: Column, group: list[Record]) -> Cell:
    entries = [entry for record in group if (entry := column.entry(record))]
    if not entries:
        return Cell("-")
    title = _outside(group) if column.entry is _score else ""
    values = [float(entry["value"]) for entry in entries]
    if len(entries) == 1:
        shown = entries[0]
    elif all(map(math.isfinite, values)):
        shown, spread = _over_seeds(entries, values)
        title = "; ".join(text for text in (title, spread) if text)
    else:
        # A mean with an infinite value is not informative, so the worst value is shown.
        shown = {"value": max(values, key=column.badness)}
    error = shown.get("standard_error") or 0.0
    return Cell(column.show(shown), float(shown["value"]), float(error), title=title)


def _over_seeds(entries: list[Entry], values: list[float]) -> tuple[Entry, str]:
    """The mean over seeds with its standard error, and the spread of the seeds in words.

    The error combines two parts: the variation between seeds, and that between held-out rows. The second
    does not fall with the number of seeds, because all seeds score the same rows.
    """
    deviation = statistics.stdev(values)
    errors = [entry.get("standard_error") or 0.0 for entry in entries]
    rows = statistics.fmean(e for e in errors if not math.isnan(e)) if any(errors) else 0.0
    error = math.hypot(deviation / math.sqrt(len(values)), rows)
    entry = {"value": statistics.fmean(values), "standard_error": error}
    return entry, f"{len(values)} seeds, standard deviation {deviation:.2g} between them"


def _true_row(truth: dict[str, Any], part: Part, n_columns: int) -> Row:
    row = Row("the truth", [], part, is_truth=True)
    title = "the score of the density from which the data were drawn, on the same rows"
    if truth.get("entropy") is not None:
        title += f"; minus its entropy is {-truth['entropy']:.4g}"
    row.cells = [Cell(pm(truth), float(truth["value"]), title=title)]
    row.cells += [Cell("") for _ in range(n_columns - 1)]
    return row


def _outside(group: list[Record]) -> str:
    lines = [
        f"seed {r.run['seed']}: {r.score['n_outside']} of {r.score['n_rows']} rows score -inf"
        for r in group
        if r.score and r.score.get("n_outside")
    ]
    return "; ".join(lines)


def _score(record: Record) -> Entry | None:
    return record.score if record.score and record.score.get("value") is not None else None


def _metric(name: str) -> Callable[[Record], Entry | None]:
    def read(record: Record) -> Entry | None:
        entry = record.metrics.get(name)
        return entry if entry and entry.get("value") is not None else None

    return read


def _number_of(group: str, name: str) -> Callable[[Record], Entry | None]:
    def read(record: Record) -> Entry | None:
        value = getattr(record, group).get(name)
        return None if value is None else {"value": value}

    return read


def _parameters(record: Record) -> Entry | None:
    return None if record.n_parameters is None else {"value": record.n_parameters}


def _amount(entry: Entry) -> str:
    return amount(entry["value"])


def _whole(entry: Entry) -> str:
    return f"{entry['value']:,.0f}"
