"""Training on few rows: cross-fitting finds when to stop, and noise on the rows regularizes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from densekit.transforms.shrinkage import shrunken

FOLDS = 5
"""Parts of the rows, each of which is held out once."""
_FEW = 500
"""Number of rows up to which a budget may be divided. With more, a tenth of them shows reliably when to
stop."""
_SHORTEST_RUN = 200
"""Steps of each run, at least. A run with fewer hardly overfits, so the budget is not divided."""
_NOISE = (0.6, 0.06)
"""Standard deviations of the noise at the beginning and at the end of a run on few rows."""
_LEAST_NOISE = 0.05

Noise = Callable[[Tensor, float, Tensor], Tensor]
"""Events of a batch, the share of the budget that is spent, and standard normal draws of the shape of
the events, to the events with noise."""


class Curve(Protocol):
    """The held-out losses of a run, as :class:`densekit.training.History` has them."""

    step: list[int]
    valid_loss: list[float]
    start_loss: float
    gain: float
    gain_error: float


def divides(n_rows: int, n_steps: float) -> bool:
    """Whether a budget of ``n_steps`` is divided among ``FOLDS`` runs and one on all rows."""
    return FOLDS < n_rows <= _FEW and n_steps // (FOLDS + 1) >= _SHORTEST_RUN


@dataclass(frozen=True)
class Plan:
    """When a run ends that holds out no rows, as found by runs that do."""

    stop: int
    """Steps; 0 where nothing was better than the start."""
    losses: dict[int, float]
    """Mean held-out loss of the other runs after each of their rounds, by step."""
    reason: str
    gain: float = 0.0
    """By how much the mean held-out loss fell at the end of the runs, where the end was the best."""
    gain_error: float = 0.0

    @classmethod
    def of(cls, runs: Sequence[Curve]) -> "Plan":
        """The step after which the mean held-out loss was least.

        A run that stopped early counts with its last loss from then on."""
        curves = [{0: r.start_loss, **dict(zip(r.step, r.valid_loss, strict=True))} for r in runs]
        losses: dict[int, float] = {}
        last = [math.inf] * len(curves)
        for step in sorted(set().union(*curves)):
            last = [curve.get(step, before) for curve, before in zip(curves, last, strict=True)]
            losses[step] = sum(last) / len(last)
        finite = [step for step, loss in losses.items() if math.isfinite(loss)]
        stop = min(finite, key=losses.__getitem__, default=0)
        fall = error = 0.0
        if losses and stop == max(losses):
            fall = sum(r.gain for r in runs) / len(runs)
            error = math.hypot(*(r.gain_error for r in runs)) / len(runs)
        reason = f"step {stop} had the best held-out loss of {len(curves)} cross-fits"
        return cls(stop, losses, reason, fall, error)


def noise_for(n_rows: int, rows: Tensor) -> Noise | None:
    r"""Noise :math:`h\, C^{1/2} \epsilon` that a density is trained with, h falling to a tenth.

    A network that fits rows with noise fits a kernel density estimate of bandwidth h instead of the rows
    themselves. h falls during training, so the step at which the held-out loss is least selects the
    bandwidth. Bishop,
    Training with Noise is Equivalent to Tikhonov Regularization (1995); Rothfuss et al., Noise
    Regularization for Conditional Density Estimation (2019).

    Parameters
    ----------
    n_rows : int
        Above 500, h falls with its square; None where h would hardly matter.
    rows : (n, D)
        Standardized events in random order, whose shrunken covariance is C.
    """
    first, last = (h * min(1.0, _FEW / n_rows) ** 2 for h in _NOISE)
    if first < _LEAST_NOISE:
        return None
    _, (values, vectors), _ = shrunken(rows.double())
    color = (vectors * values.sqrt() @ vectors.T).to(rows)

    def add(events: Tensor, done: float, draws: Tensor) -> Tensor:
        h = first * (last / first) ** done
        return events + h * (draws @ color)

    return add
