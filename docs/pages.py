"""The pages that come out of the package itself: models, data sets, API, benchmark results.

Nothing here names a model, a data set or a suite: a new one has its page at the next build.
"""

import html
import importlib
import inspect
import json
import pkgutil
import shutil
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import trust_page
import typer
from numpydoc.docscrape import NumpyDocString

import densekit
from densekit import bench, datasets
from densekit.base import Capabilities, DensityEstimator
from densekit.bench import Record
from densekit.bench.report import rows
from densekit.cli import app
from densekit.discovery import FAMILIES, family_of

FAMILY_TITLES = {
    "classical": "Classical",
    "flows": "Normalizing flows",
    "vaes": "Variational autoencoders",
    "autoregressive": "Autoregressive models",
    "gans": "Adversarial networks",
    "score": "Score and diffusion models",
}
KINDS = {
    "exact": "exact",
    "lower_bound": "lower bound",
    "estimate": "estimate",
    "none": "no density",
}

PUBLIC = {
    "datasets": "Data sets",
    "metrics": "Metrics",
    "codecs": "Codecs",
    "formats": "Files of rows",
    "checks": "The contract suite",
    "bench": "Benchmarks",
    "training": "Training",
}
"""Public modules and what to call them; one that is not there yet has no page."""

INSIDE = {"distributions": "Distributions", "transforms": "Transforms", "nets": "Networks"}
"""Packages that models are built from, module by module."""


def write(docs: Path, results: Path) -> None:
    """Write every generated page below the folder ``docs``; ``results`` holds benchmark folders."""
    for room, pages in (
        ("models", model_pages()),
        ("api", api_pages()),
        ("results", result_pages(results)),
        (".", {"datasets.md": datasets_page()}),
    ):
        folder = docs / room
        folder.mkdir(exist_ok=True)
        for path in set(folder.iterdir()) - {folder / name for name in pages}:
            if room != ".":
                path.unlink()  # of a model or a suite that is no more
        for name, text in pages.items():
            _put(folder / name, text)
    copy_reports.results = results
    trust_page.write(docs, results)


def copy_reports(app: Any, error: Exception | None) -> None:
    """Put the self-contained reports beside the pages that link to them."""
    if error is None and app.builder.format == "html":
        for report in sorted(copy_reports.results.glob("*/report.html")):
            target = Path(app.outdir) / "results" / report.parent.name / report.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(report, target)


def _put(path: Path, text: str) -> None:
    """Write only what changed, so that Sphinx reads again only that."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


# Models.


def model_pages() -> dict[str, str]:
    """A page for each estimator and one that compares them."""
    kinds = densekit.all_estimators()
    pages = {f"{name}.rst": _model_page(name, kind) for name, kind in kinds.items()}
    return {"index.md": _models_index(kinds), **pages}


def _model_page(name: str, kind: type[DensityEstimator]) -> str:
    can = densekit.capabilities(kind)
    facts = {
        "family": FAMILY_TITLES[family_of(kind)],
        "takes": _takes(can),
        "context": _CONTEXTS[can.context],
        "score": _score_words(can),
        "code": f"``{kind.__module__.replace('.', '/')}.py``",
    }
    told = "\n".join(f"   * - {key}\n     - {value}" for key, value in facts.items())
    return "\n".join(
        [
            _title(name),
            f".. list-table::\n   :widths: 15 85\n   :class: facts\n\n{told}\n",
            f".. py:currentmodule:: densekit\n\n.. autoclass:: densekit.{name}(**parameters)\n",
            _methods(can),
            f".. minigallery:: densekit.{name}\n   :add-heading: Examples\n   :heading-level: -\n",
        ]
    )


_CONTEXTS = {
    "none": "none: it models p(x) only",
    "features": "any columns or array: p(x given context)",
    "prompt": "a prompt: the beginning of the text",
    "text": "strings, one for each row: p(x given source)",
}


def _takes(can: Capabilities) -> str:
    return ", ".join({"text": "text"}.get(m, m + "s") for m in can.modalities)


def _score_words(can: Capabilities) -> str:
    if not can.scores:
        return "none: it samples and has no density, so it has no ``score_samples``"
    words = {
        "exact": "exact",
        "lower_bound": "a lower bound, with its standard error",
        "estimate": "an estimate, with its standard error",
    }[can.density]
    if can.density == "exact" and can.view == "relaxed":
        words += " on numbers; on discrete entries (dequantized) a lower bound of the mass"
    return words


def _methods(can: Capabilities) -> str:
    names = ["fit", "sample", "score_samples", "score", "condition", "distribution_", "save"]
    if not can.scores:
        names = [n for n in names if not n.startswith("score")]
    if not can.conditions:
        names.remove("condition")
    roles = ", ".join(
        f":{'attr' if n == 'distribution_' else 'meth'}:`~densekit.DensityEstimator.{n}`"
        for n in names
    )
    return f"Methods\n-------\n\n{roles}; inherited by all models and described there.\n"


def _models_index(kinds: dict[str, type[DensityEstimator]]) -> str:
    parts = [
        "# Models\n",
        "A model's page is made from its docstring. `densekit list` prints the same table for the "
        "installed version, and `densekit.all_estimators(family=..., modality=...)` returns the "
        "classes. What *exact*, *lower bound* and *estimate* mean is in [](../concepts.md).\n",
    ]
    for family in FAMILIES:
        of_family = {n: k for n, k in kinds.items() if family_of(k) == family}
        if not of_family:
            continue
        lines = [
            f"| [{n}]({n}.rst) | {_summary(k)} | {_takes(densekit.capabilities(k))} "
            f"| {KINDS[densekit.capabilities(k).density]} | {densekit.capabilities(k).context} |"
            for n, k in of_family.items()
        ]
        table = [
            "| model | what it is | takes | score | context |",
            "|---|---|---|---|---|",
            *lines,
        ]
        parts.append(f"## {FAMILY_TITLES[family]}\n\n" + "\n".join(table) + "\n")
    toc = "\n".join(kinds)
    return "\n".join(parts) + f"\n```{{toctree}}\n:hidden:\n\n{toc}\n```\n"


def _summary(thing: type) -> str:
    """The first sentence of a docstring, as Markdown."""
    text = " ".join(NumpyDocString(inspect.getdoc(thing) or "")["Summary"])
    return text.replace("``", "`").rstrip(".").replace("|", "\\|")


# Data sets.


def datasets_page() -> str:
    """Every named data set, by modality."""
    said = [
        "# Data sets\n",
        "`densekit.datasets.load(name)` returns three fixed parts. How to load them, where "
        "downloads go and how to use local copies is in [](how-to/data-sets.md); the functions and "
        "the toys' densities are in {doc}`the API <api/datasets>`. Rows are those of train, valid "
        "and test.\n",
    ]
    for modality, title in (("table", "Tables"), ("image", "Images"), ("text", "Text")):
        lines = [f"## {title}\n", "| name | rows | columns | what it is |", "|---|--:|--:|---|"]
        for about in map(datasets.info, datasets.names(modality)):
            parts = " / ".join(f"{n:,}" for n in about.rows or ())
            what = [about.source, about.license and f"License: {about.license}."]
            if about.published:
                reported = "; ".join(f"{r.model} {r.value:g} {r.unit}" for r in about.published)
                what.append(f"Published: {reported}.")
            cells = [f"`{about.name}`", parts, about.columns, "<br>".join(filter(None, what))]
            lines.append("| " + " | ".join(_cell(c) for c in cells) + " |")
        said.append("\n".join([*lines, ""]))
    return "\n".join(said)


def _cell(value: object) -> str:
    return " ".join(("" if value is None else str(value)).split()).replace("|", "\\|") or "-"


# Benchmark results.


def result_pages(results: Path) -> dict[str, str]:
    """A page for each folder of records below ``results``."""
    found = {
        path.parent.name: _suite_page(path.parent, bench.read(path.parent))
        for path in sorted(results.glob("*/records.jsonl"))
    }
    found |= {
        name: page(json.loads((results / file).read_text()))
        for name, (file, page) in _SCRIPTS.items()
        if (results / file).exists()
    }
    listed = "\n".join(found)
    none = "" if found else "None are committed yet.\n\n"
    index = (
        "# Results\n\n"
        "What `densekit bench` measured, as committed under `benchmarks/results/`. Scores of "
        "another kind or base measure are not comparable and stand apart; bold is the best of its "
        "part, and ± is the standard error over the held-out rows and over seeds, if there are several. "
        "How to run a suite, or one of your own, is in "
        f"[](../how-to/benchmarks.md).\n\n{none}```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```\n"
    )
    return {"index.md": index, **{f"{name}.md": page for name, page in found.items()}}


def _language_models(results: dict[str, Any]) -> str:
    """What ``benchmarks/text.py`` measured."""
    said = (
        "# Language models\n\n"
        "`python benchmarks/text.py` measured these against what was asked of them: the held-out tenth "
        "of tinyshakespeare, and the test parts of Penn Treebank. A character is one of the text, the "
        "end of a sentence included.\n\n"
    )
    apart = ("goal", "environment", "fit_seconds", "standard_error", "steps")
    lines = []
    for name, found in results.items():
        measured = (f"{v:,} {unit}" for unit, v in found.items() if unit not in apart)
        values = ", ".join(measured).replace("_", " ")
        threads = found["environment"].get("threads")
        lines.append((name, values, found["goal"], found.get("fit_seconds"), threads))
    return said + _markdown_table(("task", "found", "goal", "fit, s", "threads"), lines)


def _mixed_tables(results: dict[str, Any]) -> str:
    """What ``benchmarks/tables_mixed.py`` measured."""
    said = (
        "# Mixed tables\n\n"
        "`python benchmarks/tables_mixed.py` holds `TabularAutoregressive` against simple models of the "
        "same columns: minus nats per row of the test part, so that less is better, over the same base "
        "measure; the script says what each of them is.\n\n"
    )
    simple = ("independent columns", "Gaussian copula", "n-gram over bins")
    heads = ("data", "TabularAutoregressive", *simple, "below the best of these", "fit, s")
    lines = [
        (
            name.rpartition("_")[0],
            *found["nats"].values(),
            f"{found['nats_below_it']} ± {found['standard_error']}",
            found["fit_seconds"],
        )
        for name, found in results.items()
    ]
    return said + _markdown_table(heads, lines)


def _marginals(results: dict[str, Any]) -> str:
    """What ``benchmarks/marginals.py`` measured."""
    said = (
        "# Marginals\n\n"
        '`python benchmarks/marginals.py` scores rows with missing cells by `method="network"` and by '
        '`method="marginal"` of `TabularAutoregressive`: of the difference of each row, in nats, the '
        "mean, the mean size and the greatest; the share of rows whose marginal is exact, and the "
        "greatest "
        "standard error of the others.\n\n"
    )
    heads = (
        "data",
        "missing",
        "mean",
        "size",
        "greatest",
        "exact",
        "greatest error",
        "processor ms a row",
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
        for name, found in results.items()
        for which, v in found.items()
        if which != "environment"
    ]
    return said + _markdown_table(heads, lines)


def _markdown_table(heads: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    whole = [heads, ["---"] * len(heads), *lines]
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in whole)


_SCRIPTS = {
    "language_models": ("text.json", _language_models),
    "mixed_tables": ("tables_mixed.json", _mixed_tables),
    "marginals": ("marginals.json", _marginals),
    "other_libraries": ("peer_findings.json", trust_page.peer_findings),
}
"""Results of scripts that have a page of their own."""


def _suite_page(folder: Path, records: list[Record]) -> str:
    by_data = defaultdict(list)
    for record in records:
        by_data[record.run["data"]].append(record)
    failed = sum(r.status == "failed" for r in records)
    said = [
        f"# {folder.name}\n",
        f"{len(records)} runs, {failed} failed{_machine(records)}. Run again with\n",
        f"```sh\ndensekit bench {_suite_of(records[0].suite)}\n```\n",
    ]
    if (folder / "report.html").exists():
        said.append(
            f'<a href="{folder.name}/report.html">The full report</a> has all columns, learning '
            "curves, samples to look at and the time that each score took.\n"
        )
    said += [_data_section(name, group) for name, group in by_data.items()]
    return "\n".join(said)


def _suite_of(name: str) -> str:
    """What the command line calls a suite: ours by name, those beside the benchmarks by their file."""
    own = Path(bench.__file__).with_name("suites") / f"{name}.toml"
    return name if own.exists() else f"benchmarks/suites/{name}.toml"


def _machine(records: list[Record]) -> str:
    about = next((r.environment for r in records if r.environment), {})
    return f", on {about['n_cpus']} cores of {about['cpu']}" if about.get("cpu") else ""


def _data_section(name: str, records: list[Record]) -> str:
    """The report's own table, without the columns of speed and memory."""
    data = next((r.data for r in records if r.data), {})
    size = ""
    if data:
        dims = f", {data['n_dims']} dimensions" if data.get("n_dims") else ""
        counts = f"{data['n_train']:,} rows to fit, {data['n_test']:,} held out"
        size = f"{data['modality'].title()}: {counts}{dims}.\n"
    columns = [c for c in rows.columns(records) if c.head not in _LEFT_TO_THE_REPORT]
    heads = "".join(f"<th>{c.head}</th>" for c in columns)
    lines = [f"<table class='table measured'>\n<thead>\n<tr><th>model</th>{heads}</tr>\n</thead>"]
    for part, group in rows.parts(records, columns):
        head = f"<tr><th colspan='{len(columns) + 1}'>{html.escape(part.heading)}</th></tr>"
        lines += ["<tbody>", head, *(_row(row) for row in group), "</tbody>"]
    return "\n".join([f"## {name}\n", size, *lines, "</table>", ""])


_LEFT_TO_THE_REPORT = ("scored, rows/s", "sampled, rows/s", "peak memory, MB")


def _row(row: rows.Row) -> str:
    label = f"<em>{row.label}</em>" if row.is_truth else html.escape(row.label)
    model = next((r.run["model"] for r in row.records), "")
    if model in densekit.all_estimators():
        label = f'<a href="../models/{model}.html">{label}</a>'
    cells = (f"<b>{c.text}</b>" if c.best else html.escape(c.text) for c in row.cells)
    return f"<tr><td>{label}</td>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


# API.


def api_pages() -> dict[str, str]:
    """A page for the contract, for each public module, and for the parts that models are made of."""
    pages = {"contract.rst": _CONTRACT}
    public = {n: t for n, t in PUBLIC.items() if importlib.util.find_spec(f"densekit.{n}")}
    for name, title in public.items():
        module = importlib.import_module(f"densekit.{name}")
        pages[f"{name}.rst"] = _title(title) + _module(module)
    for name, title in INSIDE.items():
        package = importlib.import_module(f"densekit.{name}")
        modules = sorted(m.name for m in pkgutil.iter_modules(package.__path__))
        body = [_module(importlib.import_module(f"{package.__name__}.{m}"), True) for m in modules]
        pages[f"{name}.rst"] = _title(title) + f"{inspect.getdoc(package)}\n\n" + "\n".join(body)
    outer = "\n".join(f"   {n}" for n in ("contract", *public, "command-line"))
    inner = "\n".join(f"   {n}" for n in INSIDE)
    pages["index.rst"] = (
        _title("API")
        + "For users:\n\n.. toctree::\n   :maxdepth: 1\n\n"
        + outer
        + "\n\nFor those who add a model:\n\n.. toctree::\n   :maxdepth: 1\n\n"
        + inner
        + "\n"
    )
    pages["command-line.md"] = _command_line()
    return pages


def _command_line() -> str:
    """What ``--help`` of each command says."""
    group = typer.main.get_command(app)
    top = typer.Context(group, info_name="densekit", terminal_width=88)
    said = [
        "# Command line\n",
        "How the commands go together is in [](../how-to/command-line.md).\n",
    ]
    for name in group.list_commands(top):
        command = group.get_command(top, name)
        context = typer.Context(command, parent=top, info_name=name, terminal_width=88)
        said.append(f"## {name}\n\n```text\n{command.get_help(context).strip()}\n```\n")
    return "\n".join(said)


def _title(text: str) -> str:
    return f"{text}\n{'=' * len(text)}\n\n"


def _module(module: ModuleType, heading: bool = False) -> str:
    """The docstring of a module and everything public in it."""
    parts = []
    if heading:
        parts.append(f"{module.__name__}\n{'-' * len(module.__name__)}\n")
    parts.append(f".. automodule:: {module.__name__}\n   :no-members:\n")
    parts.append(f".. py:currentmodule:: {module.__name__}\n")
    for name in _public(module):
        thing = getattr(module, name)
        directive, option = "autodata", "\n   :no-value:"
        if inspect.isclass(thing):
            directive, option = "autoclass", "\n   :members:"
        elif callable(thing):
            directive, option = "autofunction", ""
        parts.append(f".. {directive}:: {module.__name__}.{name}{option}\n")
    return "\n".join(parts)


def _public(module: ModuleType) -> list[str]:
    if hasattr(module, "__all__"):
        return module.__all__
    own = {
        n: v for n, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__
    }
    return [n for n, v in own.items() if not n.startswith("_") and inspect.getdoc(v)]


_CONTRACT = """\
The contract
============

.. py:currentmodule:: densekit

Every model is a :class:`DensityEstimator`; those that train a network are a :class:`NeuralDensity`.
The models themselves are :doc:`here </models/index>`.

.. autoclass:: densekit.DensityEstimator(**parameters)
   :members:

.. autoclass:: densekit.NeuralDensity(**parameters)

.. autoclass:: densekit.Capabilities
   :members:

.. autofunction:: densekit.all_estimators

.. autofunction:: densekit.distill

.. autofunction:: densekit.capabilities

.. autofunction:: densekit.load

.. autofunction:: densekit.describe

It returns a :class:`~densekit.codecs.description.Description`, which estimators take as ``columns``.
"""
