"""Tables: columns of any kind to standardised numbers and codes, and back."""

import copy
import difflib
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from densekit.codecs import frames
from densekit.codecs.base import Codec
from densekit.codecs.columns import (
    apart,
    constant_values,
    decode_column,
    describe_unseen,
    encode_cells,
    jacobian_of,
    shorten,
    step_of,
)
from densekit.codecs.frames import RawColumn
from densekit.codecs.learning import learner
from densekit.codecs.ondisk import RowsInPieces
from densekit.codecs.schema import Column, Modality, Schema


class TableCodec(Codec):
    r"""Rows of a table to events: one entry per column that varies.

    ============  ==============================================  ==============================
    kind          event entry                                     log-Jacobian
    ============  ==============================================  ==============================
    real          :math:`(b(x) - m) / s`                          :math:`\log b'(x) - \log s`
    datetime      :math:`(x - m) / s` in seconds                  :math:`-\log s` (days: a mass)
    integer       :math:`(k - m) / s`, :math:`m` an integer       none (a mass)
    others        the code :math:`0 .. K-1` of the level          none (a mass)
    constant      left out                                        0, or -inf for another value
    ============  ==============================================  ==============================

    with :math:`b(x) = x` (support ``"real"``), :math:`\log x` (``"positive"``) or
    :math:`\Phi^{-1}` of the place in the interval (``("interval", a, c)``), which is first widened
    by :math:`10^{-6}` of its length at both ends so that values on its edges stay finite; a model
    loses the mass that it puts into the widening, about :math:`2 \cdot 10^{-6}` when well fitted.
    A circle (``("circle", a, c)``: an angle, an hour of the day) is taken as the interval, with a and
    c one point; a model that knows of circles undoes the quantile. All arithmetic is float64. A
    spike of a real column is a mass, and has no Jacobian.

    Kinds are inferred from the dtype: float is real on the whole line, integers are integers
    except that two neighbouring values (0/1 flags) are two levels, strings are categories in
    sorted order, and a categorical dtype brings its declared categories. Datetimes have densities
    per second.

    Parameters
    ----------
    support : str, tuple or mapping from column to these, optional
        ``"real"``, ``"positive"``, ``("interval", low, high)`` or ``("circle", low, high)`` for
        real columns; values off a circle are outside, and not wrapped round it. One value stands
        for all real columns. An integer column given an interval by name has its integers as
        levels, none of them impossible and none outside possible.
    kinds : mapping from column to str, optional
        ``"real"``, ``"integer"``, ``"ordinal"``, ``"categorical"``, ``"boolean"`` or
        ``"datetime"`` where the inferred kind is not meant. Columns are named by label, for arrays
        by index.
    spike_share : float, optional
        A value of a column of numbers that at least this share of its rows has (eight at most, ten
        rows each) is a spike, which has a mass of its own; of integers, whose values have masses
        anyway, a hundredth of it is enough (128 at most, thirty rows each). None looks for none.
    missing : bool
        Whether cells may be missing (NaN, None, NaT): their entries are NaN.

    Examples
    --------
    >>> import numpy as np
    >>> codec = TableCodec(support="positive").fit(np.array([[1.0], [2.0], [4.0]]))
    >>> typed, ladj = codec.encode(np.array([[2.0], [-1.0]]))
    >>> typed.tolist(), ladj.tolist()[1]
    ([[0.0], [0.0]], -inf)
    >>> codec.decode(typed).ravel()
    array([2., 2.])
    """

    modality: ClassVar[Modality] = "table"
    options: ClassVar[tuple[str, ...]] = ("support", "kinds", "spike_share", "missing")
    # What codecs do that were saved before they could do else.
    spike_share: float | None = None
    missing: bool = False
    # Of a codec for rows given some columns (see `given`).
    _given: tuple[Any, ...] = ()
    _ends: Mapping[Any, tuple[Any, Any]] = {}

    def __init__(
        self,
        support: str | tuple[Any, ...] | Mapping[Any, Any] | None = None,
        kinds: Mapping[Any, str] | None = None,
        spike_share: float | None = None,
        missing: bool = False,
    ) -> None:
        self.support = support
        self.kinds = kinds
        self.spike_share, self.missing = spike_share, missing

    def fit(self, X: Any) -> "TableCodec":
        """Learn kinds, levels, location and scale of every column; those of
        ``RowsInPieces`` are read once.

        Raises
        ------
        TypeError, ValueError
            X is not a table of readable columns (see ``densekit.codecs.frames.read``),
            ``support`` or ``kinds`` name no column or do not fit it, or every column is constant.
        """
        parts = X.pieces() if isinstance(X, RowsInPieces) else [X]
        pieces = (frames.read(part, self.missing) for part in parts)
        frame = next(pieces)
        labels = [c.label for c in frame.columns]
        prefix = "x" if frame.container == "numpy" else ""
        kinds = by_label(self.kinds or {}, labels, "kinds")
        support = self.support
        supports = by_label(support, labels, "support") if isinstance(support, Mapping) else {}
        everywhere = None if isinstance(support, Mapping) else support
        learners = [
            learner(
                raw,
                f"{prefix}{raw.label}",
                kinds.get(raw.label),
                supports.get(raw.label),
                everywhere,
                self.spike_share,
            )
            for raw in frame.columns
        ]
        for piece in chain([frame], pieces):
            for raw, one in zip(piece.columns, learners, strict=True):
                if len(raw.values):
                    one.add(raw)
        columns = tuple(one.column() for one in learners)
        if all(c.kind == "constant" for c in columns):
            raise ValueError(
                f"Every column of X is constant ({len(columns)} column(s), {frames.n_rows(X)} "
                "row(s)): there is nothing to learn; pass at least two rows that differ."
            )
        if everywhere is not None and not any(c.kind == "real" for c in columns):
            raise ValueError(
                f"support={support!r}, but X has no real column; make columns real with "
                'kinds={column: "real"}.'
            )
        self.container = frame.container
        self.dtype = frame.dtype
        self.labels = labels
        self.schema = _schema(columns)
        if self.schema.cardinality.any():
            varying = ((c, one) for c, one in zip(columns, learners, strict=True) if not _still(c))
            counts = [one.counts(c) if c.levels else None for c, one in varying]
            self.schema = replace(self.schema, edges=_edges(counts))
        return self

    # -------------------------------------------------------------------------------- encode

    def encode(self, X: Any) -> tuple[Tensor, Tensor]:
        """Rows to typed events (n, D) and log|d typed / d x|, (n,), both float64; cells that are
        missing are NaN and have no part in the Jacobian.

        A value outside the support (an unseen category, a number outside its interval, another
        value in a constant column) makes the row's log-Jacobian -inf and its entry 0; so does one
        that lies more standard deviations away than a float64 can say.

        Raises
        ------
        TypeError, ValueError
            As :meth:`fit`, or other columns than ``fit`` saw.

        Warns
        -----
        UserWarning
            Levels that ``fit`` did not see.
        """
        varying = self.schema.varying
        spikes: dict[int, np.ndarray] = {}
        if isinstance(X, np.ndarray) and X.dtype.kind == "f" and self._plain(X):
            z = X.astype(np.float64)
            ladj = np.zeros(len(z))
        else:
            raws = self._match(frames.read(X, self.missing))
            z, ladj = self._columns(raws, spikes)
        loc = np.array([c.loc for c in varying])
        scale = np.array([c.scale for c in varying])
        with np.errstate(over="ignore"):
            z -= loc
            z /= scale
        for j, spike in spikes.items():
            z[:, j] = apart(z[:, j], spike, varying[j])
        far = np.isinf(z) if self.missing else ~np.isfinite(z)
        if far.any():
            z[far] = 0.0
            ladj[far.any(1)] = -np.inf
        ladj -= sum(jacobian_of(c) for c in varying)
        return torch.from_numpy(z), torch.from_numpy(ladj)

    def _plain(self, X: np.ndarray) -> bool:
        """Whether X is a finite matrix of columns that are all real on the whole line."""
        return (
            X.ndim == 2
            and X.shape[1] == len(self.schema.columns)
            and len(X) > 0
            and not self._given
            and all(
                c.kind == "real" and c.support[0] == "real" and not c.spikes
                for c in self.schema.columns
            )
            and bool(np.isfinite(X).all())
        )

    def _match(self, frame: frames.Frame) -> list[RawColumn]:
        """The columns in the order of ``fit``."""
        seen = [c.label for c in frame.columns]
        if frame.container == "numpy" or self.container == "numpy":
            if len(seen) != len(self.labels):
                raise ValueError(
                    f"X has {len(seen)} features (columns), but fit saw {len(self.labels)}: "
                    f"{shorten(self.labels)}."
                )
            return frame.columns
        missing = [v for v in self.labels if v not in seen]
        unexpected = [v for v in seen if v not in self.labels]
        if missing or unexpected:
            raise ValueError(
                "The columns of X are not those that fit saw: "
                f"missing {shorten(missing)}, unexpected {shorten(unexpected)}."
            )
        by_label = {c.label: c for c in frame.columns}
        return [by_label[label] for label in self.labels]

    def _columns(
        self, raws: list[RawColumn], spikes: dict[int, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Entries before standardisation (n, D), and the Jacobian of the bijections, (n,); which cells
        of an entry are spikes goes to ``spikes``."""
        n = len(raws[0])
        entries: list[np.ndarray] = []
        ladj = np.zeros(n)
        unseen: list[str] = []
        for column, label, raw in zip(self.schema.columns, self.labels, raws, strict=True):
            y, term, spike = encode_cells(column, raw)
            outside = np.isneginf(term)
            if label in self._given:
                if outside.any():
                    row, declare = int(outside.argmax()), ""
                    if column.kind in ("categorical", "ordinal"):
                        declare = "declare all categories before fit with a Categorical dtype, or "
                    raise ValueError(
                        f"row {row} of X has {raw.cell(row)!r} in column {label!r}, which fit did not "
                        f"see: there is nothing to condition on; {declare}leave the row out"
                    )
                term = np.full(n, jacobian_of(column))
            ladj += term
            if _still(column):
                continue
            if column.levels and outside.any():
                here = slice(None) if raw.missing is None else ~raw.missing
                unseen += describe_unseen(raw, outside[here])
            if column.spikes:
                spikes[len(entries)] = spike
            entries.append(y)
        if unseen:
            warnings.warn(
                f"Values that fit did not see have mass zero (log-density -inf): "
                f"{'; '.join(unseen)}. Declare all categories before fit with a Categorical "
                'dtype; for integers widen the support, or set kinds={column: "integer"}.',
                UserWarning,
                stacklevel=3,
            )
        return np.stack(entries, 1), ladj

    # -------------------------------------------------------------------------------- decode

    def decode(self, typed: Tensor) -> Any:
        """Typed events (n, D) to a table of the container, columns and dtypes that ``fit`` saw."""
        z = typed.detach().cpu().double().numpy()
        values = []
        j = 0
        for column, label in zip(self.schema.columns, self.labels, strict=True):
            if _still(column):
                values.append(constant_values(column, len(z)))
                continue
            found = decode_column(column, z[:, j])
            low, high = self._ends.get(label, (None, None))
            # An event is rounded: a value may come back a little outside of what it was drawn from.
            values.append(found if low is None and high is None else np.clip(found, low, high))
            j += 1
        return frames.build(self.container, self.dtype, self.labels, self.schema.columns, values)

    # -------------------------------------------------------------------------------- conditions

    def entries(self, labels: Sequence[Any], parameter: str) -> list[int]:
        """Where in an event these columns are; constant ones are nowhere.

        Raises
        ------
        ValueError, TypeError
            Columns that are not there, naming the parameter.
        """
        if isinstance(labels, str) or not isinstance(labels, Sequence | set | np.ndarray):
            hint = f": {parameter}=[{labels!r}]" if isinstance(labels, str) else ""
            raise TypeError(f"{parameter}={labels!r} must be a list of columns{hint}")
        known = by_label(dict.fromkeys(labels), self.labels, parameter)
        pairs = zip(self.labels, self.schema.columns, strict=True)
        varying = [label for label, column in pairs if not _still(column)]
        return [j for j, label in enumerate(varying) if label in known]

    def given(
        self, labels: Sequence[Any], ends: Mapping[Any, tuple[Any, Any]] | None = None
    ) -> "TableCodec":
        """The codec of rows given these columns: their Jacobian is left out, since they have no
        density; what is decoded is put back between the ends (low, high) of its column."""
        other = copy.copy(self)
        other._given = tuple(by_label(dict.fromkeys(labels), self.labels, "given"))
        other._ends = dict(ends or {})
        return other


# ---------------------------------------------------------------------------------------- fit


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


def _edges(counts: Sequence[np.ndarray | None]) -> np.ndarray:
    """For each entry the cumulative shares of its codes, from 0 to 1, filled up with ones; from the
    rows that each code has, None where the entry is no code.

    Shares are those of the rows with one imagined row for each code, so that none is zero.
    """
    widest = max(len(n) for n in counts if n is not None)
    edges = np.ones((len(counts), widest + 1))
    for j, n in enumerate(counts):
        if n is not None:
            edges[j, : len(n) + 1] = np.concatenate([[0.0], np.cumsum(n + 1) / (n + 1).sum()])
    return edges


def _still(column: Column) -> bool:
    return column.kind == "constant"


def _schema(columns: tuple[Column, ...]) -> Schema:
    varying = [c for c in columns if not _still(c)]
    d = len(varying)
    return Schema(
        modality="table",
        event_shape=(d,),
        cardinality=np.array([len(c.levels) for c in varying], dtype=int),
        ordered=np.array([c.kind in ("ordinal", "boolean") for c in varying], dtype=bool),
        width=np.array([step_of(c) / c.scale for c in varying]),
        shift=np.zeros(d),
        spread=np.ones(d),
        names=tuple(c.name for c in varying),
        columns=columns,
        constants=len(columns) > d,
    )
