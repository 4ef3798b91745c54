"""The application, and what its commands share."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="densekit",
    help="Generative models with one contract: fit, sample and score, in the units of your data.",
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_WIDTH = 100
"""Columns that a table needs: on a narrower terminal lines wrap, and no number is cut."""


@dataclass(frozen=True)
class Shared:
    """Options of every command."""

    quiet: bool = False
    json: bool = False

    def say(self, text: str) -> None:
        """A line for the user, on standard error, which is never mixed with data."""
        if not self.quiet:
            sys.stderr.write(f"{text}\n")

    def show(self, table: Any, plain: Any) -> None:
        """The result on standard output: ``plain`` as JSON where asked for, else the table."""
        if self.json:
            sys.stdout.write(json.dumps(_finite(plain), indent=2, default=str) + "\n")
            return
        from rich.console import Console

        console = Console()
        console.width = max(console.width, _WIDTH)
        console.print(table)


def published(figures: Sequence[Any]) -> Any:
    """A table of results that others published, to be shown."""
    from rich.table import Table

    table = Table("published result", "value", "unit", "source")
    for figure in figures:
        table.add_row(figure.model, f"{figure.value:g}", figure.unit, figure.source)
    return table


class Stopped(Exception):  # noqa: N818
    """Ctrl-C, with what is to be said of it: Typer would make a bare exit status of it."""


# The shared words of the commands' signatures.
Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA", help="A file, a folder of images, - for standard input, or a data set."
    ),
]
File = Annotated[Path, typer.Argument(metavar="FILE", help="A model that densekit fit has saved.")]
Format = Annotated[
    str | None,
    typer.Option(help="csv, tsv, parquet, npy, npz, jsonl, text: where the name does not say it."),
]
Sep = Annotated[
    str | None,
    typer.Option(
        metavar="MARK",
        help="What separates the values of a CSV file: ; or tab, say. Found out if not given.",
    ),
]
Decimal = Annotated[
    str, typer.Option(metavar="MARK", help="What decimals come behind in a CSV file: . or ,")
]
Seed = Annotated[int | None, typer.Option(min=0, help="Fixes what is drawn.")]


def _version(wanted: bool) -> None:
    if wanted:
        import densekit

        sys.stdout.write(f"densekit {densekit.__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Errors with their traceback.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Nothing on standard error but errors.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Results as JSON.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="The version.")
    ] = False,
) -> None:
    """Generative models with one contract: fit, sample and score, in the units of your data.

    --debug, --quiet and --json may stand behind a command too.
    """
    context.obj = Shared(quiet=quiet, json=as_json)


def _finite(value: Any) -> Any:
    """Numbers that JSON does not have as the strings that float() reads: "-inf", "nan"."""
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return str(value)
    return value
