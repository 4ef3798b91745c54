"""A description of the columns of a table, made once for all estimators and folds."""

import warnings
from collections.abc import Mapping
from typing import Any

from densekit.codecs.description import Description
from densekit.codecs.findings import ColumnWarning
from densekit.codecs.table import TableCodec


def describe(
    X: Any,
    *,
    support: str | tuple[Any, ...] | Mapping[Any, Any] | None = None,
    kinds: Mapping[Any, str] | None = None,
    atom_share: float | None = 0.05,
    step: Mapping[Any, Any] | None = None,
    derived: Mapping[Any, Any] | None = None,
) -> Description:
    """Describe the columns of a table once, for all estimators and folds.

    Estimators given ``columns=describe(X)`` take kinds, supports, atoms, steps and levels from it, and
    learn none of their own, so that all their scores are with respect to one measure.

    Parameters
    ----------
    X : array or DataFrame
        All rows: training rows and those that are held out. Cells may be missing.
    support, kinds, atom_share, step, derived
        As of every estimator.

    Returns
    -------
    Description
        ``print`` shows it in words, ``to_frame()`` as a table.

    Examples
    --------
    >>> import numpy as np
    >>> from densekit import Gaussian, describe
    >>> rng = np.random.default_rng(0)
    >>> X = np.stack([rng.normal(size=400), rng.exponential(size=400)], 1)
    >>> X[::4, 1] = 0.0
    >>> columns = describe(X)
    >>> print(columns)
    x0: real
    x1: real, support ('at_least', 0.0), atoms 0.0
    >>> Gaussian(columns=columns).fit(X[:300]).measure_ == Gaussian(columns=columns).fit(X).measure_
    True
    """
    codec = TableCodec(support, kinds, atom_share, step, derived, missing=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ColumnWarning)
        return codec.fit(X).description
