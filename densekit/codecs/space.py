"""The fitted density over the user's own columns, as a Pyro distribution."""

import math
from typing import Any

import torch
from pyro.distributions import MultivariateNormal, TorchDistribution, constraints
from pyro.distributions.transforms import LowerCholeskyAffine
from torch import Tensor
from torch.distributions import Transform

from densekit.codecs.schema import Column, Schema
from densekit.codecs.support import ends_of, from_real, to_real


class EventToData(Transform):
    """Events of a table of numbers to its rows: undo the standardization, then the support's
    bijection, column by column; in float64, so that offsets of 1e8 keep their digits."""

    bijective = True
    domain = constraints.real_vector

    def __init__(self, columns: tuple[Column, ...]):
        super().__init__(cache_size=0)
        self.columns = columns
        self._loc = torch.tensor([c.loc for c in columns], dtype=torch.float64)
        self._scale = torch.tensor([c.scale for c in columns], dtype=torch.float64)

    @property
    def codomain(self) -> Any:  # type: ignore[override]
        """Real vectors, or a concatenation of each column's support."""
        if all(c.support[0] == "real" for c in self.columns):
            return constraints.real_vector
        return constraints.cat([_constraint(c) for c in self.columns], -1, [1] * len(self.columns))

    def _call(self, z: Tensor) -> Tensor:
        v = z.double() * self._scale.to(z.device) + self._loc.to(z.device)
        return torch.stack([from_real(v[..., j], c) for j, c in enumerate(self.columns)], -1)

    def _inverse(self, x: Tensor) -> Tensor:
        x = x.double()
        v = torch.stack([to_real(x[..., j], c)[0] for j, c in enumerate(self.columns)], -1)
        return (v - self._loc.to(x.device)) / self._scale.to(x.device)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log|dy/dx| for an event x and its row y, summed over columns."""
        y = y.double()
        slopes = torch.stack([to_real(y[..., j], c)[1] for j, c in enumerate(self.columns)], -1)
        return (self._scale.to(y.device).log() - slopes).sum(-1)


class NoiseToData(Transform):
    """Transform from standard normal noise to events, in ``dtype``, and then to rows, in float64."""

    domain = constraints.real_vector
    bijective = True

    def __init__(self, events: Transform, rows: EventToData, dtype: torch.dtype):
        super().__init__(cache_size=0)
        self.events, self.rows, self.dtype = events, rows, dtype

    @property
    def codomain(self) -> Any:  # type: ignore[override]
        """The support of the rows."""
        return self.rows.codomain

    def _call(self, z: Tensor) -> Tensor:
        return self.rows._call(self.events(z.to(self.dtype)))

    def _inverse(self, x: Tensor) -> Tensor:
        z: Tensor = self.events.inv(self.rows._inverse(x).to(self.dtype))
        return z.double()

    def log_abs_det_jacobian(self, z: Tensor, x: Tensor) -> Tensor:  # type: ignore[override]
        """log|dx/dz|, summed over columns."""
        event = self.rows._inverse(x)
        ladj = self.events.log_abs_det_jacobian(z.to(self.dtype), event.to(self.dtype))
        return ladj.double() + self.rows.log_abs_det_jacobian(event, x)


def _from_noise(events: TorchDistribution) -> Transform:
    if isinstance(events, MultivariateNormal):
        # One factor for all contexts: Pyro's transform takes no batch of them.
        factor = events._unbroadcasted_scale_tril
        if factor.ndim == 2:
            return LowerCholeskyAffine(events.loc, factor)
    if not hasattr(events, "from_noise"):
        raise AttributeError(
            f"{type(events).__name__} is not the law of noise through a transform"
        )
    made: Transform = events.from_noise
    return made


class DataDistribution(TorchDistribution):
    """A distribution over events, moved to the rows of the data.

    Values outside the support score -inf. Samples and scores are in float64.
    """

    arg_constraints: dict[str, Any] = {}

    def __init__(self, events: TorchDistribution, transform: EventToData, dtype: torch.dtype):
        self.events, self.transform, self._dtype = events, transform, dtype
        super().__init__(events.batch_shape, events.event_shape, validate_args=False)

    @classmethod
    def wrap(
        cls, events: TorchDistribution, schema: Schema, dtype: torch.dtype
    ) -> TorchDistribution:
        """``events`` over the data space where every column is a number, unchanged otherwise."""
        numbers = schema.modality == "table" and all(
            c.kind == "real" and not c.atoms for c in schema.columns
        )
        return cls(events, EventToData(schema.columns), dtype) if numbers else events

    @property
    def from_noise(self) -> "NoiseToData":
        """Standard normal noise to rows; AttributeError where the density is not made of a transform."""
        return NoiseToData(_from_noise(self.events), self.transform, self._dtype)

    @property
    def has_rsample(self) -> bool:
        """Whether draws are differentiable, as those of the events are."""
        return self.events.has_rsample

    @property
    def support(self) -> Any:
        """Where the density lives: each column's support."""
        return self.transform.codomain

    def log_prob(self, value: Tensor) -> Tensor:
        """Nats, in the units of the data."""
        z = self.transform._inverse(value)
        inside = torch.isfinite(z).all(-1)
        z = torch.where(inside[..., None], z, torch.zeros_like(z))
        safe = torch.where(inside[..., None], value.double(), self.transform._call(z).detach())
        logp = self.events.log_prob(z.to(self._dtype))
        ladj = self.transform.log_abs_det_jacobian(z, safe)
        return torch.where(inside, logp.double() - ladj, -torch.inf)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """Differentiable draws in the units of the data."""
        return self.transform._call(self.events.rsample(sample_shape))

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """Draws in the units of the data."""
        with torch.no_grad():
            return self.transform._call(self.events.sample(sample_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> "DataDistribution":
        """The same density with a larger batch shape."""
        return DataDistribution(self.events.expand(batch_shape), self.transform, self._dtype)


def _constraint(column: Column) -> Any:
    low, high = ends_of(column)
    if math.isinf(low) and math.isinf(high):
        return constraints.real
    if math.isinf(high):
        return constraints.positive if low == 0 else constraints.greater_than(low)
    return constraints.less_than(high) if math.isinf(low) else constraints.interval(low, high)
