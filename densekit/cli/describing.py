"""What a fitted model is, in words: its scores, and the columns that it knows."""

from typing import Any

_SHOWN = 40
"""Columns of a table that are shown."""
_VALUES = 4
"""Values of a column that are shown."""


def kind_of(estimator: Any) -> dict[str, str]:
    return {
        "density_kind": estimator.density_kind_,
        "base_measure": estimator.base_measure_,
        "measure": str(estimator.measure_),
    }


def described(estimator: Any) -> str:
    """What its scores are, in words."""
    if estimator.density_kind_ == "none":
        return "it has no density, so no score"
    what = {
        "exact": "exact log-densities",
        "lower_bound": "lower bounds of log-densities",
        "estimate": "estimates of log-densities",
    }[estimator.density_kind_]
    measure, _, more = estimator.measure_.in_brief.partition(", ")
    return f"scores are {what} over {measure} measure{more and f' ({more})'}, in nats"


def columns_of(estimator: Any) -> list[dict[str, Any]]:
    """What it knows of each column of a table, in plain values; nothing of images and texts."""
    if estimator.schema_.modality != "table":
        return []
    frame = estimator.describe_columns().reset_index().astype(object)
    found: list[dict[str, Any]] = frame.where(frame.notna(), None).to_dict("records")
    return found


def table_of(columns: list[dict[str, Any]]) -> Any:
    """These columns as a table to be shown: what no column has is left out, and long lists are cut."""
    from rich.table import Table

    heads = ("kind", "support", "step", "atoms", "levels", "measure")
    rows = [
        [str(column["column"]), *(_cell(column[head]) for head in heads)] for column in columns
    ]
    kept = [0, *(j for j in range(1, len(heads) + 1) if any(row[j] for row in rows))]
    table = Table(*(("column", *heads)[j] for j in kept))
    for row in rows[:_SHOWN]:
        table.add_row(*(row[j] for j in kept))
    if len(rows) > _SHOWN:
        table.add_row(f"... {len(rows) - _SHOWN} more")
    return table


def _support(support: Any) -> str:
    """As one says it; nothing where all numbers are in it."""
    word, *ends = support if isinstance(support, list | tuple) else [support]
    if word in ("interval", "circle"):
        return f"{ends[0]} to {ends[1]}" + (", a circle" if word == "circle" else "")
    return "" if word == "real" else " ".join([word.replace("_", " "), *map(str, ends)])


def _cell(value: Any) -> str:
    if isinstance(value, list | tuple):
        more = f", ... ({len(value)})" if len(value) > _VALUES else ""
        return ", ".join(map(str, value[:_VALUES])) + more
    return "" if value is None else str(value)
