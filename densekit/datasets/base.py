"""What a data set is: three fixed parts, a name, and the truth where it is known."""

import functools
import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from densekit.codecs.schema import Schema


class Truth(ABC):
    r"""The distribution that a toy was drawn from.

    Its entropy :math:`-E[\log p(x)]` in nats, over the same base measure, is minus the best mean
    score that a model can reach.
    """

    n_dims: int | None
    """Entries of one row; None for strings, which differ in length."""
    base_measure: Literal["lebesgue", "counting"] = "lebesgue"
    """What ``log_prob`` is a density over: on counting measure it is a log-probability."""
    entropy_error: float = 0.0
    """Standard error of ``entropy`` in nats; 0 where no Monte Carlo goes into it."""

    @abstractmethod
    def log_prob(self, X: Any) -> np.ndarray:
        """Log-density of rows ``X``, (n, n_dims), images or strings, in nats over
        ``base_measure``; (n,)."""

    @abstractmethod
    def sample(self, n_samples: int = 1, *, random_state: Any = None) -> Any:
        """Independent rows: an array of n_samples rows, or a list of strings."""

    @property
    @abstractmethod
    def entropy(self) -> float:
        """Entropy in nats, differential where ``base_measure`` is Lebesgue's."""

    def _rows(self, X: Any) -> np.ndarray:
        rows = np.asarray(rows_of(X), dtype=float)
        if rows.ndim != 2 or rows.shape[1] != self.n_dims:
            raise ValueError(
                f"X has shape {rows.shape}: {type(self).__name__} scores rows of "
                f"{self.n_dims} numbers, shape (n, {self.n_dims})"
            )
        return rows


def rows_of(X: Any) -> Any:
    """The rows of a test part, for scoring; anything else as it is."""
    return X.for_scoring() if isinstance(X, HeldOut) else X


class HeldOut:
    """Rows of a test part, which only scoring may see.

    ``score_samples`` and ``score`` of every densekit estimator take it as it is; ``fit`` and NumPy
    refuse it. Other code that evaluates takes the rows with :meth:`for_scoring`.

    Examples
    --------
    >>> import numpy as np
    >>> from densekit import Gaussian
    >>> test = HeldOut(np.zeros((4, 1)), "zeros")
    >>> Gaussian().fit([[-1.0], [1.0]]).score_samples(test).shape
    (4,)
    >>> np.asarray(test)
    Traceback (most recent call last):
    TypeError: this is the test part of 'zeros', which is for scoring only: fit to ...
    """

    def __init__(self, rows: Any, name: str):
        self._rows, self._name = _read_only(rows), name

    def for_scoring(self) -> Any:
        """The rows themselves, for evaluation. Whoever fits to them has no test part any more."""
        return self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"<test part of {self._name!r}: {len(self)} rows, for scoring only>"

    def __array__(self, *_args: Any, **_kwargs: Any) -> np.ndarray:
        raise TypeError(
            f"this is the test part of {self._name!r}, which is for scoring only: fit to "
            "data.train, hand data.test to score_samples or score as it is, or take its rows "
            "with data.test.for_scoring()"
        )


@dataclass(frozen=True)
class Published:
    """A figure that others reported on a data set, to stand beside ours."""

    model: str
    value: float
    unit: str
    """As in :mod:`densekit.metrics`: "nats per row", "bits per dim", "bits per character" ..."""
    source: str
    """Paper and year; what differs from this data set's rows or preprocessing, if anything."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows in three parts that never change: arrays are read-only views.

    Models are fitted to ``train``; ``valid`` is there to choose hyper-parameters; ``test`` is
    handed out to scoring only. ``train`` and ``valid`` are arrays, DataFrames or lists of strings,
    as the modality has it, and ``test`` is a :class:`HeldOut` of the same.
    """

    train: Any
    valid: Any
    test: HeldOut
    name: str
    modality: Literal["table", "image", "text"]
    truth: Truth | None = None
    """The density that a toy was drawn from."""
    source: str = ""
    """Where the rows come from, in a line."""
    domain: Mapping[str, Any] = field(default_factory=dict)
    """What is known of the entries without looking at them, as settings of an estimator:
    ``support``, ``kinds``."""
    reference: tuple[Published, ...] = ()
    """Published results."""

    def __post_init__(self) -> None:
        for part in ("train", "valid"):
            object.__setattr__(self, part, _read_only(getattr(self, part)))

    @property
    def n_dims(self) -> int | None:
        """Number of entries of one row; None for text, whose rows differ in length."""
        if self.modality == "text":
            return None
        return math.prod(self.train.shape[1:])

    @functools.cached_property
    def schema(self) -> "Schema":
        """What a codec learns of ``train``: columns, kinds, cardinalities, support."""
        from densekit import codecs

        kind = {"table": codecs.TableCodec, "image": codecs.ImageCodec, "text": codecs.TextCodec}
        return kind[self.modality](**self.domain).fit(self.train).schema

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over all three parts: two results with one digest are about the same rows."""
        sha = hashlib.sha256()
        for part in (self.train, self.valid, self.test.for_scoring()):
            if self.modality == "text":
                sha.update("\0".join(part).encode())
            else:
                columns = ",".join(map(str, getattr(part, "columns", ())))
                values = np.ascontiguousarray(part)
                if values.dtype == object:  # the bytes of which are addresses
                    import pandas as pd

                    values = pd.util.hash_pandas_object(part, index=False).to_numpy()
                sha.update(columns.encode() + values.tobytes())
        return sha.hexdigest()


def split(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row numbers of train (72 %), valid (8 %) and test (20 %), from a stream NumPy has frozen."""
    order = np.random.RandomState(seed).permutation(n)
    n_test = round(0.2 * n)
    n_valid = round(0.1 * (n - n_test))
    return order[n_test + n_valid :], order[n_test : n_test + n_valid], order[:n_test]


def _read_only(rows: Any) -> Any:
    """Arrays as views that refuse to be written to; anything else as it is."""
    if isinstance(rows, np.ndarray):
        rows = rows.view()
        rows.flags.writeable = False
    return rows
