"""Validation of hyper-parameters: a field has its constraint, and one function checks all fields.

A field is written ``n_bins: Annotated[int, Interval(ge=2)] = 8``. The constructor stores what it is
given, as scikit-learn requires; ``fit`` calls :func:`check_parameters`.
"""

import difflib
import math
import numbers
import tomllib
import types
import typing
from collections.abc import Callable, Iterable, Mapping
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
        """Whether each number of ``value`` (a number or a tuple of numbers) is in the interval."""
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
    """One of several strings. Values of other types pass; an :class:`Interval` may bound numbers."""

    words: tuple[str, ...]

    def __init__(self, *words: str):
        object.__setattr__(self, "words", words)

    def admits(self, value: Any) -> bool:
        """Whether a string ``value`` is one of the words; True for values of other types."""
        return not isinstance(value, str) or value in self.words

    def __str__(self) -> str:
        return "one of " + ", ".join(repr(word) for word in self.words)


def matches(value: Any, hint: Any, exact: bool = False) -> bool:
    """Whether ``value`` is of the type that ``hint`` describes.

    Parameters
    ----------
    value, hint : object
    exact : bool
        Whether to compare strictly: a list is no tuple, a NumPy scalar is no int, keys and values of
        a mapping are checked, and a Literal must be one of its values. An int is a float either way.

    Examples
    --------
    >>> matches([1, 2], tuple[int, ...]), matches([1, 2], tuple[int, ...], exact=True)
    (True, False)
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin is Annotated:
        return matches(value, args[0], exact)
    if origin in (typing.Union, types.UnionType):
        return any(matches(value, arg, exact) for arg in args)
    if origin in (tuple, list):
        item = args[0] if origin is list or args[1:] == (Ellipsis,) else Any
        kinds = (origin,) if exact else (tuple, list)
        return isinstance(value, kinds) and all(matches(x, item, exact) for x in value)
    if origin is typing.Literal:
        # OneOf checks which word it is, and has a message for it.
        same = any(type(value) is type(word) and value == word for word in args)
        return same if exact else any(isinstance(value, type(word)) for word in args)
    if hint is None or hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool if exact else bool | np.bool_)
    if hint in (int, float):
        if exact:
            return type(value) in ((int,) if hint is int else (int, float))
        number = numbers.Integral if hint is int else numbers.Real
        return isinstance(value, number) and not isinstance(value, bool)
    if origin in (Mapping, dict) or hint in (Mapping, dict):
        pairs = value.items() if exact and args and isinstance(value, Mapping) else ()
        return isinstance(value, Mapping) and all(
            matches(k, args[0], exact) and matches(v, args[1], exact) for k, v in pairs
        )
    if origin is Callable or origin is typing.get_origin(Callable[[], None]):
        return callable(value)
    return isinstance(value, origin or hint)


def _type_in_words(hint: Any) -> str:
    """Description of a type for error messages."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _type_in_words(args[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type_in_words(arg) for arg in args)
    if hint is None or hint is type(None):
        return "None"
    if origin is typing.Literal:
        return "one of " + ", ".join(map(repr, args))
    plain = {int: "an integer", float: "a number", str: "a string", bool: "True or False"}
    if origin is tuple:
        return f"a tuple of {_type_in_words(args[0]).split(' ', 1)[-1]}s" if args else "a tuple"
    return plain.get(hint, getattr(hint, "__name__", str(hint)))


def _constraints(hint: Any) -> list[Any]:
    if typing.get_origin(hint) is Annotated:
        base, *extra = typing.get_args(hint)
        return [*_constraints(base), *(e for e in extra if isinstance(e, Interval | OneOf))]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [c for arg in typing.get_args(hint) for c in _constraints(arg)]
    return []


def words_of(hint: Any) -> tuple[str, ...]:
    """Strings that a field of this type accepts; empty if it accepts no fixed strings."""
    return tuple(w for c in _constraints(hint) if isinstance(c, OneOf) for w in c.words)


def check_parameters(estimator: Any) -> None:
    """Raise if a hyper-parameter has a wrong type or violates its constraint.

    Raises
    ------
    TypeError, ValueError
        The message names the class, the parameter, its value and the valid values.
    """
    hints = typing.get_type_hints(type(estimator), include_extras=True)
    for field in fields(estimator):
        value, hint = getattr(estimator, field.name), hints[field.name]
        where = f"{type(estimator).__name__}({field.name}={value!r})"
        if not matches(value, hint):
            raise TypeError(
                f"{where}: {field.name} must be {_type_in_words(hint)}, "
                f"got {type(value).__name__}; the default is {field.default!r}"
            )
        for constraint in _constraints(hint):
            if not constraint.admits(value):
                near = ""
                if isinstance(constraint, OneOf):
                    found = difflib.get_close_matches(str(value), constraint.words, n=1)
                    near = f"; did you mean {found[0]!r}?" if found else ""
                raise ValueError(f"{where}: {field.name} must be {constraint}{near}")


def same(one: Any, other: Any) -> bool:
    """Whether two values of a parameter are equal; values may contain arrays.

    Examples
    --------
    >>> same({"a": np.zeros(2)}, {"a": np.zeros(2)}), same((1, 2), (1, 3)), same(1, True)
    (True, False, False)
    """
    if one is other:
        return True
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def check_integer(name: str, value: Any, least: int) -> None:
    """Raise TypeError or ValueError unless ``value`` is an integer of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__} {value!r}")
    if value < least:
        raise ValueError(f"{name}={value} must be at least {least}")


_LISTED = 30
"""Largest number of names in an error message."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message: the nearest known name, or all of them.

    Examples
    --------
    >>> nearest("n_bin", ["n_bins", "n_transforms"])
    "; did you mean 'n_bins'?"
    """
    known = sorted(known)
    lower = {word.lower(): word for word in known}
    close = difflib.get_close_matches(name.lower(), lower, n=1)
    if close:
        return f"; did you mean {lower[close[0]]!r}?"
    more = f", ... ({len(known)} in all)" if len(known) > _LISTED else ""
    return f"; known are {', '.join(known[:_LISTED])}{more}"


def parse_settings(pairs: Iterable[str], known: Iterable[str], owner: str) -> dict[str, Any]:
    """Hyper-parameters written as ``key=value``, the values as :func:`parse_value` reads them.

    Parameters
    ----------
    pairs : iterable of str
    known : iterable of str
        The valid keys.
    owner : str
        Name of the object that has these parameters, for messages.

    Raises
    ------
    ValueError
        A pair has no ``=``, a key is repeated or unknown (the message names the nearest known key),
        or a value is invalid TOML.

    Examples
    --------
    >>> parse_settings(["n_bins=4", "support=positive"], ["n_bins", "support"], "NeuralSplineFlow")
    {'n_bins': 4, 'support': 'positive'}
    """
    known = list(known)
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        key = key.strip()
        if not equals or not key:
            raise ValueError(f"{pair!r} is not of the form key=value, as n_bins=4 is")
        if key not in known:
            raise ValueError(f"{owner} has no setting {key!r}{nearest(key, known)}")
        if key in settings:
            raise ValueError(f"{key} is set twice, to {settings[key]!r} and to {text}")
        try:
            settings[key] = parse_value(text)
        except ValueError as error:
            raise ValueError(f"{key}={text}: {error}") from error
    return settings


def parse_value(text: str) -> Any:
    """A value from a command line: a TOML literal, else the text itself.

    A TOML array becomes a tuple. ``None``, ``True``, ``False`` and numbers such as ``.5``, which TOML
    does not have, are read as Python literals.

    Raises
    ------
    ValueError
        The text begins like a TOML string, array or table and is not valid TOML.

    Examples
    --------
    >>> [parse_value(text) for text in ("[64, 64]", "1e-3", "positive", "'7'", "None", "true")]
    [(64, 64), 0.001, 'positive', '7', None, True]
    """
    text = text.strip()
    plain = {"None": None, "True": True, "False": False}
    if text in plain:
        return plain[text]
    try:
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError as error:
        if text.startswith(("[", "{", "'", '"')):
            raise ValueError(f"no TOML value ({str(error).split(' (')[0]})") from error
        table = {}
    if list(table) == ["value"]:
        return frozen(table["value"])
    try:
        return float(text)
    except ValueError:
        return text


def frozen(value: Any) -> Any:
    """A parsed TOML value with arrays as tuples, also inside tables."""
    if isinstance(value, list):
        return tuple(map(frozen, value))
    return {k: frozen(v) for k, v in value.items()} if isinstance(value, dict) else value
