"""What a score is a density over, column by column: scores compare where kind and measure agree."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ColumnMeasure:
    """The dominating measure of one column.

    Parameters
    ----------
    name : str
        The column.
    unit : str
        Lebesgue measure per this unit: ``"1"`` for a column of numbers in the units of the data,
        ``"seconds"`` for instants; empty without Lebesgue measure.
    counting : bool
        Whether single values have a mass.
    atoms : tuple of numbers or str
        The values that have one beside Lebesgue measure; instants as ISO 8601 has them.
    """

    name: str
    unit: str = ""
    counting: bool = False
    atoms: tuple[int | float | str, ...] = ()

    def __str__(self) -> str:
        if not self.unit:
            return "counting"
        lebesgue = "Lebesgue" if self.unit == "1" else f"Lebesgue per {self.unit.rstrip('s')}"
        if not self.counting:
            return lebesgue
        return f"{lebesgue} + counting on {', '.join(map(_short, self.atoms))}"


def _short(atom: int | float | str) -> str:
    return atom if isinstance(atom, str) else f"{atom:.15g}"


@dataclass(frozen=True)
class Measure:
    """The measure of a row: the product of those of its columns.

    Supports, steps and levels are not part of it. Two scores of the same kind are comparable where
    their measures are equal.

    Examples
    --------
    >>> import numpy as np
    >>> from densekit import Gaussian
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 2))
    >>> print(Gaussian().fit(X).measure_)
    x0: Lebesgue; x1: Lebesgue
    >>> X[:100, 1] = 0.0
    >>> atoms = Gaussian().fit(X).measure_
    >>> print(atoms)
    x0: Lebesgue; x1: Lebesgue + counting on 0
    >>> atoms == Gaussian().fit(X[50:]).measure_
    True
    """

    columns: tuple[ColumnMeasure, ...]

    @property
    def word(self) -> Literal["lebesgue", "counting", "product"]:
        """Name of the base measure; ``"product"`` if columns have both Lebesgue and counting measure."""
        if not any(c.unit for c in self.columns):
            return "counting"
        return "product" if any(c.counting for c in self.columns) else "lebesgue"

    @property
    def in_brief(self) -> str:
        """The short word, and which columns have atoms.

        Examples
        --------
        >>> Measure((ColumnMeasure("x", "1"), ColumnMeasure("y", "1", True, (0.0,)))).in_brief
        'product, atoms in y'
        """
        names = [c.name for c in self.columns if c.atoms]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return f"{self.word}, atoms in {', '.join(names[:3])}{more}" if names else self.word

    def __str__(self) -> str:
        return "; ".join(f"{c.name}: {c}" for c in self.columns)

    def __repr__(self) -> str:
        return f"Measure({str(self)!r})"
