"""What a user may declare of the support of a column, and which values lie inside."""

import math
from typing import Any

import numpy as np

_WORDS = {"at_least": 1, "at_most": 1, "interval": 2, "circle": 2}


def long_form(label: Any, support: Any, unit: str = "") -> tuple[str | int | float, ...]:
    """The support as the schema has it: a word and its ends.

    Parameters
    ----------
    label : str or int
        The column, for errors.
    support : str or tuple, optional
        ``"real"``, ``"positive"``, ``"nonnegative"``, ``("at_least", low)``, ``("at_most", high)``,
        ``("interval", low, high)`` or ``("circle", low, high)``.
    unit : str
        Empty for numbers, ``"1"`` for integers, else NumPy's unit of a datetime's ticks.

    Raises
    ------
    ValueError
        It is none of these, its ends are not finite or in the wrong order, or the kind of the column
        does not have it.

    Examples
    --------
    >>> long_form("x", "nonnegative"), long_form("n", ("at_least", 0.5), "1")
    (('at_least', 0.0), ('at_least', 1))
    """
    word, *ends = (support,) if support is None or isinstance(support, str) else tuple(support)
    if word in (None, "real") and not ends:
        return ("real",)
    if word == "nonnegative" and not ends and unit in ("", "1"):
        word, ends = "at_least", [0]
    if word == "positive" and not ends:
        if not unit:
            return ("positive",)
        if unit == "1":
            word, ends = "at_least", [1]
    kinds = {"": "number", "1": "integer"}
    if _WORDS.get(word) != len(ends) or (unit and word == "circle"):
        raise ValueError(_refusal(label, support, kinds.get(unit, "datetime")))
    read = [_end(e, unit, side) for e, side in zip(ends, _sides(word), strict=True)]
    if any(e is None for e in read) or (len(read) == 2 and not read[0] < read[1]):
        raise ValueError(_refusal(label, support, kinds.get(unit, "datetime")))
    return (word, *read)


def _sides(word: str) -> tuple[int, ...]:
    return {"at_least": (1,), "at_most": (-1,)}.get(word, (1, -1))


def _end(value: Any, unit: str, side: int) -> Any:
    """An end as the schema has it: a float, an integer, or ticks; None where it is no such thing."""
    try:
        if unit in ("", "1"):
            number = float(value)
            if not math.isfinite(number):
                return None
            if not unit:
                return number
            if isinstance(value, int | np.integer):
                return int(value)
            return math.ceil(number) if side > 0 else math.floor(number)
        ticks = np.datetime64(value).astype(f"datetime64[{unit}]")
        return None if np.isnat(ticks) else int(ticks.astype(np.int64))
    except (TypeError, ValueError, OverflowError):
        return None


def _refusal(label: Any, support: Any, kind: str) -> str:
    words = "'real', ('at_least', low), ('at_most', high) or ('interval', low, high)"
    if kind == "number":
        words = (
            "'real', 'positive', 'nonnegative', ('at_least', low), ('at_most', high), ('interval', low, "
            "high) or ('circle', low, high)"
        )
    if kind == "integer":
        words = words.replace("'real'", "'real', 'positive', 'nonnegative'")
    return (
        f"support of column {label!r} is {support!r}; that of a column of {kind}s must be {words}, "
        "with finite low < high."
    )


def inside(support: tuple[str | int | float, ...], values: np.ndarray) -> np.ndarray:
    """Which values lie in a support, its ends included where they may have a mass."""
    match support:
        case ("positive",):
            return values > 0
        case ("at_least", low):
            return values >= low
        case ("at_most", high):
            return values <= high
        case ("interval" | "circle", low, high):
            return (values >= low) & (values <= high)
    return np.ones(len(values), bool)
