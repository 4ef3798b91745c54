"""Evaluation of a model on data: scores, and metrics of samples."""

from collections.abc import Callable, Collection, Sequence
from typing import Any


def scores_of(estimator: Any, rows: Any, **given: Any) -> Any:
    """Scores and standard errors; raises ValueError with the reason if the model has no scores."""
    try:
        score_samples: Callable[..., Any] = estimator.score_samples
    except AttributeError as error:
        raise ValueError(str(error.__cause__ or error)) from error
    return score_samples(rows, return_std=True, **given)


def likelihood(estimator: Any, rows: Any, units: Collection[str]) -> dict[str, Any]:
    """Mean score, the same in the usual units of the data, and the number of rows that score -inf."""
    import numpy as np

    from densekit import metrics

    scores, errors = scores_of(estimator, rows)
    result: dict[str, Any] = {"outside": int(np.isneginf(scores).sum())}
    result["mean_score"] = metrics.held_out_nats(scores, errors)
    modality = estimator.schema_.modality
    return result | metrics.likelihood_units(
        scores,
        errors,
        modality=modality,
        base_measure=estimator.base_measure_,
        n_dims=None if modality == "text" else int(np.prod(rows.shape[1:])),
        texts=list(rows) if modality == "text" else None,
        units=units,
    )


def metric_names(names: str) -> list[str]:
    """The validated names of sample metrics in a list separated by commas, which may have ``all``."""
    from densekit.metrics import SAMPLE_METRICS
    from densekit.params import nearest

    listed = [name.strip() for name in names.split(",") if name.strip()]
    for name in listed:
        if name not in SAMPLE_METRICS and name != "all":
            hint = nearest(name, SAMPLE_METRICS)
            raise ValueError(f"--metrics {names}: there is no metric {name!r}{hint}")
    return list(SAMPLE_METRICS) if "all" in listed else listed


def sample_metrics(
    estimator: Any, rows: Any, n: int, names: Sequence[str], seed: int
) -> dict[str, Any]:
    """Metrics of n samples against rows; empty for text or for less than ten rows."""
    from densekit import metrics

    context = None
    if estimator.context_names_:
        # The metrics assume independent samples, so the contexts must be those of other rows.
        half = len(rows) // 2
        context, rows = rows[list(estimator.context_names_)][half:], rows[:half]
    n = min(n, len(rows))
    if estimator.schema_.modality == "text" or n < 10:
        return {}
    context = None if context is None else context[:n]
    samples = estimator.sample(n, context=context, random_state=seed)
    return {
        name: metrics.SAMPLE_METRICS[name](rows[:n], samples, random_state=seed) for name in names
    }
