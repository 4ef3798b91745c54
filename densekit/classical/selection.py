"""How many components a mixture has and how many rows it imagines, by held-out likelihood."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from densekit import clock
from densekit.classical import em
from densekit.classical.rows import mean_and_error
from densekit.distributions.mixture import NormalMixture

MOST_COMPONENTS = 64
_ROWS, _CROSSED = 20_000, 1_000
"""Rows that are looked at, and rows up to which each is held out once."""
_FOLDS = 5
_STEP, _LEAST, _MOST = 10**0.5, 0.01, 1e4
"""By how much imagined rows are multiplied at a time, and between which ends."""


@dataclass
class Settings:
    """How mixtures are fitted: number of components, EM's limits, and the penalty."""

    n_components: int
    covariance_type: str
    n_init: int
    tol: float
    max_iter: int
    penalty: em.Penalty
    deadline: float

    def run(self, x: Tensor, weights: Tensor | None) -> em.Fitted:
        """A mixture for rows (n, D) of weights (n,)."""
        n_init = self.n_init if self.n_components > 1 else 1
        start = em.start(x, weights, self.n_components, n_init, self.covariance_type, self.penalty)
        return self.go_on(x, weights, start)

    def go_on(self, x: Tensor, weights: Tensor | None, start: em.Mixtures) -> em.Fitted:
        """The same from given mixtures."""
        limits = (self.tol, self.max_iter, self.penalty, self.deadline)
        return em.fit(x, weights, start, self.covariance_type, *limits)


Part = tuple[Tensor, Tensor | None]
"""Rows (n, D) and their weights (n,)."""


@dataclass
class Trial:
    """What settings come to: the held-out rows' scores under mixtures of the others."""

    settings: Settings
    mixtures: list[em.Mixtures]
    scores: Tensor

    @classmethod
    def of(
        cls, settings: Settings, folds: list[tuple[Part, Part]], starts: "Trial | None" = None
    ) -> "Trial":
        """Fit on each fold's rest, from the mixtures of another trial if one is given."""
        mixtures, scores = [], []
        for i, (rest, (held_out, _)) in enumerate(folds):
            if starts is None:
                found = settings.run(*rest)
            else:
                start = em.Mixtures(*(v[None].clone() for v in vars(starts.mixtures[i]).values()))
                found = settings.go_on(*rest, start)
            mixture = found.mixture
            law = NormalMixture(mixture.log_weights.exp(), mixture.loc, mixture.scale)
            mixtures.append(mixture)
            scores.append(law.log_prob(held_out))
        return cls(settings, mixtures, torch.cat(scores))


def choose(
    x: Tensor, weights: Tensor | None, settings: Settings, components: bool, rows: bool
) -> Settings:
    """The settings with the number of ``components``, the imagined ``rows``, or both chosen.

    The number of components is doubled from 1 for as long as that raises the likelihood of held-out
    rows by more than its standard error. Imagined rows are multiplied or divided for as long as it
    rises at all, each time from the mixtures there are.

    Parameters
    ----------
    x : Tensor, shape (n, D)
        Distinct rows.
    weights : Tensor, shape (n,), optional
    """
    folds = _folds(x, weights)
    held_out = torch.cat([_weights(*part) for _, part in folds])
    if len(held_out) < 2:
        return replace(settings, n_components=1) if components else settings
    if not components:
        return _with_rows(settings, folds, held_out, rows).settings
    rest = min(float(_weights(*part).sum()) for part, _ in folds)
    per_column = x.shape[1] + 1 if settings.covariance_type == "full" else 2
    best, n_components = None, 1
    while n_components <= min(MOST_COMPONENTS, rest / (2 * per_column)) or n_components == 1:
        # One doubling that does not help may precede one that does; two hardly ever do.
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
    """Pairs of rows to fit and rows held out: each fifth of few rows, or one fifth of many."""
    order = torch.randperm(len(x), device=x.device)[:_ROWS]
    parts = list(order.tensor_split(_FOLDS))
    folds = []
    for i in range(_FOLDS if len(order) <= _CROSSED else 1):
        places = torch.cat(parts[:i] + parts[i + 1 :]), parts[i]
        rest, held_out = ((x[p], None if weights is None else weights[p]) for p in places)
        folds.append((rest, held_out))
    return folds


def _with_rows(
    settings: Settings, folds: list[tuple[Part, Part]], held_out: Tensor, rows: bool
) -> Trial:
    """The trial of the best number of imagined rows, or of the one there is."""

    def mean(trial: Trial) -> float:
        return mean_and_error(trial.scores, held_out)[0]

    best = Trial.of(settings, folds)
    if not rows:
        return best
    for factor in (_STEP, 1 / _STEP):
        moved, now = False, best
        while clock.now() < settings.deadline:
            penalty = replace(now.settings.penalty, rows=now.settings.penalty.rows * factor)
            if not _LEAST < penalty.rows < _MOST:
                break
            now = Trial.of(replace(now.settings, penalty=penalty), folds, now)
            if not mean(now) > mean(best):
                break
            best, moved = now, True
        if moved:
            break
    return best
