"""Distributions that can be drawn from and not scored: noise through a network."""

from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints


class Implicit(TorchDistribution):
    r"""The distribution of :math:`x = G(z)`, z standard normal, for any map G.

    Parameters
    ----------
    generator : callable
        G: z (..., \*batch_shape, L) to x (..., \*batch_shape, \*event_shape).
    like : Tensor
        (L,), whose width, dtype and device z has.
    event_shape : torch.Size
        Shape of x.
    batch_shape : torch.Size
        () or that of the context on which the generator is conditioned.

    Examples
    --------
    >>> d = Implicit(lambda z: z.exp(), torch.zeros(2), torch.Size([2]))
    >>> d.sample(torch.Size([5])).shape
    torch.Size([5, 2])
    """

    arg_constraints: dict[str, Any] = {}
    has_rsample = True

    def __init__(
        self,
        generator: Callable[[Tensor], Tensor],
        like: Tensor,
        event_shape: torch.Size,
        batch_shape: torch.Size = torch.Size(),
    ) -> None:
        self.generator, self.like = generator, like
        super().__init__(batch_shape, event_shape, validate_args=False)

    @property
    def support(self) -> Any:
        """Real numbers: what else G reaches is not known."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Implicit":
        """The same distribution with a larger batch shape."""
        return Implicit(self.generator, self.like, self.event_shape, torch.Size(batch_shape))

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """Draws (\\*sample_shape, \\*batch_shape, \\*event_shape), differentiable in G."""
        shape = (*sample_shape, *self.batch_shape, *self.like.shape)
        z = torch.randn(shape, dtype=self.like.dtype, device=self.like.device)
        return self.generator(z)

    def log_prob(self, value: Tensor) -> Tensor:
        """There is none.

        Raises
        ------
        NotImplementedError
            Always.
        """
        raise NotImplementedError(
            "noise pushed through a network has no density that can be computed: compare draws "
            "instead (densekit.metrics), or fit a model that scores (densekit.capabilities tells)"
        )
