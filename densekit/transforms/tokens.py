"""The autoregressive transform of tokens: patches of an image, columns of a table."""

from collections.abc import Sequence

import torch
from torch import Tensor

from densekit.nets.causal import CausalNet
from densekit.transforms.columns import ColumnTransform, Element


def patches(event_shape: Sequence[int], patch_size: int) -> Tensor:
    """Which features make up each token, (T, P): the columns of (D,) one by one; of (C, H, W)
    patches of all channels, row by row.

    A patch is at most ``patch_size`` high and wide and at most half the image, so that there is
    always another to depend on; of that the largest size that divides the image.

    Examples
    --------
    >>> patches((3,), 4).tolist()
    [[0], [1], [2]]
    >>> patches((1, 2, 6), 4).tolist()  # one high, three wide
    [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    """
    if len(event_shape) == 1:
        return torch.arange(event_shape[0])[:, None]
    channels, height, width = event_shape
    h, w = (_divisor(side, min(patch_size, max(1, side // 2))) for side in (height, width))
    place = torch.arange(channels * height * width).view(channels, height // h, h, width // w, w)
    return place.permute(1, 3, 0, 2, 4).reshape(-1, channels * h * w)


def _divisor(n: int, most: int) -> int:
    return max(k for k in range(1, most + 1) if n % k == 0)


class TokenTransform(ColumnTransform):
    r"""Each token through an element whose parameters depend on the tokens before it.

    .. math:: z_t = f(x_t;\ \theta_t(x_{<t}, c)), \qquad
              \log\left|\frac{dz}{dx}\right| = \sum_t \sum_p \log f'(x_{tp};\ \theta_{tp})

    A block of TarFlow (Zhai et al., Normalizing Flows are Capable Generative Models, 2024), where f
    is affine and :math:`\theta` a causal transformer. The numbers of one token do not see each
    other. Data to noise is one pass of the network; noise to data finds the tokens one after
    another, with keys and values of those before in a cache.

    Parameters
    ----------
    tokens : Tensor
        Which features make up each token, in the order in which they are found: (T, P), integers,
        each of 0 .. T P - 1 once. T = 1 is allowed: the parameters then depend on the context alone.
    element : Element
        For example :class:`~densekit.transforms.affine.AffineElement`.
    width, n_layers, n_heads : int
        Of the network, :class:`~densekit.nets.causal.CausalNet`.
    n_context : int
        Number of context features.

    Examples
    --------
    >>> from densekit.transforms.affine import AffineElement
    >>> transform = TokenTransform(patches((1, 4, 4), 2), AffineElement(), 16, 1, 2)
    >>> z = torch.randn(5, 16)
    >>> bool(torch.allclose(transform.inv(transform(z)), z, atol=1e-5))
    True
    """

    tokens: Tensor

    def __init__(
        self,
        tokens: Tensor,
        element: Element,
        width: int,
        n_layers: int,
        n_heads: int,
        n_context: int = 0,
    ) -> None:
        super().__init__(tokens.numel(), n_context)
        self.element = element
        n_tokens, n_numbers = tokens.shape
        # Derived from the arguments alone, so no part of the state.
        self.register_buffer("tokens", tokens, persistent=False)
        self.net = CausalNet(
            n_tokens, n_numbers, element.n_params * n_numbers, width, n_layers, n_heads, n_context
        )
        with torch.no_grad():
            self.net.last_bias.add_(element.start().repeat_interleave(n_numbers))

    def to_noise(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data to noise, and log|dz/dx|."""
        x = self._split(x)
        raw = self.net(x, None if context is None else context.t())
        z, ladj = self.element.forward(x, self._params(raw))
        return self._join(z), ladj.sum((1, 2))

    def to_data(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Noise to data, and log|dx/dz|."""
        z, total = self._split(z), z.new_zeros(z.shape[1])

        def step(t: int, raw: Tensor) -> Tensor:
            nonlocal total
            x, ladj = self.element.inverse(z[:, t], self._params(raw))
            total = total + ladj.sum(1)
            return x

        x = self.net.solve(step, len(z), None if context is None else context.t())
        return self._join(x), total

    def _split(self, columns: Tensor) -> Tensor:
        """(D, N) to tokens (N, T, P)."""
        return columns[self.tokens].movedim(2, 0)

    def _join(self, tokens: Tensor) -> Tensor:
        """Tokens (N, T, P) back to (D, N)."""
        return tokens.flatten(1).t()[self.tokens.flatten().argsort()]

    def _params(self, raw: Tensor) -> Tensor:
        """Parameters (..., n_params * P) to (n_params, ..., P)."""
        return raw.unflatten(-1, (self.element.n_params, -1)).movedim(-2, 0)
