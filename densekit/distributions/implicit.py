"""Implicit distributions, which can be sampled but have no computable density."""

from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints


class Implicit(TorchDistribution):
    r"""The distribution of :math:`x = G(z)` for standard normal z and any map G.

    Parameters
    ----------
    generator : callable
        G, from z (..., \*batch_shape, L) to x (..., \*batch_shape, \*event_shape).
    like : Tensor of shape (L,)
        Determines the width, dtype and device of z.
    event_shape : torch.Size
        Shape of x.
    batch_shape : torch.Size
        () or the batch shape of the context on which the generator is conditioned.

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
        """Real numbers, since the range of G is unknown."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Implicit":
        """The distribution with its batch shape expanded."""
        return Implicit(self.generator, self.like, self.event_shape, torch.Size(batch_shape))

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        r"""Samples (\*sample_shape, \*batch_shape, \*event_shape), differentiable in the parameters of
        G.
        """
        shape = (*sample_shape, *self.batch_shape, *self.like.shape)
        z = torch.randn(shape, dtype=self.like.dtype, device=self.like.device)
        return self.generator(z)

    def log_prob(self, value: Tensor) -> Tensor:
        """Not available.

        Raises
        ------
        NotImplementedError
            Always.
        """
        raise NotImplementedError(
            "the output of a generator network has no computable density: compare samples instead "
            "(densekit.metrics), or fit a model with scores (see densekit.capabilities)"
        )
