"""Losses of rows: their weighted mean, and what the held-out rows say of a run."""

import warnings
from itertools import islice

import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn

from densekit import clock
from densekit.processes import Group
from densekit.runtime import seeded
from densekit.training.batches import Batches
from densekit.training.budget import Schedule
from densekit.training.objective import Player
from densekit.training.weights import RunningAverage

_EVALUATED = 1024
"""Held-out rows at a time, at least: they need no gradients."""
_FEWEST_EVALUATED = 64


def average(
    losses: Tensor, weights: Tensor | None = None, size: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    r"""The mean loss :math:`\sum_i w_i l_i / \sum_i w_i s_i`, and its denominator.

    Parameters
    ----------
    losses : (n,)
    weights, size : (n,), optional
        w and s; ones where they are not given.

    Examples
    --------
    >>> mean, total = average(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 1.0]).double())
    >>> mean.item(), total.item()
    (1.25, 4.0)
    """
    total = torch.tensor(len(losses), device=losses.device) if size is None else size.sum()
    if weights is None:
        return (losses.mean() if size is None else losses.sum() / total), total
    total = (weights if size is None else weights * size).sum()
    # In double precision until here: ratios of weights may be what single precision does not hold.
    return ((weights / total).to(losses.dtype) * losses).sum(), total


class HeldOut:
    """The held-out rows of a run with one player.

    Parameters
    ----------
    module, player, batches, group
        Those of the run.
    averaged : RunningAverage
        The weights that are evaluated.
    schedule : Schedule
    size : int
        Rows of a training batch.
    seed : int
        Of the noise, which is the same at every evaluation.
    """

    def __init__(
        self,
        module: nn.Module,
        player: Player,
        batches: Batches,
        averaged: RunningAverage,
        schedule: Schedule,
        size: int,
        seed: int,
        group: Group,
    ):
        self.module, self.player, self.batches, self.averaged = module, player, batches, averaged
        self.schedule, self.size, self.seed, self.group = schedule, size, seed, group
        self.device = averaged.values[0].device
        self.seconds: float | None = None
        """Of the last evaluation."""
        self._n_evaluated: int | None = None

    def _rows_evaluated(self) -> int:
        """How many rows are evaluated: all, unless ``max_time`` is too short for that. A twentieth of
        it is for each evaluation; the first round shows what a row costs."""
        if self._n_evaluated is None:
            n, budget = self.batches.n_valid, self.schedule.budget.seconds
            if budget is not None:
                row = self.group.broadcast(self.schedule.pace) / (3 * self.size)
                n = min(n, max(_FEWEST_EVALUATED, int(0.05 * budget / row)))
            self._n_evaluated = n
        return self._n_evaluated

    def evaluate(self, values: list[Tensor] | None = None) -> tuple[float, Tensor]:
        """Mean loss over the held-out rows with the averaged weights, or with other ``values`` of the
        weights; and loss, weight and size of each row, (3, n)."""
        start, n = clock.now(), self._rows_evaluated()
        player, size = self.player, max(self.size, _EVALUATED)
        found = torch.zeros(3, n, dtype=torch.float64, device=self.device)
        batches = zip(self.batches.held_out(n, size), found.split(size, 1), strict=True)
        self.module.eval()
        with self.averaged.applied(values), torch.no_grad(), seeded(self.seed, self.device):
            for index, part in islice(batches, self.group.rank, None, self.group.world):
                events, context = self.batches.take(index)
                part[0] = player.loss(self.module, events, context)
                weights = self.batches.weights(index)
                part[1] = 1 if weights is None else weights
                sizes = None if player.size is None else player.size(events)
                part[2] = 1 if sizes is None else sizes
        self.module.train()
        found = self.group.total(found).cpu()
        self.seconds = clock.now() - start
        return float(average(*found)[0]), found

    def expected_seconds(self) -> float:
        """Seconds that the evaluation at the end will take: one, or two where it is the first."""
        if self.seconds is not None:
            return self.seconds
        rows = self.batches.n_valid if self._n_evaluated is None else self._n_evaluated
        budget = self.schedule.budget.seconds or 0.0
        return 2 * min(self.schedule.pace * rows / (3 * self.size), 0.05 * budget)


def warn_if_improving(fall: float, error: float, steps: int) -> None:
    """Warn of a default budget of so many steps that ended while the held-out loss fell."""
    if fall > 2 * error:
        warnings.warn(
            f"The fit was still improving when its default budget of {steps} steps ended: its last "
            f"evaluation lowered the mean held-out loss by {fall:.3g} (standard error {error:.2g}). "
            f"Raise max_steps, for example max_steps={4 * steps}, or give the seconds it may take "
            "as max_time",
            ConvergenceWarning,
            stacklevel=6,
        )


def gain(before: Tensor, after: Tensor) -> tuple[float, float]:
    r"""By how much the mean loss fell from one look at the same rows to the next, and the standard
    error of that.

    The mean is :math:`\sum_i w_i l_i / \sum_i w_i s_i`, a ratio, and the error that of its
    linearization, :math:`\sum_i w_i^2 (d_i - \bar d s_i)^2`; with weights and sizes of one it is the
    standard error of the mean of the differences d.

    Parameters
    ----------
    before, after : (3, n)
        Loss, weight and size of each row; weights and sizes are the same in both.

    Examples
    --------
    >>> before, after = torch.ones(3, 4).double(), torch.ones(3, 4).double()
    >>> after[0] = torch.tensor([0.0, 1.0, 0.0, 1.0])
    >>> fall, error = gain(before, after)
    >>> round(fall, 3), round(error, 3)
    (0.5, 0.289)
    """
    _, weights, sizes = after
    n, total = after.shape[1], (weights * sizes).sum()
    differences = before[0] - after[0]
    mean = (weights * differences).sum() / total
    residuals = weights * (differences - mean * sizes) / total
    return float(mean), float((residuals.square().sum() * n / max(1, n - 1)).sqrt())
