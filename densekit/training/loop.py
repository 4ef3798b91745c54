"""The training loop: rounds of steps, evaluations between them, and the reasons to stop.

A plain loop, without an engine of another package: a checkpoint holds everything that the rest of the
run depends on, so a run that was killed continues bit for bit.
"""

import contextlib
import logging
import math
import warnings
from collections.abc import Sequence
from itertools import islice
from typing import Any

from torch import Tensor, nn

from densekit import clock
from densekit.checkpoints import Checkpoint
from densekit.few_rows import Noise, Plan
from densekit.processes import Group
from densekit.runtime import reseed
from densekit.training import snapshots
from densekit.training.batches import Batches
from densekit.training.budget import Budget, Schedule
from densekit.training.held_out import HeldOut, gain, warn_if_improving
from densekit.training.history import History, TrainingState
from densekit.training.objective import Options, Player
from densekit.training.steps import Steps
from densekit.training.weights import RunningAverage

_ROUNDS = 50
"""Evaluations in a run of the planned length, at most."""
_SHORTEST_ROUND = 10
"""Steps; fewer would let patience end a short run within its warm-up."""
_UNENDING = 10**12
"""Steps of a round where only the clock ends it."""
_logger = logging.getLogger("densekit.training")
_logger.addHandler(logging.NullHandler())


def train(
    module: nn.Module,
    players: Sequence[Player],
    batches: Batches,
    options: Options,
    *,
    seed: int,
    progress: bool = False,
    constant: bool = False,
    checkpoint: Checkpoint | None = None,
    group: Group | None = None,
    plan: Plan | None = None,
    noise: Noise | None = None,
    default_steps: int = 2000,
) -> History:
    """Train ``module`` in place; it ends with its best (one player) or last averaged weights.

    A step follows the gradient of the weighted mean loss of a batch (:func:`average`), whose rows are
    drawn uniformly.

    The budget is the first to end of the steps, epochs and seconds (on ``densekit.clock``) that
    ``options`` give, or ``default_steps`` if they give none.

    With one player the held-out loss determines when to stop and which weights are kept. The losses of
    several players, which play against each other, do not rank weights, so the run uses its budget.

    With ``constant`` the learning rate has no warm-up and no decay. With a ``checkpoint`` the run
    resumes from it, saves itself after its rounds, and removes it at the end. With a ``plan`` the run
    holds out no rows: it ends at the step of the plan and reports the held-out losses of the plan.
    ``noise`` is added to the training rows.

    All processes of a ``group`` call this function with equal modules and batches. Each takes its share
    of every batch and of the held-out rows, and all make the same steps. Only rank 0 calls callbacks,
    reads the clock and writes files.

    Raises
    ------
    ValueError
        The checkpoint does not fit the module; a batch has fewer rows than there are processes.
    RuntimeError
        Another process of the group ended.
    FloatingPointError
        The loss was not finite before any finite weights could be kept. Afterward it is a
        RuntimeWarning, and the best weights so far are restored.

    Warns
    -----
    ConvergenceWarning
        The default budget ended a run whose last round lowered the mean loss of the held-out rows by
        more than two standard errors of the paired difference.
    """
    group = group or Group()
    schedule = Schedule(
        Budget.of(options, batches.n_train, default_steps), options.warmup, constant, group
    )
    run = Run(module, players, batches, options, schedule, seed, group, plan, noise)
    if progress:
        run.show_progress()
    return run.run(checkpoint)


class Run:
    """State of one call of :func:`train`, and its rounds."""

    def __init__(
        self,
        module: nn.Module,
        players: Sequence[Player],
        batches: Batches,
        options: Options,
        schedule: Schedule,
        seed: int,
        group: Group,
        plan: Plan | None,
        noise: Noise | None,
    ):
        self.module, self.players, self.batches, self.options = module, players, batches, options
        self.schedule, self.seed, self.group, self.plan = schedule, seed, group, plan
        self.parameters = [p for player in players for p in player.parameters]
        self.device = self.parameters[0].device
        self.size = min(options.batch_size, batches.n_train)
        if self.size < group.world:
            raise ValueError(
                f"devices={group.world} share a batch of {self.size} row(s) (batch_size="
                f"{options.batch_size}, {batches.n_train} rows to train on): raise batch_size, or "
                "lower devices"
            )
        with schedule.clock.paused():
            # The first optimizer of a process imports for seconds.
            self.steps = Steps(module, players, batches, options, seed, group, noise)
        self.averaged = RunningAverage(self.parameters, options.ema_decay)
        self.held_out: HeldOut | None = None
        if len(players) == 1 and batches.n_valid > 0:
            self.held_out = HeldOut(
                module, players[0], batches, self.averaged, schedule, self.size, seed, group
            )
        self._plan_rounds()
        self.history = History()
        total = schedule.budget.steps
        self.state = TrainingState(
            total_steps=int(total) if math.isfinite(total) else 0, module=module
        )
        self.best: list[Tensor] | None = None
        self.best_loss = math.inf
        self.best_row_losses: Tensor | None = None
        self.start: list[Tensor] | None = self.averaged.copy()
        """The weights before the first step, until they have been evaluated."""
        self.rounds_without_gain, self.best_round_loss = 0, math.inf
        self.ended = self.round_ended = False
        self.failure = ""
        self.uncounted: float | None = None
        self.bar: Any = None

    def _plan_rounds(self) -> None:
        """How many steps a round has, and after which steps of the first one weights are compared."""
        total, n_valid = self.schedule.budget.steps, self.batches.n_valid
        self.per_epoch = max(1, self.batches.n_train // self.size)
        # Scoring a row costs a third of training on it: keep evaluation below a twentieth of it.
        self.least = max(_SHORTEST_ROUND, math.ceil(20 * n_valid / (3 * self.size)))
        self.round = _UNENDING
        if math.isfinite(total):
            shortest = max(self.least, int(total) // _ROUNDS)
            self.round = min(int(total), max(shortest, min(self.per_epoch, int(total) // 10)))
        # With many columns and few rows the best weights come before the first round ends. With max_time
        # it is not known yet how many held-out rows the time is enough for.
        doubled = (_SHORTEST_ROUND * 2**k for k in range(4))
        early = {k for k in doubled if self.least <= k < self.round}
        known = self.held_out is not None and self.schedule.budget.seconds is None
        self.early_steps = early if known else set()

    def show_progress(self) -> None:
        """Show a bar on standard error."""
        from tqdm import tqdm

        total = self.schedule.budget.steps
        self.bar = tqdm(
            total=int(total) if math.isfinite(total) else None, unit="step", leave=False
        )

    def run(self, checkpoint: Checkpoint | None) -> History:
        """The loop itself, from ``checkpoint`` on where it holds a run."""
        if checkpoint is not None and snapshots.resume(self, checkpoint):
            _logger.info("continuing at step %d from %s", self.state.step, checkpoint.path)
        self.module.train()
        if self.plan is not None and self.plan.stop == 0:
            self.history.stop_reason = self.plan.reason
            return self._finish()
        stream = self.batches.epochs(self.size, self.state.step)
        try:
            while not self.ended:
                self._begin_round()
                for index in islice(stream, self.round):
                    self._timed_step(index)
                    if self.ended or self.round_ended:
                        break
                # A round that a step ended for good is reported, and is not one to go on from.
                whole, self.round_ended = not self.ended, False
                self._end_round()
                if whole:
                    self._count_patience()
                if checkpoint is not None and self.group.rank == 0 and not self.ended:
                    checkpoint.write(lambda: snapshots.take(self))
        finally:
            if self.bar is not None:
                self.bar.close()
        history = self._finish()
        if checkpoint is not None:
            if self.group.rank == 0:
                checkpoint.remove()
            # No rank begins another fit before the file of this one is gone.
            self.group.broadcast(None)
        return history

    # One step.

    def _timed_step(self, index: Tensor) -> None:
        """A step, and the end of the run or of the round where the budget asks for it."""
        self._step(index)
        if self.failure:
            return
        if self.state.step in self.early_steps:
            self._consider_early()
        seconds = self.schedule.budget.seconds
        if self.plan is not None and self.state.step >= self.plan.stop:
            self._stop(self.plan.reason)
        elif self.state.step == self.schedule.budget.steps:
            self.ended = True
        elif seconds is not None:
            elapsed, further = self.group.broadcast(
                (self.schedule.clock.elapsed(), self._expected_evaluation())
            )
            # What is left must be enough for the last evaluation of the held-out rows.
            if elapsed + further >= seconds:
                self._stop(self.schedule.out_of_time)
            elif self._round_is_due(elapsed, seconds):
                self.round_ended = True

    def _step(self, index: Tensor) -> None:
        """A step on the clock. Where the loss is compiled, the first step compiles it, and counts as
        much as the second."""
        watch, state = self.schedule.clock, self.state
        compiles, start = self.options.compile and self.schedule.pace == 0, clock.now()
        with watch.paused() if compiles else contextlib.nullcontext():
            rate = self.schedule.rate(state.step)
            done = 0.0 if self.steps.noise is None else self.schedule.done(state.step)
            failed = self.steps.take(index, state.step, rate, done)
            if failed is not None:
                self._fail(failed)
            else:
                state.step += 1
                self.averaged.update(state.step)
        self.schedule.pace = max(clock.now() - start, 1e-9)
        if compiles:
            self.uncounted = self.schedule.pace
        elif self.uncounted is not None:
            watch.advance(min(self.uncounted, self.schedule.pace))
            self.uncounted = None

    def _expected_evaluation(self) -> float:
        return 0.0 if self.held_out is None else self.held_out.expected_seconds()

    def _round_is_due(self, elapsed: float, budget: float) -> bool:
        """Whether a round has had its share of the time: ``max_steps`` may be out of reach, and rounds
        that are shares of it too."""
        step, seconds = 0, self.schedule.begun
        if self.history.step:
            step, seconds = self.history.step[-1], self.history.seconds[-1]
        enough = elapsed - seconds >= budget / _ROUNDS
        return enough and self.state.step - step >= self.least

    def _stop(self, reason: str) -> None:
        self.history.stop_reason = self.history.stop_reason or reason
        self.ended = True

    def _fail(self, player: Player) -> None:
        """Stop after a loss or weights that are not finite."""
        rate = self.schedule.rate(self.state.step)
        self.failure = self.steps.describe_failure(player, self.state.step, rate)
        self._stop("non-finite loss: " + self.failure)

    # One round.

    def _begin_round(self) -> None:
        """Noise of its own for every rank but 0, as a function of the step: a checkpoint, which is
        written between two rounds, holds the generator of rank 0 alone."""
        if self.group.rank:
            reseed((self.seed, self.group.rank, self.state.step), self.device)

    def _evaluate_start(self, held_out: HeldOut) -> None:
        """Make the weights before the first step the first candidate. They wait for the first
        evaluation, when it is known how many held-out rows the time is enough for."""
        if self.start is None:
            return
        loss, row_losses = held_out.evaluate(self.start)
        if math.isfinite(loss):
            self.best_loss, self.best, self.history.start_loss = loss, self.start, loss
            self.best_row_losses = row_losses
        self.start = None

    def _consider_early(self) -> None:
        """Keep the weights within the first round if they are the best so far."""
        assert self.held_out is not None
        self._evaluate_start(self.held_out)
        loss, row_losses = self.held_out.evaluate()
        if loss < self.best_loss:
            self._keep(loss, row_losses)

    def _keep(self, loss: float, row_losses: Tensor | None) -> None:
        """Make the averaged weights of this step the best ones."""
        self.best_row_losses = row_losses
        self.best_loss, self.best = loss, self.averaged.copy()
        self.history.best_step = self.state.step

    def _end_round(self) -> None:
        """Evaluate, record, keep the best weights, and ask the callbacks."""
        state, history = self.state, self.history
        steps = state.step - (history.step[-1] if history.step else 0)
        if steps == 0:
            return
        state.train_loss = self.steps.mean_loss(steps)
        if not math.isfinite(state.train_loss) or not self.averaged.is_finite():
            self._fail(self.players[0])
            return
        state.valid_loss, row_losses = math.nan, None
        if self.held_out is not None:
            self._evaluate_start(self.held_out)
            state.valid_loss, row_losses = self.held_out.evaluate()
        if self.plan is not None:
            state.valid_loss = self.plan.losses.get(state.step, math.nan)
        self._record()
        history.gain = history.gain_error = 0.0
        if self.held_out is None or state.valid_loss < self.best_loss:
            if row_losses is not None and self.best_row_losses is not None:
                history.gain, history.gain_error = gain(self.best_row_losses, row_losses)
            self._keep(state.valid_loss, row_losses)
        if self.bar is not None:
            self.bar.update(state.step - self.bar.n)
            self.bar.set_postfix(train=f"{state.train_loss:.4g}", valid=f"{state.valid_loss:.4g}")
        seconds = self.schedule.budget.seconds
        if seconds is not None:
            further = (
                self.schedule.clock.elapsed() + self.schedule.pace + self._expected_evaluation()
            )
            # Another step, and the evaluation that would follow it, would take longer than there is.
            if self.group.broadcast(further) > seconds:
                self._stop(self.schedule.out_of_time)
        callbacks = self.options.callbacks if self.group.rank == 0 else ()
        if self.group.broadcast(any(callback(state) is True for callback in callbacks)):
            self._stop("a callback asked to stop")

    def _record(self) -> None:
        """Append the state of this round to the history."""
        state = self.state
        state.epoch = state.step / self.per_epoch
        state.seconds = self.schedule.elapsed()
        state.learning_rate = self.schedule.rate(state.step) * self.options.learning_rate
        if not math.isfinite(self.schedule.budget.steps):
            share = min(1.0, max(self.schedule.share_of_time(), 1e-9))
            state.total_steps = round(state.step / share)
        for name in ("step", "epoch", "seconds", "train_loss", "valid_loss", "learning_rate"):
            getattr(self.history, name).append(getattr(state, name))

    def _count_patience(self) -> None:
        """End the run after ``patience`` rounds without a better held-out loss."""
        if self.options.patience is None or self.held_out is None:
            return
        if self.state.valid_loss < self.best_round_loss:
            self.best_round_loss, self.rounds_without_gain = self.state.valid_loss, 0
            return
        self.rounds_without_gain += 1
        if self.rounds_without_gain >= self.options.patience:
            self.ended = True

    def _finish(self) -> History:
        """Give the module its best weights, and say why the run ended."""
        history, budget = self.history, self.schedule.budget
        if not history.stop_reason:
            early = self.state.step < budget.steps
            history.stop_reason = (
                f"no better held-out loss for {self.options.patience} evaluations"
                if early
                else f"all {budget.steps} steps are done"
            )
            if not early and budget.default and self.group.rank == 0:
                warn_if_improving(history.gain, history.gain_error, int(budget.steps))
        if self.failure and self.best is None:
            raise FloatingPointError(self.failure[0].upper() + self.failure[1:])
        if self.failure:
            warnings.warn(
                f"Training stopped early: {self.failure}. The best weights so far "
                f"(step {history.best_step}) are kept.",
                RuntimeWarning,
                stacklevel=5,
            )
        if self.best is not None:
            self.averaged.assign(self.best)
        for p in self.parameters:
            p.requires_grad_(True)
        return history
