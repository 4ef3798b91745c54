"""What the models of this family share: noise on rows, a network, and a density by an ODE."""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from densekit.base import Capabilities
from densekit.codecs.schema import Schema
from densekit.distributions.diffusion import Diffusion, DiffusionModule, Plan
from densekit.distributions.paths import Path
from densekit.distributions.predictions import Prediction, target
from densekit.nets.timed import TimedMLP
from densekit.neural import NeuralDensity
from densekit.params import Interval

_LEAST_EVALUATED = 1024
"""Rows that a held-out loss averages over at least; fewer rows are repeated with other noise."""


class DiffusionDensity(NeuralDensity):
    r"""A density learned by undoing noise. Abstract: a model says which path it takes (``_path``), what
    its network predicts (``_predicts``), and how it is drawn from (``_plan``).

    Parameters
    ----------
    hidden_sizes : tuple of int
        Widths of the hidden layers of the residual network of tables.
    dropout : float
        Probability with which training drops a hidden unit. Data of a few hundred rows need it.
    network : callable, optional
        Another network: a function of the shape of an event and the width of the context (0 without
        one) that returns a :class:`~densekit.nets.timed.TimedNet`.
    rtol : float
        Tolerance of a score relative to its size, at least one nat. The solver doubles the steps of
        each row until its error meets the tolerance.
    n_probes : int
        Directions along which the trace of the Jacobian is computed for events of more than 64
        entries. For smaller ones the trace is exact.
    """

    hidden_sizes: Annotated[tuple[int, ...], Interval(ge=1)] = (128, 128, 128, 128)
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    network: Callable[[torch.Size, int], nn.Module] | None = None
    rtol: Annotated[float, Interval(gt=0, lt=1)] = 1e-3
    n_probes: Annotated[int, Interval(ge=2)] = 16
    batch_size: Annotated[int, Interval(ge=1)] = 1024
    learning_rate: Annotated[float, Interval(gt=0)] = 2e-3
    ema_decay: Annotated[float, Interval(ge=0, lt=1)] = 0.999
    dequantization_draws: Annotated[int, Interval(ge=2)] = 4
    patience: Annotated[int, Interval(ge=1)] | None = None

    _default_steps: ClassVar[int] = 6000
    _at_once: ClassVar[tuple[str, ...]] = ("rtol", "n_probes")
    _capabilities: ClassVar[Capabilities] = Capabilities(
        density="estimate",
        view="relaxed",
        modalities=("table", "image"),
        context="features",
        flat=False,
        sample_batch=8192,
        weights=True,
    )

    @abstractmethod
    def _path(self) -> Path:
        """The noise path."""

    @abstractmethod
    def _plan(self) -> Plan:
        """How the fitted distribution is drawn from and scored."""

    def _predicts(self) -> Prediction:
        """What the network predicts."""
        return "velocity"

    def _weight(self, path: Path, w: Tensor) -> Tensor | float:
        """Weight of the squared error at solver times."""
        return 1.0

    def _build(self, schema: Schema, context_schema: Schema | None) -> nn.Module:
        path = self._path()
        path.check()
        n_context = 0 if context_schema is None else context_schema.n_features
        shape = torch.Size(schema.event_shape)
        whiten = schema.modality == "table"
        net = self._network(shape, n_context)
        return DiffusionModule(net, path, self._predicts(), shape, self.n_probes, whiten=whiten)

    def _network(self, shape: torch.Size, n_context: int) -> nn.Module:
        if self.network is not None:
            return self.network(shape, n_context)
        n_dims = shape.numel()
        return TimedMLP(n_dims, self.hidden_sizes, n_context, dropout=self.dropout)

    def _distribution(self, context: Tensor | None) -> TorchDistribution:
        module: Any = self.module_
        dist: Diffusion = module(context, self._plan())
        if len(dist.probes) < dist.probes.shape[1]:
            dist.probes = module.with_probes(self.n_probes)
        return dist

    def _begin_as(
        self, module: Any, rows: Tensor, context: Tensor | None, weights: Tensor | None
    ) -> None:
        if module.frame is not None:
            module.frame.fit(rows, weights=weights)

    def _loss(self, module: Any, events: Tensor, context: Tensor | None) -> Tensor:
        rows = len(events)
        if not module.training:
            copies = math.ceil(_LEAST_EVALUATED / rows)
            events = events.repeat(copies, *(1,) * (events.ndim - 1))
            context = None if context is None else context.repeat(copies, 1)
        with torch.autocast(events.device.type, enabled=False):
            # The eight bits of bfloat16 would round x by as much as the smallest noise.
            x = events if module.frame is None else module.frame(events)
            w = self._times(module.path, x)
            noise = self._noise(x, context)
            angle = module.path.angle(w).reshape(-1, *(1,) * (x.ndim - 1))
            cos, sin = angle.cos(), angle.sin()
            y = cos * x + sin * noise
        output = module.net(y, w, self._training_context(module, context))
        error = (output - target(module.prediction, x, noise, cos, sin)).square()
        loss = self._weight(module.path, w) * error.flatten(1).mean(1)
        return loss if len(x) == rows else loss.view(-1, rows).mean(0)

    def _times(self, path: Path, x: Tensor) -> Tensor:
        """Solver times of a batch, one from each of n strata, in random order."""
        n = len(x)
        u = (torch.arange(n, device=x.device, dtype=x.dtype) + torch.rand(n).to(x)) / n
        return path.training_times(u[torch.randperm(n, device=x.device)])

    def _noise(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Noise of the rows of a batch."""
        return torch.randn_like(x)

    def _training_context(self, module: Any, context: Tensor | None) -> Tensor | None:
        """The context that the network sees in training."""
        return context
