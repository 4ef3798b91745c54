"""Continuous flows with an estimated divergence, whose density has a standard error."""

import math
from typing import Any

import torch
from torch import Tensor

from densekit.distributions.flow import FlowDistribution, FlowModule
from densekit.distributions.montecarlo import MonteCarloDistribution
from densekit.transforms.columns import to_columns, to_rows
from densekit.transforms.ode import ContinuousTransform
from densekit.transforms.whitening import Whitening


class HutchinsonFlow(MonteCarloDistribution, FlowDistribution):
    r"""A continuous flow x = T(z) of normal z whose divergence is estimated from random probes.

    .. math:: \log p(x) \approx \log N(z; 0, I) + \frac1k \sum_{i=1}^k \ell_i(x), \qquad
              \ell_i = \int_0^1 e_i^\top \frac{\partial v}{\partial y} e_i\, dt + \dots

    (:meth:`~densekit.transforms.ode.ContinuousTransform.estimates`). The noise z does not depend
    on the probes. The mean is unbiased over probes of random signs, with standard error
    :math:`s_\ell / \sqrt k`. All rows share the probes. Hence a row's score does not depend on its
    batch, but the errors of rows are dependent, and averaging scores does not reduce them.

    In training mode the stored probes are not used: the divergence is exact if the network has a
    closed form, otherwise it uses one new probe per row. The error is then reported as zero.

    Parameters
    ----------
    transform : ContinuousTransform
        T, noise to data.
    probes : Tensor of shape (D, k)
        Entries +1 and -1, k at least 2.
    context : Tensor, optional
        (\*batch_shape, C).
    frame : Whitening, optional
        Whitening of z; without it z is standard normal.

    Examples
    --------
    >>> from densekit.nets.velocity import VelocityNet
    >>> transform = ContinuousTransform(VelocityNet(2, (8, 8)), 2).eval()
    >>> flow = HutchinsonFlow(transform, random_signs(2, 4))
    >>> [t.shape for t in flow.log_prob_and_error(torch.zeros(3, 2))]
    [torch.Size([3]), torch.Size([3])]
    """

    transform: ContinuousTransform

    def __init__(
        self,
        transform: ContinuousTransform,
        probes: Tensor,
        context: Tensor | None = None,
        frame: Whitening | None = None,
    ) -> None:
        super().__init__(transform, context, like=probes, frame=frame)
        self.probes = probes

    def expand(self, batch_shape: Any, _instance: Any = None) -> "HutchinsonFlow":
        """The distribution with its batch shape expanded."""
        new = HutchinsonFlow(self.transform, self.probes, self.context, self.frame)
        new._batch_shape = torch.Size(batch_shape)
        return new

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        r"""Samples (\*sample_shape, \*batch_shape, D), computed without the divergence."""
        shape = torch.Size(sample_shape) + self.batch_shape
        z = torch.randn(
            self.transform.n_features,
            shape.numel(),
            dtype=self._like.dtype,
            device=self._like.device,
        )
        return to_rows(self.transform.data_of(self._colored(z), self._context(shape)), shape)

    def log_prob_and_error(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Estimates of the log-density of values (..., D), and their standard errors."""
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        x = to_columns(value.expand(*shape, value.shape[-1]))
        z, ladj = self.transform.estimates(x, self._context(shape), self._probes(x))
        z = self._white(z)
        norm = 0.5 * math.log(2 * math.pi) * len(z)
        mean, k = ladj.mean(0), len(ladj)
        logp = torch.sub(mean, (z * z).sum(0), alpha=0.5).sub(norm) + self._log_det
        error = (ladj - mean).square().sum(0).div(k * max(1, k - 1)).sqrt()
        return logp.reshape(shape), error.reshape(shape)

    def _probes(self, x: Tensor) -> Tensor | None:
        if not self.transform.training:
            return self.probes[..., None]
        if getattr(self.transform.velocity, "is_closed", False):
            return None
        return random_signs(*x.shape).to(x)[:, None]


class HutchinsonModule(FlowModule):
    """A module whose call returns a :class:`HutchinsonFlow`; it draws the probes when it is built.

    Parameters
    ----------
    transform : ContinuousTransform
        Noise to data.
    n_probes : int
        Number of probes k.
    """

    transform: ContinuousTransform
    probes: Tensor

    def __init__(self, transform: ContinuousTransform, n_probes: int) -> None:
        super().__init__(transform)
        self.register_buffer("probes", random_signs(transform.n_features, n_probes))

    def forward(self, context: Tensor | None = None) -> HutchinsonFlow:
        """Return the distribution: event shape (D,), batch shape () or (n,)."""
        return HutchinsonFlow(self.transform, self.probes, context, self.frame)


def random_signs(*shape: int) -> Tensor:
    """Tensor of independent signs, +1 or -1 with equal probability."""
    return 2.0 * torch.randint(2, shape) - 1
