"""What stands in the report's tables: parts that may be compared, rows, columns, ranks.

A part holds the runs of one density kind and one base measure. Ranks and best marks never look
beyond it.
"""

import json
import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from densekit.bench.floors import losers
from densekit.bench.records import Record
from densekit.bench.table import amount, pm

Entry = dict[str, Any]
"""``value`` and perhaps ``standard_error``, as records hold them."""

KINDS = {
    "exact": "Exact",
    "lower_bound": "Lower bounds",
    "estimate": "Estimates",
    "none": "No density",
    "unstated": "Unstated",
    "failed": "Failed",
}
_SAYS = {
    "lower_bound": "the model's own score is at least this",
    "estimate": "by Monte Carlo, off to either side",
    "none": "compare the samples",
    "unstated": "the estimator does not say what its score is, so it has no rank",
}
_MEASURES = {
    "lebesgue": "density in the units of the data (lebesgue)",
    "counting": "probability mass (counting)",
    "product": "mass of discrete and density of real entries (product)",
    "unstated": "",
}

HIGHER, LOWER = math.inf, -math.inf
"""What a number should be: as high, as low, or as near to a finite number as can be."""


@dataclass(frozen=True)
class Part:
    """Runs whose scores mean the same."""

    kind: str
    measure: str = ""
    columns: str = ""
    """The measure of each column, where records say it."""
    brief: str = ""

    @classmethod
    def of(cls, record: Record) -> "Part":
        """Where ``record`` belongs."""
        if record.status != "ok":
            return cls("failed")
        if record.score is None:
            return cls("none")
        score = record.score
        columns, brief = score.get("measure", ""), score.get("measure_in_brief", "")
        return cls(score["kind"], score["base_measure"], columns, brief)

    @property
    def place(self) -> tuple[int, str, str, str]:
        """Sorts parts: what is best known comes first."""
        known = list(KINDS)
        place = known.index(self.kind) if self.kind in known else known.index("unstated")
        return place, self.kind, self.measure, self.columns

    @property
    def heading(self) -> str:
        """In the table.

        Examples
        --------
        >>> Part("exact", "counting").heading
        'Exact: probability mass (counting)'
        """
        measure = _MEASURES.get(self.measure, self.measure)
        if ", atoms in" in self.brief:
            measure += self.brief.removeprefix(self.measure)
        says = "; ".join(text for text in (measure, _SAYS.get(self.kind, "")) if text)
        name = KINDS.get(self.kind, self.kind)
        return f"{name}: {says}" if says else name

    @property
    def ranked(self) -> bool:
        """Whether its scores may be put in an order."""
        return self.kind in ("exact", "lower_bound", "estimate")


@dataclass(frozen=True)
class Column:
    """One number of each row."""

    head: str
    read: Callable[[Record], Entry | None]
    wanted: float | None = None
    """:data:`HIGHER`, :data:`LOWER` or a number; None says that neither is better."""
    quality: bool = False
    """Whether the best of a part is marked: costs are not."""
    is_score: bool = False
    """Whether it is the score in some unit, and so comparable as far as the score is."""
    show: Callable[[Entry], str] = pm

    @property
    def says(self) -> str:
        """Under the head: which way is better."""
        if self.wanted is None or not self.quality:
            return ""
        if math.isfinite(self.wanted):
            return f"best near {self.wanted:g}"
        return "higher is better" if self.wanted > 0 else "lower is better"

    def badness(self, value: float) -> float:
        """The lower the better; NaN goes last."""
        if math.isnan(value) or self.wanted is None:
            return math.inf
        if math.isfinite(self.wanted):
            return abs(value - self.wanted)
        return -value if self.wanted > 0 else value


@dataclass
class Cell:
    """A number as it is shown and as it sorts."""

    text: str
    value: float = math.nan
    error: float = 0.0
    best: bool = False
    title: str = ""


@dataclass
class Row:
    """One model with one choice of settings, over all its seeds; or the truth."""

    label: str
    records: list[Record]
    part: Part
    family: str = ""
    cells: list[Cell] = field(default_factory=list)
    rank: int | None = None
    is_truth: bool = False
    below: str = ""
    """The baseline that it loses to."""

    @property
    def baseline(self) -> bool:
        """Whether the suite says that the others are to be held against it."""
        return any(record.run.get("baseline") for record in self.records)

    @property
    def find(self) -> str:
        """What the filter box looks in."""
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
    """The columns that these records fill, in the order of the table."""
    records = list(records)
    present = dict.fromkeys(name for record in records for name in record.metrics)
    order = [name for name in _METRICS if name in present]
    order += [name for name in present if name not in _METRICS]
    made = [Column("nats per row", _score, HIGHER, quality=True, is_score=True)]
    for name in order:
        head, wanted = _METRICS.get(name, (name.replace("_", " "), None))
        quality, is_score = wanted is not None, name in _SCORES
        made.append(Column(head, _metric(name), wanted, quality, is_score))
    made += [
        Column("fit, s", _from("times", "fit"), LOWER, show=_amount),
        Column("scored, rows/s", _from("times", "scored_rows_per_second"), HIGHER, show=_amount),
        Column("sampled, rows/s", _from("times", "sampled_rows_per_second"), HIGHER, show=_amount),
        Column("peak memory, MB", _from("memory", "peak"), LOWER, show=_whole),
        Column("parameters", _parameters, LOWER, show=_whole),
    ]
    return [made[0], *(c for c in made[1:] if any(c.read(r) for r in records))]


def parts(records: Iterable[Record], into: list[Column]) -> list[tuple[Part, list[Row]]]:
    """Rows by part, the best first: seeds of one model are one row.

    A row of several seeds shows their mean ± its standard error over seeds and held-out rows.
    """
    records = list(records)
    groups: dict[tuple[Part, str, str], list[Record]] = {}
    for record in records:
        settings = json.dumps(record.run["settings"], sort_keys=True, default=repr)
        same = f"{record.run['model']} {settings} {record.run['budget']}"
        groups.setdefault((Part.of(record), record.run["label"], same), []).append(record)
    found: dict[Part, list[Row]] = {}
    below = losers(records)
    for (part, label, _), group in groups.items():
        lost = [below[r.id] for r in group if r.id in below]
        row = Row(label, group, part, group[0].family, below=lost[0] if lost else "")
        row.cells = [_cell(column, group) for column in into]
        found.setdefault(part, []).append(row)
    for part, rows in found.items():
        rows.sort(key=lambda row: (into[0].badness(row.cells[0].value), row.label))
        _mark(part, rows, into)
    truth = next((record.truth for record in records if record.truth), None)
    if truth:
        part = Part(truth["kind"], truth["base_measure"])
        # Records of models say the measure of each column; that of the truth is the same.
        part = next((p for p in found if (p.kind, p.measure) == (part.kind, part.measure)), part)
        found.setdefault(part, []).insert(0, _true_row(truth, part, len(into)))
    return sorted(found.items(), key=lambda item: item[0].place)


def _mark(part: Part, rows: list[Row], into: list[Column]) -> None:
    if part.ranked:
        scored = (row for row in rows if not math.isnan(row.cells[0].value))
        for place, row in enumerate(scored, 1):
            row.rank = place
    for i, column in enumerate(into):
        known = [row.cells[i] for row in rows if not math.isnan(row.cells[i].value)]
        # The best of one says nothing, and an unstated score is not comparable at all.
        if not column.quality or len(known) < 2 or (column.is_score and not part.ranked):
            continue
        best = min(known, key=lambda cell: column.badness(cell.value))
        # Two of its own standard errors: those of others would reward noise.
        limit = column.badness(best.value) + 2 * best.error
        for cell in known:
            cell.best = column.badness(cell.value) <= limit < math.inf


def _cell(column: Column, group: list[Record]) -> Cell:
    entries = [entry for record in group if (entry := column.read(record))]
    if not entries:
        return Cell("-")
    title = _outside(group) if column.read is _score else ""
    values = [float(entry["value"]) for entry in entries]
    if len(entries) == 1:
        shown = entries[0]
    elif all(map(math.isfinite, values)):
        shown, spread = _over_seeds(entries, values)
        title = "; ".join(text for text in (title, spread) if text)
    else:
        # The worst: a mean with an infinity in it is none.
        shown = {"value": max(values, key=column.badness)}
    error = shown.get("standard_error") or 0.0
    return Cell(column.show(shown), float(shown["value"]), float(error), title=title)


def _over_seeds(entries: list[Entry], values: list[float]) -> tuple[Entry, str]:
    """The mean over seeds, and their spread in words.

    The error has two parts: other seeds would move the mean, and so would other held-out rows, by
    as much as they move each seed's, for all seeds score the same rows.
    """
    deviation = statistics.stdev(values)
    errors = [entry.get("standard_error") or 0.0 for entry in entries]
    rows = statistics.fmean(e for e in errors if not math.isnan(e)) if any(errors) else 0.0
    error = math.hypot(deviation / math.sqrt(len(values)), rows)
    entry = {"value": statistics.fmean(values), "standard_error": error}
    return entry, f"{len(values)} seeds, standard deviation {deviation:.2g} between them"


def _true_row(truth: dict[str, Any], part: Part, n_columns: int) -> Row:
    row = Row("the truth", [], part, is_truth=True)
    title = "what the density that the data was drawn from scores on the same rows"
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


def _from(group: str, name: str) -> Callable[[Record], Entry | None]:
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
