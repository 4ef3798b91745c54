"""Metrics of fitted models: held-out likelihood, calibration, distances between samples and data, and
shares of impossible values."""

from collections.abc import Callable

from densekit.metrics.calibration import (
    Calibration,
    hpd_calibration,
    pit_calibration,
    pit_distances,
)
from densekit.metrics.columns import ColumnErrors, shape_errors, trend_errors
from densekit.metrics.impossible import ImpossibleValues, impossible_values
from densekit.metrics.likelihood import (
    Estimate,
    bits_per_byte,
    bits_per_character,
    bits_per_dim,
    held_out_nats,
    likelihood_units,
    nats_per_character,
    nats_per_token,
    perplexity,
)
from densekit.metrics.manifold import coverage, density, precision, recall
from densekit.metrics.samples import energy_distance, mmd, sliced_wasserstein, two_sample_auc

SAMPLE_METRICS: dict[str, Callable[..., Estimate]] = {
    "two_sample_auc": two_sample_auc,
    "energy_distance": energy_distance,
    "mmd": mmd,
    "sliced_wasserstein": sliced_wasserstein,
    "precision": precision,
    "recall": recall,
    "density": density,
    "coverage": coverage,
    "pit": pit_calibration,
}
"""Metrics that need only data ``X`` and samples ``Y``, by name: ``metric(X, Y, random_state=0)``."""

__all__ = [
    "SAMPLE_METRICS",
    "Calibration",
    "ColumnErrors",
    "Estimate",
    "ImpossibleValues",
    "bits_per_byte",
    "bits_per_character",
    "bits_per_dim",
    "coverage",
    "density",
    "energy_distance",
    "held_out_nats",
    "hpd_calibration",
    "impossible_values",
    "likelihood_units",
    "mmd",
    "nats_per_character",
    "nats_per_token",
    "perplexity",
    "pit_calibration",
    "pit_distances",
    "precision",
    "recall",
    "shape_errors",
    "sliced_wasserstein",
    "trend_errors",
    "two_sample_auc",
]
