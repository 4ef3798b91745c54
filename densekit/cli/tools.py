"""The commands bench, report, check, list and datasets."""

import enum
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from densekit.cli.shared import Shared, Stopped, app, published


class Repeat(enum.StrEnum):
    """Values of ``bench --repeat``."""

    NONE = "none"
    FAILED = "failed"
    ALL = "all"


_FILE_SUFFIXES = (".html", ".json", ".toml", ".zip", ".pkl", ".densekit")


def _check_folder(out: Path) -> None:
    """Raise ValueError before any run if the path cannot be a folder of records."""
    from densekit.formats import SUFFIXES

    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file, but records need a folder; choose another name")
    if not out.exists() and out.suffix.lower() in (*SUFFIXES, *_FILE_SUFFIXES):
        raise ValueError(
            f"--out {out}: records and the report need a folder, whose name must not end in "
            f"{out.suffix}"
        )


def _import_from_working_folder() -> None:
    """Make modules in the working folder importable, as ``python -m`` does."""
    if "" not in sys.path:
        sys.path.insert(0, "")


@app.command()
def bench(
    context_: typer.Context,
    suite: Annotated[
        str,
        typer.Argument(
            metavar="SUITE", help="A suite of the package (quick), or the path of a .toml file."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the records; by default densekit-results/SUITE."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Concurrent runs; by default one per processor.")
    ] = None,
    repeat: Annotated[
        Repeat, typer.Option(help="Runs to repeat even if their records are up to date.")
    ] = Repeat.NONE,
) -> None:
    """Fit, score and sample every model of a SUITE, each in its own process.

    The command prints a table for each data set, and writes a record of each run and a report,
    report.html. Runs with up-to-date records are not repeated, so an interrupted suite can be continued.
    The exit status is 1 if a run failed.

    \b
    Examples:
      densekit bench quick
      densekit bench my_suite.toml --out results --repeat failed
    """
    from rich.console import Console

    from densekit import bench as benchmark
    from densekit.bench.progress import watching
    from densekit.bench.report import write_report
    from densekit.bench.runner import start_server

    shared: Shared = context_.obj
    start = time.perf_counter()
    loaded = benchmark.load_suite(suite)
    folder = out if out is not None else Path("densekit-results") / loaded.name
    _check_folder(folder)
    _import_from_working_folder()
    start_server()
    try:
        with watching(loaded, Console(stderr=True, quiet=shared.quiet)) as watcher:
            benchmark.check(loaded)
            records = benchmark.run_suite(loaded, folder, watcher, jobs=jobs, repeat=repeat.value)
        page = write_report(folder)
    except KeyboardInterrupt as stop:
        if not str(stop) and not folder.exists():
            raise  # No run has started.
        message = f"finished runs are kept in {folder}; the same command continues with the rest"
        raise Stopped(str(stop) or message) from stop
    failed = [record for record in records if record.status == "failed"]
    if shared.json:
        reasons = {record.key: record.reason for record in failed}
        shared.print_result(None, {"runs": len(records), "failed": reasons, "folder": str(folder)})
    else:
        _print_records(records, failed, page, time.perf_counter() - start)
    if failed:
        raise typer.Exit(1)


def _print_records(records: Any, failed: Any, page: Path, duration: float) -> None:
    """Print the tables of a suite, failed runs, runs below the baseline, and a summary."""
    from rich.console import Console

    from densekit import bench as benchmark
    from densekit.bench.baselines import below_baseline
    from densekit.bench.table import MIN_WIDTH

    console = Console()
    console.width = max(console.width, MIN_WIDTH)
    console.print(benchmark.tables(records))
    for record in failed:
        console.print(f"{record.key} failed: {record.reason}", style="red", markup=False)
    below = below_baseline(records)
    for record in records:
        if record.id in below:
            console.print(
                f"{record.key} scores below {below[record.id]}", style="yellow", markup=False
            )
    minutes, seconds = divmod(round(duration), 60)
    console.print(
        f"{len(records)} runs, {len(failed)} failed, {len(below)} below the baseline, "
        f"in {minutes} min {seconds} s; the report is {page}",
        highlight=False,
        soft_wrap=True,
    )


@app.command()
def report(
    context_: typer.Context,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Output folder of densekit bench.")
    ],
) -> None:
    """Create a self-contained page, report.html, from the records in DIR.

    Example: densekit report densekit-results/quick
    """
    from densekit.bench.report import write_report

    page = write_report(folder)
    context_.obj.print_message("wrote the report")
    if context_.obj.json:
        context_.obj.print_result(None, {"report": str(page)})
        return
    sys.stdout.write(f"{page}\n")


@app.command()
def check(
    context_: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A model of densekit list, or module:Class.")
    ],
) -> None:
    """Run the contract suite on a model with default settings. The exit status is 1 if a check fails.

    \b
    Examples:
      densekit check Gaussian
      densekit check my_module:MyDensity
    """
    from densekit.bench.suite import resolve
    from densekit.checks import density_checks

    shared: Shared = context_.obj
    _import_from_working_folder()
    passed: list[str] = []
    failed: dict[str, str] = {}
    for estimator, each in density_checks(resolve(name)()):
        try:
            each(estimator)
            passed.append(each.name)
        except AssertionError as error:
            failed[each.name] = " ".join(str(error).split())
        if not shared.json:
            reason = failed.get(each.name)
            sys.stdout.write(f"failed  {reason}\n" if reason else f"passed  {each.name}\n")
            sys.stdout.flush()
    if shared.json:
        shared.print_result(None, {"model": name, "passed": passed, "failed": failed})
    shared.print_message(f"{name}: {len(passed)} checks passed, {len(failed)} failed")
    if failed:
        raise typer.Exit(1)


@app.command("list")
def list_models(
    context_: typer.Context,
    family: Annotated[str | None, typer.Option(help="Only models of this family.")] = None,
    modality: Annotated[
        str | None, typer.Option(help="Only models for this modality: table, image or text.")
    ] = None,
) -> None:
    """List the models with family, kind of density, modalities and context.

    Example: densekit list --modality image
    """
    from rich.table import Table

    from densekit import discovery

    table = Table("model", "family", "density", "takes", "context")
    plain: list[dict[str, Any]] = []
    for name, (group, can) in discovery.listed(family=family, modality=modality).items():
        table.add_row(name, group, can.density, ", ".join(can.modalities), can.context)
        plain.append({"model": name, "family": group, "density": can.density})
        plain[-1] |= {"modalities": list(can.modalities), "context": can.context}
    context_.obj.print_result(table, plain)


@app.command("datasets")
def list_datasets(
    context_: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Only this data set, with its sources.")
    ] = None,
    modality: Annotated[
        str | None, typer.Option(help="Only data sets of this modality: table, image or text.")
    ] = None,
) -> None:
    """List the data sets, whose names fit, score, evaluate and bench accept.

    \b
    Examples:
      densekit datasets --modality text
      densekit datasets digits
    """
    from dataclasses import asdict

    from rich.console import Group
    from rich.table import Table

    from densekit import datasets

    infos = [datasets.info(n) for n in ([name] if name else datasets.names(modality))]
    table = Table("name", "modality", "rows of train, valid, test", "columns", "license", "local")
    plain = []
    for info in infos:
        rows = "by version of Python" if info.rows is None else "{:,} {:,} {:,}".format(*info.rows)
        columns = "-" if info.columns is None else str(info.columns)
        local = "no" if info.needs_download else "yes"
        table.add_row(info.name, info.modality, rows, columns, info.license, local)
        files = [str(path) for path in info.locations]
        figures = [asdict(figure) for figure in info.published]
        plain.append(
            {key: getattr(info, key) for key in ("name", "modality", "rows", "columns", "license")}
            | {"source": info.source, "local": not info.needs_download, "files": files}
            | {"urls": list(info.urls), "published": figures}
        )
    if not name:
        context_.obj.print_result(table, plain)
        return
    parts = [infos[0].source, *plain[0]["urls"]]
    parts += [published(infos[0].published)] if infos[0].published else []
    context_.obj.print_result(Group(table, *parts), plain[0])
