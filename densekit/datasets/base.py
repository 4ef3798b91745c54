"""The classes of a data set: three fixed parts, published results, and a known distribution."""

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
    r"""The known distribution of a toy data set.

    The entropy is :math:`-E[\log p(x)]` in nats over the same base measure. Minus the entropy is the
    largest expected score that a model can reach.
    """

    n_dims: int | None
    """Number of entries of a row; None for strings, whose lengths differ."""
    base_measure: Literal["lebesgue", "counting"] = "lebesgue"
    """Base measure of ``log_prob``; over counting measure it is a log-probability."""
    entropy_error: float = 0.0
    """Standard error of ``entropy`` in nats; 0 unless it is a Monte Carlo estimate."""

    @abstractmethod
    def log_prob(self, X: Any) -> np.ndarray:
        """Log-density in nats over ``base_measure``, (n,), for n rows, images or strings."""

    @abstractmethod
    def sample(self, n_samples: int = 1, *, random_state: Any = None) -> Any:
        """Independent rows: an array of n_samples rows, or a list of strings."""

    @property
    @abstractmethod
    def entropy(self) -> float:
        """Entropy in nats; differential entropy if ``base_measure`` is ``"lebesgue"``."""

    def _rows(self, X: Any) -> np.ndarray:
        rows = np.asarray(rows_of(X), dtype=float)
        if rows.ndim != 2 or rows.shape[1] != self.n_dims:
            raise ValueError(
                f"X has shape {rows.shape}: {type(self).__name__} scores rows of "
                f"{self.n_dims} numbers, shape (n, {self.n_dims})"
            )
        return rows


def rows_of(X: Any) -> Any:
    """The rows of a :class:`HeldOut`; any other object unchanged."""
    return X.for_scoring() if isinstance(X, HeldOut) else X


class HeldOut:
    """Test rows that cannot be used for fitting by accident.

    ``score_samples`` and ``score`` of every densekit estimator accept it. ``fit`` and NumPy raise
    TypeError. Other evaluation code gets the rows from :meth:`for_scoring`.

    Parameters
    ----------
    rows : array, DataFrame or list of str
        The test rows.
    name : str
        Name of the data set, for messages.

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
        """The rows, for evaluation only."""
        return self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"<test part of {self._name!r}: {len(self)} rows, for scoring only>"

    def __array__(self, *_args: Any, **_kwargs: Any) -> np.ndarray:
        raise TypeError(
            f"this is the test part of {self._name!r}, which is for scoring only: fit to "
            "data.train, pass data.test to score_samples or score, or get its rows from "
            "data.test.for_scoring()"
        )


@dataclass(frozen=True)
class Published:
    """A published result on a data set."""

    model: str
    value: float
    unit: str
    """A unit of :mod:`densekit.metrics`, such as "nats per row" or "bits per dim"."""
    source: str
    """Paper and year, and any difference from this data set's rows or preprocessing."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set with fixed training, validation and test parts. Arrays are read-only."""

    train: Any
    """Rows for fitting: an array, a DataFrame or a list of strings, depending on the modality."""
    valid: Any
    """Rows for choosing hyper-parameters, of the same type."""
    test: HeldOut
    """Rows for scoring only."""
    name: str
    modality: Literal["table", "image", "text"]
    truth: Truth | None = None
    """The distribution of a toy data set."""
    source: str = ""
    """Origin of the rows, in one line."""
    domain: Mapping[str, Any] = field(default_factory=dict)
    """Prior knowledge of the entries as parameters of an estimator, such as ``support`` or ``kinds``."""
    reference: tuple[Published, ...] = ()
    """Published results."""

    def __post_init__(self) -> None:
        for part in ("train", "valid"):
            object.__setattr__(self, part, _read_only(getattr(self, part)))

    @property
    def n_dims(self) -> int | None:
        """Number of entries of a row; None for text, whose rows differ in length."""
        if self.modality == "text":
            return None
        return math.prod(self.train.shape[1:])

    @functools.cached_property
    def schema(self) -> "Schema":
        """The schema that a codec learns from ``train``: columns, kinds, cardinalities, support."""
        from densekit import codecs

        classes = {
            "table": codecs.TableCodec,
            "image": codecs.ImageCodec,
            "text": codecs.TextCodec,
        }
        return classes[self.modality](**self.domain).fit(self.train).schema

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over all three parts. Results with equal digests are on the same rows."""
        sha = hashlib.sha256()
        for part in (self.train, self.valid, self.test.for_scoring()):
            if self.modality == "text":
                sha.update("\0".join(part).encode())
            else:
                columns = ",".join(map(str, getattr(part, "columns", ())))
                values = np.ascontiguousarray(part)
                if values.dtype == object:  # The bytes of an object array are addresses.
                    import pandas as pd

                    values = pd.util.hash_pandas_object(part, index=False).to_numpy()
                sha.update(columns.encode() + values.tobytes())
        return sha.hexdigest()


def split(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random row indices of train (72 %), valid (8 %) and test (20 %).

    ``RandomState`` gives the same indices in all versions of NumPy.
    """
    order = np.random.RandomState(seed).permutation(n)
    n_test = round(0.2 * n)
    n_valid = round(0.1 * (n - n_test))
    return order[n_test + n_valid :], order[n_test : n_test + n_valid], order[:n_test]


def _read_only(rows: Any) -> Any:
    """A read-only view of an array; any other object unchanged."""
    if isinstance(rows, np.ndarray):
        rows = rows.view()
        rows.flags.writeable = False
    return rows
