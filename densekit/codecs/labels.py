"""Options that name columns."""

import difflib
import re
from collections.abc import Mapping
from typing import Any

from densekit.codecs.columns import shorten


def by_label(given: Any, labels: list[Any], parameter: str) -> dict[Any, Any]:
    """A mapping of columns with the labels that they have, its keys checked."""
    if not isinstance(given, Mapping):
        raise TypeError(
            f"{parameter} must map columns to values, for example {{{labels[0]!r}: ...}}; "
            f"got {given!r}."
        )
    out = {}
    for key, value in given.items():
        label = key
        if key not in labels and isinstance(key, str) and re.fullmatch(r"x\d+", key):
            label = int(key[1:])  # An array's column by the name that the schema gives it.
        if label not in labels:
            close = difflib.get_close_matches(str(key), [str(v) for v in labels], 1, 0.0)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ValueError(
                f"{parameter} names the column {key!r}, which X does not have; {hint}"
                f"X has {shorten(labels)}."
            )
        out[label] = value
    return out
