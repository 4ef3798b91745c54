"""The training loop, the only one: every neural model of every family goes through it.

pytorch-ignite's engine runs it. An *evaluation round* is a number of steps after which the held-out
rows are scored with the averaged weights: an epoch for small data, a fixed share of the run for large,
so that neither a hundred rows nor a million make the evaluation dominate.
"""

import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from densekit.checkpoints import Checkpoint, Saved
from densekit.few_rows import Noise, Plan
from densekit.processes import Group
from densekit.runtime import generator_states, reseed, seeded, set_generator_states

Loss = Callable[[Any, Tensor, Tensor | None], Tensor]
_ROUNDS = 50
"""Evaluations in a run of the planned length, at most."""
_SHORTEST_ROUND = 10
"""Steps; fewer would let patience end a short run within its warm-up."""
_MAX_HELD_OUT = 4096
_EVALUATED = 1024
"""Held-out rows at a time, at least: they need no gradients."""
_FEWEST_EVALUATED = 64
_logger = logging.getLogger("densekit.training")
_logger.addHandler(logging.NullHandler())


class Options(Protocol):
    """The hyper-parameters that the loop reads; a :class:`~densekit.neural.NeuralDensity` has them."""

    max_epochs: int | None
    max_steps: int
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


@dataclass
class TrainingState:
    """What a callback sees after every evaluation round; returning True stops the fit."""

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


class Batches:
    """Events batched by index, in memory on the device or read when they are asked for; the
    held-out rows kept apart.

    Parameters
    ----------
    events : (n, \\*event_shape)
        A tensor, or what is indexed like one (``densekit.codecs.ondisk.EncodedRows``).
    context : (n, n_context), optional
    view : callable
        Events as the model takes them; called on every batch, so that dequantisation draws anew.
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

    def first(self, n: int) -> tuple[Tensor, Tensor | None]:
        """At most ``n`` of the rows that are trained on, in random order, as the model takes them."""
        return self.take(self._train[:n])

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
) -> History:
    """Train ``module`` in place; it ends with its best (one player) or last averaged weights.

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
        The loss was not finite before any finite weights could be kept. Afterwards it is a
        RuntimeWarning, and the best weights so far are restored.
    """
    group = group or Group()
    run = _Run(
        module, players, batches, options, seed, progress, constant, checkpoint, group, plan, noise
    )
    return run.run()


class _Run:
    """State of one call of :func:`train`."""

    def __init__(
        self,
        module: nn.Module,
        players: Sequence[Player],
        batches: Batches,
        options: Options,
        seed: int,
        progress: bool,
        constant: bool,
        checkpoint: Checkpoint | None,
        group: Group,
        plan: Plan | None,
        noise: Noise | None,
    ):
        # Before the optimisers: the first one of a process imports for seconds, out of max_time.
        self.start = time.perf_counter()
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
        self.per_epoch = per_epoch
        self.total = (
            options.max_steps if options.max_epochs is None else options.max_epochs * per_epoch
        )
        # Scoring a row costs a third of training on it: keep evaluation below a twentieth of it.
        cost = math.ceil(20 * batches.n_valid / (3 * self.size))
        self.least = max(_SHORTEST_ROUND, cost)
        shortest = max(self.least, self.total // _ROUNDS)
        self.round = min(self.total, max(shortest, min(per_epoch, self.total // 10)))
        self.optimisers = [self._optimiser(player) for player in players]
        self.losses = [torch.compile(p.loss) if options.compile else p.loss for p in players]
        self.detached = [p.detach() for p in self.parameters]
        self.shadow = [p.clone() for p in self.detached]
        self.evaluated: int | None = None
        self.best: list[Tensor] | None = None
        self.best_loss = math.inf
        # With many columns and few rows the best weights come before the first round ends. With max_time
        # it is not known yet how many held-out rows the time is enough for.
        doubled = (_SHORTEST_ROUND * 2**k for k in range(4))
        early = {k for k in doubled if self.least <= k < self.round}
        self.early = early if options.max_time is None and len(players) == 1 else set()
        self.unmoved: list[Tensor] | None = [s.clone() for s in self.shadow]
        self.history = History()
        self.state = TrainingState(total_steps=self.total, module=module)
        self.running = torch.zeros((), device=self.device)
        self.bar = self._bar() if progress else None

    def _optimiser(self, player: Player) -> torch.optim.Optimizer:
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

        return tqdm(total=self.total, unit="step", leave=False)

    # One step.

    def _rate(self) -> float:
        """Share of the full learning rate: linear warm-up, then half a cosine over the budget."""
        if self.constant:
            return 1.0
        done, warm = self._done(), self.options.warmup
        if done < warm:
            # The first step already moves: it counts as one.
            return min(1.0, max(done, 1 / self.total) / warm)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (done - warm) / max(1e-9, 1 - warm))))

    def _done(self) -> float:
        """Share of the budget that is spent."""
        done = self.state.step / self.total
        if self.options.max_time is not None:
            done = max(done, self._elapsed() / self.options.max_time)
        return done

    def _elapsed(self) -> float:
        """Seconds by the clock of rank 0, which all ranks ask for at the same time."""
        return self.group.broadcast(time.perf_counter() - self.start)

    def _step(self, engine: Any, index: Tensor) -> None:
        rate = self._rate()
        share = self.group.share(index)
        events, context = self.batches.take(share)
        if self.noise is not None:
            events = self.noise(events, self._done())
        for player, optimiser, loss_of in zip(
            self.players, self.optimisers, self.losses, strict=True
        ):
            if len(self.players) > 1:
                for other in self.players:
                    for p in other.parameters:
                        p.requires_grad_(other is player)
            for group in optimiser.param_groups:
                group["lr"] = rate * (player.learning_rate or self.options.learning_rate)
            with torch.autocast(
                self.device.type, dtype=torch.bfloat16, enabled=self.options.mixed_precision
            ):
                loss = loss_of(self.module, events, context)
            loss.backward()
            loss = self.group.mean_gradients(player.parameters, loss, len(share) / len(index))
            # On a GPU a look at the loss would wait for it: there the round's sum is looked at.
            if self.device.type == "cpu" and not math.isfinite(loss.item()):
                optimiser.zero_grad(set_to_none=True)
                self._stop_unfinite(engine, player)
                return
            if self.options.gradient_clip is not None:
                self._clip(player.parameters, self.options.gradient_clip)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            self.running += loss
        self.state.step += 1
        # A running mean over the first steps, so that the start is forgotten.
        decay = min(self.options.ema_decay, self.state.step / (self.state.step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(self.shadow, self.detached, 1 - decay)
        if self.state.step in self.early and self.batches.n_valid:
            self._consider_early()
        if self.plan is not None and self.state.step >= self.plan.stop:
            self._stop(engine, self.plan.reason)
        elif self.state.step == self.total:
            engine.terminate()
        elif self.options.max_time is not None:
            elapsed = self._elapsed()
            if elapsed >= self.options.max_time:
                self._stop(engine, f"max_time={self.options.max_time:g} seconds are over")
            elif self._due(elapsed, self.options.max_time):
                engine.terminate_epoch()

    def _due(self, elapsed: float, budget: float) -> bool:
        """Whether a round has had its share of the time: ``max_steps`` may be out of reach, and rounds
        that are shares of it too."""
        history = self.history
        step, seconds = (history.step[-1], history.seconds[-1]) if history.step else (0, 0.0)
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
            if self.options.max_time is not None:
                seconds = self._elapsed() / (3 * self.size * max(1, self.state.step))
                affordable = int(0.05 * self.options.max_time / seconds)
                self.evaluated = min(self.evaluated, max(_FEWEST_EVALUATED, affordable))
        return self.evaluated

    def _held_out_loss(self) -> float:
        """Mean loss over the held-out rows with the averaged weights, under noise that is the same
        every time."""
        n = self._n_evaluated()
        self._swap()
        self.module.eval()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        batches = self.batches.held_out(n, max(self.size, _EVALUATED))
        with torch.no_grad(), seeded(self.seed, self.device):
            for index in islice(batches, self.group.rank, None, self.group.world):
                events, context = self.batches.take(index)
                total += len(index) * self.players[0].loss(self.module, events, context).double()
        self.module.train()
        self._swap()
        return float(self.group.total(total)) / n

    def _score_start(self, start: list[Tensor]) -> None:
        """The weights before the first step are the first candidate. Scored with the first round, when
        it is known how many held-out rows the time is enough for."""
        shadow, self.shadow = self.shadow, start
        loss = self._held_out_loss()
        self.shadow = shadow
        if math.isfinite(loss):
            self.best_loss, self.best, self.history.start_loss = loss, start, loss

    def _consider_early(self) -> None:
        """Keep the weights within the first round if they are the best so far."""
        if self.unmoved is not None:
            self._score_start(self.unmoved)
            self.unmoved = None
        loss = self._held_out_loss()
        if loss < self.best_loss:
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
        state.valid_loss = self._held_out_loss() if ranks else math.nan
        if self.plan is not None:
            state.valid_loss = self.plan.losses.get(state.step, math.nan)
        state.epoch = state.step / self.per_epoch
        state.seconds = self._elapsed()
        state.learning_rate = self._rate() * self.options.learning_rate
        for name in ("step", "epoch", "seconds", "train_loss", "valid_loss", "learning_rate"):
            getattr(history, name).append(getattr(state, name))
        if not ranks or state.valid_loss < self.best_loss:
            self.best_loss = state.valid_loss
            self.best = [s.clone() for s in self.shadow]
            history.best_step = state.step
        if self.bar is not None:
            self.bar.update(state.step - self.bar.n)
            self.bar.set_postfix(train=f"{state.train_loss:.4g}", valid=f"{state.valid_loss:.4g}")
        callbacks = self.options.callbacks if self.group.rank == 0 else ()
        if self.group.broadcast(any(callback(state) is True for callback in callbacks)):
            self._stop(engine, "a callback asked to stop")

    def run(self) -> History:
        """The loop itself."""
        with warnings.catch_warnings():
            # ignite 0.5 touches torch.jit names that torch 2.13 deprecates.
            warnings.simplefilter("ignore", DeprecationWarning)
            from ignite.distributed import set_local_rank
            from ignite.engine import Engine, Events
            from ignite.handlers import EarlyStopping

        if self.group.world > 1:
            # For its loggers, which would ask all ranks for their hosts, and warn.
            set_local_rank(self.group.rank)
        engine = Engine(self._step)
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
        shortest = self.round if self.options.max_time is None else self.least
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
        rows = {"shadow": self.shadow, "best": self.best or []}
        moments = {
            f"moments{k}/{i}/{name}": moment
            for k, optimiser in enumerate(self.optimisers)
            for i, state in optimiser.state_dict()["state"].items()
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
            "seconds": time.perf_counter() - self.start,
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
        for k, optimiser in enumerate(self.optimisers):
            moments = _moments(saved.part(f"moments{k}"), self.players[k].parameters)
            optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})
        for s, kept in zip(self.shadow, saved.row("shadow"), strict=True):
            s.copy_(kept)
        best = saved.row("best")
        if best:
            self.best = [
                torch.empty_like(s).copy_(b) for s, b in zip(self.shadow, best, strict=True)
            ]
        self.unmoved = None
        self.best_loss, self.history = float(values["best_loss"]), History(**values["history"])
        self.state.step = int(values["step"])
        self.start -= float(values["seconds"])
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
