"""Warnings about draws under conditions that hardly ever hold."""

import warnings
from collections.abc import Sequence
from typing import Any


def warn_if_rare(
    context: Any,
    reason: str | tuple[int, str] | None,
    names: Sequence[str],
    effective_sample_size: float,
    n_samples: int,
    stacklevel: int = 2,
) -> None:
    """Warn if the conditions of draws are improbable, or if too few candidates meet them.

    Parameters
    ----------
    context : Any
        The conditions as the user gave them, for the message.
    reason : str, (int, str) or None
        Why the conditions are improbable, for all columns or for one, as
        :meth:`~densekit.distributions.anyorder.AnyOrder.improbable` returns it.
    names : sequence of str
        Names of the columns.
    effective_sample_size : float
        Of the candidates that the draws were chosen from.
    n_samples : int
        Number of draws.

    Warns
    -----
    UserWarning
        There is a reason, or the effective sample size is below ``n_samples``.
    """
    if reason:
        place = reason if isinstance(reason, str) else f"column {names[reason[0]]!r} {reason[1]}"
        warnings.warn(
            f"the context {context!r} asks for what is next to impossible: {place}; draws follow the "
            "tails of the model, which no row has shaped",
            UserWarning,
            stacklevel=stacklevel,
        )
    if effective_sample_size < n_samples:
        warnings.warn(
            f"the conditions {context!r} hardly ever come together: {n_samples} draws have an "
            f"effective sample size of {effective_sample_size:.1f}; draw under fewer or wider ones",
            UserWarning,
            stacklevel=stacklevel,
        )
