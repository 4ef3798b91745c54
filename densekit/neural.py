"""Neural density estimators: build the module, train it, keep its weights and nothing else."""

import contextlib
import dataclasses
import math
import numbers
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, TypeAlias

import numpy as np
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

import densekit
from densekit import clock, codecs
from densekit.base import DensityEstimator
from densekit.checkpoints import Checkpoint, digest, plain
from densekit.codecs.ondisk import EncodedRows
from densekit.codecs.schema import Schema
from densekit.distributions.flow import FlowModule
from densekit.few_rows import FOLDS, Noise, Plan, divides, noise_for
from densekit.kernels.compiled import load_for
from densekit.params import Interval, check_parameters
from densekit.processes import Group, together
from densekit.runtime import resolve_device, resolve_seed, seeded
from densekit.training import (
    Batches,
    Budget,
    History,
    Objective,
    Player,
    TrainingState,
    train,
    warn_if_improving,
)

_FREE = {"device", "verbose", "callbacks", "checkpoint_dir", "warm_start", "random_state"}
"""Parameters that may differ between a checkpoint and the fit that goes on from it: they leave the
steps alone, or (the last two) are compared by what comes of them."""
_ONE_PASS: dict[str, Any] = {
    "max_steps": None,
    "max_epochs": 1,
    "max_time": None,
    "validation_fraction": 0.0,
    "patience": None,
    "callbacks": (),
    "checkpoint_dir": None,
    "warm_start": True,
}
_STARTED_FROM = 5000
"""Training rows that a start looks at, at most. A flow of as many or more begins as the standard normal:
the covariance of 13,000 rows of California cost MaskedAutoregressiveFlow 0.1 nats in 600 steps."""
_MOST_WHITENED = 1000
"""Columns of a table whose covariance a flow starts with: an eigendecomposition takes their cube."""

Events: TypeAlias = Tensor | EncodedRows


class NeuralDensity(DensityEstimator):
    """A density whose distribution comes out of a network. Abstract: a model says how the module is
    built (``_build``) and, where it is not minus the mean log-density, what it minimizes (``_loss``).

    Parameters
    ----------
    max_steps : int, optional
        **Training.** Optimizer steps. Of ``max_steps``, ``max_epochs`` and ``max_time`` those that are
        given count, and whichever ends first ends the fit; where none is given, it takes 2000 steps,
        unless the model says how many.
    max_epochs : int, optional
        Passes over the data.
    max_time : float, optional
        Seconds of wall clock since ``fit`` was called, but for those in which modules are imported and
        loops compiled. It holds to within 2 %, or one step and one look at the held-out rows where these
        take longer. The schedule of the learning rate follows whichever budget ends first.
    batch_size : int
        Rows of a step.
    learning_rate : float
        AdamW's, at its highest: it rises over the ``warmup`` and falls to zero by a cosine.
    weight_decay : float
        AdamW's, per unit of the learning rate.
    gradient_clip : float, optional
        Largest norm of a step's gradient; None has no limit.
    warmup : float
        Share of the budget over which the learning rate rises.
    ema_decay : float
        Decay of the running average of the weights, which is what is evaluated and kept.
    validation_fraction : float
        Rows held out (4,096 at most) to tell when to stop; 0 trains on all rows to the end. A flow of
        a table of 500 rows or fewer holds out each fifth of them in turn instead: five runs tell
        when to stop, and a sixth trains on all rows until then. They share ``max_steps``,
        ``max_epochs`` or ``max_time`` evenly, and a budget that leaves each fewer than 200 steps is
        not shared.
    patience : int, optional
        Evaluations without a better held-out loss before the fit stops; None never stops early. The
        weights before the first step are a candidate too: a fit that improves on nothing keeps
        them, and ``best_step`` is 0.
    mixed_precision : bool
        Run the loss under bfloat16 autocast while training.
    compile : bool
        Compile the loss with ``torch.compile``: minutes of compiling, for long fits.
    callbacks : tuple of callable
        Called with a :class:`~densekit.training.TrainingState` after each evaluation; True stops.
    checkpoint_dir : str, optional
        Folder in which ``fit`` saves its state after evaluations (as often as costs it a fiftieth of
        its time). A fit that was killed, and is called again with the same estimator, rows and
        folder, goes on from there: on a CPU to the same weights and ``history_``, bit for bit, as if
        it had never stopped, but for ``seconds``, which are those of both runs; not so with
        ``max_time``, whose schedule goes by the clock. With ``random_state=None`` the seed is the
        checkpoint's. A fit that ends removes its checkpoint, so the next one begins anew. A
        checkpoint of other rows, hyper-parameters, class or version is a ValueError that names the
        difference. One folder is for one fit at a time.
    devices : int, optional
        Processes that share each batch, by gradients that are averaged: as many GPUs (``cuda:0``,
        ``cuda:1``, ...), or processes on the CPU, which share its threads. A plain script needs
        nothing else, and is not run again; the processes take seconds to start. Under ``torchrun``,
        or where a process group exists, it must be the group's size: every process then calls
        ``fit`` with the same rows and ends with the same weights; ``callbacks``, ``verbose`` and
        ``checkpoint_dir`` are rank 0's. The result is that of one process up to rounding, and to
        noise: what a model or the dequantization draws, each process draws for its share. It is a
        function of seed and ``devices``. If a process dies, ``fit`` is a RuntimeError that names it.
    warm_start : bool
        A further ``fit`` continues from the fitted weights, with the whole budget and schedule. What
        was learned of the columns (``codec_``: scales, categories, text's tokens) stays as it was.

    Attributes
    ----------
    module_ : torch.nn.Module
        Its call (with the encoded context or None) is a Pyro distribution over events.
    history_ : dict
        ``step, epoch, seconds, train_loss, valid_loss, learning_rate`` per evaluation (losses are
        over events: objectives, not scores), ``stop_reason``, ``best_step``, ``start_loss``, the
        held-out loss before the first step, and ``gain`` and ``gain_error``: by how much the last
        evaluation lowered the least held-out loss, and its standard error. Where rows are held out in
        turn, ``valid_loss`` is the mean over the five runs.
    n_iter_ : int
        Optimizer steps made.

    Warns
    -----
    sklearn.exceptions.ConvergenceWarning
        From ``fit``, where no budget was given and the default one ended while the held-out loss still
        fell: the last evaluation lowered its mean by more than two standard errors of the paired
        difference.
    """

    max_epochs: Annotated[int, Interval(ge=1)] | None = None
    max_steps: Annotated[int, Interval(ge=1)] | None = None
    max_time: Annotated[float, Interval(gt=0)] | None = None
    batch_size: Annotated[int, Interval(ge=1)] = 256
    learning_rate: Annotated[float, Interval(gt=0)] = 1e-3
    weight_decay: Annotated[float, Interval(ge=0)] = 0.0
    gradient_clip: Annotated[float, Interval(gt=0)] | None = 5.0
    warmup: Annotated[float, Interval(ge=0, lt=1)] = 0.05
    ema_decay: Annotated[float, Interval(ge=0, lt=1)] = 0.99
    validation_fraction: Annotated[float, Interval(ge=0, lt=1)] = 0.1
    patience: Annotated[int, Interval(ge=1)] | None = 10
    mixed_precision: bool = False
    compile: bool = False
    callbacks: tuple[Callable[[TrainingState], Any], ...] = ()
    checkpoint_dir: str | None = None
    devices: Annotated[int, Interval(ge=1)] | None = None
    warm_start: bool = False

    _default_steps: ClassVar[int] = 2000
    """Optimizer steps where no budget is given."""
    _relaxes_itself: ClassVar[bool] = True
    _learns_in_batches: ClassVar[bool] = True

    if TYPE_CHECKING:
        module_: Any = dataclasses.field(init=False)
        history_: dict[str, Any] = dataclasses.field(init=False)
        n_iter_: int = dataclasses.field(init=False)

    # What a model file provides.

    @abstractmethod
    def _build(self, schema: Schema, context_schema: Schema | None) -> nn.Module:
        """The module; all that is random or learned in it is a parameter or a buffer."""

    def _begin_as(
        self, module: Any, rows: Tensor, context: Tensor | None, weights: Tensor | None
    ) -> None:
        """Set what a module takes from training rows (n, D) with weights (n,) before its first step: a
        flow of a table of fewer than 5,000 rows begins as their shrunken Gaussian, unless a context
        leaves far less spread than their covariance says."""
        few = len(rows) < _STARTED_FROM and context is None
        if few and self._is_table_flow(module):
            module.start(rows, context, tuple(self.schema_.circles), weights)

    def _loss(self, module: Any, events: Tensor, context: Tensor | None) -> Tensor:
        """What training minimizes the mean of, one number per row, (n,): the negative log-density."""
        loss: Tensor = -module(context).log_prob(events)
        return loss

    def _size(self, events: Tensor) -> Tensor | None:
        """What the sum of losses is divided by, a number per row, (n,); None divides by the rows."""
        return None

    def _players(self, module: Any) -> list[Player]:
        """Who trains what: one player with ``_loss``, unless a model plays against itself."""
        return [Player("model", list(module.parameters()), self._loss, size=self._size)]

    def _after_training(self, events: Events, *, continued: bool) -> None:
        """Set further attributes from the trained ``module_`` and the events; ``continued`` where the
        fit went on from earlier weights. Nothing unless a model needs it."""

    # From fit to the loop: _fit (or _continue), _train, _train_rank, training.train.

    def partial_fit(
        self, X: Any, y: Any = None, *, context: Any = None, sample_weight: Any = None
    ) -> Self:
        """Make one pass over the rows of X from the present weights; on an estimator that is not
        fitted, a whole ``fit``.

        The codec stays as the first call learned it: scales do not follow the rows, and a category
        that is new is an error. The learning rate is constant, AdamW's moments and the running
        average begin anew with every call, nothing is held out and nothing stops early:
        ``max_steps``, ``max_epochs``, ``max_time``, ``warmup``, ``validation_fraction``,
        ``patience``, ``callbacks`` and ``checkpoint_dir`` are not looked at. ``history_`` and
        ``n_iter_`` are those of the call.

        Parameters
        ----------
        X, context, sample_weight : as in ``fit``
        y : ignored

        Raises
        ------
        ValueError, TypeError
            Rows that are not like those of the first call. The estimator is then as it was.

        Examples
        --------
        >>> import numpy as np
        >>> from densekit import RealNVP
        >>> X = np.random.default_rng(0).normal(size=(200, 2))
        >>> flow = RealNVP(n_transforms=2, hidden_sizes=(8,), max_steps=5, batch_size=50)
        >>> flow.partial_fit(X).n_iter_, flow.partial_fit(X[:100]).n_iter_
        (5, 2)
        """
        if not self.__sklearn_is_fitted__():
            return self.fit(X, context=context, sample_weight=sample_weight)
        # The options of one pass, which is a warm start that leaves the hyper-parameters alone.
        once = self._copy_with(**_ONE_PASS, _constant=True)
        once.fit(X, context=context, sample_weight=sample_weight)
        keep = {k: v for k, v in vars(once).items() if k.endswith("_")}
        self.__dict__.update(keep)
        return self

    @property
    def _in_order(self) -> bool:
        """Whether rows follow each other, so that batches must not shuffle them."""
        return False

    _constant = False
    """Whether the learning rate is constant: in a pass of ``partial_fit``."""

    @classmethod
    def _names_of_fit(cls) -> set[str]:
        return super()._names_of_fit() | (NeuralDensity._names() - DensityEstimator._names())

    def _fit_rows(self, X: Any, context: Any, sample_weight: Any) -> None:
        if self.warm_start and self.__sklearn_is_fitted__():
            self._continue(X, context, sample_weight)
        else:
            super()._fit_rows(X, context, sample_weight)

    def _continue(self, X: Any, context: Any, sample_weight: Any) -> None:
        """A fit with the codec that there is, from the weights that there are."""
        check_parameters(self)
        self._check_takes_weights(sample_weight)
        device, seed = resolve_device(self.device), resolve_seed(self.random_state)
        X, context = self._check_rows(X, context, reset=False)
        if codecs.n_rows(X) == 0:
            raise ValueError("X is empty: it has 0 rows")
        X, context, weights = self._weigh(X, context, sample_weight)
        n = codecs.n_rows(X)
        typed, ladj = self.codec_.encode(X)
        if not torch.isfinite(ladj).all():
            row = int((~torch.isfinite(ladj)).nonzero()[0])
            raise ValueError(
                f"row {row} of X lies outside what the fitted codec knows (a category, a constant or a "
                "support), and a further fit leaves the codec as it is: drop the row, or fit anew "
                "with warm_start=False"
            )
        self.device_, self.dtype_ = str(device), self.dtype
        if self._constant:
            # A pass in batches of about the same size leaves out no more than a row of each.
            self.batch_size = n // math.ceil(n / self.batch_size)
        start = self.module_.state_dict()
        # An integer random_state would give every pass over the same rows the same noise.
        seed = (seed + int(digest(start.values())[:8], 16)) % 2**32
        with seeded(seed, device):
            encoded = self._encode_context(context, n)
            self._train(self._events(typed), encoded, *self._weights(weights), start=start)
        # A hyper-parameter that was set since may have changed what a score is.
        self.density_kind_ = self._kind_of_scores(self.schema_)

    def _fit(self, events: Events, context: Tensor | None, weights: Tensor | None = None) -> None:
        self._train(events, context, weights)

    def _train(
        self,
        events: Events,
        context: Tensor | None,
        weights: Tensor | None = None,
        *,
        start: Mapping[str, Tensor] | None = None,
        objective: Objective | None = None,
    ) -> None:
        """Train a module in all processes of the fit, and set what comes of it.

        Parameters
        ----------
        events, context, weights : as in ``_fit``
        start : mapping, optional
            Weights to begin with; new ones otherwise.
        objective : Objective, optional
            What is minimized instead of the model's own losses; in one process only.
        """
        others = self._bare()._train_other_rank
        processes = together(self.devices, self.device_, others, events, context, weights)
        with contextlib.ExitStack() as stack:
            with clock.current().paused():
                # The others import what this process has imported.
                group = stack.enter_context(processes)
            module, history = self._train_rank(
                group, events, context, weights, start=start, objective=objective
            )
        self.module_ = module.eval().requires_grad_(False)
        self.history_ = dataclasses.asdict(history)
        self.n_iter_ = history.step[-1] if history.step else 0
        self._after_training(events, continued=start is not None)
        self._record_parameters()

    def _bare(self) -> Self:
        """A copy without weights and without what only rank 0 needs: light, and it pickles."""
        given = {"callbacks": (), "verbose": False, "random_state": None}
        return self._copy_with(without=("module_",), **given)

    def _train_other_rank(
        self,
        group: Group,
        device: str,
        events: Events,
        context: Tensor | None,
        weights: Tensor | None,
    ) -> None:
        """The part of a process that ``processes.together`` started, on the device that is its own."""
        self.device_ = device
        context, weights = (None if t is None else t.to(device) for t in (context, weights))
        self._train_rank(group, events.to(device), context, weights)

    def _train_rank(
        self,
        group: Group,
        events: Events,
        context: Tensor | None,
        weights: Tensor | None,
        *,
        start: Mapping[str, Tensor] | None = None,
        objective: Objective | None = None,
    ) -> tuple[nn.Module, History]:
        """Build a module and train it, as one process of the fit. All ranks begin with the seed, the
        checkpoint and the weights of rank 0."""
        objective = objective or Objective(self._players, self._view)
        module = self._build(self.schema_, self._context_schema)
        module.to(self.device_, self._torch_dtype)
        load_for(module)
        if start is not None:
            self._begin(module, start)
        seed = group.broadcast(int(torch.randint(2**62, ())))
        if group.launched:
            self._check_same_rows(group, events, context, weights)
        checkpoint = None
        if self.checkpoint_dir is not None and group.rank == 0:
            checkpoint = Checkpoint(
                self.checkpoint_dir, self._identity(seed, events, context, weights, start)
            )
        checkpoint = group.broadcast(checkpoint)
        if checkpoint is not None:
            seed = checkpoint.seed(seed)
        plan = None
        if start is None and self._cross_fits(module, events):
            plan = self._cross_fit(group, events, context, weights, seed, objective)
        fraction = self.validation_fraction if plan is None else 0.0
        batches = self._batches(events, context, weights, seed, objective, fraction)
        noise = None if start is not None else self._start(module, batches)
        group.equalize(module)
        options, budget = self, Budget.of(self, len(events), self._default_steps)
        if plan is not None:
            options = self._sharing(budget.steps, 1)
        history = train(
            module,
            objective.players(module),
            batches,
            options,
            seed=seed % 2**63,
            progress=self._is_verbose and group.rank == 0,
            constant=self._constant,
            checkpoint=checkpoint,
            group=group,
            plan=plan,
            noise=noise,
            default_steps=self._default_steps,
        )
        if plan is not None and budget.default and group.rank == 0:
            warn_if_improving(plan.gain, plan.gain_error, int(budget.steps))
        return module, history

    def _batches(
        self,
        events: Events,
        context: Tensor | None,
        weights: Tensor | None,
        seed: int,
        objective: Objective,
        validation_fraction: float,
        fold: tuple[int, int] | None = None,
    ) -> Batches:
        return Batches(
            events,
            context,
            objective.view,
            validation_fraction=validation_fraction,
            seed=seed,
            in_order=self._in_order,
            fold=fold,
            weights=weights,
        )

    def _start(self, module: nn.Module, batches: Batches) -> Noise | None:
        """Set what the module takes from the rows before its first step; the noise to train with."""
        rows, context, weights = batches.first(_STARTED_FROM)
        self._begin_as(module, rows, context, weights)
        # A context may leave far less spread than the covariance says, and an angle has none.
        if not self._is_table_flow(module) or context is not None or self.schema_.circles:
            return None
        return noise_for(batches.n_train, rows)

    def _is_table_flow(self, module: nn.Module) -> bool:
        """Whether it is a flow of columns whose covariance can be had: pixels are too many."""
        table = self.schema_.modality == "table" and self.schema_.n_dims <= _MOST_WHITENED
        return table and isinstance(module, FlowModule)

    def _cross_fits(self, module: nn.Module, events: Events) -> bool:
        """Whether folds of the rows tell when to stop, and all rows are trained on then. So it is for
        flows, which overfit within a hundred steps; typed models take their time, and a tenth of the
        rows suffices them."""
        steps = Budget.of(self, len(events), self._default_steps).steps
        selects = self.validation_fraction > 0 and self.patience is not None
        return selects and self._is_table_flow(module) and divides(len(events), steps)

    def _sharing(self, steps: float, n_runs: int) -> Self:
        """The options of the next of so many runs that share what is left of the time, and the steps."""
        share = None if math.isinf(steps) else math.ceil(steps / (FOLDS + 1))
        seconds = self.max_time
        if seconds is not None:
            begun = clock.current().elapsed()
            seconds = begun + max(seconds - begun, 1e-9) / n_runs
        return self._copy_with(max_epochs=None, max_steps=share, max_time=seconds)

    def _cross_fit(
        self,
        group: Group,
        events: Events,
        context: Tensor | None,
        weights: Tensor | None,
        seed: int,
        objective: Objective,
    ) -> Plan:
        """Runs that hold out a part of the rows each: when to stop one that holds out none."""
        histories, steps = [], Budget.of(self, len(events), self._default_steps).steps
        for k in range(FOLDS):
            options = self._sharing(steps, FOLDS + 1 - k)._copy_with(callbacks=())
            module = self._build(self.schema_, self._context_schema)
            module.to(self.device_, self._torch_dtype)
            batches = self._batches(events, context, weights, seed, objective, 0.0, (k, FOLDS))
            noise = self._start(module, batches)
            group.equalize(module)
            given = (module, objective.players(module), batches, options)
            histories.append(train(*given, seed=seed % 2**63, group=group, noise=noise))
        return Plan.of(histories)

    def _check_same_rows(
        self, group: Group, events: Events, context: Tensor | None, weights: Tensor | None
    ) -> None:
        mine = digest(chain(_parts(events), [self.codec_, context, self.context_codec_, weights]))
        if group.broadcast(mine) != mine:
            raise ValueError(
                f"rank {group.rank} was given other rows than rank 0: every process takes its share of "
                "each batch by itself, so give fit the same X, context and sample_weight in all of them"
            )

    def _begin(self, module: nn.Module, start: Mapping[str, Tensor]) -> None:
        try:
            module.load_state_dict(start)
        except RuntimeError as error:
            raise ValueError(
                f"warm_start=True continues the weights of the last fit, and these do not fit the "
                f"network that {type(self).__name__}'s hyper-parameters now ask for "
                f"({' '.join(str(error).split())}): set them back, or fit with warm_start=False"
            ) from error

    def _identity(
        self,
        seed: int,
        events: Events,
        context: Tensor | None,
        weights: Tensor | None,
        start: Mapping[str, Tensor] | None,
    ) -> dict[str, Any]:
        """What a checkpoint must agree in for its fit to be this one."""
        given = self.random_state
        if given is not None and not isinstance(given, numbers.Integral):
            # A generator is known by what was drawn with the seed that it gave.
            given = seed
        return {
            "densekit": densekit.__version__,
            "class": f"{type(self).__module__}.{type(self).__qualname__}",
            "random_state": plain(given),
            "parameters": {
                name: plain(value)
                for name, value in sorted(self.get_params(deep=False).items())
                if name not in _FREE
            },
            "data": digest(chain(_parts(events), [self.codec_])),
            "context": "" if context is None else digest([context, self.context_codec_]),
            "weights": "" if weights is None else digest([weights]),
            "start": "" if start is None else digest(start.values()),
        }

    def _view(self, typed: Tensor) -> Tensor:
        if self._capabilities.view == "typed":
            return typed
        return self.schema_.relax(typed, torch.rand_like(typed))[0]

    def _distribution(self, context: Tensor | None) -> TorchDistribution:
        return self.module_(context)

    @classmethod
    def _update_old_parameters(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        # Files older than `derived` always have a max_steps, which max_epochs replaced where given.
        if "derived" not in parameters and parameters.get("max_epochs") is not None:
            return {**parameters, "max_steps": None}
        return parameters

    # Weights only: a module that has run holds caches and graphs, which neither copy nor pickle.

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        module = state.pop("module_", None)
        if module is not None:
            state["weights_"] = {k: v.cpu().numpy().copy() for k, v in module.state_dict().items()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        weights = state.pop("weights_", None)
        super().__setstate__(state)
        if weights is not None:
            self._restore(weights)

    def _restore(self, weights: dict[str, np.ndarray]) -> None:
        module = self._fresh_module()
        module.load_state_dict({k: torch.tensor(v) for k, v in weights.items()})
        if self.device_.startswith("cuda") and not torch.cuda.is_available():
            self.device_ = "cpu"
        self.module_ = module.to(self.device_).eval().requires_grad_(False)

    def _fresh_module(self) -> nn.Module:
        """The module as it was built, before it learned."""
        # Hyper-parameters may have been set anew since fit; the weights are those of the old ones.
        builder = self._copy_with(**vars(self).get("built_with_", {}))
        with seeded(0):
            module = builder._build(self.schema_, self._context_schema)
        return module.to(self._torch_dtype)


def _parts(events: Events) -> Iterable[Tensor]:
    """All events, those on disk a piece at a time."""
    return [events] if isinstance(events, Tensor) else events.pieces()
