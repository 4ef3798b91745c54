"""Generates the documentation pages of benchmark results."""

import html
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import trust_page

import densekit
from densekit import bench
from densekit.bench import Record
from densekit.bench.report import rows


def table_cell(value: object) -> str:
    """A value as a cell of a Markdown table."""
    return " ".join(("" if value is None else str(value)).split()).replace("|", "\\|") or "-"


def result_pages(results: Path) -> dict[str, str]:
    """A page for each folder of records in ``results``, and for the results of scripts."""
    generated = {
        path.parent.name: _suite_page(path.parent, bench.read(path.parent))
        for path in sorted(results.glob("*/records.jsonl"))
    }
    generated |= {
        name: page(json.loads((results / file).read_text()))
        for name, (file, page) in _SCRIPTS.items()
        if (results / file).exists()
    }
    listed = "\n".join(generated)
    none = "" if generated else "No results are committed yet.\n\n"
    index = (
        "# Results\n\n"
        "Results of `densekit bench` from `benchmarks/results/`. Scores of different density kinds or "
        "measures are not comparable and are in separate parts of a table. The best values of a part "
        "are bold. The standard error (±) is over held-out rows and over seeds if there are several. "
        "[](../how-to/benchmarks.md) explains how to run a suite.\n\n"
        f"{none}```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```\n"
    )
    return {"index.md": index, **{f"{name}.md": page for name, page in generated.items()}}


def _language_models(results: dict[str, Any]) -> str:
    """Results of ``benchmarks/text.py``."""
    intro = (
        "# Language models\n\n"
        "`python benchmarks/text.py` compares language models with goals, on the held-out tenth of "
        "tinyshakespeare and on the test parts of Penn Treebank. Characters include the ends of "
        "sentences.\n\n"
    )
    other_keys = ("goal", "environment", "fit_seconds", "standard_error", "steps")
    lines = []
    for name, result in results.items():
        measured = (f"{v:,} {unit}" for unit, v in result.items() if unit not in other_keys)
        values = ", ".join(measured).replace("_", " ")
        threads = result["environment"].get("threads")
        lines.append((name, values, result["goal"], result.get("fit_seconds"), threads))
    return intro + _markdown_table(("task", "result", "goal", "fit, s", "threads"), lines)


def _mixed_tables(results: dict[str, Any]) -> str:
    """Results of ``benchmarks/tables_mixed.py``."""
    intro = (
        "# Mixed tables\n\n"
        "`python benchmarks/tables_mixed.py` compares `TabularAutoregressive` with simple models of the "
        "same columns, which the script describes. Values are minus nats per row of the test part over "
        "the same measure; less is better.\n\n"
    )
    simple = ("independent columns", "Gaussian copula", "n-gram over bins")
    heads = ("data", "TabularAutoregressive", *simple, "below the best of these", "fit, s")
    lines = [
        (
            name.rpartition("_")[0],
            *result["nats"].values(),
            f"{result['nats_below_it']} ± {result['standard_error']}",
            result["fit_seconds"],
        )
        for name, result in results.items()
    ]
    return intro + _markdown_table(heads, lines)


def _marginals(results: dict[str, Any]) -> str:
    """Results of ``benchmarks/marginals.py``."""
    intro = (
        "# Marginals\n\n"
        "`python benchmarks/marginals.py` scores rows with missing cells by the methods `network` and "
        "`marginal` of `TabularAutoregressive`. The table has the mean, the mean absolute value and the "
        "maximum of the difference per row, in nats; the share of rows whose marginal is exact; and the "
        "largest standard error of the others.\n\n"
    )
    heads = (
        "data",
        "missing",
        "mean",
        "mean absolute value",
        "maximum",
        "exact",
        "largest error",
        "CPU ms per row",
    )
    lines = [
        (
            name,
            which,
            v["mean"],
            v["absolute"],
            v["greatest"],
            v["exact"],
            v["greatest_standard_error"],
            " and ".join(f"{ms} ({way})" for way, ms in v["ms_a_row"].items()),
        )
        for name, result in results.items()
        for which, v in result.items()
        if which != "environment"
    ]
    return intro + _markdown_table(heads, lines)


def _markdown_table(heads: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    all_lines = [heads, ["---"] * len(heads), *lines]
    return "".join(f"| {' | '.join(map(table_cell, line))} |\n" for line in all_lines)


_SCRIPTS = {
    "language_models": ("text.json", _language_models),
    "mixed_tables": ("tables_mixed.json", _mixed_tables),
    "marginals": ("marginals.json", _marginals),
    "other_libraries": ("peer_findings.json", trust_page.peer_findings),
}
"""For each page about a script, the file of results and the function that renders it."""


def _suite_page(folder: Path, records: list[Record]) -> str:
    by_data = defaultdict(list)
    for record in records:
        by_data[record.run["data"]].append(record)
    failed = sum(r.status == "failed" for r in records)
    text = [
        f"# {folder.name}\n",
        f"{len(records)} runs, {failed} failed{_machine(records)}. Run the suite with\n",
        f"```sh\ndensekit bench {_suite_argument(records[0].suite)}\n```\n",
    ]
    if (folder / "report.html").exists():
        text.append(
            f'<a href="{folder.name}/report.html">The full report</a> has all columns, learning '
            "curves, samples, and times against scores.\n"
        )
    text += [_data_section(name, group) for name, group in by_data.items()]
    return "\n".join(text)


def _suite_argument(name: str) -> str:
    """The argument of ``densekit bench`` for a suite: its name in the package, or its path."""
    packaged = Path(bench.__file__).with_name("suites") / f"{name}.toml"
    return name if packaged.exists() else f"benchmarks/suites/{name}.toml"


def _machine(records: list[Record]) -> str:
    machine = next((r.environment for r in records if r.environment), {})
    return f", on {machine['n_cpus']} cores of {machine['cpu']}" if machine.get("cpu") else ""


def _data_section(name: str, records: list[Record]) -> str:
    """The table of the report, without the columns of speed and memory."""
    data = next((r.data for r in records if r.data), {})
    size = ""
    if data:
        dims = f", {data['n_dims']} dimensions" if data.get("n_dims") else ""
        counts = f"{data['n_train']:,} training rows, {data['n_test']:,} held out"
        size = f"{data['modality'].title()}: {counts}{dims}.\n"
    columns = [c for c in rows.columns(records) if c.head not in _OMITTED_COLUMNS]
    heads = "".join(f"<th>{c.head}</th>" for c in columns)
    lines = [f"<table class='table measured'>\n<thead>\n<tr><th>model</th>{heads}</tr>\n</thead>"]
    for part, group in rows.parts(records, columns):
        head = f"<tr><th colspan='{len(columns) + 1}'>{html.escape(part.heading)}</th></tr>"
        lines += ["<tbody>", head, *(_row(row) for row in group), "</tbody>"]
    return "\n".join([f"## {name}\n", size, *lines, "</table>", ""])


_OMITTED_COLUMNS = ("scored, rows/s", "sampled, rows/s", "peak memory, MB")


def _row(row: rows.Row) -> str:
    label = f"<em>{row.label}</em>" if row.is_truth else html.escape(row.label)
    model = next((r.run["model"] for r in row.records), "")
    if model in densekit.all_estimators():
        label = f'<a href="../models/{model}.html">{label}</a>'
    cells = (f"<b>{c.text}</b>" if c.best else html.escape(c.text) for c in row.cells)
    return f"<tr><td>{label}</td>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
