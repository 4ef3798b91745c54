"""fit, sample, score, evaluate: data files in, a model or data files out."""

import contextlib
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from densekit.cli.shared import (
    Data,
    Decimal,
    File,
    Format,
    Seed,
    Sep,
    Shared,
    Stopped,
    app,
    published,
)

MODEL_SUFFIX = ".densekit"
TABLES = ("csv", "tsv", "parquet", "jsonl", "npy", "npz")


def _model_names() -> list[str]:
    """For the shell's completion, which must not wait for torch."""
    import densekit

    return [name for name, module in densekit._EXPORTS.items() if module.count(".") == 2]


@app.command()
def fit(
    context_: typer.Context,
    data: Data,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="A name that densekit list shows.",
            autocompletion=_model_names,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to save the model in.")],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A hyper-parameter, its value as in TOML."
        ),
    ] = None,
    context: Annotated[
        str | None, typer.Option(metavar="COLS", help="Columns to condition on: age,sex.")
    ] = None,
    max_time: Annotated[float | None, typer.Option(help="Seconds of training.")] = None,
    seed: Seed = None,
    format: Format = None,
    sep: Sep = None,
    decimal: Decimal = ".",
) -> None:
    """Learn the density of DATA and save the model.

    Of a data set (densekit datasets), the train part is used.

    \b
    Examples:
      densekit fit people.csv --model NeuralSplineFlow --context sex --out people.densekit
      densekit fit digits --model VAE --set latent_dim=8 --set "hidden_sizes=[64, 64]" -o vae.densekit
      densekit fit lines.txt --model TransformerLanguageModel --max-time 60 -o text.densekit
    """
    import densekit
    from densekit.cli.conditions import names_of
    from densekit.cli.describing import columns_of, described, kind_of, table_of
    from densekit.params import nearest, parse_settings

    shared: Shared = context_.obj
    _check_model_file(out)
    models = densekit.all_estimators()
    if ":" in model:
        raise ValueError(
            f"--model {model}: fit takes the models of densekit list, since a saved file names no "
            "code; fit your own in Python, or compare it by densekit bench and densekit check"
        )
    if model not in models:
        raise ValueError(f"no model is called {model!r}{nearest(model, models)}")
    pairs = [*(settings or ())]
    pairs += [f"max_time={max_time}"] if max_time is not None else []
    pairs += [f"random_state={seed}"] if seed is not None else []
    known = models[model]().get_params(deep=False)
    if max_time is not None and "max_time" not in known:
        raise ValueError(
            f"--max-time {max_time:g}: {model} takes no budget in seconds; leave it out"
        )
    given = parse_settings(pairs, known, model)
    if shared.quiet:
        given.setdefault("verbose", False)
    rows, domain, _ = _read(data, "train", format, sep, decimal)
    estimator = models[model](**{k: v for k, v in domain.items() if k in known} | given)
    columns = None if context is None else names_of(context)
    if columns is not None and not hasattr(rows, "columns"):
        raise ValueError(f"--context {context}: {data} has no named columns, as a .csv file has")
    start = time.perf_counter()
    with _naming(data):
        estimator.fit(rows, context=columns)
    seconds = time.perf_counter() - start
    estimator.save(out)
    columns_ = columns_of(estimator)
    if columns_:
        shared.tell(table_of(columns_))
    score = described(estimator)
    shared.say(f"fitted {model} to {len(rows)} rows in {seconds:.1f} s; {score}; saved to {out}")
    if shared.json:
        plain = {"model": model, "rows": len(rows), "seconds": seconds, "file": str(out)}
        shared.show(None, plain | kind_of(estimator) | {"columns": columns_})


@app.command()
def sample(
    context_: typer.Context,
    file: File,
    n: Annotated[int, typer.Option("-n", min=1, help="How many rows.")] = 1,
    out: Annotated[
        str, typer.Option("--out", "-o", help="A file, a new folder for images, or -.")
    ] = "-",
    context: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COL=VALUE",
            help="A value to condition on, an interval 30..40 or ..40, or a list a,b; or a file that "
            "has a row of values for each draw.",
        ),
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="The beginning of every text.")] = None,
    seed: Seed = None,
    format: Format = None,
    sep: Sep = None,
) -> None:
    """Draw rows from the model in FILE, like those it was fitted to.

    Rows go to the file as they are drawn, so that there may be more of them than memory holds; more
    than the disk holds are refused. --format and --sep are those of --out. With --json, rows on
    standard output are JSON lines.

    \b
    Examples:
      densekit sample people.densekit -n 1000 --context sex=f --out women.parquet
      densekit sample table.densekit --context age=30..40 --context race=White,Black -n 50
      densekit sample vae.densekit -n 64 --seed 0 --out pictures/
      densekit sample text.densekit -n 10 --prompt "The " --format text | head
    """
    import densekit
    from densekit import formats
    from densekit.cli.drawing import Draws

    shared: Shared = context_.obj
    if shared.json and out == "-":
        format = format or "jsonl"
    formats.check_target(out, format=format, sep=sep)
    estimator = densekit.load(file)
    draws = Draws(estimator, n, _context_of(estimator, file, context or (), prompt), seed)
    if (probe := draws.probe()) is not None:
        formats.check_space(probe, draws.n, out, format=format, sep=sep)
    try:
        formats.write_pieces(draws.pieces(), draws.n, out, format=format, sep=sep)
    except KeyboardInterrupt as stop:
        if out != "-" or not draws.done:
            raise  # nothing was written
        raise Stopped(f"{draws.done} of {draws.n} rows were written") from stop
    if out != "-":
        shared.say(f"drew {draws.n} rows; wrote them to {out}")
        if shared.json:
            shared.show(None, {"rows": draws.n, "file": out})


@app.command()
def score(
    context_: typer.Context,
    file: File,
    data: Data,
    out: Annotated[
        str, typer.Option("--out", "-o", help="A table: score and standard_error of each row.")
    ] = "-",
    given: Annotated[
        str | None,
        typer.Option(metavar="COLS", help="Score the other columns given these: age,sex."),
    ] = None,
    format: Format = None,
    sep: Sep = None,
    decimal: Decimal = ".",
) -> None:
    """Log-density of each row of DATA under the model in FILE: nats, in the units of the data.

    Of a data set (densekit datasets), the test part is scored. --format, --sep and --decimal are those
    of DATA. With --json, the table on standard output is JSON lines.

    \b
    Examples:
      densekit score people.densekit new.csv --out scores.csv
      densekit score people.densekit - < new.csv | sort -g | head
      densekit score table.densekit new.csv --given age,sex
    """
    import pandas as pd

    import densekit
    from densekit import formats
    from densekit.cli.conditions import given_columns
    from densekit.cli.describing import described, kind_of
    from densekit.cli.measuring import scores_of

    shared: Shared = context_.obj
    written = "jsonl" if shared.json and out == "-" else None
    _check_table_file(out, written)
    estimator = densekit.load(file)
    columns = {} if given is None else {"given": given_columns(estimator, file, given)}
    rows = _read(data, "test", format, sep, decimal)[0]
    with _naming(data):
        scores, errors = scores_of(estimator, rows, **columns)
    table = pd.DataFrame({"score": scores, "standard_error": errors})
    formats.write(table, out, format=written)
    where = "" if out == "-" else f"; wrote them to {out}"
    shared.say(f"scored {len(scores)} rows; {described(estimator)}{where}")
    if shared.json and out != "-":
        shared.show(None, {"rows": len(scores), "file": out} | kind_of(estimator))


@app.command()
def evaluate(
    context_: typer.Context,
    file: File,
    data: Data,
    samples: Annotated[
        int, typer.Option(min=0, help="Rows to draw and compare with DATA, at most; 0: none.")
    ] = 1000,
    compare: Annotated[
        str, typer.Option("--metrics", metavar="NAMES", help="How draws are compared, or all.")
    ] = "two_sample_auc,energy_distance,precision,recall",
    seed: Annotated[int, typer.Option(min=0, help="Fixes what is drawn.")] = 0,
    format: Format = None,
    sep: Sep = None,
    decimal: Decimal = ".",
) -> None:
    """How good the model in FILE is on DATA: mean score, what it means, and sample metrics.

    Of a data set (densekit datasets), the test part is used, and what others published on it is
    shown beside.

    \b
    Examples:
      densekit evaluate people.densekit held-out.csv
      densekit evaluate vae.densekit digits --samples 300 --json
    """
    from dataclasses import asdict

    from rich.console import Group
    from rich.table import Table

    import densekit
    from densekit.cli.describing import described, kind_of
    from densekit.cli.measuring import compared, likelihood, metrics_of

    wanted = metrics_of(compare)
    estimator = densekit.load(file)
    rows, _, figures = _read(data, "test", format, sep, decimal)
    units = {figure.unit for figure in figures}
    found = likelihood(estimator, rows, units) if hasattr(estimator, "score_samples") else {}
    outside = found.pop("outside", 0)
    found |= compared(estimator, rows, samples, wanted, seed)
    table = Table("measure", "value", "standard error", "unit")
    for name, value in found.items():
        error = f"{value.standard_error:.2g}"
        table.add_row(name.replace("_", " "), f"{value.value:.6g}", error, value.unit)
    name = type(estimator).__name__
    said = f"{name} on {len(rows)} rows; {described(estimator)}"
    if outside:
        said += f"; {outside} rows lie outside its support and score -inf"
    plain = {"model": name, "rows": len(rows), "rows_outside": outside, **kind_of(estimator)}
    plain["measures"] = {k: vars(v) for k, v in found.items()}
    plain["published"] = [asdict(figure) for figure in figures]
    context_.obj.show(Group(table, *([published(figures)] if figures else []), said), plain)


def _read(
    name: str, part: str, format: str | None, sep: str | None, decimal: str
) -> tuple[Any, Mapping[str, Any], Sequence[Any]]:
    """Rows of a file, or of a part of a data set with what is known of its entries and what others
    published on it."""
    from densekit import datasets as room
    from densekit import formats
    from densekit.params import nearest

    if name != "-" and not Path(name).exists():
        if name in room.names():
            if sep is not None or decimal != ".":
                raise ValueError(
                    f"--sep and --decimal are for CSV files, and {name} is a data set"
                )
            data = room.load(name)
            rows = data.train if part == "train" else data.test.for_scoring()
            return rows, data.domain, data.reference
        if not Path(name).suffix:
            hint = nearest(name, room.names())
            raise ValueError(f"{name}: no such file or folder, and no data set of that name{hint}")
    return formats.read(name, format=format, sep=sep, decimal=decimal), {}, ()


def _check_model_file(out: Path) -> None:
    """Raise, before an hour of training, if nothing can be saved there."""
    if not out.absolute().parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {out.parent}; make it first")
    if out.exists() and not out.is_file():
        raise ValueError(f"--out {out}: not a file; give the name of a file to save the model in")
    if out.suffix not in ("", MODEL_SUFFIX):
        raise ValueError(
            f"--out {out} would hold a model of densekit: end the name in {MODEL_SUFFIX}, and not in "
            f"{out.suffix}"
        )


def _check_table_file(out: str, format: str | None) -> None:
    """Raise if no table of scores can be written there."""
    from densekit import formats

    if (found := formats.check_target(out, format=format).format) not in TABLES:
        raise ValueError(
            f"--out {out}: scores are a table, and {found} holds none; end the name in .csv, .tsv, "
            ".parquet, .jsonl, .npy or .npz"
        )


def _context_of(estimator: Any, file: Path, given: Sequence[str], prompt: str | None) -> Any:
    """What ``sample`` is to condition on, from --context and --prompt."""
    import densekit
    from densekit import formats
    from densekit.cli.conditions import conditions_of, takes_given

    kind, names = densekit.capabilities(estimator).context, estimator.context_names_
    if kind == "text" and estimator.context_codec_ is not None and prompt is None:
        raise ValueError(f"{file} writes from a source: add --prompt 'the source'")
    if prompt is not None and kind not in ("prompt", "text"):
        raise ValueError(f"--prompt {prompt!r}: {type(estimator).__name__} takes no prompt")
    if not given:
        if names:
            wanted = " ".join(f"--context {name}=..." for name in names)
            raise ValueError(f"{file} was fitted given {', '.join(names)}: add {wanted}")
        return prompt
    alone = Path(given[0])
    if len(given) == 1 and (alone.is_file() or ("=" not in given[0] and alone.suffix)):
        return formats.read(given[0])
    if names or takes_given(estimator):
        return conditions_of(estimator, file, given)
    if estimator.context_codec_ is not None and kind == "features":
        raise ValueError(
            f"--context {given[0]}: {file} was fitted given an array, whose columns have no names; give "
            "a file of contexts, a row for each draw: --context rows.npy"
        )
    raise ValueError(
        f"--context {given[0]}: {file} was fitted without context columns; fit with --context, or fit "
        "TabularAutoregressive, which takes any columns afterward"
    )


@contextlib.contextmanager
def _naming(data: str) -> Iterator[None]:
    """Errors and warnings about rows say which file they came from: a user of files has no X."""
    with warnings.catch_warnings():
        outer = warnings.showwarning

        def named(message: Warning | str, *args: Any, **options: Any) -> None:
            outer(f"{data}: {message}", *args, **options)  # type: ignore[arg-type]

        warnings.showwarning = named
        try:
            yield
        except (ValueError, TypeError) as error:
            raise ValueError(f"{data}: {error}") from error
