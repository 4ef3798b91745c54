"""Choice of a mixture's number of components and prior rows by held-out likelihood.

References
----------
P. Smyth. Model Selection for Probabilistic Clustering Using Cross-Validated Likelihood. Statistics and
Computing, 2000. https://doi.org/10.1023/A:1008940618127
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from densekit import clock
from densekit.classical.rows import mean_and_error
from densekit.distributions import em
from densekit.distributions.mixture import NormalMixture

MAX_COMPONENTS = 64
_MAX_ROWS, _MAX_CROSS_VALIDATED = 20_000, 1_000
"""Number of rows used, and number of rows up to which all folds are held out in turn."""
_FOLDS = 5
_STEP, _MIN_PRIOR_ROWS, _MAX_PRIOR_ROWS = 10**0.5, 0.01, 1e4
"""Factor between consecutive numbers of prior rows that are tried, and their range."""


@dataclass
class Settings:
    """Settings of a mixture fit: number of components, limits of EM, and the penalty."""

    n_components: int
    covariance_type: str
    n_init: int
    tol: float
    max_iter: int
    penalty: em.Penalty
    deadline: float

    def run(self, x: Tensor, weights: Tensor | None) -> em.Fitted:
        """Fit a mixture to rows (n, D) with weights (n,)."""
        n_init = self.n_init if self.n_components > 1 else 1
        start = em.start(x, weights, self.n_components, n_init, self.covariance_type, self.penalty)
        return self.fit_from(x, weights, start)

    def fit_from(self, x: Tensor, weights: Tensor | None, start: em.Mixtures) -> em.Fitted:
        """Fit mixtures to rows, starting from given ones."""
        limits = (self.tol, self.max_iter, self.penalty, self.deadline)
        return em.fit(x, weights, start, self.covariance_type, *limits)


Part = tuple[Tensor, Tensor | None]
"""Rows (n, D) and their weights (n,)."""


@dataclass
class Trial:
    """Held-out scores of settings.

    ``mixtures`` are fitted to the other folds, and ``scores`` are those of all held-out rows.
    """

    settings: Settings
    mixtures: list[em.Mixtures]
    scores: Tensor

    @classmethod
    def of(
        cls, settings: Settings, folds: list[tuple[Part, Part]], starts: "Trial | None" = None
    ) -> "Trial":
        """Fit to each fold's training rows, starting from the mixtures of another trial if one is
        given.
        """
        mixtures, scores = [], []
        for i, (training, (held_out, _)) in enumerate(folds):
            if starts is None:
                result = settings.run(*training)
            else:
                start = em.Mixtures(*(v[None].clone() for v in vars(starts.mixtures[i]).values()))
                result = settings.fit_from(*training, start)
            mixture = result.mixture
            distribution = NormalMixture(mixture.log_weights.exp(), mixture.loc, mixture.scale)
            mixtures.append(mixture)
            scores.append(distribution.log_prob(held_out))
        return cls(settings, mixtures, torch.cat(scores))


def choose(
    x: Tensor, weights: Tensor | None, settings: Settings, components: bool, rows: bool
) -> Settings:
    """Choose the number of components, the number of prior rows, or both.

    The number of components is doubled from 1 as long as this raises the likelihood of held-out
    rows by more than its standard error. The number of prior rows is multiplied or divided by a
    constant as long as this raises the likelihood at all; each fit starts from the mixtures of the
    one before.

    Parameters
    ----------
    x : Tensor of shape (n, D)
        Distinct rows.
    weights : Tensor of shape (n,), optional
        Their weights.
    settings : Settings
        Settings with initial values of what is chosen.
    components, rows : bool
        Whether to choose the number of components, and of prior rows.

    Returns
    -------
    Settings
    """
    folds = _folds(x, weights)
    held_out = torch.cat([_weights(*part) for _, part in folds])
    if len(held_out) < 2:
        return replace(settings, n_components=1) if components else settings
    if not components:
        return _with_rows(settings, folds, held_out, rows).settings
    n_training = min(float(_weights(*part).sum()) for part, _ in folds)
    per_column = x.shape[1] + 1 if settings.covariance_type == "full" else 2
    best, n_components = None, 1
    while n_components <= min(MAX_COMPONENTS, n_training / (2 * per_column)) or n_components == 1:
        # A doubling that does not help is sometimes followed by one that does, two hardly ever are.
        if best and n_components > 4 * best.settings.n_components:
            break
        if best and clock.now() >= settings.deadline:
            break
        trial = _with_rows(replace(settings, n_components=n_components), folds, held_out, rows)
        if best is None:
            best = trial
        else:
            gain, error = mean_and_error(trial.scores - best.scores, held_out)
            best = trial if gain > error else best
        n_components *= 2
    assert best is not None
    return best.settings


def _weights(x: Tensor, weights: Tensor | None) -> Tensor:
    return torch.ones_like(x[:, 0]) if weights is None else weights


def _folds(x: Tensor, weights: Tensor | None) -> list[tuple[Part, Part]]:
    """Pairs of training and held-out rows: one for each fold if there are few rows, else a single
    one.
    """
    order = torch.randperm(len(x), device=x.device)[:_MAX_ROWS]
    parts = list(order.tensor_split(_FOLDS))
    folds = []
    for i in range(_FOLDS if len(order) <= _MAX_CROSS_VALIDATED else 1):
        places = torch.cat(parts[:i] + parts[i + 1 :]), parts[i]
        rest, held_out = ((x[p], None if weights is None else weights[p]) for p in places)
        folds.append((rest, held_out))
    return folds


def _with_rows(
    settings: Settings, folds: list[tuple[Part, Part]], held_out: Tensor, rows: bool
) -> Trial:
    """The trial with the best number of prior rows, or with the given one unless ``rows``."""

    def mean(trial: Trial) -> float:
        return mean_and_error(trial.scores, held_out)[0]

    best = Trial.of(settings, folds)
    if not rows:
        return best
    for factor in (_STEP, 1 / _STEP):
        improved, current = False, best
        while clock.now() < settings.deadline:
            penalty = replace(
                current.settings.penalty, rows=current.settings.penalty.rows * factor
            )
            if not _MIN_PRIOR_ROWS < penalty.rows < _MAX_PRIOR_ROWS:
                break
            current = Trial.of(replace(current.settings, penalty=penalty), folds, current)
            if not mean(current) > mean(best):
                break
            best, improved = current, True
        if improved:
            break
    return best
