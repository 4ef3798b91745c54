"""One fit of a neural density, as run by one of its processes."""

import math
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

import densekit
from densekit import clock
from densekit.checkpoints import Checkpoint, digest, plain
from densekit.codecs.ondisk import EncodedRows
from densekit.distributions.flow import FlowModule
from densekit.few_rows import FOLDS, Noise, Plan, divides, noise_for
from densekit.kernels.compiled import load_for
from densekit.processes import Group
from densekit.training import Batches, Budget, History, Objective, train, warn_if_improving

if TYPE_CHECKING:
    from densekit.neural import NeuralDensity

_MAY_DIFFER = {"device", "verbose", "callbacks", "checkpoint_dir", "warm_start", "random_state"}
"""Parameters that may differ between a checkpoint and the fit that resumes it. They do not change the
steps; the last two are compared through the initial weights and the seed."""
MAX_ROWS_OF_START = 5000
"""Largest number of training rows that initialize a module. With as many rows or more, a flow begins as
the standard normal: starting from the covariance of 13,000 rows of California cost
MaskedAutoregressiveFlow 0.1 nats in 600 steps."""
_MAX_COLUMNS_OF_START = 1000
"""Largest number of columns of a flow that starts from the covariance, whose eigendecomposition is
O(D^3)."""

Events: TypeAlias = Tensor | EncodedRows


def is_table_flow(estimator: "NeuralDensity", module: nn.Module) -> bool:
    """Whether a module is a flow of a table with few enough columns for an eigendecomposition."""
    schema = estimator.schema_
    table = schema.modality == "table" and schema.n_dims <= _MAX_COLUMNS_OF_START
    return table and isinstance(module, FlowModule)


@dataclass(frozen=True)
class FitRun:
    """The part of one process in a fit: builds a module and trains it on given rows.

    Parameters
    ----------
    estimator : NeuralDensity
        Has the hyper-parameters, the codec, the device and the hooks of the model.
    group : Group
        The processes of the fit.
    events : Tensor or EncodedRows
        Typed events (n, *event_shape).
    context : Tensor or None
        Encoded contexts, one per row.
    weights : Tensor or None
        Weights of the rows, (n,).
    objective : Objective
        Losses and view of the events.
    """

    estimator: "NeuralDensity"
    group: Group
    events: Events
    context: Tensor | None
    weights: Tensor | None
    objective: Objective

    def train(self, start: Mapping[str, Tensor] | None = None) -> tuple[nn.Module, History]:
        """Build and train a module, from the weights ``start`` if they are given.

        All ranks use the seed, the checkpoint and the initial weights of rank 0.

        Raises
        ------
        ValueError
            The rows differ from those of rank 0; ``start`` does not match the network; or the
            checkpoint is of another fit.
        """
        estimator, group, events = self.estimator, self.group, self.events
        module = self._new_module()
        load_for(module)
        if start is not None:
            self._set_weights(module, start)
        seed = group.broadcast(int(torch.randint(2**62, ())))
        if group.launched:
            self._check_same_rows()
        checkpoint = None
        if estimator.checkpoint_dir is not None and group.rank == 0:
            checkpoint = Checkpoint(estimator.checkpoint_dir, self._description(seed, start))
        checkpoint = group.broadcast(checkpoint)
        if checkpoint is not None:
            seed = checkpoint.seed(seed)
        plan = self._cross_fit(seed) if start is None and self._cross_fits(module) else None
        fraction = estimator.validation_fraction if plan is None else 0.0
        batches = self._batches(seed, fraction)
        noise = None if start is not None else self._initialize(module, batches)
        group.equalize(module)
        budget = Budget.of(estimator, len(events), estimator._default_steps)
        history = train(
            module,
            self.objective.players(module),
            batches,
            estimator if plan is None else self._options_of_run(budget.steps, 1),
            seed=seed % 2**63,
            progress=estimator._is_verbose and group.rank == 0,
            constant=estimator._constant,
            checkpoint=checkpoint,
            group=group,
            plan=plan,
            noise=noise,
            default_steps=estimator._default_steps,
        )
        if plan is not None and budget.default and group.rank == 0:
            warn_if_improving(plan.gain, plan.gain_error, int(budget.steps))
        return module, history

    def _new_module(self) -> nn.Module:
        estimator = self.estimator
        module = estimator._build(estimator.schema_, estimator._context_schema)
        return module.to(estimator.device_, estimator._torch_dtype)

    def _batches(
        self, seed: int, validation_fraction: float, fold: tuple[int, int] | None = None
    ) -> Batches:
        return Batches(
            self.events,
            self.context,
            self.objective.view,
            validation_fraction=validation_fraction,
            seed=seed,
            in_order=self.estimator._in_order,
            fold=fold,
            weights=self.weights,
        )

    def _initialize(self, module: nn.Module, batches: Batches) -> Noise | None:
        """Initialize the module from the rows; return the noise to train with."""
        estimator = self.estimator
        rows, context, weights = batches.first(MAX_ROWS_OF_START)
        if self.objective.initial is not None:
            events = self.objective.initial(rows)
            if events is not None:
                estimator._begin_as(module, events, context, weights)
            return None
        estimator._begin_as(module, rows, context, weights)
        # Given a context, the spread may be far below the covariance; angles have no covariance.
        has_covariance = context is None and not estimator.schema_.circles
        if not has_covariance or not is_table_flow(estimator, module):
            return None
        return noise_for(batches.n_train, rows)

    def _n_steps(self) -> float:
        """Steps of the whole budget."""
        return Budget.of(self.estimator, len(self.events), self.estimator._default_steps).steps

    def _cross_fits(self, module: nn.Module) -> bool:
        """Whether cross-fitting determines when to stop.

        It does for flows of few rows, which overfit within a hundred steps. Typed models overfit more
        slowly, and holding out a tenth of the rows suffices."""
        estimator = self.estimator
        stops_early = estimator.validation_fraction > 0 and estimator.patience is not None
        few = divides(len(self.events), self._n_steps())
        return stops_early and few and is_table_flow(estimator, module)

    def _options_of_run(self, steps: float, n_runs: int) -> "NeuralDensity":
        """Options of the next of ``n_runs`` runs, which share the remaining time and the steps."""
        share = None if math.isinf(steps) else math.ceil(steps / (FOLDS + 1))
        seconds = self.estimator.max_time
        if seconds is not None:
            elapsed = clock.current().elapsed()
            seconds = elapsed + max(seconds - elapsed, 1e-9) / n_runs
        return self.estimator._copy_with(max_epochs=None, max_steps=share, max_time=seconds)

    def _cross_fit(self, seed: int) -> Plan:
        """Train once per fold, holding it out; return when to stop a run on all rows."""
        histories, steps = [], self._n_steps()
        for k in range(FOLDS):
            options = self._options_of_run(steps, FOLDS + 1 - k)._copy_with(callbacks=())
            module = self._new_module()
            batches = self._batches(seed, 0.0, (k, FOLDS))
            noise = self._initialize(module, batches)
            self.group.equalize(module)
            arguments = (module, self.objective.players(module), batches, options)
            histories.append(train(*arguments, seed=seed % 2**63, group=self.group, noise=noise))
        return Plan.of(histories)

    def _check_same_rows(self) -> None:
        codecs = (self.estimator.codec_, self.estimator.context_codec_)
        data = [codecs[0], self.context, codecs[1], self.weights]
        own = digest(chain(_pieces(self.events), data))
        if self.group.broadcast(own) != own:
            raise ValueError(
                f"rank {self.group.rank} was given other rows than rank 0: every process takes its "
                "share of each batch by itself, so give fit the same X, context and sample_weight in "
                "all of them"
            )

    def _set_weights(self, module: nn.Module, start: Mapping[str, Tensor]) -> None:
        try:
            module.load_state_dict(start)
        except RuntimeError as error:
            raise ValueError(
                f"warm_start=True continues the weights of the last fit, and these do not fit the "
                f"network that {type(self.estimator).__name__}'s hyper-parameters now ask for "
                f"({' '.join(str(error).split())}): set them back, or fit with warm_start=False"
            ) from error

    def _description(self, seed: int, start: Mapping[str, Tensor] | None) -> dict[str, Any]:
        """Description of the fit; a checkpoint is resumed only if its description is equal."""
        estimator, context, weights = self.estimator, self.context, self.weights
        random_state = estimator.random_state
        if random_state is not None and not isinstance(random_state, numbers.Integral):
            # A generator is identified by the seed that was drawn from it.
            random_state = seed
        return {
            "densekit": densekit.__version__,
            "class": f"{type(estimator).__module__}.{type(estimator).__qualname__}",
            "random_state": plain(random_state),
            "parameters": {
                name: plain(value)
                for name, value in sorted(estimator.get_params(deep=False).items())
                if name not in _MAY_DIFFER
            },
            "data": digest(chain(_pieces(self.events), [estimator.codec_])),
            "context": "" if context is None else digest([context, estimator.context_codec_]),
            "weights": "" if weights is None else digest([weights]),
            "start": "" if start is None else digest(start.values()),
        }


def _pieces(events: Events) -> Iterable[Tensor]:
    """Iterate over the events; events on disk are read in pieces."""
    return [events] if isinstance(events, Tensor) else events.pieces()
