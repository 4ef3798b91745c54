"""Generates documentation pages from the package: models, data sets, API, and benchmark results.

New models, data sets and suites are found automatically and have a page after the next build.
"""

import importlib
import inspect
import pkgutil
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import trust_page
import typer
from numpydoc.docscrape import NumpyDocString
from result_pages import result_pages, table_cell

import densekit
from densekit import datasets
from densekit.base import Capabilities, DensityEstimator
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
"""Titles of the pages of public modules."""

INTERNAL = {"distributions": "Distributions", "transforms": "Transforms", "nets": "Networks"}
"""Titles of the pages of packages that models are built from."""


def write(docs: Path, results: Path) -> None:
    """Write every generated page below the folder ``docs``; ``results`` holds benchmark folders."""
    for folder_name, pages in (
        ("models", model_pages()),
        ("api", api_pages()),
        ("results", result_pages(results)),
        (".", {"datasets.md": datasets_page()}),
    ):
        folder = docs / folder_name
        folder.mkdir(exist_ok=True)
        for path in set(folder.iterdir()) - {folder / name for name in pages}:
            if folder_name != ".":
                path.unlink()  # The page of a removed model or suite.
        for name, text in pages.items():
            _write_if_changed(folder / name, text)
    copy_reports.results = results
    trust_page.write(docs, results)


def copy_reports(app: Any, error: Exception | None) -> None:
    """Copy the self-contained reports to the folder of the pages that link to them."""
    if error is None and app.builder.format == "html":
        for report in sorted(copy_reports.results.glob("*/report.html")):
            target = Path(app.outdir) / "results" / report.parent.name / report.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(report, target)


def _write_if_changed(path: Path, text: str) -> None:
    """Write a page only if its text has changed, so that Sphinx processes only changed pages."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


# Models.


def model_pages() -> dict[str, str]:
    """A page for each estimator, and an index that compares them."""
    kinds = densekit.all_estimators()
    pages = {f"{name}.rst": _model_page(name, kind) for name, kind in kinds.items()}
    return {"index.md": _models_index(kinds), **pages}


def _model_page(name: str, kind: type[DensityEstimator]) -> str:
    can = densekit.capabilities(kind)
    facts = {
        "family": FAMILY_TITLES[family_of(kind)],
        "takes": _takes(can),
        "context": _CONTEXTS[can.context],
        "score": _score_description(can),
        "code": f"``{kind.__module__.replace('.', '/')}.py``",
    }
    items = "\n".join(f"   * - {key}\n     - {value}" for key, value in facts.items())
    return "\n".join(
        [
            _title(name),
            f".. list-table::\n   :widths: 15 85\n   :class: facts\n\n{items}\n",
            f".. py:currentmodule:: densekit\n\n.. autoclass:: densekit.{name}(**parameters)\n",
            _methods(can),
            f".. minigallery:: densekit.{name}\n   :add-heading: Examples\n   :heading-level: -\n",
        ]
    )


_CONTEXTS = {
    "none": "none, the model is p(x)",
    "features": "any columns or array, the model is p(x given context)",
    "prompt": "a prompt, the beginning of the text",
    "text": "strings, one per row, the model is p(x given source)",
}


def _takes(can: Capabilities) -> str:
    return ", ".join({"text": "text"}.get(m, m + "s") for m in can.modalities)


def _score_description(can: Capabilities) -> str:
    if not can.scores:
        return "none: the model has no density and no ``score_samples``"
    description = {
        "exact": "exact",
        "lower_bound": "a lower bound, with its standard error",
        "estimate": "an estimate, with its standard error",
    }[can.density]
    if can.density == "exact" and can.view == "relaxed":
        description += " for numbers; a lower bound for discrete entries, which are dequantized"
    return description


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
    return f"Methods\n-------\n\n{roles}; inherited from the base class of all models.\n"


def _models_index(kinds: dict[str, type[DensityEstimator]]) -> str:
    parts = [
        "# Models\n",
        "`densekit list` prints the same table for the installed version, and "
        "`densekit.all_estimators(family=..., modality=...)` returns the classes. "
        "[](../concepts.md) explains *exact*, *lower bound* and *estimate*.\n",
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
    """A page with a table of all data sets for each modality."""
    lines_of_page = [
        "# Data sets\n",
        "`densekit.datasets.load(name)` returns three fixed parts. [](how-to/data-sets.md) explains "
        "downloads and local copies; the functions and the densities of toys are in "
        "{doc}`the API <api/datasets>`. The column *rows* has the numbers of training, validation and "
        "test rows.\n",
    ]
    for modality, title in (("table", "Tables"), ("image", "Images"), ("text", "Text")):
        lines = [f"## {title}\n", "| name | rows | columns | what it is |", "|---|--:|--:|---|"]
        for info in map(datasets.info, datasets.names(modality)):
            parts = " / ".join(f"{n:,}" for n in info.rows or ())
            facts = [info.source, info.license and f"License: {info.license}."]
            if info.published:
                results = "; ".join(f"{r.model} {r.value:g} {r.unit}" for r in info.published)
                facts.append(f"Published: {results}.")
            cells = [f"`{info.name}`", parts, info.columns, "<br>".join(filter(None, facts))]
            lines.append("| " + " | ".join(table_cell(c) for c in cells) + " |")
        lines_of_page.append("\n".join([*lines, ""]))
    return "\n".join(lines_of_page)


# API.


def api_pages() -> dict[str, str]:
    """Pages of the base classes, of each public module, and of the parts that models consist of."""
    pages = {"contract.rst": _CONTRACT}
    public = {n: t for n, t in PUBLIC.items() if importlib.util.find_spec(f"densekit.{n}")}
    for name, title in public.items():
        module = importlib.import_module(f"densekit.{name}")
        pages[f"{name}.rst"] = _title(title) + _module(module)
    for name, title in INTERNAL.items():
        package = importlib.import_module(f"densekit.{name}")
        modules = sorted(m.name for m in pkgutil.iter_modules(package.__path__))
        body = [_module(importlib.import_module(f"{package.__name__}.{m}"), True) for m in modules]
        pages[f"{name}.rst"] = _title(title) + f"{inspect.getdoc(package)}\n\n" + "\n".join(body)
    outer = "\n".join(f"   {n}" for n in ("contract", *public, "command-line"))
    inner = "\n".join(f"   {n}" for n in INTERNAL)
    pages["index.rst"] = (
        _title("API")
        + "For users:\n\n.. toctree::\n   :maxdepth: 1\n\n"
        + outer
        + "\n\nFor authors of models:\n\n.. toctree::\n   :maxdepth: 1\n\n"
        + inner
        + "\n"
    )
    pages["command-line.md"] = _command_line()
    return pages


def _command_line() -> str:
    """The output of ``--help`` for each command."""
    group = typer.main.get_command(app)
    top = typer.Context(group, info_name="densekit", terminal_width=88)
    text = [
        "# Command line\n",
        "[](../how-to/command-line.md) is an introduction to the commands.\n",
    ]
    for name in group.list_commands(top):
        command = group.get_command(top, name)
        context = typer.Context(command, parent=top, info_name=name, terminal_width=88)
        text.append(f"## {name}\n\n```text\n{command.get_help(context).strip()}\n```\n")
    return "\n".join(text)


def _title(text: str) -> str:
    return f"{text}\n{'=' * len(text)}\n\n"


def _module(module: ModuleType, heading: bool = False) -> str:
    """The docstring of a module and of everything public in it."""
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
    defined = {
        n: v for n, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__
    }
    return [n for n, v in defined.items() if not n.startswith("_") and inspect.getdoc(v)]


_CONTRACT = """\
The base classes
================

.. py:currentmodule:: densekit

Every model is a :class:`DensityEstimator`, and models with a neural network are a
:class:`NeuralDensity`. The models have :doc:`their own pages </models/index>`.

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

The result is a :class:`~densekit.codecs.description.Description`, which estimators accept as
``columns``.
"""
