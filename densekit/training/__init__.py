"""Training: the one loop that every neural model of every family goes through.

An *evaluation round* is a number of steps after which the held-out rows are scored with the averaged
weights: an epoch for small data, a fixed share of the run for large, so that neither a hundred rows nor
a million make the evaluation dominate.
"""

from densekit.training.batches import Batches
from densekit.training.budget import Budget
from densekit.training.held_out import average, gain, warn_if_improving
from densekit.training.history import History, TrainingState
from densekit.training.loop import train
from densekit.training.objective import Loss, Objective, Options, Player

__all__ = [
    "Batches",
    "Budget",
    "History",
    "Loss",
    "Objective",
    "Options",
    "Player",
    "TrainingState",
    "average",
    "gain",
    "train",
    "warn_if_improving",
]
