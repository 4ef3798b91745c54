"""Descriptions of a fitted model: the kind of its scores, and its columns."""

from typing import Any

_MOST_COLUMNS = 40
"""Most columns of the data that are printed."""
_MOST_VALUES = 4
"""Most values in a cell that are printed."""


def score_kind(estimator: Any) -> dict[str, str]:
    """Density kind, base measure and measure of the scores, for JSON output."""
    return {
        "density_kind": estimator.density_kind_,
        "base_measure": estimator.base_measure_,
        "measure": str(estimator.measure_),
    }


def score_description(estimator: Any) -> str:
    """The kind of the scores in words."""
    if estimator.density_kind_ == "none":
        return "the model has no density, so it has no scores"
    kind = {
        "exact": "exact log-densities",
        "lower_bound": "lower bounds of log-densities",
        "estimate": "estimates of log-densities",
    }[estimator.density_kind_]
    measure, _, details = estimator.measure_.in_brief.partition(", ")
    return f"scores are {kind} over {measure} measure{details and f' ({details})'}, in nats"


def column_descriptions(estimator: Any) -> list[dict[str, Any]]:
    """What the model learned about each column, for JSON output; empty for images and texts."""
    if estimator.schema_.modality != "table":
        return []
    frame = estimator.describe_columns().reset_index().astype(object)
    records: list[dict[str, Any]] = frame.where(frame.notna(), None).to_dict("records")
    return records


def column_table(columns: list[dict[str, Any]]) -> Any:
    """A printable table of column descriptions, without empty properties and with long lists cut."""
    from rich.table import Table

    heads = ("kind", "support", "step", "atoms", "levels", "measure")
    columns = [{**column, "support": _support(column["support"])} for column in columns]
    rows = [
        [str(column["column"]), *(_cell(column[head]) for head in heads)] for column in columns
    ]
    kept = [0, *(j for j in range(1, len(heads) + 1) if any(row[j] for row in rows))]
    table = Table(*(("column", *heads)[j] for j in kept))
    for row in rows[:_MOST_COLUMNS]:
        table.add_row(*(row[j] for j in kept))
    if len(rows) > _MOST_COLUMNS:
        table.add_row(f"... {len(rows) - _MOST_COLUMNS} more")
    return table


def _support(support: Any) -> str:
    """A support in words; empty for the real line."""
    kind, *ends = support if isinstance(support, list | tuple) else [support]
    if kind in ("interval", "circle"):
        return f"{ends[0]} to {ends[1]}" + (", a circle" if kind == "circle" else "")
    return "" if kind == "real" else " ".join([kind.replace("_", " "), *map(str, ends)])


def _cell(value: Any) -> str:
    if isinstance(value, list | tuple):
        more = f", ... ({len(value)})" if len(value) > _MOST_VALUES else ""
        return ", ".join(map(str, value[:_MOST_VALUES])) + more
    return "" if value is None else str(value)
