"""The page: records and sample files in, ``report.html`` out. Nothing is computed again."""

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
    """All about one data set."""

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
    """Write ``report.html`` into a folder of results, for any browser and without a network.

    The page has a table for each data set in which density kinds and base measures stay apart,
    time against score, learning curves, samples, failures, warnings and all settings. It is a
    function of the folder's files alone: the same records give the same bytes. Several seeds of
    one model are one row, their mean ± its error over seeds and held-out rows; pictures are those of
    the first seed.

    Parameters
    ----------
    folder : Path
        What a benchmark wrote: records, and samples and data where they were kept.

    Returns
    -------
    path : Path
        The page, written whole or not at all.

    Raises
    ------
    ValueError
        The folder is not there, holds no records, or records of another format.
    OSError
        The page cannot be written; an earlier one stays as it was.

    Examples
    --------
    >>> write_report(Path("nowhere"))
    Traceback (most recent call last):
    ValueError: nowhere is not a folder: densekit bench writes one, ...
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(
            f"{folder} is not a folder: densekit bench writes one, and a report is made from it"
        )
    records = read(folder)
    if not records:
        raise ValueError(f"{folder} holds no benchmark records: run densekit bench with it first")
    path = folder / FILE
    with replacing(path) as part:
        part.write_text(_page(records, folder), encoding="utf-8")
    return path


def _page(records: list[Record], folder: Path) -> str:
    families = {record.run["model"]: record.family for record in records if record.family}
    by_data: dict[str, list[Record]] = {}
    for record in records:
        # A run that was killed early did not live to say its family.
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
    for place, (part, group) in enumerate(section.parts):
        picture = _time_panel(part, group, f"{section.anchor}-t{place}")
        if picture:
            section.times.append((part, picture))
    gallery = Gallery(folder, name, data.get("modality", "table"))
    found = gallery.data()
    section.looks = [found] if found else []
    for place, row in enumerate(row for row in rows if row.records):
        first = row.records[0]
        curve = learning_curve(first.history or {}, row.family, f"{section.anchor}-c{place}")
        if curve:
            section.curves.append((row, curve))
        if first.status == "ok" or first.samples:
            section.looks.append(gallery.drawn(first))
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
    """What forbids comparing rows of one table, beyond kinds and measures."""
    digests = _distinct(r.data["digest"][:12] for r in records if r.data.get("digest"))
    if len(digests) < 2:
        return []
    return [
        "The runs saw different rows of this data set (digests "
        f"{', '.join(digests)}): their numbers are not comparable."
    ]


def _published(name: str) -> list[dict[str, Any]]:
    """What others reported; nothing for data that is not ours to describe."""
    if name not in datasets.names():
        return []
    return [vars(entry) for entry in datasets.info(name).published]


def _machine(records: list[Record]) -> Iterator[tuple[str, list[str]]]:
    """Name and values of what results depend on; two values where runs differ."""
    found = [record.environment for record in records]
    for label, key in (("CPU", "cpu"), ("cores", "n_cpus"), ("threads for each run", "threads")):
        yield label, _distinct(e[key] for e in found if e.get(key) is not None)
    devices = (d for e in found if (d := e.get("device")))
    yield "device", _distinct(devices)
    yield "system", _distinct(e["platform"] for e in found if e.get("platform"))
    yield "Python", _distinct(e["python"] for e in found if e.get("python"))
    names = dict.fromkeys(name for e in found for name in e.get("versions", {}))
    for name in names:
        yield name, _distinct(e["versions"][name] for e in found if name in e.get("versions", {}))


def _days(records: Iterable[Record]) -> str:
    days = sorted(record.started[:10] for record in records if record.started)
    if not days:
        return ""
    return days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"


def _warnings(records: Iterable[Record]) -> list[tuple[str, list[Record]]]:
    """Each text once, with the runs that it came from."""
    found: dict[str, list[Record]] = {}
    for record in records:
        for text in record.warnings:
            found.setdefault(text, []).append(record)
    return list(found.items())


def _distinct(values: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(map(str, values)))


def _anchor(kind: str, name: str) -> str:
    return f"{kind}-{re.sub(r'[^A-Za-z0-9_]+', '-', name)}"


def _breakable(label: str) -> Markup:
    """A name that may go on in the next line at a capital."""
    return Markup(re.sub(r"(?<=[a-z])(?=[A-Z])", "<wbr>", escape(label)))


def _json(value: Any) -> str:
    """A setting as JSON; a string and an infinity as they are."""
    if isinstance(value, str) or (isinstance(value, float) and not math.isfinite(value)):
        return str(value)
    return json.dumps(value, ensure_ascii=False, default=repr)
