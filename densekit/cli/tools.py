"""bench, report, check, list, datasets."""

import enum
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from densekit.cli.shared import Shared, Stopped, app, published


class Repeat(enum.StrEnum):
    """Words of ``bench --repeat``."""

    NONE = "none"
    FAILED = "failed"
    ALL = "all"


_OF_FILES = (".html", ".json", ".toml", ".zip", ".pkl", ".densekit")


def _check_folder(out: Path) -> None:
    """Raise, before any run, if no folder of records can be made there."""
    from densekit.formats import SUFFIXES

    if out.exists() and not out.is_dir():
        raise ValueError(
            f"--out {out}: a file is there; records go to a folder, give another name"
        )
    if not out.exists() and out.suffix.lower() in (*SUFFIXES, *_OF_FILES):
        raise ValueError(
            f"--out {out}: records and the report go to a folder, whose name does not end in "
            f"{out.suffix}"
        )


def _import_from_here() -> None:
    """A user's module:Class lies where the user stands, as with ``python -m``."""
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
        typer.Option(help="Folder for the records; densekit-results/SUITE if not given."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs at once; one for each processor if not given.")
    ] = None,
    repeat: Annotated[
        Repeat, typer.Option(help="Runs to do again although their records stand unchanged.")
    ] = Repeat.NONE,
) -> None:
    """Fit, score and sample every model of a SUITE, each in its own process.

    Prints a table for each data set and leaves a record of each run and a report, report.html. Runs
    whose records are there already are not repeated, so an interrupted suite goes on where it was.
    The exit status is 1 if a run failed.

    \b
    Examples:
      densekit bench quick
      densekit bench my_suite.toml --out results --repeat failed
    """
    from rich.console import Console

    from densekit import bench as room
    from densekit.bench.baselines import below_baseline
    from densekit.bench.progress import watching
    from densekit.bench.report import write_report
    from densekit.bench.runner import start_server
    from densekit.bench.table import MIN_WIDTH

    shared: Shared = context_.obj
    start = time.perf_counter()
    loaded = room.load_suite(suite)
    folder = out if out is not None else Path("densekit-results") / loaded.name
    _check_folder(folder)
    _import_from_here()
    start_server()
    try:
        with watching(loaded, Console(stderr=True, quiet=shared.quiet)) as watcher:
            room.check(loaded)
            records = room.run_suite(loaded, folder, watcher, jobs=jobs, repeat=repeat.value)
        page = write_report(folder)
    except KeyboardInterrupt as stop:
        if not str(stop) and not folder.exists():
            raise  # nothing was begun
        kept = f"the runs that are done are kept in {folder}; the same command goes on from there"
        raise Stopped(str(stop) or kept) from stop
    failed = [record for record in records if record.status == "failed"]
    if shared.json:
        reasons = {record.key: record.reason for record in failed}
        shared.show(None, {"runs": len(records), "failed": reasons, "folder": str(folder)})
        raise typer.Exit(1 if failed else 0)
    console = Console()
    console.width = max(console.width, MIN_WIDTH)
    console.print(room.tables(records))
    for record in failed:
        console.print(f"{record.key} failed: {record.reason}", style="red", markup=False)
    lost = below_baseline(records)
    for record in records:
        if record.id in lost:
            console.print(
                f"{record.key} scores below {lost[record.id]}", style="yellow", markup=False
            )
    minutes, seconds = divmod(round(time.perf_counter() - start), 60)
    console.print(
        f"{len(records)} runs, {len(failed)} failed, {len(lost)} below the baseline, "
        f"in {minutes} min {seconds} s; the report is {page}",
        highlight=False,
        soft_wrap=True,
    )
    if failed:
        raise typer.Exit(1)


@app.command()
def report(
    context_: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where densekit bench wrote.")],
) -> None:
    """Make one self-contained page, report.html, of the records in DIR.

    Example: densekit report densekit-results/quick
    """
    from densekit.bench.report import write_report

    page = write_report(folder)
    context_.obj.say("wrote the report")
    if context_.obj.json:
        context_.obj.show(None, {"report": str(page)})
        return
    sys.stdout.write(f"{page}\n")


@app.command()
def check(
    context_: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A model of densekit list, or your module:Class.")
    ],
) -> None:
    """Run the contract suite on a model with its default settings; exit status 1 if a check fails.

    \b
    Examples:
      densekit check Gaussian
      densekit check my_module:MyDensity
    """
    from densekit.bench.suite import resolve
    from densekit.checks import density_checks

    shared: Shared = context_.obj
    _import_from_here()
    passed: list[str] = []
    failed: dict[str, str] = {}
    for estimator, each in density_checks(resolve(name)()):
        try:
            each(estimator)
            passed.append(each.name)
        except AssertionError as error:
            failed[each.name] = " ".join(str(error).split())
        if not shared.json:
            why = failed.get(each.name)
            sys.stdout.write(f"failed  {why}\n" if why else f"passed  {each.name}\n")
            sys.stdout.flush()
    if shared.json:
        shared.show(None, {"model": name, "passed": passed, "failed": failed})
    shared.say(f"{name}: {len(passed)} checks passed, {len(failed)} failed")
    if failed:
        raise typer.Exit(1)


@app.command("list")
def list_models(
    context_: typer.Context,
    family: Annotated[str | None, typer.Option(help="Only models of this family.")] = None,
    modality: Annotated[
        str | None, typer.Option(help="Only models that take this: table, image or text.")
    ] = None,
) -> None:
    """List the models: family, kind of density, what they take.

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
    context_.obj.show(table, plain)


@app.command()
def datasets(
    context_: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Only this one, with its sources.")
    ] = None,
    modality: Annotated[str | None, typer.Option(help="Only table, image or text.")] = None,
) -> None:
    """List the data sets that fit, score, evaluate and bench take by name.

    \b
    Examples:
      densekit datasets --modality text
      densekit datasets digits
    """
    from dataclasses import asdict

    from rich.console import Group
    from rich.table import Table

    from densekit import datasets as room

    infos = [room.info(n) for n in ([name] if name else room.names(modality))]
    table = Table("name", "modality", "rows of train, valid, test", "columns", "license", "here")
    plain = []
    for info in infos:
        rows = "by version of Python" if info.rows is None else "{:,} {:,} {:,}".format(*info.rows)
        columns = "-" if info.columns is None else str(info.columns)
        here = "no" if info.needs_download else "yes"
        table.add_row(info.name, info.modality, rows, columns, info.license, here)
        files = [str(path) for path in info.locations]
        figures = [asdict(figure) for figure in info.published]
        plain.append(
            {key: getattr(info, key) for key in ("name", "modality", "rows", "columns", "license")}
            | {"source": info.source, "here": not info.needs_download, "files": files}
            | {"urls": list(info.urls), "published": figures}
        )
    if not name:
        context_.obj.show(table, plain)
        return
    parts = [infos[0].source, *plain[0]["urls"]]
    parts += [published(infos[0].published)] if infos[0].published else []
    context_.obj.show(Group(table, *parts), plain[0])
