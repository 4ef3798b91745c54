"""The command line: it parses, calls and prints, and decides nothing."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="densekit",
    help="Generative models with one contract: fit, sample and score, in the units of your data.",
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


_INTERRUPTED = 130
"""What Typer returns for Ctrl-C, as shells do."""


@app.callback()
def _root() -> None:
    """Generative models with one contract: fit, sample and score, in the units of your data."""


@app.command()
def bench(
    suite: Annotated[
        str, typer.Argument(help="A suite of the package (quick), or the path of a .toml file.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the records; densekit-results/SUITE if not given."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs at once; one for each processor if not given.")
    ] = None,
) -> None:
    """Fit, score and sample every model of a SUITE, each in its own process.

    Prints a table for each data set and leaves one JSON record for each run. The exit status is 1
    if a run failed.

    Example: densekit bench quick
    """
    import time

    from rich.console import Console

    from densekit import bench as room
    from densekit.bench.progress import watching
    from densekit.bench.runner import start_server
    from densekit.bench.table import MIN_WIDTH

    start = time.perf_counter()
    loaded = room.load_suite(suite)
    folder = out if out is not None else Path("densekit-results") / loaded.name
    start_server()
    with watching(loaded, Console(stderr=True)) as watcher:
        room.check(loaded)
        records = room.run_suite(loaded, folder, watcher, jobs=jobs)
    console = Console()
    console.width = max(console.width, MIN_WIDTH)
    console.print(room.tables(records))
    failed = [record for record in records if record.status == "failed"]
    for record in failed:
        console.print(f"{record.key} failed: {record.reason}", style="red", markup=False)
    minutes, seconds = divmod(round(time.perf_counter() - start), 60)
    console.print(
        f"{len(records)} runs, {len(failed)} failed, in {minutes} min {seconds} s; "
        f"records in {folder}{'/' if folder.is_dir() else ''}",
        highlight=False,
        soft_wrap=True,
    )
    if failed:
        raise typer.Exit(1)


@app.command("list")
def list_models(
    family: Annotated[str | None, typer.Option(help="Only models of this family.")] = None,
    modality: Annotated[
        str | None, typer.Option(help="Only models that take this: table, image or text.")
    ] = None,
) -> None:
    """List the models: family, kind of density, what they take.

    Example: densekit list --modality image
    """
    from rich.console import Console
    from rich.table import Table

    import densekit
    from densekit.discovery import family_of

    table = Table("model", "family", "density", "takes", "context")
    for name, kind in densekit.all_estimators(family=family, modality=modality).items():
        can = densekit.capabilities(kind)
        table.add_row(name, family_of(kind), can.density, ", ".join(can.modalities), can.context)
    console = Console()
    console.width = max(console.width, 100)
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 a run failed, 2 a wrong call, 130 interrupted.

    An error is one line on standard error.
    """
    try:
        words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
        status = app(words, prog_name="densekit", standalone_mode=False)
    except typer.Abort:
        status = _INTERRUPTED
    except (ValueError, TypeError, OSError) as error:
        _fail(str(error), 2)
    except Exception as error:
        # Typer's own errors know how to say what was wrong with the call.
        if not hasattr(error, "format_message"):
            raise
        _fail(f"{error.format_message()} (densekit --help lists what there is)", 2)
    if status == _INTERRUPTED:
        _fail("stopped; the records of finished runs are kept", _INTERRUPTED)
    sys.exit(status if isinstance(status, int) else 0)


def _fail(message: str, status: int) -> None:
    sys.stderr.write("densekit: " + " ".join(message.split()) + "\n")
    sys.exit(status)
