"""The commands fit, sample, score and evaluate."""

import time
from collections.abc import Mapping, Sequence
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
    prefix_messages,
    published,
)

MODEL_SUFFIX = ".densekit"
TABLES = ("csv", "tsv", "parquet", "jsonl", "npy", "npz")


def _model_names() -> list[str]:
    """Names of the models for shell completion, without importing torch."""
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
            help="Name of a model, see densekit list.",
            autocompletion=_model_names,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to save the model in.")],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A hyper-parameter, with its value as in TOML."
        ),
    ] = None,
    context: Annotated[
        str | None, typer.Option(metavar="COLS", help="Columns to condition on: age,sex.")
    ] = None,
    max_time: Annotated[float | None, typer.Option(help="Seconds to train at most.")] = None,
    seed: Seed = None,
    format: Format = None,
    sep: Sep = None,
    decimal: Decimal = ".",
) -> None:
    """Learn the density of DATA and save the model.

    If DATA is a data set (densekit datasets), its training part is used.

    \b
    Examples:
      densekit fit people.csv --model NeuralSplineFlow --context sex --out people.densekit
      densekit fit digits --model VAE --set latent_dim=8 --set "hidden_sizes=[64, 64]" -o vae.densekit
      densekit fit lines.txt --model TransformerLanguageModel --max-time 60 -o text.densekit
    """
    from densekit.cli.conditions import names_of

    shared: Shared = context_.obj
    _check_model_file(out)
    model_class = _model_class(model)
    pairs = [*(settings or ())]
    pairs += [f"random_state={seed}"] if seed is not None else []
    known, parameters = _parse_parameters(model_class, pairs, max_time)
    if shared.quiet:
        parameters.setdefault("verbose", False)
    rows, domain, _ = _load_rows(data, "train", format, sep, decimal)
    estimator = model_class(**{k: v for k, v in domain.items() if k in known} | parameters)
    columns = None if context is None else names_of(context)
    if columns is not None and not hasattr(rows, "columns"):
        raise ValueError(f"--context {context}: {data} has no named columns, unlike a .csv file")
    start = time.perf_counter()
    with prefix_messages(data):
        estimator.fit(rows, context=columns)
    seconds = time.perf_counter() - start
    estimator.save(out)
    _report_fit(shared, estimator, len(rows), seconds, out)


def _report_fit(shared: Shared, estimator: Any, n_rows: int, seconds: float, out: Path) -> None:
    """Print the columns and the kind of scores of a fitted model."""
    from densekit.cli.describing import (
        column_descriptions,
        column_table,
        score_description,
        score_kind,
    )

    model = type(estimator).__name__
    descriptions = column_descriptions(estimator)
    if descriptions:
        shared.print_details(column_table(descriptions))
    kind = score_description(estimator)
    shared.print_message(
        f"fitted {model} to {n_rows} rows in {seconds:.1f} s; {kind}; saved to {out}"
    )
    if shared.json:
        plain = {"model": model, "rows": n_rows, "seconds": seconds, "file": str(out)}
        shared.print_result(None, plain | score_kind(estimator) | {"columns": descriptions})


def _model_class(name: str) -> Any:
    """The class of a built-in model."""
    import densekit
    from densekit.params import nearest

    models = densekit.all_estimators()
    if ":" in name:
        raise ValueError(
            f"--model {name}: fit takes only the models of densekit list, because a saved file contains "
            "no code; fit your own model in Python, or use densekit bench and densekit check"
        )
    if name not in models:
        raise ValueError(f"no model is called {name!r}{nearest(name, models)}")
    return models[name]


def _parse_parameters(
    model_class: Any, pairs: list[str], max_time: float | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The default hyper-parameters of a model, and the values of those that the user set."""
    from densekit.params import parse_settings

    name, known = model_class.__name__, model_class().get_params(deep=False)
    if max_time is not None:
        if "max_time" not in known:
            raise ValueError(f"--max-time {max_time:g}: {name} has no time limit; omit the option")
        pairs = [*pairs, f"max_time={max_time}"]
    return known, parse_settings(pairs, known, name)


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
            help="A value to condition on, an interval 30..40 or ..40, or a list a,b; or a file with a "
            "row of values for each draw.",
        ),
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="The beginning of every text.")] = None,
    seed: Seed = None,
    format: Format = None,
    sep: Sep = None,
) -> None:
    """Draw rows from the model in FILE, with the columns and types of its training rows.

    Rows are written in pieces as they are drawn, so they need not fit into memory. It is an error if the
    disk has too little space for them. --format and --sep apply to --out. With --json, rows on standard
    output are JSON lines.

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
            raise  # Nothing was written.
        raise Stopped(f"{draws.done} of {draws.n} rows were written") from stop
    if out != "-":
        shared.print_message(f"drew {draws.n} rows; wrote them to {out}")
        if shared.json:
            shared.print_result(None, {"rows": draws.n, "file": out})


@app.command()
def score(
    context_: typer.Context,
    file: File,
    data: Data,
    out: Annotated[
        str,
        typer.Option("--out", "-o", help="File for a table of score and standard_error."),
    ] = "-",
    given: Annotated[
        str | None,
        typer.Option(metavar="COLS", help="Score the other columns given these: age,sex."),
    ] = None,
    format: Format = None,
    sep: Sep = None,
    decimal: Decimal = ".",
) -> None:
    """Compute the log-density of each row of DATA under the model in FILE.

    Scores are in nats, over the units of the data. If DATA is a data set (densekit datasets), its
    test part is scored. --format, --sep and --decimal apply to DATA. With --json, the table on
    standard output is JSON lines.

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
    from densekit.cli.describing import score_description, score_kind
    from densekit.cli.measuring import scores_of

    shared: Shared = context_.obj
    out_format = "jsonl" if shared.json and out == "-" else None
    _check_table_file(out, out_format)
    estimator = densekit.load(file)
    columns = {} if given is None else {"given": given_columns(estimator, file, given)}
    rows = _load_rows(data, "test", format, sep, decimal)[0]
    with prefix_messages(data):
        scores, errors = scores_of(estimator, rows, **columns)
    table = pd.DataFrame({"score": scores, "standard_error": errors})
    formats.write(table, out, format=out_format)
    where = "" if out == "-" else f"; wrote them to {out}"
    shared.print_message(f"scored {len(scores)} rows; {score_description(estimator)}{where}")
    if shared.json and out != "-":
        shared.print_result(None, {"rows": len(scores), "file": out} | score_kind(estimator))


@app.command()
def evaluate(
    context_: typer.Context,
    file: File,
    data: Data,
    samples: Annotated[
        int, typer.Option(min=0, help="Most rows to draw and compare with DATA; 0 for none.")
    ] = 1000,
    compare: Annotated[
        str, typer.Option("--metrics", metavar="NAMES", help="Metrics of the samples, or all.")
    ] = "two_sample_auc,energy_distance,precision,recall",
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random numbers.")] = 0,
    format: Format = None,
    sep: Sep = None,
    decimal: Decimal = ".",
) -> None:
    """Evaluate the model in FILE on DATA by its mean score and by metrics of samples.

    If DATA is a data set (densekit datasets), its test part is used, and published results are printed
    too.

    \b
    Examples:
      densekit evaluate people.densekit held-out.csv
      densekit evaluate vae.densekit digits --samples 300 --json
    """
    from dataclasses import asdict

    from rich.console import Group
    from rich.table import Table

    import densekit
    from densekit.cli.describing import score_description, score_kind
    from densekit.cli.measuring import likelihood, metric_names, sample_metrics

    names = metric_names(compare)
    estimator = densekit.load(file)
    rows, _, figures = _load_rows(data, "test", format, sep, decimal)
    units = {figure.unit for figure in figures}
    results = likelihood(estimator, rows, units) if hasattr(estimator, "score_samples") else {}
    outside = results.pop("outside", 0)
    results |= sample_metrics(estimator, rows, samples, names, seed)
    table = Table("measure", "value", "standard error", "unit")
    for name, value in results.items():
        error = f"{value.standard_error:.2g}"
        table.add_row(name.replace("_", " "), f"{value.value:.6g}", error, value.unit)
    name = type(estimator).__name__
    summary = f"{name} on {len(rows)} rows; {score_description(estimator)}"
    if outside:
        summary += f"; {outside} rows are outside its support and score -inf"
    plain = {"model": name, "rows": len(rows), "rows_outside": outside, **score_kind(estimator)}
    plain["measures"] = {k: vars(v) for k, v in results.items()}
    plain["published"] = [asdict(figure) for figure in figures]
    tables = [table, published(figures)] if figures else [table]
    context_.obj.print_result(Group(*tables, summary), plain)


def _load_rows(
    name: str, part: str, format: str | None, sep: str | None, decimal: str
) -> tuple[Any, Mapping[str, Any], Sequence[Any]]:
    """Rows of a file, or of a part of a data set, whose domain and published results come with it."""
    from densekit import datasets, formats
    from densekit.params import nearest

    if name != "-" and not Path(name).exists():
        if name in datasets.names():
            if sep is not None or decimal != ".":
                raise ValueError(
                    f"--sep and --decimal are for CSV files, and {name} is a data set"
                )
            data = datasets.load(name)
            rows = data.train if part == "train" else data.test.for_scoring()
            return rows, data.domain, data.reference
        if not Path(name).suffix:
            hint = nearest(name, datasets.names())
            raise ValueError(f"{name}: no such file or folder, and no data set of that name{hint}")
    return formats.read(name, format=format, sep=sep, decimal=decimal), {}, ()


def _check_model_file(out: Path) -> None:
    """Raise ValueError before training if a model cannot be saved to the file."""
    if not out.absolute().parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {out.parent}; create it first")
    if out.exists() and not out.is_file():
        raise ValueError(f"--out {out}: not a file; give the name of a file to save the model in")
    if out.suffix not in ("", MODEL_SUFFIX):
        raise ValueError(
            f"--out {out} would be a file of a densekit model: its name must end in {MODEL_SUFFIX}, not "
            f"in {out.suffix}"
        )


def _check_table_file(out: str, format: str | None) -> None:
    """Raise ValueError before scoring if a table of scores cannot be written to the file."""
    from densekit import formats

    if (target := formats.check_target(out, format=format).format) not in TABLES:
        raise ValueError(
            f"--out {out}: scores are a table, which the format {target} cannot represent; use a name "
            "that ends in .csv, .tsv, .parquet, .jsonl, .npy or .npz"
        )


def _context_of(estimator: Any, file: Path, given: Sequence[str], prompt: str | None) -> Any:
    """The context for ``sample``, from --context and --prompt."""
    from densekit import formats
    from densekit.cli.conditions import conditions_of, takes_given
    from densekit.contexts import context_of

    kind, names = context_of(estimator), estimator.context_names_
    needs_text = kind.is_text and not kind.optional and kind.codec is not None
    if needs_text and prompt is None:
        raise ValueError(f"{file} needs a source text: add --prompt 'the source'")
    if prompt is not None and not kind.is_text:
        raise ValueError(f"--prompt {prompt!r}: {type(estimator).__name__} takes no prompt")
    if not given:
        if names:
            wanted = " ".join(f"--context {name}=..." for name in names)
            raise ValueError(
                f"{file} was fitted with the context {', '.join(names)}: add {wanted}"
            )
        return prompt
    path = Path(given[0])
    if len(given) == 1 and (path.is_file() or ("=" not in given[0] and path.suffix)):
        return formats.read(given[0])
    if names or takes_given(estimator):
        return conditions_of(estimator, file, given)
    if kind.codec is not None and not kind.is_text:
        raise ValueError(
            f"--context {given[0]}: {file} was fitted with an array as context, whose columns have no "
            "names; use a file with a row of values for each draw: --context rows.npy"
        )
    raise ValueError(
        f"--context {given[0]}: {file} was fitted without a context; fit with --context, or fit "
        "TabularAutoregressive, which can condition on any columns"
    )
