"""Tables: columns of any kind to standardized numbers and codes, and back."""

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from densekit import containers
from densekit.codecs.base import Codec
from densekit.codecs.columns import (
    constant_values,
    decode_column,
    describe_unseen,
    encode_cells,
    jacobian_of,
    shorten,
)
from densekit.codecs.derived import derived_values
from densekit.codecs.description import Description, with_labels
from densekit.codecs.findings import ColumnWarning, warn_of_findings
from densekit.codecs.labels import by_label
from densekit.codecs.layout import schema_of
from densekit.codecs.learn_table import learn_columns
from densekit.codecs.schema import Column, Modality
from densekit.containers import RawColumn


class TableCodec(Codec):
    r"""Rows of a table to events: one entry for each column that varies, two where it has atoms.

    =============  ==============================================  ================================
    kind           event entry                                     log-Jacobian
    =============  ==============================================  ================================
    real           :math:`(b(x) - m) / s`                          :math:`\log b'(x) - \log s`
    datetime       :math:`(b(x) - m) / s` in seconds               :math:`\log b'(x) - \log s`
    integer, date  :math:`(k - m) / s`, :math:`m` an integer       none (a mass)
    others         the code :math:`0 .. K-1` of the level          none (a mass)
    constant       left out                                        0, or -inf for another value
    derived        left out                                        0, or -inf for a contradiction
    =============  ==============================================  ================================

    with :math:`b(x) = x` (support ``"real"``), :math:`\log(x - a)` (``"positive"``,
    ``"nonnegative"``, ``("at_least", a)``), :math:`-\log(c - x)` (``("at_most", c)``) or
    :math:`\Phi^{-1}((x - a) / (c - a))` (``("interval", a, c)``, and the circle, an angle or an hour
    of the day, of which a and c are one point; a model that knows of circles undoes the quantile).
    All arithmetic is float64.

    **Atoms.** A value of a float or datetime column that at least ``atom_share`` of the rows have, and
    ten rows (128 values at most), is an atom: it has a mass. Values that come again because all are
    rounded are none: on a grid, the share must be four times that of one step in a standard deviation,
    unless the value is the smallest or the largest. An end of a declared closed support that a row
    equals is an atom, whatever its share; an end without a row has no mass. A float column with at most
    20 distinct values, each in at least ten rows, is atoms only, and becomes an ordinal of these
    values. A column with atoms has an indicator, 0 off the atoms and k on atom k, and a value, 0 on the
    atoms, which have no Jacobian. Location and scale are those of the other values. Integers have atoms
    by the same rule, and every common integer is one where 32 bits do not tell it from its neighbors.

    **Ends.** A column whose smallest or largest value has the share ends there: there is no mass beyond,
    and a later row beyond scores -inf.

    **Steps.** Where all values lie on a grid through 0 (two decimals, midnights, multiples of 100),
    decoding rounds to it, never onto an atom and never outside the support. Scores are of the law that
    is not rounded.

    Kinds are inferred from the dtype: float is real on the whole line, integers are integers
    except that two neighboring values (0/1 flags) are two levels, strings are categories in
    sorted order, and a categorical dtype brings its declared categories. Datetimes have densities
    per second.

    Parameters
    ----------
    support : str, tuple or mapping from column to these, optional
        ``"real"``, ``"positive"``, ``"nonnegative"``, ``("at_least", a)``, ``("at_most", c)``,
        ``("interval", a, c)`` or ``("circle", a, c)``; one value stands for all real columns. Integers
        and datetimes are named by column, their ends are of their own type. Values off a circle are
        outside, and not wrapped round it. The integers of a short interval are levels, none of them
        impossible.
    kinds : mapping from column to str, optional
        ``"real"``, ``"integer"``, ``"ordinal"``, ``"categorical"``, ``"boolean"``, ``"datetime"`` or
        ``"date"`` (days have a mass) where the inferred kind is not meant. Columns are named by label,
        for arrays by index.
    atom_share : float, optional
        The share of the rows from which a value is an atom. None looks for none, and for no ends.
    step : mapping from column to float, optional
        The step of a column, or None for no rounding, where the grid that ``fit`` finds is not meant.
    derived : mapping from column to column, optional
        Columns that are functions of another, which has levels: they are left out of the event,
        come back in ``decode``, and a row that contradicts them is outside.
    columns : Description, optional
        What is known of all columns (:func:`densekit.describe`): only locations, scales and shares are
        learned then. It stands in for all other options but ``missing``.
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
    options: ClassVar[tuple[str, ...]] = (
        "support",
        "kinds",
        "atom_share",
        "step",
        "derived",
        "columns",
        "missing",
    )
    # Options of codecs that were saved before they had them.
    atom_share: float | None = None
    step: Mapping[Any, Any] | None = None
    derived: Mapping[Any, Any] | None = None
    columns: Description | None = None
    missing: bool = False
    # Of a codec for rows given some columns (see `given`).
    _given: tuple[Any, ...] = ()
    _ends: Mapping[Any, tuple[Any, Any]] = {}

    def __init__(
        self,
        support: str | tuple[Any, ...] | Mapping[Any, Any] | None = None,
        kinds: Mapping[Any, str] | None = None,
        atom_share: float | None = None,
        step: Mapping[Any, Any] | None = None,
        derived: Mapping[Any, Any] | None = None,
        columns: Description | None = None,
        missing: bool = False,
    ) -> None:
        self.support = support
        self.kinds = kinds
        self.atom_share, self.step, self.derived = atom_share, step, derived
        self.columns, self.missing = columns, missing

    def fit(self, X: Any, weights: np.ndarray | None = None) -> "TableCodec":
        """Learn the columns; rows of ``RowsInPieces`` are read once, or twice where a column has atoms.

        Parameters
        ----------
        X : rows
        weights : ndarray (n,), optional
            A row of weight w counts as w rows.

        Raises
        ------
        TypeError, ValueError
            X is not a table of readable columns (see ``densekit.containers.read``), an option names
            no column or does not fit it, or every column is constant.

        Warns
        -----
        UserWarning
            What a user should know of the columns (:class:`~densekit.codecs.findings.ColumnWarning`).
        """
        frame, learners, columns = learn_columns(self, X, weights)
        self.container = frame.container
        self.dtype = frame.dtype
        self.labels = [c.label for c in frame.columns]
        self.schema = schema_of(columns, learners)
        if self.columns is None:
            warn_of_findings(frame, columns)
        return self

    @property
    def description(self) -> Description:
        """Description of the columns without locations and scales."""
        return with_labels(self.schema.columns, self.labels)

    # -------------------------------------------------------------------------------- encode

    def encode(self, X: Any) -> tuple[Tensor, Tensor]:
        """Encode rows as typed events (n, D), with log|d typed / d x|, (n,), both float64.

        Missing cells are NaN and are left out of the Jacobian. A value outside the support (an unseen
        category, a number outside its interval, another value in a constant column) sets the
        log-Jacobian of its row to -inf and its entry to 0. So does a value that is more standard
        deviations away than a float64 can represent.

        Raises
        ------
        TypeError, ValueError
            As :meth:`fit`, or other columns than ``fit`` saw.

        Warns
        -----
        UserWarning
            Levels that ``fit`` did not see.
        """
        if isinstance(X, np.ndarray) and X.dtype.kind == "f" and self._plain(X):
            z = X.astype(np.float64)
            ladj = np.zeros(len(z))
        else:
            raws = self._match(containers.read(X, self.missing))
            z, ladj = self._columns(raws)
        loc, scale = np.zeros(z.shape[1]), np.ones(z.shape[1])
        for column, places in zip(self.schema.varying, self.schema.places, strict=True):
            loc[places[-1]], scale[places[-1]] = column.loc, column.scale
        with np.errstate(over="ignore"):
            z -= loc
            z /= scale
        far = np.isinf(z) if self.missing else ~np.isfinite(z)
        if far.any():
            z[far] = 0.0
            ladj[far.any(1)] = -np.inf
        ladj -= sum(jacobian_of(c) for c in self.schema.varying)
        return torch.from_numpy(z), torch.from_numpy(ladj)

    def _plain(self, X: np.ndarray) -> bool:
        """Whether X is a finite matrix of columns that are all real on the whole line."""
        return (
            X.ndim == 2
            and X.shape[1] == len(self.schema.columns)
            and len(X) > 0
            and not self._given
            and all(
                c.kind == "real" and c.support[0] == "real" and not c.atoms
                for c in self.schema.columns
            )
            and bool(np.isfinite(X).all())
        )

    def _match(self, frame: containers.Frame) -> list[RawColumn]:
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

    def _columns(self, raws: list[RawColumn]) -> tuple[np.ndarray, np.ndarray]:
        """Entries before standardization (n, D), and the Jacobian of the bijections, (n,)."""
        n = len(raws[0])
        entries: list[np.ndarray] = []
        ladj = np.zeros(n)
        unseen: list[str] = []
        beyond: list[str] = []
        codes: dict[Any, np.ndarray] = {}
        for column, label, raw in zip(self.schema.columns, self.labels, raws, strict=True):
            if column.kind == "derived":
                continue
            y, term, indicator = encode_cells(column, raw)
            outside = np.isneginf(term)
            if label in self._given:
                if outside.any():
                    self._refuse_given(column, label, raw, outside)
                term = np.full(n, jacobian_of(column))
            elif outside.any() and column.in_event:
                here = slice(None) if raw.missing is None else ~raw.missing
                if column.levels:
                    unseen += describe_unseen(raw, outside[here])
                elif column.support[0] != "real":
                    beyond.append(f"column {label!r}: {int(outside.sum())}")
            ladj += term
            if not column.in_event:
                continue
            if indicator is not None:
                entries.append(indicator)
            elif column.levels:
                codes[label] = y
            entries.append(y)
        for column, raw in zip(self.schema.columns, raws, strict=True):
            if column.kind == "derived":
                ladj += derived_values(column, codes[column.parent], raw)
        _warn_outside(unseen, beyond)
        return np.stack(entries, 1), ladj

    def _refuse_given(
        self, column: Column, label: Any, raw: RawColumn, outside: np.ndarray
    ) -> None:
        row, declare = int(outside.argmax()), ""
        if column.kind in ("categorical", "ordinal"):
            declare = "declare all categories before fit with a Categorical dtype, or "
        raise ValueError(
            f"row {row} of X has {raw.cell(row)!r} in column {label!r}, which fit did not "
            f"see: there is nothing to condition on; {declare}leave the row out"
        )

    # -------------------------------------------------------------------------------- decode

    def decode(self, typed: Tensor) -> Any:
        """Typed events (n, D) to a table of the container, columns and dtypes that ``fit`` saw."""
        z = typed.detach().cpu().double().numpy()
        places = iter(self.schema.places)
        values: dict[Any, np.ndarray] = {}
        codes: dict[Any, np.ndarray] = {}
        for column, label in zip(self.schema.columns, self.labels, strict=True):
            if column.kind == "constant":
                values[label] = constant_values(column, len(z))
            elif column.in_event:
                at = next(places)
                indicator = z[:, at[0]] if len(at) == 2 else None
                bounds = self._ends.get(label, (None, None))
                # An event is rounded: a value may come back a little outside of what it was drawn from.
                values[label] = decode_column(column, z[:, at[-1]], indicator, bounds)
                codes[label] = z[:, at[-1]]
        for column, label in zip(self.schema.columns, self.labels, strict=True):
            if column.kind == "derived":
                values[label] = decode_column(column, codes[column.parent])
        in_order = [values[label] for label in self.labels]
        return containers.build(
            self.container, self.dtype, self.labels, self.schema.columns, in_order
        )

    # -------------------------------------------------------------------------------- conditions

    def numbers(self, labels: Sequence[Any], parameter: str) -> list[int]:
        """Numbers of these columns among those that an event has entries of; the others have none.

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
        varying = [label for label, column in pairs if column.in_event]
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


def _warn_outside(unseen: list[str], beyond: list[str]) -> None:
    if unseen:
        warnings.warn(
            f"Values that fit did not see have mass zero (log-density -inf): "
            f"{'; '.join(unseen)}. Declare all categories before fit with a Categorical "
            'dtype; for integers widen the support, or set kinds={column: "integer"}.',
            UserWarning,
            stacklevel=4,
        )
    if beyond:
        warnings.warn(
            "Values outside the support of their column have no mass (log-density -inf), number of "
            f"rows: {'; '.join(beyond)}. est.describe_columns() shows each support; a column ends where "
            "its smallest or largest value is an atom (atom_share=None turns that off).",
            ColumnWarning,
            stacklevel=4,
        )
