"""Mixtures of normals, scored by one matrix product over quadratic features."""

import math
from collections.abc import Iterator
from typing import ClassVar

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Size, Tensor

_LOG_2PI = math.log(2 * math.pi)
_QUADRATIC_ERROR = 1e-7
"""Largest error of the quadratic form in nats; beyond it the triangular form is used."""
MAX_PRODUCT_COLUMNS = 64
"""Number of columns up to which products of columns are faster; beyond it they need too much memory."""


def block_length(width: int, device: torch.device) -> int:
    """Number of rows per block if each needs ``width`` numbers: what fits into a core's cache or a
    part of a GPU.
    """
    entries, least = (2**18, 64) if device.type == "cpu" else (2**26, 4096)
    return max(least, entries // max(1, width) // 64 * 64)


def n_features(n_dims: int, full: bool) -> int:
    """Number of rows of :func:`quadratic_features`."""
    return 1 + n_dims + (n_dims * (n_dims + 1) // 2 if full else n_dims)


def is_wide(n_dims: int, full: bool) -> bool:
    """Whether rows have too many columns for :func:`quadratic_features`."""
    return full and n_dims > MAX_PRODUCT_COLUMNS


def quadratic_features(x: Tensor, full: bool, out: Tensor | None = None) -> Tensor:
    r"""One, x, and the squares of x, or with ``full`` the products :math:`x_i x_j, i \le j`: (F, n).

    Rows of ``x`` (n, D) become columns, so that elementwise operations run along contiguous
    memory.
    """
    n, n_dims = x.shape
    if out is None:
        out = x.new_empty(n_features(n_dims, full), n)
    out[0] = 1
    linear = out[1 : n_dims + 1]
    linear.copy_(x.T)
    if not full:
        torch.mul(linear, linear, out=out[n_dims + 1 :])
        return out
    start = n_dims + 1
    for i in range(n_dims):
        torch.mul(linear[i:], linear[i], out=out[start : start + n_dims - i])
        start += n_dims - i
    return out


def symmetric(packed: Tensor, n_dims: int) -> Tensor:
    """Symmetric matrices (..., D, D) from their upper triangles (..., D (D + 1) / 2)."""
    i, j = torch.triu_indices(n_dims, n_dims, device=packed.device)
    out = packed.new_empty(*packed.shape[:-1], n_dims, n_dims)
    out[..., i, j] = packed
    out[..., j, i] = packed
    return out


class NormalScores:
    r"""Log-densities of many normals at once, weights included.

    .. math::  \log w_k N(x; \mu_k, L_k L_k^T) = c_k \cdot \phi(x)
               = a_k - \tfrac12 |L_k^{-1} x - L_k^{-1} \mu_k|^2

    The first form is one matrix product with the quadratic features. It loses about
    :math:`\epsilon |x|^2 / \lambda_{\min}` to cancellation; the second form is used where that
    matters.

    Parameters
    ----------
    log_weights : Tensor of shape (K,)
    loc : Tensor of shape (K, D)
    scale : Tensor of shape (K, D) or (K, D, D)
        Standard deviations, or lower triangular factors of the covariances.
    """

    def __init__(self, log_weights: Tensor, loc: Tensor, scale: Tensor):
        self.loc, self.full = loc, scale.ndim == 3
        n_dims = loc.shape[1]
        self.wide = is_wide(n_dims, self.full)
        if self.full:
            eye = torch.eye(n_dims, dtype=loc.dtype, device=loc.device)
            # Contiguous, so that one product serves all components.
            self.whiten = torch.linalg.solve_triangular(scale, eye, upper=False).contiguous()
            log_det = scale.diagonal(dim1=-2, dim2=-1).log().sum(-1)
            self.white_loc = (self.whiten @ loc[..., None])[..., 0]
        else:
            self.whiten, log_det = 1 / scale, scale.log().sum(-1)
            self.white_loc = loc * self.whiten
        self.constant = log_weights - log_det - 0.5 * n_dims * _LOG_2PI
        if not self.wide:
            self.coefficients = self._coefficients()
        # The sum of the precision's eigenvalues bounds the largest of them.
        self._max_precision = self.whiten.square().flatten(1).sum(1).max()

    def _coefficients(self) -> Tensor:
        """Coefficients of the features in the quadratic form, (K, F)."""
        norm = self.constant - 0.5 * self.white_loc.square().sum(-1)
        if not self.full:
            linear, square = self.white_loc * self.whiten, -0.5 * self.whiten.square()
        else:
            precision = self.whiten.mT @ self.whiten
            linear = (self.whiten.mT @ self.white_loc[..., None])[..., 0]
            i, j = torch.triu_indices(*precision.shape[1:], device=precision.device)
            square = precision[:, i, j] * torch.where(i == j, -0.5, -1.0).to(precision.dtype)
        return torch.cat([norm[:, None], linear, square], 1)

    def cancels(self, x: Tensor) -> bool:
        """Whether rows ``x`` (n, D) are too far from the origin for the quadratic form."""
        if not x.numel():
            return False
        error = torch.finfo(x.dtype).eps * x.square().sum(1).max() * self._max_precision
        tolerance = _QUADRATIC_ERROR if x.dtype == torch.float64 else 1e3 * _QUADRATIC_ERROR
        return not bool(error < tolerance)

    def triangular(self, x: Tensor) -> Tensor:
        """Scores (K, n) by the second form, which is precise everywhere."""
        if not self.full:
            z = self.whiten[..., None] * x.T - self.white_loc[..., None]
        else:
            k, n_dims, _ = self.whiten.shape
            z = (self.whiten.view(k * n_dims, n_dims) @ x.T).view(k, n_dims, len(x))
            z -= self.white_loc[..., None]
        return self.constant[:, None] - 0.5 * z.square().sum(1)

    def quadratic(self, features: Tensor) -> Tensor:
        """Scores (K, n) by the first form, from the features (F, n)."""
        return self.coefficients @ features

    def blocks(self, x: Tensor) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
        """Yield (slice of the rows, scores (K, n), features (F, n)) of each block.

        The scores use the form that is precise for the block. The next block overwrites the
        features, which are None for wide rows.
        """
        k, n_dims = self.loc.shape
        if self.wide:
            start, length = 0, max(512, block_length(2 * k * n_dims, x.device))
            for rows in x.split(length):
                yield slice(start, start + len(rows)), self.triangular(rows), None
                start += len(rows)
            return
        height = n_features(n_dims, self.full)
        length = block_length(height + 3 * k, x.device)
        memory = x.new_empty(height * min(length, len(x)))
        careful = self.cancels(x)
        for start in range(0, len(x), length):
            piece = slice(start, min(start + length, len(x)))
            rows = x[piece]
            out = memory[: height * len(rows)].view(height, len(rows))
            features = quadratic_features(rows, self.full, out)
            if careful and self.cancels(rows):
                small = block_length(2 * k * n_dims, x.device)
                scores = torch.cat([self.triangular(part) for part in rows.split(small)], 1)
            else:
                scores = self.quadratic(features)
            yield piece, scores, features


class NormalMixture(TorchDistribution):
    r"""A mixture of normals over vectors, :math:`p(x) = \sum_k w_k N(x; \mu_k, \Sigma_k)`.

    Rows without gradients are scored in blocks that fit into the cache, so that memory does not
    grow with their number. Rows with gradients use autograd.

    Parameters
    ----------
    weights : Tensor of shape (K,)
        Positive; they are normalized.
    loc : Tensor of shape (K, D)
    scale : Tensor of shape (K, D) or (K, D, D)
        Standard deviations, or lower triangular factors of the covariances.

    Raises
    ------
    ValueError
        If the shapes do not match.

    Examples
    --------
    >>> d = NormalMixture(torch.ones(2), torch.tensor([[-1.0], [1.0]]), torch.ones(2, 1))
    >>> d.log_prob(torch.tensor([0.0])).exp()
    tensor(0.2420)
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = False

    def __init__(
        self, weights: Tensor, loc: Tensor, scale: Tensor, validate_args: bool | None = False
    ):
        if weights.shape != loc.shape[:1] or scale.shape not in (
            loc.shape,
            (*loc.shape, loc.shape[-1]),
        ):
            raise ValueError(
                "weights (K,), loc (K, D) and scale (K, D) or (K, D, D) do not match: got "
                f"{tuple(weights.shape)}, {tuple(loc.shape)} and {tuple(scale.shape)}"
            )
        self.weights, self.loc, self.scale = weights / weights.sum(), loc, scale
        self._scores = NormalScores(self.weights.log(), loc, scale)
        super().__init__(Size(), Size(loc.shape[1:]), validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """Mean of the mixture, (D,)."""
        return self.weights @ self.loc

    def log_prob(self, value: Tensor) -> Tensor:
        r"""Log-density, (\*sample_shape,)."""
        x = value.to(self.loc.dtype).reshape(-1, self.event_shape[0])
        if value.requires_grad and torch.is_grad_enabled():
            logp = self._scores.triangular(x).logsumexp(0)
        else:
            logp = x.new_empty(len(x))
            for piece, scores, _ in self._scores.blocks(x):
                logp[piece] = scores.logsumexp(0)
        return logp.reshape(value.shape[:-1])

    def log_joint(self, value: Tensor) -> Tensor:
        r""":math:`\log w_k + \log N(x; \mu_k, \Sigma_k)` for each component, (\*sample_shape, K)."""
        x = value.to(self.loc.dtype).reshape(-1, self.event_shape[0])
        joint = x.new_empty(len(x), len(self.weights))
        for piece, scores, _ in self._scores.blocks(x):
            joint[piece] = scores.T
        return joint.reshape(*value.shape[:-1], len(self.weights))

    def sample(self, sample_shape: Size | tuple[int, ...] = ()) -> Tensor:
        r"""Samples (\*sample_shape, D)."""
        with torch.no_grad():
            shape = self._extended_shape(Size(sample_shape))
            x = torch.randn(
                shape[:-1].numel(), shape[-1], dtype=self.loc.dtype, device=self.loc.device
            )
            # torch.multinomial cannot draw zero samples.
            component = torch.multinomial(self.weights, max(1, len(x)), replacement=True)[: len(x)]
            # Components are processed one by one, because a matrix per row would need too much memory.
            for k in range(len(self.weights)):
                rows = (component == k).nonzero()[:, 0]
                scaled = (
                    x[rows] @ self.scale[k].T if self._scores.full else x[rows] * self.scale[k]
                )
                x[rows] = self.loc[k] + scaled
            return x.reshape(shape)
