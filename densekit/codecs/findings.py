"""Properties of a table that a user should know before a fit, of which ``fit`` warns once."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from densekit.codecs.description import value_of
from densekit.codecs.schema import Column
from densekit.containers import Frame, RawColumn

_ROWS = 20_000
"""Rows that are looked at, spread over the table."""
_MOST_COLUMNS = 200
"""Columns beyond which pairs of columns are not compared."""
_MOST_LEVELS = 1000
"""Levels of a discrete column that may be a function of another, or have one."""


class ColumnWarning(UserWarning):
    """What ``fit`` found in the columns of a table: atoms, constants, copies, codes, dependencies.

    Silence it with ``warnings.simplefilter("ignore", densekit.ColumnWarning)``, or by describing the
    columns once, ``columns=densekit.describe(X)``.
    """


def warn_of_findings(frame: Frame, columns: tuple[Column, ...]) -> None:
    """Warn once of what there is to say of these columns, of which ``frame`` has rows."""
    found = [*_atoms(frame, columns), *_constants(frame, columns)]
    found += [*_codes(frame, columns), *_copies(frame, columns), *_functions(frame, columns)]
    if found:
        warnings.warn("of the columns of X: " + "; ".join(found), ColumnWarning, stacklevel=2)


def _named(raw: RawColumn) -> str:
    return repr(raw.label)


def _atoms(frame: Frame, columns: tuple[Column, ...]) -> Iterator[str]:
    for raw, column in zip(frame.columns, columns, strict=True):
        if column.atoms and column.in_event:
            values = ", ".join(str(value_of(column, a)) for a in column.atoms[:5])
            more = f", ... ({len(column.atoms)} in all)" if len(column.atoms) > 5 else ""
            yield f"{_named(raw)} has values with a mass of their own ({values}{more})"


def _constants(frame: Frame, columns: tuple[Column, ...]) -> Iterator[str]:
    still = [
        _named(r) for r, c in zip(frame.columns, columns, strict=True) if c.kind == "constant"
    ]
    if still:
        yield f"{', '.join(still[:5])} never var{'y' if len(still) > 1 else 'ies'}"


def _codes(frame: Frame, columns: tuple[Column, ...]) -> Iterator[str]:
    """Find integers that are labels: identifiers, and few distinct values far apart."""
    for raw, column in zip(frame.columns, columns, strict=True):
        whole = column.kind in ("integer", "ordinal") and raw.levels is None
        if not whole or raw.values.dtype.kind not in "iu":
            continue
        values = np.unique(raw.values)
        n, span = len(values), int(values[-1]) - int(values[0]) + 1
        if n == len(raw.values) >= 100 and (span == n or _sorted(raw.values)):
            yield f"{_named(raw)} has another integer in each row, like an identifier: drop it"
        elif 3 <= n <= 50 and span > 20 * n * max(1, int(column.step)):
            yield (
                f"{_named(raw)} has {n} integers far apart, like codes: "
                f'kinds={{{_named(raw)}: "categorical"}} if they are'
            )


def _sorted(values: np.ndarray) -> bool:
    return bool((values[1:] > values[:-1]).all())


def _sample(raw: RawColumn) -> np.ndarray:
    """Codes or numbers of at most some thousand rows, as float64; missing cells are NaN."""
    step = max(1, len(raw) // _ROWS)
    values: Any = raw.values
    if values.dtype.kind == "O":
        values = np.unique(values.astype(str), return_inverse=True)[1]
    if values.dtype.kind == "M":
        values = values.astype(np.int64)
    if raw.missing is None:
        return np.asarray(values[::step], dtype=np.float64)
    whole = np.full(len(raw), np.nan)
    whole[~raw.missing] = values
    return whole[::step]


def _copies(frame: Frame, columns: tuple[Column, ...]) -> Iterator[str]:
    """Columns that are equal, and numbers that are a linear function of others."""
    pairs = [
        (r, c)
        for r, c in zip(frame.columns, columns, strict=True)
        if c.in_event and (c.kind in ("real", "integer") or c.levels)
    ]
    if not 2 <= len(pairs) <= _MOST_COLUMNS:
        return
    seen: dict[bytes, RawColumn] = {}
    numbers, names = [], []
    for raw, column in pairs:
        values = _sample(raw)
        key = values.tobytes()
        if key in seen:
            yield f"{_named(raw)} repeats {_named(seen[key])}"
            continue
        seen[key] = raw
        # Halved, so that no difference overflows; a spread of nothing is divided by 1.
        centered = values / 2 - np.median(values / 2)
        reach = np.abs(centered).max()
        if not column.levels and 0 < reach < np.inf:
            numbers.append(centered / reach)
            names.append(_named(raw))
    yield from _collinear(numbers, names)


def _collinear(numbers: list[np.ndarray], names: list[str]) -> Iterator[str]:
    """Numbers that the ones before them determine, by what a QR decomposition leaves of each."""
    if len(numbers) < 2 or len(numbers[0]) <= len(numbers) + 2:
        return
    x = np.stack(numbers, 1)
    x -= x.mean(0)
    spread = np.maximum(np.sqrt(np.square(x).sum(0)), 1e-300)
    left = np.abs(np.diag(np.linalg.qr(x, mode="r"))) / spread
    bad = [name for name, rest in zip(names, left, strict=True) if rest < 1e-7]
    if bad:
        what = "is an exact linear function" if len(bad) == 1 else "are exact linear functions"
        yield f"{', '.join(bad[:5])} {what} of other columns"


def _functions(frame: Frame, columns: tuple[Column, ...]) -> Iterator[str]:
    """Discrete columns that are functions of another one."""
    pairs = []
    for raw, column in zip(frame.columns, columns, strict=True):
        discrete = column.levels or column.kind == "integer"
        if column.in_event and discrete and raw.missing is None:
            codes = np.unique(_sample(raw), return_inverse=True)[1]
            k = int(codes.max()) + 1
            if 2 < k <= min(_MOST_LEVELS, len(codes) // 10):
                pairs.append((raw, column, codes, k))
    if len(pairs) > _MOST_COLUMNS:
        return
    # Of a number and a word that are functions of each other, report the number.
    pairs.sort(key=lambda pair: pair[1].kind != "integer")
    reported: set[Any] = set()
    for raw, _, codes, k in pairs:
        for other, source, keys, m in pairs:
            if other is raw or m < k or other.label in reported or raw.label in reported:
                continue
            if len(np.unique(keys * k + codes)) == m:
                reported.add(raw.label)
                remedy = f"derived={{{_named(raw)}: {_named(other)}}}"
                if not source.levels:
                    remedy += f' with kinds={{{_named(other)}: "categorical"}}'
                yield f"{_named(raw)} is a function of {_named(other)} ({remedy} keeps it so)"
                break
