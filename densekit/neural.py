"""Base class of neural density estimators: builds the module, trains it and stores its weights."""

import contextlib
import dataclasses
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import numpy as np
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from densekit import clock, codecs
from densekit.base import DensityEstimator
from densekit.checkpoints import digest
from densekit.codecs.schema import Schema
from densekit.fitting import MAX_ROWS_OF_START, Events, FitRun, is_table_flow
from densekit.params import Interval, check_parameters
from densekit.processes import Group, together
from densekit.runtime import resolve_device, resolve_seed, seeded
from densekit.training import Objective, Player, TrainingState

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


class NeuralDensity(DensityEstimator):
    """Abstract base class of densities whose distribution is the output of a neural network.

    A model defines the module (``_build``) and, where it differs from minus the log-density, the loss
    (``_loss``).

    Parameters
    ----------
    max_steps : int, optional
        **Training.** Largest number of optimizer steps. The fit ends at the first of ``max_steps``,
        ``max_epochs`` and ``max_time`` that are given; if none is given, after 2000 steps or the
        model's own default.
    max_epochs : int, optional
        Largest number of passes over the data.
    max_time : float, optional
        Seconds of wall clock since ``fit`` was called, without the time for importing modules and
        compiling loops. The fit ends within 2 % of it, or within one step and one evaluation if these
        take longer. The schedule of the learning rate follows the budget that ends first.
    batch_size : int
        Number of rows per step.
    learning_rate : float
        Peak learning rate of AdamW, reached after ``warmup``; a cosine then lowers it to zero.
    weight_decay : float
        Weight decay of AdamW, multiplied by the learning rate.
    gradient_clip : float, optional
        Largest norm of the gradient; None does not clip it.
    warmup : float
        Fraction of the budget over which the learning rate rises.
    ema_decay : float
        Decay of the running average of the weights. The average is evaluated and kept.
    validation_fraction : float
        Fraction of the rows that is held out (at most 4,096 rows) to determine when to stop; 0 trains
        on all rows to the end. A flow of a table with at most 500 rows is cross-fitted instead: five
        runs, each of which holds out a fifth of the rows, determine when to stop, and a sixth run
        trains on all rows until then. The six share ``max_steps``, ``max_epochs`` or ``max_time``
        evenly. A budget of fewer than 200 steps per run is not divided.
    patience : int, optional
        Evaluations without a better held-out loss before the fit stops; None never stops early. The
        initial weights are a candidate too: a fit that never improves on them keeps them, and
        ``best_step`` is 0.
    mixed_precision : bool
        Run the loss under bfloat16 autocast while training.
    compile : bool
        Compile the loss with ``torch.compile``. It takes minutes, which pays in long fits only.
    callbacks : tuple of callable
        Called with a :class:`~densekit.training.TrainingState` after each evaluation. A function that
        returns True stops the fit.
    checkpoint_dir : str, optional
        Folder in which ``fit`` saves its state after evaluations, as often as takes 2 % of its time.
        If the fit is interrupted, a call with the same estimator, rows and folder resumes it. On a CPU
        the weights and ``history_`` are then bitwise equal to those of an uninterrupted fit, except
        ``seconds``, which includes both runs. With ``max_time`` they differ, since the schedule
        follows the clock. With ``random_state=None`` the seed is that of the checkpoint. A finished
        fit removes its checkpoint. A checkpoint of other rows, hyper-parameters, class or version
        raises a ValueError that names the difference. Concurrent fits need different folders.
    devices : int, optional
        Number of processes that share each batch and average their gradients: one per GPU (``cuda:0``,
        ``cuda:1``, ...), or processes on the CPU, which share its threads. A plain script needs no
        launcher and no ``__main__`` guard; the processes take seconds to start. Under ``torchrun``,
        or in an existing process group, ``devices`` must equal the size of the group. Every process
        then calls ``fit`` with the same rows and gets the same weights, and only rank 0 uses
        ``callbacks``, ``verbose`` and ``checkpoint_dir``. The result is a function of seed and
        ``devices``. It equals that of one process except for rounding and for noise, which each
        process draws for its share of the rows. If a process dies, ``fit`` raises a RuntimeError
        that names it.
    warm_start : bool
        Whether another ``fit`` continues from the fitted weights, with the full budget and schedule.
        The codec (scales, categories, tokens of text) stays as it was fitted first.

    Attributes
    ----------
    module_ : torch.nn.Module
        A call with the encoded context, or None, returns a Pyro distribution over events.
    history_ : dict
        ``step, epoch, seconds, train_loss, valid_loss, learning_rate`` of each evaluation (losses are
        objectives over events, not scores); ``stop_reason``; ``best_step``; ``start_loss``, the
        held-out loss before the first step; and ``gain`` and ``gain_error``, by how much the last
        evaluation lowered the smallest held-out loss, with its standard error. In a cross-fit,
        ``valid_loss`` is the mean over the five runs.
    n_iter_ : int
        Number of optimizer steps.

    Warns
    -----
    sklearn.exceptions.ConvergenceWarning
        If no budget was given and the default one ended while the held-out loss was still falling:
        the last evaluation lowered its mean by more than two standard errors of the paired difference.
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
        """Return the module. Its random and learned parts must be parameters or buffers."""

    def _begin_as(
        self, module: Any, rows: Tensor, context: Tensor | None, weights: Tensor | None
    ) -> None:
        """Initialize a module from training rows (n, D) with weights (n,) before its first step.

        By default a flow of a table of fewer than 5,000 rows begins as their shrunken Gaussian. With a
        context it does not, since the spread given the context may be far below the covariance."""
        few = len(rows) < MAX_ROWS_OF_START and context is None
        if few and is_table_flow(self, module):
            module.start(rows, context, tuple(self.schema_.circles), weights)

    def _loss(self, module: Any, events: Tensor, context: Tensor | None) -> Tensor:
        """Loss of each row, (n,), whose mean training minimizes: the negative log-density by default."""
        loss: Tensor = -module(context).log_prob(events)
        return loss

    def _size(self, events: Tensor) -> Tensor | None:
        """Divisor of the sum of losses, one number per row, (n,); None divides by the number of rows."""
        return None

    def _players(self, module: Any) -> list[Player]:
        """The players, each with its parameters and loss: by default one with ``_loss``."""
        return [Player("model", list(module.parameters()), self._loss, size=self._size)]

    def _after_training(self, events: Events, *, continued: bool) -> None:
        """Set further attributes from the trained ``module_`` and the events. The default sets none.

        ``continued`` is True if the fit started from earlier weights."""

    # From fit to the loop: _fit (or _continue), _train, FitRun.train, training.train.

    def partial_fit(
        self, X: Any, y: Any = None, *, context: Any = None, sample_weight: Any = None
    ) -> Self:
        """Train on one pass over the rows of X from the current weights; call ``fit`` if not fitted.

        The codec stays as the first call fitted it: scales are not updated, and a new category raises
        an error. The learning rate is constant. AdamW's moments and the running average of the weights
        start anew in every call. No rows are held out, and nothing stops early: ``max_steps``,
        ``max_epochs``, ``max_time``, ``warmup``, ``validation_fraction``, ``patience``, ``callbacks``
        and ``checkpoint_dir`` are ignored. ``history_`` and ``n_iter_`` are those of the call.

        Parameters
        ----------
        X, context, sample_weight : as in ``fit``
        y : ignored

        Raises
        ------
        ValueError, TypeError
            Rows do not match those of the first call. The estimator is then unchanged.

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
        # A pass is a warm start of a copy, since its options must not change the hyper-parameters.
        once = self._copy_with(**_ONE_PASS, _constant=True)
        once.fit(X, context=context, sample_weight=sample_weight)
        keep = {k: v for k, v in vars(once).items() if k.endswith("_")}
        self.__dict__.update(keep)
        return self

    @property
    def _in_order(self) -> bool:
        """Whether rows are a sequence, so that batches must not be shuffled."""
        return False

    _constant = False
    """Whether the learning rate is constant, as in ``partial_fit``."""

    @classmethod
    def _names_of_fit(cls) -> set[str]:
        return super()._names_of_fit() | (NeuralDensity._names() - DensityEstimator._names())

    def _fit_rows(self, X: Any, context: Any, sample_weight: Any) -> None:
        if self.warm_start and self.__sklearn_is_fitted__():
            self._continue(X, context, sample_weight)
        else:
            super()._fit_rows(X, context, sample_weight)

    def _continue(self, X: Any, context: Any, sample_weight: Any) -> None:
        """Continue training with the fitted codec and the current weights."""
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
                f"row {row} of X is outside of the fitted codec (a new category, another value of a "
                "constant column, or outside the support), which a further fit keeps: drop the row, or "
                "fit anew with warm_start=False"
            )
        self.device_, self.dtype_ = str(device), self.dtype
        if self._constant:
            # Batches of nearly equal size omit at most one row per batch.
            self.batch_size = n // math.ceil(n / self.batch_size)
        start = self.module_.state_dict()
        # With an integer random_state alone, every pass over the same rows would have the same noise.
        seed = (seed + int(digest(start.values())[:8], 16)) % 2**32
        with seeded(seed, device):
            encoded = self._encode_context(context, n)
            self._train(self._events(typed), encoded, *self._weights(weights), start=start)
        # A hyper-parameter set after fit may have changed the kind of the scores.
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
        """Train a module in all processes of the fit and set the fitted attributes.

        Parameters
        ----------
        events, context, weights : as in ``_fit``
        start : mapping, optional
            Initial weights; the default initializes new ones.
        objective : Objective, optional
            Losses to minimize instead of the model's own; in one process only.
        """
        train_other_rank = self._without_weights()._train_other_rank
        processes = together(
            self.devices, self.device_, train_other_rank, events, context, weights
        )
        with contextlib.ExitStack() as stack:
            with clock.current().paused():
                # The other processes import what this one has imported.
                group = stack.enter_context(processes)
            run = self._fit_run(group, events, context, weights, objective)
            module, history = run.train(start)
        self.module_ = module.eval().requires_grad_(False)
        self.history_ = dataclasses.asdict(history)
        self.n_iter_ = history.step[-1] if history.step else 0
        self._after_training(events, continued=start is not None)
        self._record_parameters()

    def _without_weights(self) -> Self:
        """A copy to send to other processes, without weights and without what only rank 0 needs."""
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
        """Train in a process that ``processes.together`` started, on the device of that process."""
        self.device_ = device
        context, weights = (None if t is None else t.to(device) for t in (context, weights))
        self._fit_run(group, events.to(device), context, weights).train()

    def _fit_run(
        self,
        group: Group,
        events: Events,
        context: Tensor | None,
        weights: Tensor | None,
        objective: Objective | None = None,
    ) -> FitRun:
        objective = objective or Objective(self._players, self._view)
        return FitRun(self, group, events, context, weights, objective)

    def _view(self, typed: Tensor) -> Tensor:
        if self._capabilities.view == "typed":
            return typed
        return self.schema_.relax(typed, torch.rand_like(typed))[0]

    def _distribution(self, context: Tensor | None) -> TorchDistribution:
        return self.module_(context)

    @classmethod
    def _update_old_parameters(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        # Files without `derived` always have a max_steps, which a given max_epochs replaced.
        if "derived" not in parameters and parameters.get("max_epochs") is not None:
            return {**parameters, "max_steps": None}
        return parameters

    # Pickle weights only: a module that has run has caches and graphs, which cannot be pickled.

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
        """A new module with the hyper-parameters of the fit and untrained weights."""
        # Hyper-parameters may have been set after fit; the weights belong to those of the fit.
        builder = self._copy_with(**vars(self).get("built_with_", {}))
        with seeded(0):
            module = builder._build(self.schema_, self._context_schema)
        return module.to(self._torch_dtype)
