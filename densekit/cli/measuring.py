"""How good a model is on some rows: their scores, and draws compared with them."""

from collections.abc import Callable, Collection, Sequence
from typing import Any


def scores_of(estimator: Any, rows: Any, **given: Any) -> Any:
    """Scores and standard errors; a ValueError, with the estimator's reason, where it has none."""
    try:
        score_samples: Callable[..., Any] = estimator.score_samples
    except AttributeError as error:
        raise ValueError(str(error.__cause__ or error)) from error
    return score_samples(rows, return_std=True, **given)


def likelihood(estimator: Any, rows: Any, units: Collection[str]) -> dict[str, Any]:
    """Mean score, and in the units of such rows; the number of rows scored -inf."""
    import numpy as np

    from densekit import metrics

    scores, errors = scores_of(estimator, rows)
    found: dict[str, Any] = {"outside": int(np.isneginf(scores).sum())}
    found["mean_score"] = metrics.held_out_nats(scores, errors)
    modality = estimator.schema_.modality
    return found | metrics.likelihood_units(
        scores,
        errors,
        modality=modality,
        base_measure=estimator.base_measure_,
        n_dims=None if modality == "text" else int(np.prod(rows.shape[1:])),
        texts=list(rows) if modality == "text" else None,
        units=units,
    )


def metrics_of(names: str) -> list[str]:
    """Names of sample metrics, separated by commas."""
    from densekit.metrics import SAMPLE_METRICS
    from densekit.params import nearest

    listed = [name.strip() for name in names.split(",") if name.strip()]
    for name in listed:
        if name not in SAMPLE_METRICS and name != "all":
            hint = nearest(name, SAMPLE_METRICS)
            raise ValueError(f"--metrics {names}: there is no metric {name!r}{hint}")
    return list(SAMPLE_METRICS) if "all" in listed else listed


def compared(
    estimator: Any, rows: Any, n: int, wanted: Sequence[str], seed: int
) -> dict[str, Any]:
    """How near draws are to rows; nothing for text, or for few rows."""
    from densekit import metrics

    given = None
    if estimator.context_names_:
        # Draws given the contexts of other rows: of the same, they would come in pairs with them.
        half = len(rows) // 2
        given, rows = rows[list(estimator.context_names_)][half:], rows[:half]
    n = min(n, len(rows))
    if estimator.schema_.modality == "text" or n < 10:
        return {}
    given = None if given is None else given[:n]
    drawn = estimator.sample(n, context=given, random_state=seed)
    return {
        name: metrics.SAMPLE_METRICS[name](rows[:n], drawn, random_state=seed) for name in wanted
    }
