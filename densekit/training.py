"""The training loop, the only one: every neural model of every family goes through it.

pytorch-ignite's engine runs it. An *evaluation round* is a number of steps after which the held-out
rows are scored with the averaged weights: an epoch for small data, a fixed share of the run for large,
so that neither a hundred rows nor a million make the evaluation dominate.
"""

import contextlib
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Protocol, Self

import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn

from densekit import clock
from densekit.checkpoints import Checkpoint, Saved
from densekit.few_rows import Noise, Plan
from densekit.processes import Group
from densekit.runtime import generator_states, reseed, seeded, set_generator_states

Loss = Callable[[Any, Tensor, Tensor | None], Tensor]
"""Of a module, events and contexts: one number per row, (n,)."""

_ROUNDS = 50
"""Evaluations in a run of the planned length, at most."""
_SHORTEST_ROUND = 10
"""Steps; fewer would let patience end a short run within its warm-up."""
_MAX_HELD_OUT = 4096
_EVALUATED = 1024
"""Held-out rows at a time, at least: they need no gradients."""
_FEWEST_EVALUATED = 64
_UNENDING = 10**12
"""Steps of a round, and rounds, where only the clock ends them."""
_MANY = 10_000
"""Steps of a run for the first one of a warm-up, where the number is not known."""
_logger = logging.getLogger("densekit.training")
_logger.addHandler(logging.NullHandler())


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
    callbacks: tuple[Callable[["TrainingState"], Any], ...]


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


class Batches:
    """Events batched by index, in memory on the device or read when they are asked for; the
    held-out rows kept apart.

    Parameters
    ----------
    events : (n, \\*event_shape)
        A tensor, or what is indexed like one (``densekit.codecs.ondisk.EncodedRows``).
    context : (n, n_context), optional
    weights : (n,), optional
        Of the rows, in float64 and positive; only their ratios matter.
    view : callable
        Events as the model takes them; called on every batch, so that dequantization draws anew.
    in_order : bool
        Rows follow each other: each place of a batch goes through a part of them from its beginning,
        and the held-out rows are the last.
    fold : (int, int), optional
        (k, K): hold out part k of K parts of the rows instead of ``validation_fraction`` of them.
    """

    def __init__(
        self,
        events: Any,
        context: Tensor | None,
        view: Callable[[Tensor], Tensor],
        *,
        validation_fraction: float,
        seed: int,
        in_order: bool = False,
        fold: tuple[int, int] | None = None,
        weights: Tensor | None = None,
    ):
        n = len(events)
        held = 0
        if validation_fraction > 0:
            held = min(max(1, round(validation_fraction * n)), _MAX_HELD_OUT, n - 1)
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
        if in_order:
            order = torch.arange(n).roll(held)
        if fold is not None:
            cuts = [n * k // fold[1] for k in range(fold[1] + 1)]
            held = cuts[fold[0] + 1] - cuts[fold[0]]
            order = order.roll(-cuts[fold[0]])
        self._in_order = in_order
        self._valid = order[:held].to(events.device)
        self._train = order[held:].to(events.device)
        self._events, self._context, self._view, self._seed = events, context, view, seed
        self._weights = None if weights is None else weights / weights.mean()

    @property
    def n_train(self) -> int:
        """Rows that are trained on."""
        return len(self._train)

    @property
    def n_valid(self) -> int:
        """Rows held out."""
        return len(self._valid)

    def take(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """The rows of ``index``, as the model takes them."""
        context = None if self._context is None else self._context[index]
        return self._view(self._events[index]), context

    def first(self, n: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """At most ``n`` of the rows that are trained on, in random order, as the model takes them, with
        their contexts and weights."""
        index = self._train[:n]
        return *self.take(index), self.weights(index)

    def weights(self, index: Tensor) -> Tensor | None:
        """The weights of the rows of ``index``; None where all are alike."""
        return None if self._weights is None else self._weights[index]

    def epochs(self, size: int, done: int = 0) -> Iterator[Tensor]:
        """Index batches without end, from the one after the ``done`` first: the order is a function
        of the seed and the epoch alone, and a ragged last batch is left to the next shuffle."""
        epoch, first = divmod(done, self.n_train // size)
        while True:
            generator = torch.Generator().manual_seed((self._seed + epoch) % 2**63)
            order = torch.randperm(self.n_train, generator=generator).to(self._train.device)
            if self._in_order:
                whole = torch.arange(size * (self.n_train // size), device=order.device)
                order = whole.view(size, -1).T.flatten()
            for start in range(first * size, self.n_train - size + 1, size):
                yield self._train[order[start : start + size]]
            epoch, first = epoch + 1, 0

    def held_out(self, n: int, size: int) -> Iterator[Tensor]:
        """Index batches of the first ``n`` held-out rows."""
        yield from self._valid[:n].split(size)


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
    drawn uniformly. ``look`` is called with the module, the events and the weights of the first batch
    before the first step.

    The budget is what ``options`` give: steps, epochs, seconds on the clock of the fit
    (``densekit.clock``), whichever ends first; ``default_steps`` where they give none.

    With one player the held-out loss decides when to stop and which weights are kept; several
    players play against each other, no loss of theirs ranks weights, so the run goes to its end.

    With ``constant`` the learning rate stays as it is, without warm-up and decay. With a
    ``checkpoint`` the run goes on from what is saved there, saves itself after its rounds, and
    removes the checkpoint when it is done.

    With a ``plan`` the run ends at its step, and its held-out losses stand for those of rows that this
    run, which holds out none, does not have. ``noise`` is added to the rows that are trained on.

    With a ``group`` of several processes all call this alike, with equal modules and batches: each
    takes its share of every batch and of the held-out rows, and all make the same steps. Rank 0
    alone calls back, looks at the clock and writes.

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
    budget = Budget.of(options, batches.n_train, default_steps)
    run = _Run(
        module,
        players,
        batches,
        options,
        budget,
        seed,
        progress,
        constant,
        checkpoint,
        group,
        plan,
        noise,
    )
    return run.run()


@dataclass(frozen=True)
class Budget:
    """How long a run may take.

    >>> from types import SimpleNamespace
    >>> given = {"max_steps": None, "max_epochs": None, "max_time": 9.0, "batch_size": 5}
    >>> Budget.of(SimpleNamespace(**given), 20, 2000)
    Budget(steps=inf, seconds=9.0, default=False)
    >>> Budget.of(SimpleNamespace(**given | {"max_epochs": 3, "max_steps": 100}), 20, 2000)
    Budget(steps=12, seconds=9.0, default=False)
    """

    steps: float
    """A whole number, or infinity."""
    seconds: float | None
    default: bool
    """Whether none was given."""

    @classmethod
    def of(cls, options: Any, n_train: int, default_steps: int) -> Self:
        """What the options say, for so many rows to train on."""
        default = options.max_steps is options.max_epochs is options.max_time is None
        steps = math.inf if options.max_steps is None else options.max_steps
        if options.max_epochs is not None:
            per_epoch = max(1, n_train // min(options.batch_size, n_train))
            steps = min(steps, options.max_epochs * per_epoch)
        return cls(default_steps if default else steps, options.max_time, default)


class _Run:
    """State of one call of :func:`train`."""

    def __init__(
        self,
        module: nn.Module,
        players: Sequence[Player],
        batches: Batches,
        options: Options,
        budget: Budget,
        seed: int,
        progress: bool,
        constant: bool,
        checkpoint: Checkpoint | None,
        group: Group,
        plan: Plan | None,
        noise: Noise | None,
    ):
        self.clock, self.budget = clock.current(), budget
        self.begun = self.clock.elapsed()
        self.module, self.players, self.batches, self.options = module, players, batches, options
        self.seed, self.constant, self.checkpoint = seed, constant, checkpoint
        self.group, self.plan, self.noise = group, plan, noise
        self.parameters = [p for player in players for p in player.parameters]
        self.device = self.parameters[0].device
        self.size = min(options.batch_size, batches.n_train)
        if self.size < group.world:
            raise ValueError(
                f"devices={group.world} share a batch of {self.size} row(s) (batch_size="
                f"{options.batch_size}, {batches.n_train} rows to train on): raise batch_size, or "
                "lower devices"
            )
        per_epoch = max(1, batches.n_train // self.size)
        self.per_epoch, self.total = per_epoch, budget.steps
        # Scoring a row costs a third of training on it: keep evaluation below a twentieth of it.
        cost = math.ceil(20 * batches.n_valid / (3 * self.size))
        self.least = max(_SHORTEST_ROUND, cost)
        self.round = _UNENDING
        if math.isfinite(self.total):
            total = int(self.total)
            shortest = max(self.least, total // _ROUNDS)
            self.round = min(total, max(shortest, min(per_epoch, total // 10)))
        with self.clock.paused():
            # The first one of a process imports for seconds.
            self.optimizers = [self._optimizer(player) for player in players]
        self.losses = [torch.compile(p.loss) if options.compile else p.loss for p in players]
        self.detached = [p.detach() for p in self.parameters]
        self.shadow = [p.clone() for p in self.detached]
        self.evaluated: int | None = None
        self.pace = 0.0
        self.look_seconds: float | None = None
        self.uncounted: float | None = None
        self.best: list[Tensor] | None = None
        self.best_loss = math.inf
        # With many columns and few rows the best weights come before the first round ends. With max_time
        # it is not known yet how many held-out rows the time is enough for.
        doubled = (_SHORTEST_ROUND * 2**k for k in range(4))
        early = {k for k in doubled if self.least <= k < self.round}
        self.early = early if budget.seconds is None and len(players) == 1 else set()
        self.unmoved: list[Tensor] | None = [s.clone() for s in self.shadow]
        self.best_held_out: Tensor | None = None
        self.history = History()
        planned = int(self.total) if math.isfinite(self.total) else 0
        self.state = TrainingState(total_steps=planned, module=module)
        self.running = torch.zeros((), device=self.device)
        self.bar = self._bar() if progress else None

    def _optimizer(self, player: Player) -> torch.optim.Optimizer:
        options = self.options
        return torch.optim.AdamW(
            player.parameters,
            lr=torch.tensor(0.0) if options.compile else 0.0,
            betas=player.betas,
            weight_decay=options.weight_decay,
            fused=True,
        )

    def _bar(self) -> Any:
        from tqdm import tqdm

        total = int(self.total) if math.isfinite(self.total) else None
        return tqdm(total=total, unit="step", leave=False)

    # One step.

    def _rate(self) -> float:
        """Share of the full learning rate: linear warm-up, then half a cosine over the budget."""
        if self.constant:
            return 1.0
        done, warm = self._done(), self.options.warmup
        if done < warm:
            # The first step already moves: it counts as one.
            return min(1.0, max(done, 1 / min(self.total, _MANY)) / warm)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (done - warm) / max(1e-9, 1 - warm))))

    def _done(self) -> float:
        """Share of the budget that is spent."""
        return max(self.state.step / self.total, self._share_of_time())

    def _share_of_time(self) -> float:
        """How much of the time that was left when the run began is over."""
        if self.budget.seconds is None:
            return 0.0
        left = max(self.budget.seconds - self.begun, 1e-9)
        return max(0.0, self._elapsed() - self.begun) / left

    def _elapsed(self) -> float:
        """Seconds by the clock of rank 0, which all ranks ask for at the same time."""
        return self.group.broadcast(self.clock.elapsed())

    def _timed_step(self, engine: Any, index: Tensor) -> None:
        """A step, and the end of the run or of the round where the time is over. Where the loss is
        compiled the first one compiles it: it counts as much as the second."""
        compiles, start = self.options.compile and self.pace == 0, clock.now()
        with self.clock.paused() if compiles else contextlib.nullcontext():
            self._step(engine, index)
        self.pace = max(clock.now() - start, 1e-9)
        if compiles:
            self.uncounted = self.pace
        elif self.uncounted is not None:
            self.clock.advance(min(self.uncounted, self.pace))
            self.uncounted = None
        if self.failure:
            return
        if self.state.step in self.early and self.batches.n_valid:
            self._consider_early()
        if self.plan is not None and self.state.step >= self.plan.stop:
            self._stop(engine, self.plan.reason)
        elif self.state.step == self.total:
            engine.terminate()
        elif self.budget.seconds is not None:
            elapsed, look = self.group.broadcast((self.clock.elapsed(), self._last_look()))
            # What is left must do for the last look at the held-out rows.
            if elapsed + look >= self.budget.seconds:
                self._stop(engine, self._over())
            elif self._due(elapsed, self.budget.seconds):
                engine.terminate_epoch()

    def _step(self, engine: Any, index: Tensor) -> None:
        rate = self._rate()
        share = self.group.share(index)
        events, context = self.batches.take(share)
        if self.noise is not None:
            events = self.noise(events, self._done(), self._draws(index, events))
        for player, optimizer, loss_of in zip(
            self.players, self.optimizers, self.losses, strict=True
        ):
            if len(self.players) > 1:
                for other in self.players:
                    for p in other.parameters:
                        p.requires_grad_(other is player)
            for group in optimizer.param_groups:
                group["lr"] = rate * (player.learning_rate or self.options.learning_rate)
            with torch.autocast(
                self.device.type, dtype=torch.bfloat16, enabled=self.options.mixed_precision
            ):
                losses = loss_of(self.module, events, context)
                loss, total = self._mean(player, losses, events, share)
            loss.backward()
            loss = self.group.mean_gradients(player.parameters, loss, total)
            # On a GPU a look at the loss would wait for it: there the round's sum is looked at.
            if self.device.type == "cpu" and not math.isfinite(loss.item()):
                optimizer.zero_grad(set_to_none=True)
                self._stop_unfinite(engine, player)
                return
            if self.options.gradient_clip is not None:
                self._clip(player.parameters, self.options.gradient_clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            self.running += loss
        self.state.step += 1
        # A running mean over the first steps, so that the start is forgotten.
        decay = min(self.options.ema_decay, self.state.step / (self.state.step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(self.shadow, self.detached, 1 - decay)

    def _draws(self, index: Tensor, events: Tensor) -> Tensor:
        """Standard normal draws for this process' part of a batch, the same however many share it."""
        seed = (self.seed + 1_000_003 * (self.state.step + 1)) % 2**63
        generator = torch.Generator().manual_seed(seed)
        whole = torch.randn(len(index), *events.shape[1:], generator=generator)
        return whole[self.group.share(torch.arange(len(index)))].to(events)

    def _mean(
        self, player: Player, losses: Tensor, events: Tensor, index: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The mean loss of the rows of ``index``, and what it counts for."""
        if losses.shape != (len(index),):
            raise TypeError(
                f"the loss of {player.name!r} has shape {tuple(losses.shape)}: it must be one number "
                f"per row, of shape ({len(index)},)"
            )
        size = None if player.size is None else player.size(events)
        return average(losses, self.batches.weights(index), size)

    def _over(self) -> str:
        return f"max_time={self.budget.seconds:g} seconds are over"

    def _last_look(self) -> float:
        """Seconds that the evaluation at the end will take: one look, two if it is the first."""
        if not self.batches.n_valid or len(self.players) > 1:
            return 0.0
        if self.look_seconds is not None:
            return self.look_seconds
        rows = self.batches.n_valid if self.evaluated is None else self.evaluated
        return 2 * min(self.pace * rows / (3 * self.size), 0.05 * (self.budget.seconds or 0.0))

    def _due(self, elapsed: float, budget: float) -> bool:
        """Whether a round has had its share of the time: ``max_steps`` may be out of reach, and rounds
        that are shares of it too."""
        history = self.history
        step, seconds = 0, self.begun
        if history.step:
            step, seconds = history.step[-1], history.seconds[-1]
        enough = elapsed - seconds >= budget / _ROUNDS
        return enough and self.state.step - step >= self.least

    def _clip(self, parameters: Sequence[nn.Parameter], largest: float) -> None:
        """Scale the gradients down to a norm of ``largest`` at most."""
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        # On a CPU a look at the norm costs nothing, and most steps need no scaling.
        if self.device.type != "cpu" or not norm <= largest:
            nn.utils.clip_grads_with_norm_(parameters, largest, norm, foreach=True)

    def _stop(self, engine: Any, reason: str) -> None:
        self.history.stop_reason = self.history.stop_reason or reason
        engine.terminate()

    def _stop_unfinite(self, engine: Any, player: Player) -> None:
        self.failure = (
            f"the loss of {player.name!r} was not finite at step {self.state.step + 1} "
            f"(learning rate {self._rate() * (player.learning_rate or self.options.learning_rate):.3g}"
            f"{self._culprit(player)}); likely a learning rate that is too high or an extreme row: "
            "lower learning_rate, lower gradient_clip, or look for outliers"
        )
        self._stop(engine, "non-finite loss: " + self.failure)

    def _culprit(self, player: Player) -> str:
        names = {id(p): name for name, p in self.module.named_parameters()}
        bad = [names.get(id(p), "?") for p in player.parameters if not torch.isfinite(p).all()]
        return f"; non-finite weights in {', '.join(bad[:3])}" if bad else ""

    # One round.

    def _begin_round(self, engine: Any) -> None:
        """Noise of its own for every rank but 0, as a function of the step: a checkpoint, which is
        written between two rounds, holds the generator of rank 0 alone."""
        if self.group.rank:
            reseed((self.seed, self.group.rank, self.state.step), self.device)

    def _swap(self) -> None:
        """Exchange the weights with their running average."""
        with torch.no_grad():
            for p, s in zip(self.parameters, self.shadow, strict=True):
                kept = p.detach().clone()
                p.copy_(s)
                s.copy_(kept)

    def _n_evaluated(self) -> int:
        """Held-out rows that rounds look at: all, unless ``max_time`` is too short for that. A
        twentieth of it is for each look; the first round tells what a row costs."""
        if self.evaluated is None:
            self.evaluated = self.batches.n_valid
            if self.budget.seconds is not None:
                row = self.group.broadcast(self.pace) / (3 * self.size)
                affordable = int(0.05 * self.budget.seconds / row)
                self.evaluated = min(self.evaluated, max(_FEWEST_EVALUATED, affordable))
        return self.evaluated

    def _look_at_held_out(self) -> tuple[float, Tensor]:
        """Mean loss over the held-out rows with the averaged weights, under noise that is the same
        every time; and loss, weight and size of each of them, (3, n)."""
        start, n = clock.now(), self._n_evaluated()
        self._swap()
        self.module.eval()
        player, size = self.players[0], max(self.size, _EVALUATED)
        found = torch.zeros(3, n, dtype=torch.float64, device=self.device)
        batches = zip(self.batches.held_out(n, size), found.split(size, 1), strict=True)
        with torch.no_grad(), seeded(self.seed, self.device):
            for index, part in islice(batches, self.group.rank, None, self.group.world):
                events, context = self.batches.take(index)
                part[0] = player.loss(self.module, events, context)
                weights = self.batches.weights(index)
                part[1] = 1 if weights is None else weights
                sizes = None if player.size is None else player.size(events)
                part[2] = 1 if sizes is None else sizes
        self.module.train()
        self._swap()
        found = self.group.total(found).cpu()
        self.look_seconds = clock.now() - start
        return float(average(*found)[0]), found

    def _score_start(self, start: list[Tensor]) -> None:
        """The weights before the first step are the first candidate. Scored with the first round, when
        it is known how many held-out rows the time is enough for."""
        shadow, self.shadow = self.shadow, start
        loss, held_out = self._look_at_held_out()
        self.shadow = shadow
        if math.isfinite(loss):
            self.best_loss, self.best, self.history.start_loss = loss, start, loss
            self.best_held_out = held_out

    def _consider_early(self) -> None:
        """Keep the weights within the first round if they are the best so far."""
        if self.unmoved is not None:
            self._score_start(self.unmoved)
            self.unmoved = None
        loss, held_out = self._look_at_held_out()
        if loss < self.best_loss:
            self.best_held_out = held_out
            self.best_loss, self.best = loss, [s.clone() for s in self.shadow]
            self.history.best_step = self.state.step

    def _end_round(self, engine: Any) -> None:
        state, history = self.state, self.history
        steps = state.step - (history.step[-1] if history.step else 0)
        if steps == 0:
            return
        state.train_loss = float(self.running) / steps
        self.running.zero_()
        if not math.isfinite(state.train_loss):
            self._stop_unfinite(engine, self.players[0])
            return
        if not all(bool(torch.isfinite(s).all()) for s in self.shadow):
            self._stop_unfinite(engine, self.players[0])
            return
        ranks = len(self.players) == 1 and self.batches.n_valid > 0
        if ranks and self.unmoved is not None:
            self._score_start(self.unmoved)
        self.unmoved = None
        state.valid_loss, held_out = math.nan, None
        if ranks:
            state.valid_loss, held_out = self._look_at_held_out()
        if self.plan is not None:
            state.valid_loss = self.plan.losses.get(state.step, math.nan)
        state.epoch = state.step / self.per_epoch
        state.seconds = self._elapsed()
        state.learning_rate = self._rate() * self.options.learning_rate
        if not math.isfinite(self.total):
            share = min(1.0, max(self._share_of_time(), 1e-9))
            state.total_steps = round(state.step / share)
        for name in ("step", "epoch", "seconds", "train_loss", "valid_loss", "learning_rate"):
            getattr(history, name).append(getattr(state, name))
        history.gain = history.gain_error = 0.0
        if not ranks or state.valid_loss < self.best_loss:
            if held_out is not None and self.best_held_out is not None:
                history.gain, history.gain_error = gain(self.best_held_out, held_out)
            self.best_held_out = held_out
            self.best_loss = state.valid_loss
            self.best = [s.clone() for s in self.shadow]
            history.best_step = state.step
        if self.bar is not None:
            self.bar.update(state.step - self.bar.n)
            self.bar.set_postfix(train=f"{state.train_loss:.4g}", valid=f"{state.valid_loss:.4g}")
        if self.budget.seconds is not None:
            further = self.clock.elapsed() + self.pace + self._last_look()
            # Another step, and the look that would follow it, would take longer than there is.
            if self.group.broadcast(further) > self.budget.seconds:
                self._stop(engine, self._over())
        callbacks = self.options.callbacks if self.group.rank == 0 else ()
        if self.group.broadcast(any(callback(state) is True for callback in callbacks)):
            self._stop(engine, "a callback asked to stop")

    def run(self) -> History:
        """The loop itself."""
        with self.clock.paused(), warnings.catch_warnings():
            # ignite 0.5 touches torch.jit names that torch 2.13 deprecates.
            warnings.simplefilter("ignore", DeprecationWarning)
            from ignite.distributed import set_local_rank
            from ignite.engine import Engine, Events
            from ignite.handlers import EarlyStopping

        if self.group.world > 1:
            # For its loggers, which would ask all ranks for their hosts, and warn.
            set_local_rank(self.group.rank)
        engine = Engine(self._timed_step)
        engine.logger = _logger
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin_round)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._end_round)
        stopper = None
        if self.options.patience is not None and len(self.players) == 1 and self.batches.n_valid:
            stopper = EarlyStopping(self.options.patience, self._early_score, engine)
            stopper.logger = _logger
            engine.add_event_handler(Events.EPOCH_COMPLETED, stopper)
        if self.checkpoint is not None:
            self._resume(self.checkpoint, stopper)
        if self.checkpoint is not None and self.group.rank == 0:
            # Last, so that a round is saved with what the stopper made of it.
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._save, self.checkpoint, stopper)
        self.failure = ""
        self.module.train()
        if self.plan is not None and self.plan.stop == 0:
            self.history.stop_reason = self.plan.reason
            return self._finish()
        stream = self.batches.epochs(self.size, self.state.step)
        shortest = self.round if self.budget.seconds is None else self.least
        rounds = _UNENDING
        if math.isfinite(self.total):
            rounds = math.ceil((self.total - self.state.step) / min(self.round, shortest))
        try:
            engine.run(stream, max_epochs=rounds, epoch_length=self.round)
            # The last round may have ended early; one that is done has no steps left to report.
            self._end_round(engine)
        finally:
            if self.bar is not None:
                self.bar.close()
        history = self._finish()
        if self.checkpoint is not None:
            if self.group.rank == 0:
                self.checkpoint.remove()
            # No rank begins another fit before the file of this one is gone.
            self.group.broadcast(None)
        return history

    # Between two rounds, when no loss is summed up and no gradient is held.

    def _save(self, engine: Any, checkpoint: Checkpoint, stopper: Any) -> None:
        if not engine.should_terminate:
            checkpoint.write(lambda: self._saved(stopper))

    def _saved(self, stopper: Any) -> Saved:
        looked = [] if self.best_held_out is None else [self.best_held_out]
        rows = {"shadow": self.shadow, "best": self.best or [], "looked": looked}
        moments = {
            f"moments{k}/{i}/{name}": moment
            for k, optimizer in enumerate(self.optimizers)
            for i, state in optimizer.state_dict()["state"].items()
            for name, moment in state.items()
        }
        tensors = {
            **{f"weights/{name}": w for name, w in self.module.state_dict().items()},
            **{f"{name}/{i}": w for name, row in rows.items() for i, w in enumerate(row)},
            **moments,
            **{f"generators/{k}": v for k, v in generator_states(self.device).items()},
        }
        values = {
            "seed": self.seed,
            "step": self.state.step,
            "seconds": self.clock.elapsed(),
            "best_loss": self.best_loss,
            "history": asdict(self.history),
            "stopper": None if stopper is None else dict(stopper.state_dict()),
        }
        return Saved(tensors, values)

    def _resume(self, checkpoint: Checkpoint, stopper: Any) -> None:
        saved = checkpoint.saved
        if saved is None:
            return
        try:
            self._restore(saved, stopper)
        except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
            raise checkpoint.damaged(error) from error
        _logger.info("continuing at step %d from %s", self.state.step, checkpoint.path)

    def _restore(self, saved: Saved, stopper: Any) -> None:
        values = saved.values
        self.module.load_state_dict(saved.part("weights"))
        for k, optimizer in enumerate(self.optimizers):
            moments = _moments(saved.part(f"moments{k}"), self.players[k].parameters)
            optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
        for s, kept in zip(self.shadow, saved.row("shadow"), strict=True):
            s.copy_(kept)
        best = saved.row("best")
        if best:
            self.best = [
                torch.empty_like(s).copy_(b) for s, b in zip(self.shadow, best, strict=True)
            ]
        looked = saved.row("looked")
        self.best_held_out = looked[0].to(self.device) if looked else None
        self.unmoved = None
        self.best_loss, self.history = float(values["best_loss"]), History(**values["history"])
        self.state.step = int(values["step"])
        self.clock.advance(float(values["seconds"]))
        if stopper is not None:
            stopper.load_state_dict(values["stopper"])
        set_generator_states(saved.part("generators"), self.device)

    def _early_score(self, engine: Any) -> float:
        return -self.state.valid_loss

    def _finish(self) -> History:
        history = self.history
        if not history.stop_reason:
            early = self.state.step < self.total
            history.stop_reason = (
                f"no better held-out loss for {self.options.patience} evaluations"
                if early
                else f"all {self.total} steps are done"
            )
            if not early and self.budget.default and self.group.rank == 0:
                warn_if_improving(history.gain, history.gain_error, int(self.total))
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
            with torch.no_grad():
                for p, b in zip(self.parameters, self.best, strict=True):
                    p.copy_(b)
        for p in self.parameters:
            p.requires_grad_(True)
        return history


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


def _moments(
    found: dict[str, Tensor], parameters: Sequence[nn.Parameter]
) -> dict[int, dict[str, Tensor]]:
    """AdamW's state by the number of the parameter. Looked at closely: a fused step reads as many
    numbers as the parameter has, whether the moment has them or not."""
    moments: dict[int, dict[str, Tensor]] = {}
    for name, moment in found.items():
        number, _, key = name.partition("/")
        shapes = {"step": torch.Size([]), "exp_avg": parameters[int(number)].shape}
        shapes["exp_avg_sq"] = shapes["exp_avg"]
        if moment.shape != shapes[key]:
            raise ValueError(f"{name} has shape {tuple(moment.shape)}, not {tuple(shapes[key])}")
        moments.setdefault(int(number), {})[key] = moment
    for i, state in moments.items():
        if len(state) < 3:
            raise KeyError(f"moments of parameter {i}")
    return moments
