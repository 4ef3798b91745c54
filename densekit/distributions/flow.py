"""Normalizing flows as distributions: normal noise through an invertible transform."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor, nn
from torch.distributions.transforms import Transform

from densekit.transforms.columns import ColumnTransform, to_columns, to_rows
from densekit.transforms.whitening import Whitening


class FlowDistribution(TorchDistribution):
    r"""The distribution of x = T(z) for normal z.

    .. math:: \log p(x) = \log N(T^{-1}(x); m, C) + \log|\det dT^{-1}/dx|

    It equals ``TransformedDistribution(MultivariateNormal(m, C), [T])`` without Pyro's cache and
    validation. Scores and samples are differentiable in the value and in the weights.

    Parameters
    ----------
    transform : ColumnTransform
        T, noise to data.
    context : Tensor, optional
        (\*batch_shape, C).
    like : Tensor, optional
        Determines dtype and device; the first parameter of the transform by default.
    event_shape : sequence of int, optional
        Shape of an event of D numbers, for example of an image; (D,) by default.
    frame : Whitening, optional
        Whitening of z, which holds its mean m and covariance C; standard normal by default.

    Notes
    -----
    Event shape (D,) or ``event_shape``. The batch shape is that of the context without its last
    axis, or ().

    Examples
    --------
    >>> from densekit.transforms.linear import LULinear
    >>> flow = FlowDistribution(LULinear(2))
    >>> flow.log_prob(torch.zeros(3, 2)).shape, flow.sample((4,)).shape
    (torch.Size([3]), torch.Size([4, 2]))
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    has_rsample = True

    def __init__(
        self,
        transform: ColumnTransform,
        context: Tensor | None = None,
        like: Tensor | None = None,
        event_shape: Sequence[int] | None = None,
        frame: Whitening | None = None,
    ) -> None:
        self.transform, self.context, self.frame = transform, context, frame
        self._like = next(transform.parameters()) if like is None else like
        batch_shape = torch.Size() if context is None else context.shape[:-1]
        shape = torch.Size([transform.n_features] if event_shape is None else event_shape)
        super().__init__(batch_shape, shape, validate_args=False)

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> Any:
        """All real events."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(
        self, batch_shape: Any, _instance: "FlowDistribution | None" = None
    ) -> "FlowDistribution":
        """The distribution with its batch shape expanded."""
        given = (self.context, self._like, self.event_shape, self.frame)
        new = FlowDistribution(self.transform, *given)
        new._batch_shape = torch.Size(batch_shape)
        return new

    def _context(self, batch_shape: torch.Size) -> Tensor | None:
        if self.context is None:
            return None
        return to_columns(self.context.expand(*batch_shape, self.context.shape[-1]))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        r"""Samples (\*sample_shape, \*batch_shape, \*event_shape), differentiable in the weights."""
        return self.rsample_and_log_prob(sample_shape)[0]

    def rsample_and_log_prob(self, sample_shape: Any = ()) -> tuple[Tensor, Tensor]:
        """Samples and their log-densities from one pass, both differentiable in the weights."""
        shape = torch.Size(sample_shape) + self.batch_shape
        z = torch.randn(
            shape.numel(),
            self.transform.n_features,
            dtype=self._like.dtype,
            device=self._like.device,
        ).t()
        x, ladj = self.transform.to_data(self._colored(z), self._context(shape))
        logp = _standard_normal_log_prob(z, self._log_det - ladj)
        return to_rows(x, shape).reshape(shape + self.event_shape), logp.reshape(shape)

    def log_prob(self, value: Tensor) -> Tensor:
        r"""Log-density of values (..., \*event_shape); their leading shape broadcasts with the batch
        shape.
        """
        lead = value.shape[: value.ndim - len(self.event_shape)]
        shape = torch.broadcast_shapes(lead, self.batch_shape)
        rows = value.reshape(*lead, self.transform.n_features)
        x = to_columns(rows.expand(*shape, rows.shape[-1]))
        z, ladj = self.transform.to_noise(x, self._context(shape))
        return _standard_normal_log_prob(self._white(z), ladj + self._log_det).reshape(shape)

    @property
    def from_noise(self) -> Transform:
        """Standard normal noise (..., D) to events (..., D), under the context where there is one."""
        return _FromNoise(self)

    @property
    def _log_det(self) -> Tensor | float:
        return 0.0 if self.frame is None else self.frame.log_det

    def _white(self, z: Tensor) -> Tensor:
        return z if self.frame is None else self.frame.columns(z)

    def _colored(self, z: Tensor) -> Tensor:
        return z if self.frame is None else self.frame.columns_inverse(z)


class _FromNoise(Transform):
    """The map of a :class:`FlowDistribution`, with its frame and its context filled in."""

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, flow: FlowDistribution) -> None:
        super().__init__(cache_size=0)
        self.flow = flow

    def _call(self, z: Tensor) -> Tensor:
        noise, given = self.flow._colored(to_columns(z)), self.flow._context(z.shape[:-1])
        return to_rows(self.flow.transform.to_data(noise, given)[0], z.shape[:-1])

    def _inverse(self, x: Tensor) -> Tensor:
        given = self.flow._context(x.shape[:-1])
        z, _ = self.flow.transform.to_noise(to_columns(x), given)
        return to_rows(self.flow._white(z), x.shape[:-1])

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log|dy/dx|, (...), found from the event y alone."""
        given = self.flow._context(y.shape[:-1])
        ladj = self.flow.transform.to_noise(to_columns(y), given)[1]
        return -(ladj + self.flow._log_det).reshape(y.shape[:-1])


def _standard_normal_log_prob(z: Tensor, ladj: Tensor) -> Tensor:
    """log N(z; 0, I) + log|dz/dx|, (N,), of noise (D, N)."""
    norm = 0.5 * math.log(2 * math.pi) * len(z)
    return torch.sub(ladj, (z * z).sum(0), alpha=0.5).sub(norm)


class FlowModule(nn.Module):
    """A module whose call with a context (n, C) or None returns a :class:`FlowDistribution`.

    Parameters
    ----------
    transform : ColumnTransform
        Noise to data, usually a :class:`~densekit.transforms.columns.Stack`.
    event_shape : sequence of int, optional
        Shape of an event; (D,) by default.
    """

    frame: Whitening | None

    def __init__(
        self, transform: ColumnTransform, event_shape: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        self.transform, self.frame = transform, None
        self.event_shape = (transform.n_features,) if event_shape is None else event_shape
        self.register_load_state_dict_pre_hook(_expect_frame)

    @torch.no_grad()
    def start(
        self,
        rows: Tensor,
        context: Tensor | None = None,
        fixed: Sequence[int] = (),
        weights: Tensor | None = None,
    ) -> None:
        """Give z the mean and the shrunken covariance of the transformed rows (n, D).

        A flow whose transform is initially the identity or a rotation then starts as the Gaussian
        of the rows. The columns ``fixed`` of z stay standard normal.
        """
        columns_of_context = None if context is None else to_columns(context)
        z = to_rows(
            self.transform.to_noise(to_columns(rows), columns_of_context)[0], rows.shape[:-1]
        )
        self.frame = Whitening(self.transform.n_features).to(rows)
        self.frame.fit(z, fixed, weights)

    def forward(self, context: Tensor | None = None) -> FlowDistribution:
        """Return the distribution: event shape (D,) or ``event_shape``, batch shape () or (n,)."""
        return FlowDistribution(
            self.transform, context, event_shape=self.event_shape, frame=self.frame
        )


def _expect_frame(module: nn.Module, state: Mapping[str, Any], prefix: str, *_: object) -> None:
    """Create the whitening of z if the loaded state has one; older files and images have none."""
    if isinstance(module, FlowModule) and f"{prefix}frame.loc" in state and module.frame is None:
        like = next(module.parameters())
        module.frame = Whitening(module.transform.n_features).to(like)
