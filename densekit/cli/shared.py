"""The Typer application, and options and output functions of all commands."""

import contextlib
import json
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="densekit",
    help="Generative models with one interface: fit, sample and score, in the units of your data.",
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_WIDTH = 100
"""Least width of a table. A narrower terminal wraps lines, but no number is truncated."""


@dataclass(frozen=True)
class Shared:
    """Options that all commands share, with output functions that respect them."""

    quiet: bool = False
    json: bool = False

    def print_message(self, text: str) -> None:
        """Print a line on standard error, which is separate from data, unless quiet."""
        if not self.quiet:
            sys.stderr.write(f"{text}\n")

    def print_details(self, table: Any) -> None:
        """Print a table on standard error, unless quiet."""
        if not self.quiet:
            from rich.console import Console

            console = Console(stderr=True)
            console.width = max(console.width, _WIDTH)
            console.print(table)

    def print_result(self, table: Any, plain: Any) -> None:
        """Print the result on standard output: ``plain`` as JSON with --json, otherwise the table."""
        if self.json:
            sys.stdout.write(json.dumps(_finite(plain), indent=2, default=str) + "\n")
            return
        from rich.console import Console

        console = Console()
        console.width = max(console.width, _WIDTH)
        console.print(table)


def published(figures: Sequence[Any]) -> Any:
    """A printable table of published results."""
    from rich.table import Table

    table = Table("published result", "value", "unit", "source")
    for figure in figures:
        table.add_row(figure.model, f"{figure.value:g}", figure.unit, figure.source)
    return table


class Stopped(Exception):  # noqa: N818
    """Ctrl-C with a message; Typer would turn KeyboardInterrupt into an exit status without one."""


# Arguments and options that several commands have.
Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA", help="A file, a folder of images, - for standard input, or a data set."
    ),
]
File = Annotated[Path, typer.Argument(metavar="FILE", help="A model that densekit fit has saved.")]
Format = Annotated[
    str | None,
    typer.Option(help="csv, tsv, parquet, npy, npz, jsonl or text, if the suffix is another."),
]
Sep = Annotated[
    str | None,
    typer.Option(
        metavar="MARK",
        help="Separator of a CSV file, such as ; or tab. Detected by default.",
    ),
]
Decimal = Annotated[str, typer.Option(metavar="MARK", help="Decimal mark of a CSV file: . or ,")]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of all random numbers.")]


def _version(wanted: bool) -> None:
    if wanted:
        import densekit

        sys.stdout.write(f"densekit {densekit.__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    debug: Annotated[
        bool, typer.Option("--debug", help="Print the traceback of an error.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Print only errors on standard error.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print results as JSON.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Generative models with one interface: fit, sample and score, in the units of your data.

    --debug, --quiet and --json may also follow a command.
    """
    context.obj = Shared(quiet=quiet, json=as_json)


def _finite(value: Any) -> Any:
    """Replace numbers that JSON does not support by strings that float() parses: "-inf", "nan"."""
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return str(value)
    return value


@contextlib.contextmanager
def prefix_messages(data: str) -> Iterator[None]:
    """Prefix errors and warnings about rows with the name of the file, which replaces ``X``."""
    with warnings.catch_warnings():
        original = warnings.showwarning

        def show_with_prefix(message: Warning | str, *args: Any, **options: Any) -> None:
            original(f"{data}: {message}", *args, **options)

        warnings.showwarning = show_with_prefix
        try:
            yield
        except (ValueError, TypeError) as error:
            raise ValueError(f"{data}: {error}") from error
