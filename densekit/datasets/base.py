"""What a data set is: three fixed parts, a name, and the truth where it is known."""

import functools
import hashlib
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np


class Truth(ABC):
    r"""The distribution that a toy was drawn from.

    Its entropy :math:`-E[\log p(x)]` in nats is minus the best mean score that a model can reach.
    """

    n_dims: int

    @abstractmethod
    def log_prob(self, X: Any) -> np.ndarray:
        """Log-density of rows ``X``, (n, n_dims), in nats over Lebesgue measure; (n,)."""

    @abstractmethod
    def sample(self, n_samples: int = 1, *, random_state: Any = None) -> np.ndarray:
        """Independent rows, (n_samples, n_dims)."""

    @property
    @abstractmethod
    def entropy(self) -> float:
        """Differential entropy in nats."""

    def _rows(self, X: Any) -> np.ndarray:
        rows = np.asarray(X, dtype=float)
        if rows.ndim != 2 or rows.shape[1] != self.n_dims:
            raise ValueError(
                f"X has shape {rows.shape}: {type(self).__name__} scores rows of "
                f"{self.n_dims} numbers, shape (n, {self.n_dims})"
            )
        return rows


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows in three parts that never change.

    Models are fitted to ``train``; ``valid`` is there to choose hyper-parameters; ``test`` is
    scored once. The parts are arrays, DataFrames or lists of strings, as the modality has it.
    """

    train: Any
    valid: Any
    test: Any
    name: str
    modality: Literal["table", "image", "text"]
    truth: Truth | None = None
    source: str = ""
    """Where the rows come from, in a line."""

    @property
    def n_dims(self) -> int | None:
        """Number of entries of one row; None for text, whose rows differ in length."""
        if self.modality == "text":
            return None
        return math.prod(self.train.shape[1:])

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over all three parts: two results with one digest are about the same rows."""
        sha = hashlib.sha256()
        for part in (self.train, self.valid, self.test):
            if self.modality == "text":
                sha.update("\0".join(part).encode())
            else:
                columns = ",".join(map(str, getattr(part, "columns", ())))
                sha.update(columns.encode() + np.ascontiguousarray(part).tobytes())
        return sha.hexdigest()


def split(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row numbers of train (72 %), valid (8 %) and test (20 %), from a stream NumPy has frozen."""
    order = np.random.RandomState(seed).permutation(n)
    n_test = round(0.2 * n)
    n_valid = round(0.1 * (n - n_test))
    return order[n_test + n_valid :], order[n_test : n_test + n_valid], order[:n_test]
