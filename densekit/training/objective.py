"""What a run minimizes, and the hyper-parameters that say how."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from densekit.training.history import TrainingState

Loss = Callable[[Any, Tensor, Tensor | None], Tensor]
"""Of a module, events and contexts: one number per row, (n,)."""


class Options(Protocol):
    """The hyper-parameters that the loop reads; a :class:`~densekit.neural.NeuralDensity` has them."""

    max_epochs: int | None
    max_steps: int | None
    max_time: float | None
    batch_size: int
    learning_rate: float
    weight_decay: float
    gradient_clip: float | None
    warmup: float
    ema_decay: float
    validation_fraction: float
    patience: int | None
    mixed_precision: bool
    compile: bool
    callbacks: tuple[Callable[[TrainingState], Any], ...]


@dataclass
class Player:
    """A group of parameters with a loss of its own. Most models have one; a GAN has two, which step
    in order on the same batch."""

    name: str
    parameters: Sequence[nn.Parameter]
    loss: Loss
    learning_rate: float | None = None
    """The estimator's, unless given."""
    betas: tuple[float, float] = (0.9, 0.999)
    size: Callable[[Tensor], Tensor | None] | None = None
    """Of events: by how much each row counts in the number that the sum of losses is divided by, (n,),
    such as its tokens; None is one per row."""


@dataclass(frozen=True)
class Objective:
    """Losses of a fit that replace those of the model."""

    players: Callable[[Any], list[Player]]
    """Of a module: who trains which parameters on which loss."""
    view: Callable[[Tensor], Tensor]
    """Of typed events: events as the losses take them."""
    initial: Callable[[Tensor], Tensor | None] | None = None
    """Of a batch as ``view`` gives it: the events (n, \\*event_shape) that the module is initialized
    from, or None for no initialization. Rows of such an objective are no events, so that training adds
    no noise to them. By default the batch itself is these events."""
