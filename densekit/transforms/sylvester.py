"""The Sylvester transform."""

from collections.abc import Sequence

import torch
from torch import Tensor

from densekit.nets.amortized import Amortized
from densekit.transforms.columns import ColumnTransform
from densekit.transforms.linear import Householder
from densekit.transforms.step import (
    above_minus_one,
    finite,
    limited,
    log_slope,
    positive,
    solve_step,
)


class SylvesterTransform(ColumnTransform):
    r"""M planar steps at once in a learned subspace.

    .. math:: z = x + Q R \tanh(s), \quad s = \tilde R Q^T x + b, \qquad
              \log\left|\frac{dz}{dx}\right| = \sum_i \log(1 + R_{ii} \tilde R_{ii} \tanh'(s_i))

    Q has M orthonormal columns, and R and :math:`\tilde R` are upper triangular. It is the map of
    van den Berg et al., here from data to noise. The inverse is computed in the subspace:
    :math:`Q^T z = v + R \tanh(\tilde R v + b)` is solved for :math:`v = Q^T x` from the last entry
    to the first, each a monotone scalar equation that bracketing solves. Then :math:`x = z - Q R
    \tanh(s)`.

    The map is invertible for :math:`R_{ii} \tilde R_{ii} > -1` (theorem 2). Here the diagonal of
    :math:`\tilde R` is positive, and its product with that of R is m(a) for a raw parameter a,
    with an increasing m > 0.05 - 1 and m(0) = 0. Q is a product of Householder reflections.

    Parameters
    ----------
    n_features : int
        D.
    n_units : int
        M, at most D.
    hidden_sizes : sequence of int
        Hidden layers of the network from the context to R, :math:`\tilde R` and b.
    n_context : int
        Number of context features; without a context all parameters are learned directly. Q never
        depends on the context.
    activation : str
        Activation of the network.

    Raises
    ------
    ValueError
        If ``n_units`` is not between 1 and D.

    Notes
    -----
    The raw parameters are b, a and the logarithm of :math:`\tilde R`'s diagonal, M each, and the M
    (M - 1) / 2 entries above each diagonal. All are bounded by 20, and :math:`\tilde R`'s diagonal
    is between 1/20 and 20. The transform starts as the identity, with a random subspace.

    References
    ----------
    R. van den Berg, L. Hasenclever, J. M. Tomczak and M. Welling. Sylvester Normalizing Flows for
    Variational Inference. UAI 2018. https://arxiv.org/abs/1803.05649

    Examples
    --------
    >>> transform = SylvesterTransform(3, 2)
    >>> z = torch.randn(5, 3)
    >>> bool(torch.allclose(transform.inv(transform(z)), z, atol=1e-5))
    True
    """

    above: Tensor

    def __init__(
        self,
        n_features: int,
        n_units: int,
        hidden_sizes: Sequence[int] = (64, 64),
        n_context: int = 0,
        activation: str = "silu",
    ) -> None:
        super().__init__(n_features, n_context)
        if not 1 <= n_units <= n_features:
            raise ValueError(
                f"n_units={n_units} must be between 1 and the number of features, {n_features}"
            )
        self.n_units = n_units
        self.reflections = Householder(n_features, n_units)
        # This buffer follows from the arguments and is not part of the state.
        above = torch.ones(n_units, n_units).triu(1).flatten().nonzero()[:, 0]
        self.register_buffer("above", above, persistent=False)
        start = torch.cat([torch.randn(n_units), torch.zeros(2 * n_units + 2 * len(above))])
        self.raw = Amortized(start, hidden_sizes, n_context, activation)

    def frame(self) -> Tensor:
        """Q, (D, M)."""
        like = self.reflections.vectors
        unit = torch.eye(self.n_features, self.n_units, dtype=like.dtype, device=like.device)
        return self.reflections.to_data(unit)[0]

    def weights(self, context: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        r"""R and :math:`\tilde R`, (M, M, N), b and the product of the diagonals, (M, N); N is 1
        without a context.
        """
        raw = limited(self.raw(context))
        M, n = self.n_units, len(self.above)
        b, a, log_scale, outer, inner = raw.split([M, M, M, n, n])
        c, scale = above_minus_one(a), positive(log_scale)
        return self._triangle(outer, c / scale), self._triangle(inner, scale), b, c

    def _triangle(self, above: Tensor, diagonal: Tensor) -> Tensor:
        M, n = diagonal.shape
        full = diagonal.new_zeros(M * M, n)
        full = full.index_copy(0, self.above, above)
        return full.view(M, M, n) + torch.diag_embed(diagonal.t()).permute(1, 2, 0)

    def to_noise(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data to noise, and log|dz/dx|."""
        Q, (outer, inner, b, c) = self.frame(), self.weights(context)
        s = _product(inner, Q.t() @ finite(x)) + b
        return x + Q @ _product(outer, torch.tanh(s)), log_slope(s, c).sum(0)

    def to_data(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Noise to data, and log|dx/dz|."""
        Q, (outer, inner, b, c) = self.frame(), self.weights(context)
        y = Q.t() @ finite(z)
        s = torch.empty_like(y[:0])  # s and v hold the entries computed so far.
        v = s
        for i in reversed(range(self.n_units)):
            # Multiplying both sides by the diagonal entry of the inner triangle gives a step in s_i.
            rest = y[i] - (outer[i, i + 1 :] * torch.tanh(s)).sum(0)
            known = (inner[i, i + 1 :] * v).sum(0) + b[i]
            new = solve_step(inner[i, i] * rest + known, c[i])
            s = torch.cat([new[None], s])
            v = torch.cat([(rest - outer[i, i] * torch.tanh(new))[None], v])
        return z - Q @ _product(outer, torch.tanh(s)), -log_slope(s, c).sum(0)


def _product(matrix: Tensor, v: Tensor) -> Tensor:
    """Matrix-vector products (M, M, N) times (M, N) for each N; a matrix with N = 1 serves all
    vectors.
    """
    return matrix[..., 0] @ v if matrix.shape[-1] == 1 else (matrix * v).sum(1)
