"""Scores of rows in pieces, so that memory does not grow with the number of rows."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from densekit import codecs
from densekit.codecs.context import part_of
from densekit.codecs.dequantized import within_reach
from densekit.containers import RowsInPieces, in_memory
from densekit.distributions.montecarlo import Scores

if TYPE_CHECKING:
    import pandas as pd

_ENCODE_ENTRIES = 2**20
"""Entries encoded at a time, so that a million rows need no second copy of the data."""


def score_rows(estimator: Any, X: Any, context: Tensor | None, info: bool) -> list[np.ndarray]:
    """Scores and standard errors of rows that were checked.

    Parameters
    ----------
    estimator : DensityEstimator
    X : n rows in memory, like those of ``fit``
    context : (n, ...), optional
        Encoded contexts.
    info : bool
        Whether to return two further arrays: effective sample sizes, and whether a score is exact (1),
        inexact (0), or of the kind of all rows (-1).

    Returns
    -------
    list of (n,)
    """
    n = codecs.n_rows(X)
    piece = max(1, _ENCODE_ENTRIES // max(1, estimator.schema_.n_dims))
    out = [np.zeros(n, estimator.dtype_) for _ in range(4 if info else 2)]
    with torch.no_grad():
        for start in range(0, n, piece):
            rows = codecs.take(X, start, min(n, start + piece))
            typed, ladj = estimator.codec_.encode(rows)
            given = None if context is None else context[start : start + piece]
            events = estimator._events(typed)
            near = within_reach(events)
            batches = estimator._score_events(torch.where(near, events, 0), given)
            logp, *others = (torch.cat(p) for p in zip(*map(_columns, batches), strict=True))
            # A row outside the support has ladj = -inf, whatever its stand-in event scores.
            total = logp.double().cpu() + ladj
            total[~near.flatten(1).all(1).cpu()] = -torch.inf
            for column, part in zip(out, [total, *others], strict=False):
                column[start : start + len(logp)] = part.cpu().numpy()
    return out


def score_pieces(
    estimator: Any, pieces: RowsInPieces, context: Any, info: bool
) -> list[np.ndarray]:
    """The same of rows on disk, which are read a few at a time; ``context`` as users give it."""
    check_is_fitted(estimator)
    context, n, done = in_memory(context), len(pieces), 0
    out = [np.zeros(n, estimator.dtype_) for _ in range(4 if info else 2)]
    for rows in pieces.pieces():
        piece = slice(done, done := done + len(rows))
        given = part_of(context, n, piece.start, piece.stop)
        X, given = estimator._check_rows(rows, given, reset=False)
        found = score_rows(estimator, X, estimator._encode_context(given, len(X)), info)
        for column, part in zip(out, found, strict=True):
            column[piece] = part
    return out


def _columns(found: Scores) -> tuple[Tensor, ...]:
    """The columns of a batch of scores; ``exact`` is -1 where it does not differ between rows."""
    exact = found.score.new_full(found.score.shape, -1) if found.exact is None else found.exact
    return (*found[:3], exact)


def describe_scores(
    estimator: Any, std: np.ndarray, sizes: np.ndarray, exact: np.ndarray
) -> "pd.DataFrame":
    """Standard error, kind and effective sample size of each score, as a table.

    Parameters
    ----------
    estimator : DensityEstimator
    std, sizes : (n,)
        Standard errors and effective sample sizes.
    exact : (n,)
        1 where a score is exact, 0 where it is not, -1 where its kind is that of all scores.
    """
    import pandas as pd

    kind = np.full(len(std), estimator.density_kind_, dtype=object)
    kind[exact == 1], kind[exact == 0] = "exact", estimator._kind_if_inexact
    columns = {"std": std, "kind": kind, "effective_sample_size": sizes.astype(np.float64)}
    return pd.DataFrame(columns)
