"""Hyper-parameters: a field carries its constraint, and one function checks them all.

A field is written ``n_bins: Annotated[int, Interval(ge=2)] = 8``. The constructor stores what it is
given, as scikit-learn asks; :func:`check_parameters` is called once, by ``fit``.
"""

import difflib
import math
import numbers
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any

import numpy as np


@dataclass(frozen=True)
class Interval:
    """Numbers between bounds: ``ge`` and ``le`` are included, ``gt`` and ``lt`` are not."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    def admits(self, value: Any) -> bool:
        """Whether each number of ``value`` (a number or a tuple of numbers) lies inside."""
        numbers_ = value if isinstance(value, tuple | list) else (value,)
        return all(
            not math.isnan(x)
            and (self.ge is None or x >= self.ge)
            and (self.gt is None or x > self.gt)
            and (self.le is None or x <= self.le)
            and (self.lt is None or x < self.lt)
            for x in (float(v) for v in numbers_ if isinstance(v, numbers.Real))
        )

    def __str__(self) -> str:
        words = {"ge": "at least", "gt": "greater than", "le": "at most", "lt": "less than"}
        bounds = ((word, getattr(self, name)) for name, word in words.items())
        return " and ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)


@dataclass(frozen=True)
class OneOf:
    """A word from a list; with ``or_number``, any number too (an `Interval` beside it bounds it)."""

    words: tuple[str, ...]

    def __init__(self, *words: str):
        object.__setattr__(self, "words", words)

    def admits(self, value: Any) -> bool:
        """Whether a string ``value`` is one of the words; other types are not its business."""
        return not isinstance(value, str) or value in self.words

    def __str__(self) -> str:
        return "one of " + ", ".join(repr(word) for word in self.words)


def _is(value: Any, hint: Any) -> bool:
    """Whether ``value`` is of the type that ``hint`` describes, NumPy scalars included."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin is Annotated:
        return _is(value, args[0])
    if origin in (typing.Union, types.UnionType):
        return any(_is(value, arg) for arg in args)
    if origin is tuple:
        item = args[0] if len(args) == 2 and args[1] is Ellipsis else Any
        return isinstance(value, tuple | list) and all(_is(x, item) for x in value)
    if origin is typing.Literal:
        # Which of the words is OneOf's business, which has a message for it.
        return any(isinstance(value, type(word)) for word in args)
    if hint is None or hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool | np.bool_)
    if hint is int:
        return isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, numbers.Real) and not isinstance(value, bool)
    if origin in (Mapping, dict) or hint in (Mapping, dict):
        return isinstance(value, Mapping)
    if origin is Callable or origin is typing.get_origin(Callable[[], None]):
        return callable(value)
    return isinstance(value, origin or hint)


def _wanted(hint: Any) -> str:
    """The type in words, for the error."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _wanted(args[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_wanted(arg) for arg in args)
    if hint is None or hint is type(None):
        return "None"
    if origin is typing.Literal:
        return "one of " + ", ".join(map(repr, args))
    plain = {int: "an integer", float: "a number", str: "a string", bool: "True or False"}
    if origin is tuple:
        return f"a tuple of {_wanted(args[0]).split(' ', 1)[-1]}s" if args else "a tuple"
    return plain.get(hint, getattr(hint, "__name__", str(hint)))


def _constraints(hint: Any) -> list[Any]:
    if typing.get_origin(hint) is Annotated:
        base, *extra = typing.get_args(hint)
        return [*_constraints(base), *(e for e in extra if isinstance(e, Interval | OneOf))]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [c for arg in typing.get_args(hint) for c in _constraints(arg)]
    return []


def check_parameters(estimator: Any) -> None:
    """Raise if a hyper-parameter has a wrong type or lies outside its constraint.

    Raises
    ------
    TypeError, ValueError
        Named are the class, the parameter, the value it has and what it may be.
    """
    hints = typing.get_type_hints(type(estimator), include_extras=True)
    for field in fields(estimator):
        value, hint = getattr(estimator, field.name), hints[field.name]
        where = f"{type(estimator).__name__}({field.name}={value!r})"
        if not _is(value, hint):
            raise TypeError(
                f"{where}: {field.name} must be {_wanted(hint)}, "
                f"got {type(value).__name__}; the default is {field.default!r}"
            )
        for constraint in _constraints(hint):
            if not constraint.admits(value):
                near = ""
                if isinstance(constraint, OneOf):
                    found = difflib.get_close_matches(str(value), constraint.words, n=1)
                    near = f"; did you mean {found[0]!r}?" if found else ""
                raise ValueError(f"{where}: {field.name} must be {constraint}{near}")
