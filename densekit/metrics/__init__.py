"""What a fitted model is measured by: held-out likelihood, and how close its samples are."""

from densekit.metrics.likelihood import (
    Estimate,
    bits_per_character,
    bits_per_dim,
    held_out_nats,
    nats_per_character,
)
from densekit.metrics.samples import energy_distance, two_sample_auc

__all__ = [
    "Estimate",
    "bits_per_character",
    "bits_per_dim",
    "energy_distance",
    "held_out_nats",
    "nats_per_character",
    "two_sample_auc",
]
