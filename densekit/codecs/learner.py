"""What learning one column of a table needs, whatever its kind.

A column in memory is one piece, one in a file many; moments are taken of :data:`PIECE` rows at a time
either way, so that both come to the same bits. A column with atoms is read twice, since location and
scale are those of its other values.
"""

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from densekit.codecs.schema import Column
from densekit.codecs.supports import inside
from densekit.containers import RawColumn

MOST_ATOMS, FEWEST_ROWS = 128, 10
"""Values of a column that may be atoms by their share, and the rows that each must have."""


NARROW = 4.0
"""A value on a grid is an atom if its share is so many times that of one step in a standard deviation:
values that are merely rounded come again too."""


class Learner(ABC):
    """Abstract base class: learns the properties of a column from pieces of its values.

    Parameters
    ----------
    raw : RawColumn
        Its first piece, which defines label and dtype; its values are not added.
    name : str
        Name of the column in the schema.
    """

    def __init__(self, raw: RawColumn, name: str):
        self.label, self.dtype, self.name = raw.label, raw.dtype, name
        if not len(raw.values):
            raise ValueError(
                f"Column {raw.label!r} has no value in its first {len(raw)} row(s), all are missing: "
                "nothing can be learned of it; drop it."
            )
        self.first: Any = raw.values[:1].tolist()[0]

    @abstractmethod
    def add(self, raw: RawColumn, weights: np.ndarray | None = None) -> None:
        """Add values, with the weights of their rows.

        Raises
        ------
        ValueError
            A value contradicts the kind or the support.
        """

    def read_again(self) -> bool:
        """Finish the first pass over the data; return whether :meth:`refine` needs a second pass."""
        return False

    def refine(self, raw: RawColumn, weights: np.ndarray | None = None) -> None:
        """Take in the values once more, where :meth:`read_again` asks for them."""
        raise NotImplementedError(f"column {self.name!r} is read once")

    @abstractmethod
    def column(self) -> Column:
        """What was learned; a column that never varied is constant."""

    def counts(self, column: Column) -> np.ndarray:
        """Number of rows of each level of ``column``, a column that :meth:`column` returned."""
        raise NotImplementedError(f"column {self.name!r} is of numbers, which have no levels")

    def atom_rows(self) -> np.ndarray:
        """Rows off the atoms, and on each of them, (1 + K,)."""
        raise NotImplementedError(f"column {self.name!r} has no atoms")

    def _constant(self) -> Column:
        return Column(self.name, "constant", self.dtype, levels=(self.first,))


def step_for(given: Any, label: Any, found: int | float, *, whole: bool = False) -> int | float:
    """The step of a column: the one that is given, or that which was found."""
    if isinstance(given, str) and given == "auto":
        return found
    if given is None:
        return 0
    number = isinstance(given, int | float) and not isinstance(given, bool)
    if not number or not 0 < given < math.inf or (whole and given != int(given)):
        raise ValueError(
            f"step[{label!r}]={given!r}: a step is a positive {'integer' if whole else 'number'}, or "
            "None for no rounding"
        )
    return int(given) if whole else given


def rows_in(values: np.ndarray, weights: np.ndarray | None) -> float:
    """Rows, or the sum of their weights."""
    return float(len(values)) if weights is None else float(weights.sum())


def learned_ends(column: Column, low: Any, high: Any) -> tuple[str | int | float, ...]:
    """The support of a column whose smallest or largest value is an atom: it ends there."""
    first, last = column.ends
    if low in column.atoms:
        first = low
    if high in column.atoms:
        last = high
    if first is None:
        return ("real",) if last is None else ("at_most", last)
    if last is None:
        return (
            column.support
            if column.support == ("positive",) and first == 0
            else ("at_least", first)
        )
    return ("interval", first, last)


def check_inside(
    label: Any, given: Any, support: tuple[str | int | float, ...], values: np.ndarray
) -> None:
    """Raise ValueError where values lie outside the support."""
    ok = inside(support, values)
    if ok.all():
        return
    remedy = "widen it or drop these rows"
    if support[0] == "circle":
        remedy = "take whole turns off first, as low + np.mod(x - low, high - low)"
    example = values[~ok][0]
    example = example.item() if isinstance(example, np.generic) else example
    raise ValueError(
        f"support of column {label!r} is {given!r}, but {int((~ok).sum())} value(s) lie "
        f"outside, for example {example!r}; {remedy}."
    )
