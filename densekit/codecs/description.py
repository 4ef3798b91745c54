"""What is known of the columns of a table, apart from any model: made once, shared by many fits."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from densekit.codecs.schema import Column

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Description:
    """Kind, support, atoms, step and levels of each column, as :func:`densekit.describe` finds them.

    Estimators given ``columns=description`` learn none of these by themselves, so that folds of the
    same data, and different models, score with respect to one measure.
    """

    columns: tuple[Column, ...]
    labels: tuple[str | int, ...]

    def of(self, labels: Sequence[Any]) -> list[Column]:
        """The columns of a table with these labels, in its order.

        Raises
        ------
        ValueError
            One is not described.
        """
        known = dict(zip(self.labels, self.columns, strict=True))
        lacking = [label for label in labels if label not in known]
        if lacking:
            raise ValueError(
                f"columns= does not describe the column(s) {lacking[:5]}; it has "
                f"{list(self.labels)[:5]}: describe the rows that the model is fitted to"
            )
        return [known[label] for label in labels]

    def to_frame(self) -> "pd.DataFrame":
        """One row for each column: kind, support, step, atoms, levels and measure, in values of the
        data."""
        import pandas as pd

        rows = [
            {
                "column": label,
                "kind": c.kind,
                "support": _support(c),
                "step": _step(c),
                "atoms": [value_of(c, a) for a in c.atoms],
                "levels": [value_of(c, v) for v in c.levels],
                "dtype": c.dtype,
            }
            for label, c in zip(self.labels, self.columns, strict=True)
        ]
        return pd.DataFrame(rows).set_index("column")

    def __str__(self) -> str:
        lines = []
        for c in self.columns:
            parts: list[str] = [c.kind]
            if c.parent != "":
                parts.append(f"of {c.parent!r}")
            if c.support != ("real",):
                parts.append(f"support {_support(c)}")
            if c.step:
                parts.append(f"step {_step(c)}")
            if c.atoms:
                parts.append(f"atoms {', '.join(str(value_of(c, a)) for a in c.atoms)}")
            if c.levels and c.kind != "derived":
                some = ", ".join(str(value_of(c, v)) for v in c.levels[:5])
                more = f", ... ({len(c.levels)})" if len(c.levels) > 5 else ""
                parts.append(f"value {some}" if c.kind == "constant" else f"levels {some}{more}")
            lines.append(f"{c.name}: {', '.join(parts)}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"Description({'; '.join(str(self).splitlines())})"


def value_of(column: Column, value: Any) -> Any:
    """A value as the data has it: of datetimes a ``pandas.Timestamp``, where that reaches so far."""
    if not column.unit or not isinstance(value, int):
        return value
    import pandas as pd

    instant = np.array(value).astype(f"datetime64[{column.unit}]")[()]
    try:
        return pd.Timestamp(instant)
    except (pd.errors.OutOfBoundsDatetime, ValueError):
        return instant


def _support(column: Column) -> str | tuple[Any, ...]:
    word, *ends = column.support
    return (word, *(value_of(column, e) for e in ends)) if ends else str(word)


def _step(column: Column) -> Any:
    if not column.step or not column.unit:
        return column.step or None
    import pandas as pd

    return pd.Timedelta(int(column.step), "D" if column.unit == "D" else column.unit)


def with_labels(columns: tuple[Column, ...], labels: Sequence[str | int]) -> Description:
    """A description of columns that a codec learned, without locations and scales."""
    plain = tuple(replace(c, loc=0.0, scale=1.0) for c in columns)
    return Description(plain, tuple(labels))
