"""Renders the records and samples of a benchmark as a page, ``report.html``."""

import json
import math
import re
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from densekit import datasets
from densekit.atomic import replacing
from densekit.bench.records import Record, read
from densekit.bench.report.pictures import (
    FAMILIES,
    Point,
    learning_curve,
    time_against_score,
)
from densekit.bench.report.rows import KINDS, Column, Part, Row, columns, parts
from densekit.bench.report.samples import Gallery, Look
from densekit.bench.table import amount, result

_HERE = Path(__file__).parent
FILE = "report.html"


@dataclass
class Section:
    """The part of the page about one data set."""

    name: str
    anchor: str
    data: dict[str, Any]
    columns: list[Column]
    parts: list[tuple[Part, list[Row]]]
    notes: list[str] = field(default_factory=list)
    published: list[dict[str, Any]] = field(default_factory=list)
    times: list[tuple[Part, Markup]] = field(default_factory=list)
    curves: list[tuple[Row, Markup]] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)


def write_report(folder: Path) -> Path:
    """Write ``report.html``, a self-contained page about the results in a folder.

    For each data set the page has a table, in which scores of different density kinds and base
    measures are separate, plots of time against score, learning curves and samples. It also has
    failures, warnings and all settings. The same files give the same bytes. Several seeds of a
    model are one row with their mean and its standard error over seeds and held-out rows. Pictures
    show the first seed.

    Parameters
    ----------
    folder : Path
        Output folder of a benchmark.

    Returns
    -------
    path : Path
        The path of the page.

    Raises
    ------
    ValueError
        The folder does not exist, or it has no records or records of another format.
    OSError
        The page cannot be written. An existing page is unchanged.

    Examples
    --------
    >>> write_report(Path("nowhere"))
    Traceback (most recent call last):
    ValueError: nowhere is not a folder: a report needs the output ...
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(
            f"{folder} is not a folder: a report needs the output folder of densekit bench"
        )
    records = read(folder)
    if not records:
        raise ValueError(
            f"{folder} has no benchmark records: run densekit bench with --out {folder} first"
        )
    path = folder / FILE
    with replacing(path) as part:
        part.write_text(_page(records, folder), encoding="utf-8")
    return path


def _page(records: list[Record], folder: Path) -> str:
    families = {record.run["model"]: record.family for record in records if record.family}
    by_data: dict[str, list[Record]] = {}
    for record in records:
        # The record of a run that was killed early has no family.
        record.family = record.family or families.get(record.run["model"], "other")
        by_data.setdefault(record.run["data"], []).append(record)
    numbers = {id(record): f"run-{i}" for i, record in enumerate(records, 1)}
    loader = jinja2.FileSystemLoader(_HERE)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"plain_json": _json, "breakable": _breakable}
    failed = [record for record in records if record.status != "ok"]
    return environment.get_template("template.html.j2").render(
        style=Markup((_HERE / "style.css").read_text(encoding="utf-8")),
        script=Markup((_HERE / "page.js").read_text(encoding="utf-8")),
        suites=_distinct(record.suite for record in records),
        days=_days(records),
        machine=list(_machine(records)),
        n_runs=len(records),
        n_failed=len(failed),
        sections=[_section(name, group, folder) for name, group in by_data.items()],
        failed=failed,
        warnings=_warnings(records),
        records=records,
        number=lambda record: numbers[id(record)],
        kinds={k: v for k, v in KINDS.items() if any(Part.of(r).kind == k for r in records)},
        families=[f for f in FAMILIES if any(r.family == f for r in records)],
        part_of=Part.of,
        result=result,
        amount=amount,
    )


def _section(name: str, records: list[Record], folder: Path) -> Section:
    data = next((record.data for record in records if record.data), {})
    table = columns(records)
    section = Section(name, _anchor("data", name), data, table, parts(records, table))
    section.notes = _notes(records)
    section.published = _published(name)
    rows = [row for _, group in section.parts for row in group]
    for i, (part, group) in enumerate(section.parts):
        picture = _time_panel(part, group, f"{section.anchor}-t{i}")
        if picture:
            section.times.append((part, picture))
    gallery = Gallery(folder, name, data.get("modality", "table"))
    data_rows = gallery.data()
    section.looks = [data_rows] if data_rows else []
    for i, row in enumerate(row for row in rows if row.records):
        first = row.records[0]
        curve = learning_curve(first.history or {}, row.family, f"{section.anchor}-c{i}")
        if curve:
            section.curves.append((row, curve))
        if first.status == "ok" or first.samples:
            section.looks.append(gallery.samples(first))
    return section


def _time_panel(part: Part, rows: list[Row], name: str) -> Markup | None:
    points, truth = [], None
    if part.kind == "failed":
        return None
    for row in rows:
        score = row.cells[0]
        seconds = [t for record in row.records if (t := record.times.get("fit"))]
        if row.is_truth:
            truth = score.value
        elif seconds:
            mean = statistics.fmean(seconds)
            points.append(
                Point(row.label, row.family, mean, score.value, score.error, row.baseline)
            )
    return time_against_score(points, truth, name)


def _notes(records: list[Record]) -> list[str]:
    """Warnings that rows of one table are not comparable although kinds and measures agree."""
    digests = _distinct(r.data["digest"][:12] for r in records if r.data.get("digest"))
    if len(digests) < 2:
        return []
    return [
        "The runs used different rows of this data set (digests "
        f"{', '.join(digests)}): their numbers are not comparable."
    ]


def _published(name: str) -> list[dict[str, Any]]:
    """Published results on a data set; none for data files."""
    if name not in datasets.names():
        return []
    return [vars(entry) for entry in datasets.info(name).published]


def _machine(records: list[Record]) -> Iterator[tuple[str, list[str]]]:
    """Properties of the machine with their values; several values if runs differ."""
    environments = [record.environment for record in records]
    for label, key in (("CPU", "cpu"), ("cores", "n_cpus"), ("threads for each run", "threads")):
        yield label, _distinct(e[key] for e in environments if e.get(key) is not None)
    devices = (d for e in environments if (d := e.get("device")))
    yield "device", _distinct(devices)
    yield "system", _distinct(e["platform"] for e in environments if e.get("platform"))
    yield "Python", _distinct(e["python"] for e in environments if e.get("python"))
    names = dict.fromkeys(name for e in environments for name in e.get("versions", {}))
    for name in names:
        yield (
            name,
            _distinct(e["versions"][name] for e in environments if name in e.get("versions", {})),
        )


def _days(records: Iterable[Record]) -> str:
    days = sorted(record.started[:10] for record in records if record.started)
    if not days:
        return ""
    return days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"


def _warnings(records: Iterable[Record]) -> list[tuple[str, list[Record]]]:
    """Each distinct warning with the runs in which it occurred."""
    by_text: dict[str, list[Record]] = {}
    for record in records:
        for text in record.warnings:
            by_text.setdefault(text, []).append(record)
    return list(by_text.items())


def _distinct(values: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(map(str, values)))


def _anchor(kind: str, name: str) -> str:
    return f"{kind}-{re.sub(r'[^A-Za-z0-9_]+', '-', name)}"


def _breakable(label: str) -> Markup:
    """A label that may be broken before a capital letter."""
    return Markup(re.sub(r"(?<=[a-z])(?=[A-Z])", "<wbr>", escape(label)))


def _json(value: Any) -> str:
    """A setting as JSON; strings and infinities without quotes."""
    if isinstance(value, str) or (isinstance(value, float) and not math.isfinite(value)):
        return str(value)
    return json.dumps(value, ensure_ascii=False, default=repr)
