"""What a codec's state is: the names and types of its attributes, in one place.

A file can hold any attributes for a codec; :func:`check_state` admits those that ``fit`` sets, and no
others. A codec with a new attribute has a line here; one that codecs lack that were saved before also
has a default on its class.
"""

import dataclasses
import functools
import typing
from typing import Any, Literal

import numpy as np

from densekit.codecs.context import ContextCodec
from densekit.codecs.description import Description
from densekit.codecs.image import ImageCodec
from densekit.codecs.schema import Column, Schema
from densekit.codecs.table import TableCodec
from densekit.codecs.text import TextCodec
from densekit.params import matches

_OPTION = Any
"""What the user gave the constructor, which ``fit`` alone reads, and checks."""
_SHOWN = 60

STATE: dict[type, dict[str, Any]] = {
    TableCodec: {
        "support": _OPTION,
        "kinds": _OPTION,
        "atom_share": float | None,
        "step": _OPTION,
        "derived": _OPTION,
        "columns": Description | None,
        "missing": bool,
        "container": Literal["numpy", "pandas", "polars", "pyarrow"],
        "dtype": str,
        "labels": list[str | int],
        "schema": Schema,
    },
    ImageCodec: {
        "image_shape": _OPTION,
        "support": _OPTION,
        "row_shape": tuple[int, ...],
        "dtype": str,
        "loc": np.ndarray,
        "scale": np.ndarray,
        "schema": Schema,
    },
    TextCodec: {
        "tokens": Literal["character", "byte", "bpe", "word"],
        "vocab_size": int | None,
        "max_length": int | None,
        "container": Literal["list", "numpy", "pandas", "polars", "pyarrow"],
        "dtype": str,
        "name": str | int | None,
        "symbols": str,
        "tokenizer": str,
        "longest": int,
        "schema": Schema,
    },
    ContextCodec: {"names": tuple[str, ...], "table": TableCodec},
}
"""The codecs; the state of a :class:`Schema` and of a :class:`Column` is their fields."""


@functools.cache
def _declared(kind: type) -> dict[str, Any]:
    if not dataclasses.is_dataclass(kind):
        return STATE[kind]
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def check_state(value: Any) -> None:
    """Raise unless a codec, schema or column has the attributes that ``fit`` sets, each of its type;
    those of what it holds too.

    Raises
    ------
    ValueError
        Naming the attribute that is lacking, needless, of another type, or not finite.

    Examples
    --------
    >>> codec = TableCodec().fit(np.arange(6.0).reshape(3, 2))
    >>> check_state(codec)
    >>> codec.labels = "ab"
    >>> check_state(codec)
    Traceback (most recent call last):
    ValueError: labels of a TableCodec is 'ab'
    """
    kind: Any = type(value)
    name_of = f"of a {kind.__name__}"
    declared, state = _declared(kind), _state_of(value)
    if needless := sorted(set(state) - set(declared)):
        raise ValueError(f"{str(needless[0])[:_SHOWN]!r} is no attribute {name_of}")
    for name, hint in declared.items():
        if name not in state:
            if hasattr(kind, name):
                continue
            raise ValueError(f"{name} {name_of} is lacking")
        found = state[name]
        if not matches(found, hint, exact=True):
            raise ValueError(f"{name} {name_of} is {repr(found)[:_SHOWN]}")
        if isinstance(found, np.ndarray):
            check_finite(f"{name} {name_of}", found)
        for held in found if isinstance(found, tuple) else (found,):
            if type(held) in STATE or isinstance(held, Schema | Column):
                check_state(held)


def _state_of(value: Any) -> dict[str, Any]:
    state = value.__getstate__() if isinstance(value, Schema) else vars(value)
    return dict(state)


def check_finite(what: str, array: np.ndarray) -> None:
    """Raise ValueError where an array has a NaN or an infinity."""
    if array.dtype.kind in "fc" and not np.isfinite(array).all():
        raise ValueError(f"{what} is not finite")
