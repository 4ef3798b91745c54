"""Neural density estimators: build the module, train it, keep its weights and nothing else."""

import dataclasses
from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from densekit.base import DensityEstimator
from densekit.codecs.schema import Schema
from densekit.params import Interval
from densekit.runtime import seeded
from densekit.training import Batches, Player, TrainingState, train


class NeuralDensity(DensityEstimator):
    """A density whose distribution comes out of a network. Abstract: a model says how the module is
    built (``_build``) and, where it is not minus the mean log-density, what it minimises (``_loss``).

    Parameters
    ----------
    max_epochs : int, optional
        Passes over the data; None takes as many as ``max_steps`` make.
    max_steps : int
        Optimiser steps, where ``max_epochs`` is None.
    max_time : float, optional
        Seconds of wall clock; the learning rate's schedule follows whichever budget ends first.
    batch_size, learning_rate, weight_decay, gradient_clip, warmup
        AdamW's, with a warm-up over the first ``warmup`` of the budget and a cosine to zero after it;
        ``gradient_clip`` is the largest norm of a step's gradient.
    ema_decay : float
        Decay of the running average of the weights, which is what is evaluated and kept.
    validation_fraction : float
        Rows held out (4,096 at most) to tell when to stop; 0 trains on all rows to the end.
    patience : int, optional
        Evaluations without a better held-out loss before the fit stops; None never stops early.
    mixed_precision : bool
        Run the loss under bfloat16 autocast while training.
    compile : bool
        Compile the loss with ``torch.compile``: minutes of compiling, for long fits.
    callbacks : tuple of callable
        Called with a :class:`~densekit.training.TrainingState` after each evaluation; True stops.

    Attributes
    ----------
    module_ : torch.nn.Module
        Its call (with the encoded context or None) is a Pyro distribution over events.
    history_ : dict
        ``step, epoch, seconds, train_loss, valid_loss, learning_rate`` per evaluation (losses are
        over events: objectives, not scores), ``stop_reason`` and ``best_step``.
    n_iter_ : int
        Optimiser steps made.
    """

    max_epochs: Annotated[int, Interval(ge=1)] | None = None
    max_steps: Annotated[int, Interval(ge=1)] = 2000
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

    _relaxes_itself: ClassVar[bool] = True

    if TYPE_CHECKING:
        module_: Any = dataclasses.field(init=False)
        history_: dict[str, Any] = dataclasses.field(init=False)
        n_iter_: int = dataclasses.field(init=False)

    # What a model file provides.

    @abstractmethod
    def _build(self, schema: Schema, context_schema: Schema | None) -> nn.Module:
        """The module; all that is random or learnt in it is a parameter or a buffer."""

    def _loss(self, module: Any, events: Tensor, context: Tensor | None) -> Tensor:
        """What training minimises, averaged over the batch: the negative log-density."""
        return -module(context).log_prob(events).mean()

    def _players(self, module: Any) -> list[Player]:
        """Who trains what: one player with ``_loss``, unless a model plays against itself."""
        return [Player("model", list(module.parameters()), self._loss)]

    # How it learns.

    def _fit(self, events: Tensor, context: Tensor | None) -> None:
        module = self._build(self.schema_, self._context_schema)
        module.to(self.device_, self._torch_dtype)
        seed = int(torch.randint(2**62, ()))
        batches = Batches(
            events,
            context,
            self._view,
            validation_fraction=self.validation_fraction,
            seed=seed,
        )
        history = train(
            module,
            self._players(module),
            batches,
            self,
            seed=seed % 2**63,
            progress=self._is_verbose,
        )
        self.module_ = module.eval().requires_grad_(False)
        self.history_ = dataclasses.asdict(history)
        self.n_iter_ = history.step[-1] if history.step else 0

    def _view(self, typed: Tensor) -> Tensor:
        if self._capabilities.view == "typed":
            return typed
        return self.schema_.relax(typed, torch.rand_like(typed))[0]

    def _distribution(self, context: Tensor | None) -> TorchDistribution:
        return self.module_(context)

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
        with seeded(0):
            module = self._build(self.schema_, self._context_schema)
        module.to(self._torch_dtype)
        module.load_state_dict({k: torch.tensor(v) for k, v in weights.items()})
        if self.device_.startswith("cuda") and not torch.cuda.is_available():
            self.device_ = "cpu"
        self.module_ = module.to(self.device_).eval().requires_grad_(False)
