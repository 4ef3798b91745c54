"""Linear transforms that mix features."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from densekit.transforms.columns import ColumnTransform

_MIN_ENTRY = 1e-12
"""A vector whose entries are all smaller has no meaningful direction and no finite gradient."""


class Reverse(ColumnTransform):
    """Reverse the order of the features."""

    def to_noise(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data to noise, and log|dz/dx| = 0."""
        return x.flip(0), x.new_zeros(x.shape[1])

    def to_data(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Noise to data, and log|dx/dz| = 0."""
        return z.flip(0), z.new_zeros(z.shape[1])


class Diagonal(ColumnTransform):
    """A scale and a shift per feature, :math:`z = e^s x + b`, initially the identity.

    Parameters
    ----------
    n_features : int
        D.

    Examples
    --------
    >>> Diagonal(2)(torch.tensor([1.0, 2.0])).tolist()
    [1.0, 2.0]
    """

    def __init__(self, n_features: int) -> None:
        super().__init__(n_features)
        self.log_scale = nn.Parameter(torch.zeros(n_features, 1))
        self.shift = nn.Parameter(torch.zeros(n_features, 1))

    def can_record(self) -> bool:
        """Always."""
        return True

    def record(self, tape: Any, x: Any, total: Any, context: Any, name: str) -> Any:
        """Record data to noise on a ``kernels.tape.Tape``."""
        return tape.diagonal(x, self.log_scale, self.shift, total, name)

    def record_data(self, tape: Any, z: Any, total: Any, context: Any, name: str) -> Any:
        """Record noise to data on a tape."""
        return tape.diagonal_inverse(z, self.log_scale, self.shift, total, name)

    def to_noise(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data to noise, and log|dz/dx|."""
        z = torch.addcmul(self.shift, x, self.log_scale.exp())
        return z, self.log_scale.sum().expand(x.shape[1])

    def to_data(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Noise to data, and log|dx/dz|."""
        x = (z - self.shift) * self.log_scale.neg().exp()
        return x, -self.log_scale.sum().expand(z.shape[1])


class LULinear(ColumnTransform):
    r"""An invertible matrix as the product of two triangular ones, and a shift: :math:`z = L U x + b`.

    L is lower triangular with ones on the diagonal. U is upper triangular with the positive
    diagonal :math:`e^s`, so that :math:`\log|\det| = \sum s`. Initially it is the identity.

    Parameters
    ----------
    n_features : int
        D.
    fixed : sequence of int
        Features that are not changed and do not affect others.

    References
    ----------
    J. B. Oliva et al. Transformation Autoregressive Networks. ICML 2018.
    https://arxiv.org/abs/1801.09819

    D. P. Kingma and P. Dhariwal. Glow: Generative Flow with Invertible 1x1 Convolutions. NeurIPS
    2018. https://arxiv.org/abs/1807.03039

    Examples
    --------
    >>> LULinear(2)(torch.tensor([1.0, 2.0])).tolist()
    [1.0, 2.0]
    """

    free: Tensor

    def __init__(self, n_features: int, fixed: Sequence[int] = ()) -> None:
        super().__init__(n_features)
        free = torch.tensor([float(d not in fixed) for d in range(n_features)])
        self.fixed = len(fixed) > 0
        self.register_buffer("free", free, persistent=False)
        self.lower = nn.Parameter(torch.zeros(n_features, n_features))
        self.upper = nn.Parameter(torch.zeros(n_features, n_features))
        self.log_diagonal = nn.Parameter(torch.zeros(n_features))
        self.shift = nn.Parameter(torch.zeros(n_features, 1))

    def can_record(self) -> bool:
        """Whether no feature is fixed."""
        return not self.fixed

    def record(self, tape: Any, x: Any, total: Any, context: Any, name: str) -> Any:
        """Record data to noise on a ``kernels.tape.Tape``."""
        parameters = (self.lower, self.upper, self.log_diagonal, self.shift)
        return tape.lu(x, *parameters, total, name)

    def record_data(self, tape: Any, z: Any, total: Any, context: Any, name: str) -> Any:
        """Record noise to data on a tape."""
        parameters = (self.lower, self.upper, self.log_diagonal, self.shift)
        return tape.lu_inverse(z, *parameters, total, name)

    def _parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """L, U, s and b, with zeros for fixed features."""
        lower: Tensor = self.lower
        upper: Tensor = self.upper
        s: Tensor = self.log_diagonal
        shift: Tensor = self.shift
        if self.fixed:
            both = self.free[:, None] * self.free
            lower, upper = lower * both, upper * both
            s, shift = s * self.free, shift * self.free[:, None]
        unit = torch.eye(self.n_features, dtype=lower.dtype, device=lower.device)
        return lower.tril(-1) + unit, upper.triu(1) + s.exp().diag(), s, shift

    def to_noise(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data to noise, and log|dz/dx|."""
        lower, upper, s, shift = self._parts()
        z = torch.addmm(shift, lower @ upper, x)
        return z, s.sum().expand(x.shape[1])

    def to_data(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Noise to data, and log|dx/dz|."""
        lower, upper, s, shift = self._parts()
        y = torch.linalg.solve_triangular(lower, z - shift, upper=False, unitriangular=True)
        x = torch.linalg.solve_triangular(upper, y, upper=True)
        return x, -s.sum().expand(z.shape[1])


class Householder(ColumnTransform):
    r"""A product of reflections, :math:`z = H_1 \cdots H_K x` with
    :math:`H_k = I - 2 v_k v_k^T / \|v_k\|^2`: an orthogonal matrix, whose log-determinant is 0.

    D reflections make any orthogonal matrix up to its sign, M of them take the first M axes to any
    M orthonormal vectors. Tomczak and Welling, Improving Variational Auto-Encoders using
    Householder Flow (2016).

    Parameters
    ----------
    n_features : int
        D.
    n_reflections : int
        K.

    Notes
    -----
    It starts with random vectors. One whose entries are all below 1e-12 reflects nothing.

    Examples
    --------
    >>> rotation = Householder(3, 2)
    >>> x = torch.tensor([[1.0, 2.0, 2.0]])
    >>> round(float(rotation(x).detach().norm()), 5)
    3.0
    """

    def __init__(self, n_features: int, n_reflections: int) -> None:
        super().__init__(n_features)
        self.vectors = nn.Parameter(torch.randn(n_reflections, n_features))

    def _units(self) -> Tensor:
        # Dividing by the largest entry first keeps squares from overflowing.
        largest = self.vectors.detach().abs().amax(1, keepdim=True)
        v = torch.where(largest < _MIN_ENTRY, 0.0, self.vectors / largest.clamp_min(_MIN_ENTRY))
        return v / v.norm(dim=1, keepdim=True).clamp_min(_MIN_ENTRY)

    def to_noise(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data to noise, and log|dz/dx| = 0."""
        return _reflect(self._units().flip(0), x), x.new_zeros(x.shape[1])

    def to_data(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Noise to data, and log|dx/dz| = 0."""
        return _reflect(self._units(), z), z.new_zeros(z.shape[1])


def _reflect(units: Tensor, x: Tensor) -> Tensor:
    """Reflect columns (D, N) at the hyperplanes orthogonal to unit vectors (K, D), one after another."""
    for v in units:
        x = torch.addmm(x, v[:, None], (v @ x)[None], alpha=-2)
    return x
