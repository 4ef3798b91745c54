"""What a run reports: its state after each evaluation round, and its history."""

import math
from dataclasses import dataclass, field

from torch import nn


@dataclass
class TrainingState:
    """What a callback sees after every evaluation round; returning True stops the fit. With ``max_time``
    alone ``total_steps`` is how many the time is enough for, at the pace so far."""

    step: int = 0
    total_steps: int = 0
    epoch: float = 0.0
    seconds: float = 0.0
    train_loss: float = math.nan
    valid_loss: float = math.nan
    learning_rate: float = 0.0
    module: nn.Module | None = None


@dataclass
class History:
    """One entry per evaluation round, and why the loop ended."""

    step: list[int] = field(default_factory=list)
    epoch: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    valid_loss: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    stop_reason: str = ""
    best_step: int = 0
    """0 where nothing was better than the start."""
    start_loss: float = math.nan
    """Held-out loss before the first step."""
    gain: float = 0.0
    """By how much the last evaluation lowered the least held-out loss before it."""
    gain_error: float = 0.0
    """The standard error of that."""
