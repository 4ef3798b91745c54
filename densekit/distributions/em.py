r"""Expectation-maximization for mixtures of normals, all restarts in one tensor program.

A maximization step needs the sums :math:`\sum_n r_{kn} (1, x_n, x_n x_n^T)`. They are one matrix
product of the responsibilities with the quadratic features from which the responsibilities were
computed. An iteration is therefore a single pass over the rows, in blocks that fit into the cache.
"""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from densekit import clock
from densekit.distributions.mixture import (
    MAX_PRODUCT_COLUMNS,
    NormalScores,
    block_length,
    is_wide,
    n_features,
    quadratic_features,
    symmetric,
)

_SEED_ROWS = 10_000
_LLOYD_STEPS = 50
_MIN_WIDTH = 1e-3
_TINY = 1e-12
"""Smallest variance in a geometric mean."""


@dataclass
class Penalty:
    r"""Regularization of covariances.

    ``floor`` is added to every variance. Then each covariance is averaged with that of ``rows`` =
    a imaginary rows with independent columns:

    .. math::  \Sigma_k \leftarrow \frac{n_k \Sigma_k + a \operatorname{diag} t_k}{n_k + a}, \quad
               t_k = \frac{n_k \sigma_k^2 + a g}{n_k + a}, \quad
               \log g = \sum_k w_k \log \frac{n_k \sigma_k^2 + a K^{-2/D}}{n_k + a}

    with :math:`\sigma_k^2` the diagonal of :math:`\Sigma_k`. The imaginary rows have the variances
    of the component if it has many rows. If it has few, their variances are close to those of the
    other components, and if all components have few rows, to those of a K-th of the volume of the
    data.
    """

    floor: float = 1e-6
    rows: float = 0.0


@dataclass
class Mixtures:
    """R mixtures of K normals: log-weights (R, K), locations (R, K, D), scales (R, K, D[, D])."""

    log_weights: Tensor
    loc: Tensor
    scale: Tensor

    def __getitem__(self, index: Tensor | int) -> "Mixtures":
        return Mixtures(self.log_weights[index], self.loc[index], self.scale[index])

    def replace(self, index: Tensor, other: "Mixtures") -> None:
        """Replace the mixtures with the given indices."""
        for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True):
            mine[index] = theirs


@dataclass
class Fitted:
    """The best mixture of several restarts, and how its fit ended."""

    mixture: Mixtures
    lower_bound: float
    n_iter: int
    converged: bool

    @classmethod
    def best(cls, mixtures: Mixtures, bound: Tensor, n_iter: Tensor, converged: Tensor) -> Self:
        """Select the restart with the largest mean log-likelihood."""
        i = int(bound.argmax())
        return cls(mixtures[i], float(bound[i]), int(n_iter[i]), bool(converged[i]))


def kmeans_plus_plus(x: Tensor, weights: Tensor, n_components: int, n_init: int) -> Tensor:
    """Starting centers (R, K, D) by greedy k-means++ (Arthur and Vassilvitskii 2007).

    Each center is the best of several candidates, rows drawn with probability proportional to
    their weight times their squared distance from the nearest center so far.
    """
    trials = 2 + n_components.bit_length()
    norm = x.square().sum(1)
    centers = x.new_empty(n_init, n_components, x.shape[1])
    centers[:, 0] = x[torch.multinomial(weights, n_init, replacement=True)]
    distance = torch.cdist(centers[:, 0], x).square()
    for k in range(1, n_components):
        # The tiny term keeps the probabilities valid when every row is a center already.
        probabilities = distance * weights + torch.finfo(x.dtype).tiny
        chosen = torch.multinomial(probabilities, trials, replacement=True)
        candidate = x[chosen]
        candidate_distance = (
            candidate.square().sum(-1, keepdim=True) + norm - 2 * (candidate @ x.T)
        )
        new_distance = torch.minimum(candidate_distance.clamp_min_(0), distance[:, None])
        best = (new_distance @ weights).argmin(1)
        restart = torch.arange(n_init, device=x.device)
        centers[:, k], distance = candidate[restart, best], new_distance[restart, best]
    return centers


def lloyd(x: Tensor, weights: Tensor, centers: Tensor) -> Tensor:
    """Labels (R, n) of k-means from the given centers; a center without rows stays where it is."""
    n_init, k, n_dims = centers.shape
    offset = k * torch.arange(n_init, device=x.device)[:, None]
    labels = offset.new_full((n_init, len(x)), -1)
    rows = torch.cat([x, torch.ones_like(x[:, :1])], 1) * weights[:, None]
    for _ in range(_LLOYD_STEPS):
        flat = centers.reshape(n_init * k, n_dims)
        score = torch.addmm(-0.5 * flat.square().sum(1, keepdim=True), flat, x.T)
        new = score.view(n_init, k, len(x)).argmax(1)
        if torch.equal(new, labels):
            break
        labels = new
        sums = x.new_zeros(n_init * k, n_dims + 1)
        for restart in range(n_init):
            sums.index_add_(0, (labels + offset)[restart], rows)
        count = sums[:, -1:]
        mean = sums[:, :-1] / torch.where(count > 0, count, 1)
        centers = torch.where(count > 0, mean, flat).view(n_init, k, n_dims)
    return labels


def widths(x: Tensor, weights: Tensor) -> Tensor:
    r"""Typical width of the columns of x (n, D) around their rows, (D,), such that a standard normal
    has 1.

    .. math::  w_j = \exp(h(x_j) - h(N(0, 1)))

    The entropy h is estimated from spacings (Vasicek 1976). A column with narrow clusters far
    apart has a large standard deviation but a small width. In units of widths such clusters stand
    out among columns of noise, in units of standard deviations they do not.
    """
    n = len(x)
    m = max(1, math.isqrt(n) // 2)
    if n <= 4 * m:
        return torch.ones_like(x[0])
    z, order = x.sort(0)
    mass = weights[order].cumsum(0) / weights.sum()
    gap, share = z[m:] - z[:-m], (mass[m:] - mass[:-m]).clamp_min(_TINY)
    weight = weights[order][m // 2 : m // 2 + n - m]
    entropy = (weight * (gap.clamp_min(_TINY) / share).log()).sum(0) / weight.sum(0)
    return (entropy - 0.5 * math.log(2 * math.pi * math.e)).exp().clamp_min(_MIN_WIDTH)


def start(
    x: Tensor,
    weights: Tensor | None,
    n_components: int,
    n_init: int,
    covariance_type: str,
    penalty: Penalty,
) -> Mixtures:
    """Initial mixtures from k-means clusters of a random subset of the rows.

    k-means runs in units of the columns' standard deviations, of their widths and of the squared
    widths; the most likely mixtures are kept.

    Parameters
    ----------
    x : Tensor of shape (n, D)
    weights : Tensor of shape (n,) or None
        Weights of the rows; None is ones.
    n_components, n_init : int
        K and the number of mixtures R.
    covariance_type : {"full", "tied", "diag", "spherical"}
    penalty : Penalty

    Returns
    -------
    Mixtures
    """
    weights = torch.ones_like(x[:, 0]) if weights is None else weights
    n_seed_rows = max(_SEED_ROWS, 100 * n_components)
    if len(x) > n_seed_rows:
        chosen = torch.randperm(len(x), device=x.device)[:n_seed_rows]
        x, weights = x[chosen], weights[chosen]
    several_units = n_components > 1 and 1 < x.shape[1] <= MAX_PRODUCT_COLUMNS
    units = [widths(x, weights) ** power for power in (0, 1, 2)] if several_units else [1]
    labels = torch.cat(
        [
            lloyd(x / u, weights, kmeans_plus_plus(x / u, weights, n_components, n_init))
            for u in units
        ]
    )
    full = covariance_type in ("full", "tied")
    height = n_features(x.shape[1], full)
    sums = x.new_zeros(len(labels) * n_components, height)
    wide = is_wide(x.shape[1], full)
    length = block_length((x.shape[1] if wide else height) + len(sums), x.device)
    parts = (x.split(length), weights.split(length), labels.split(length, 1))
    for rows, weight, label in zip(*parts, strict=True):
        hard = torch.nn.functional.one_hot(label, n_components).mT.to(x.dtype) * weight
        features = None if wide else quadratic_features(rows, full)
        sums += _weighted_sums(hard.flatten(0, 1), rows, features)
    sums = sums.view(len(labels), n_components, height)
    mixtures = maximize(sums, x.shape[1], covariance_type, penalty)
    if len(labels) == n_init:
        return mixtures
    return mixtures[expect(x, weights, mixtures)[1].topk(n_init).indices]


def _weighted_sums(r: Tensor, x: Tensor, features: Tensor | None) -> Tensor:
    """Sums of the rows' features, weighted by each row of ``r`` (M, n): shape (M, F)."""
    if features is not None:
        return r @ features.T
    i, j = torch.triu_indices(x.shape[1], x.shape[1], device=x.device)
    second = torch.stack([((x.T * weights) @ x)[i, j] for weights in r])
    return torch.cat([r.sum(1, keepdim=True), r @ x, second], 1)


def maximize(sums: Tensor, n_dims: int, covariance_type: str, penalty: Penalty) -> Mixtures:
    """Most likely mixtures given the sums of responsibilities times features, (R, K, F)."""
    count = sums[..., :1] + 10 * torch.finfo(sums.dtype).eps
    weight = count / count.sum(1, keepdim=True)
    loc = sums[..., 1 : n_dims + 1] / count
    second = sums[..., n_dims + 1 :]
    log_weights = weight[..., 0].log()
    spread = count.shape[1] ** (-2 / n_dims)
    if covariance_type in ("diag", "spherical"):
        variance = (second / count - loc.square()).clamp_min(0)
        if covariance_type == "spherical":
            variance = variance.mean(-1, keepdim=True).expand_as(variance)
        share = penalty.rows / (count + penalty.rows)
        variance = (1 - share) * variance + share * _prior_variance(
            variance, count, weight, penalty, spread
        )
        return Mixtures(log_weights, loc, (variance + penalty.floor).sqrt())
    if covariance_type == "tied":
        within = symmetric(second.sum(1) / count.sum(1), n_dims) - (weight * loc).mT @ loc
        total = count.sum(1, keepdim=True)
        scale = _penalized_cholesky(
            within[:, None], total, torch.ones_like(total), penalty, spread
        )
        return Mixtures(log_weights, loc, scale.repeat(1, loc.shape[1], 1, 1))
    covariance = symmetric(second / count, n_dims) - loc[..., None] * loc[..., None, :]
    return Mixtures(
        log_weights, loc, _penalized_cholesky(covariance, count, weight, penalty, spread)
    )


def _prior_variance(
    variance: Tensor, count: Tensor, weight: Tensor, penalty: Penalty, spread: float
) -> Tensor:
    """Variances (R, K, D) of the imaginary rows of components with the given variances.

    ``count`` and ``weight`` are each component's number and share of rows, (R, K, 1), and
    ``spread`` is the variance of a K-th of the volume of the data.
    """
    share = penalty.rows / (count + penalty.rows)
    shared = ((1 - share) * variance + share * spread).clamp_min(_TINY).log()
    return (1 - share) * variance + share * (weight * shared).sum(1, keepdim=True).exp()


def _penalized_cholesky(
    covariance: Tensor, count: Tensor, weight: Tensor, penalty: Penalty, spread: float
) -> Tensor:
    """Cholesky factors of the penalized covariances."""
    floor = penalty.floor
    eye = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    variance = covariance.diagonal(dim1=-2, dim2=-1).clamp_min(0)
    prior = torch.diag_embed(_prior_variance(variance, count, weight, penalty, spread))
    share = (penalty.rows / (count + penalty.rows))[..., None]
    covariance = (1 - share) * covariance + share * prior
    factor, failed = torch.linalg.cholesky_ex(covariance + floor * eye)
    if not failed.any():
        return factor
    # The decomposition fails if rounding makes an eigenvalue smaller than minus the floor.
    values, vectors = torch.linalg.eigh(covariance)
    values = torch.maximum(values, 1e-12 * values[..., -1:]).clamp_min(0) + floor
    return torch.linalg.cholesky((vectors * values[..., None, :]) @ vectors.mT)


def expect(x: Tensor, weights: Tensor | None, mixtures: Mixtures) -> tuple[Tensor, Tensor]:
    """Sums of weights times responsibilities times features (R, K, F), and mean log-likelihoods (R,)."""
    n_init, k = mixtures.log_weights.shape
    scores = NormalScores(*(v.flatten(0, 1) for v in vars(mixtures).values()))
    sums = x.new_zeros(n_init * k, n_features(x.shape[1], scores.full))
    total = x.new_zeros(n_init)
    for piece, logp, features in scores.blocks(x):
        r = logp.view(n_init, k, -1)
        top = r.amax(1, keepdim=True)
        norm = r.sub_(top).exp_().sum(1, keepdim=True)
        if weights is None:
            total += (top + norm.log()).sum((1, 2))
        else:
            total += (top + norm.log())[:, 0] @ weights[piece]
            norm /= weights[piece]
        sums += _weighted_sums(r.div_(norm).view(n_init * k, -1), x[piece], features)
    return sums.view(n_init, k, -1), total / (len(x) if weights is None else weights.sum())


def fit(
    x: Tensor,
    weights: Tensor | None,
    mixtures: Mixtures,
    covariance_type: str,
    tol: float,
    max_iter: int,
    penalty: Penalty,
    deadline: float = math.inf,
) -> Fitted:
    """Run EM on each restart until it gains less than ``tol``.

    The run ends early when ``densekit.clock.now`` reaches ``deadline``, but not before one
    iteration.

    Parameters
    ----------
    x : Tensor of shape (n, D)
    weights : Tensor of shape (n,) or None
    mixtures : Mixtures
        Initial mixtures, which are changed in place.
    covariance_type : {"full", "tied", "diag", "spherical"}
    tol : float
        Smallest gain of the mean log-likelihood per iteration, in nats.
    max_iter : int
    penalty : Penalty
    deadline : float
        Time in seconds.

    Returns
    -------
    Fitted
        The best restart.

    References
    ----------
    A. P. Dempster, N. M. Laird and D. B. Rubin. Maximum Likelihood from Incomplete Data via the EM
    Algorithm. JRSS B, 1977. https://doi.org/10.1111/j.2517-6161.1977.tb01600.x
    """
    n_init = len(mixtures.loc)
    bound = x.new_full((n_init,), -torch.inf)
    n_iter = torch.zeros(n_init, dtype=torch.long, device=x.device)
    converged = torch.zeros(n_init, dtype=torch.bool, device=x.device)
    for _ in range(max_iter):
        active = (~converged).nonzero()[:, 0]
        if not len(active):
            break
        sums, loglik = expect(x, weights, mixtures[active])
        mixtures.replace(active, maximize(sums, x.shape[1], covariance_type, penalty))
        converged[active] = (loglik - bound[active]).abs() < tol
        bound[active] = loglik
        n_iter[active] += 1
        if clock.now() >= deadline:
            break
    return Fitted.best(mixtures, bound, n_iter, converged)
