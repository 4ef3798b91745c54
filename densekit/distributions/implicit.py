"""A distribution that is only a way to draw: no density."""

from typing import Any, NoReturn

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor, nn


class ImplicitDistribution(TorchDistribution):
    r"""The law of x = g(z, context) for a standard normal z, of which no density is known.

    Parameters
    ----------
    generator : torch.nn.Module
        (n, L + C) to (n, D).
    latent_dim, n_features : int
        L and D.
    context : Tensor, optional
        (\*batch_shape, C).

    Notes
    -----
    Event shape (D,); batch shape that of the context without its last axis, else (). ``log_prob``
    raises: whoever needs a number compares draws, or asks for a density estimate by its name.

    Examples
    --------
    >>> from densekit.nets.mlp import MLP
    >>> ImplicitDistribution(MLP(2, (8,), 3), 2, 3).sample((5,)).shape
    torch.Size([5, 3])
    """

    arg_constraints: dict[str, Any] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self, generator: nn.Module, latent_dim: int, n_features: int, context: Tensor | None = None
    ) -> None:
        self.generator, self.latent_dim, self.context = generator, latent_dim, context
        batch_shape = torch.Size() if context is None else context.shape[:-1]
        super().__init__(batch_shape, torch.Size([n_features]), validate_args=False)

    def expand(
        self, batch_shape: Any, _instance: "ImplicitDistribution | None" = None
    ) -> "ImplicitDistribution":
        """The distribution with its batch shape expanded."""
        n_features = self.event_shape[0]
        new = ImplicitDistribution(self.generator, self.latent_dim, n_features, self.context)
        new._batch_shape = torch.Size(batch_shape)
        return new

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """Draws (\\*sample_shape, \\*batch_shape, D), differentiable in the generator's weights."""
        shape = torch.Size(sample_shape) + self.batch_shape
        like = next(self.generator.parameters())
        z = torch.randn(*shape, self.latent_dim, dtype=like.dtype, device=like.device)
        if self.context is not None:
            z = torch.cat([z, self.context.expand(*shape, self.context.shape[-1])], -1)
        return self.generator(z)

    def log_prob(self, value: Tensor) -> NoReturn:
        """There is none.

        Raises
        ------
        NotImplementedError
            Always.
        """
        raise NotImplementedError(  # torch's own answer where a distribution is abstract in this
            "an implicit distribution can be drawn from but has no density; compare its draws with "
            "data (densekit.metrics), or fit a model that scores"
        )
