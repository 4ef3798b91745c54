"""A small network, subtly broken in what it says of given columns, missing cells and conditions.

Each class says what is wrong with it.
"""

from typing import Annotated

import numpy as np

from densekit import TabularAutoregressive
from densekit.params import Interval


class Small(TabularAutoregressive):
    """A small network, which has both."""

    hidden_sizes: Annotated[tuple[int, ...], Interval(ge=1)] = (16,)
    n_orders: Annotated[int, Interval(ge=1)] = 2
    max_steps: int = 300
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0


class GivenIgnored(Small):
    """A score given columns is the score of the row."""

    def score_samples(self, X, *, given=None, method="marginal", **options):
        return super().score_samples(X, method=method, **options)


class GivenNotSubtracted(Small):
    """A score given columns lacks the last of them."""

    def score_samples(self, X, *, given=None, method="marginal", **options):
        if given is not None and len(given) > 1:
            given = given[:-1]
        return super().score_samples(X, given=given, method=method, **options)


class SecondConditionIgnored(Small):
    """Draws under conditions go by the first of them, and get the others written over."""

    def sample(self, n_samples=1, *, context=None, random_state=None, **options):
        if not isinstance(context, dict) or len(context) < 2:
            return super().sample(n_samples, context=context, random_state=random_state, **options)
        (first, value), *rest = context.items()
        X = super().sample(n_samples, context={first: value}, random_state=random_state, **options)
        names = [c.name for c in self.schema_.columns]
        for name, other in rest:
            column = X[name] if hasattr(X, "columns") else X[:, names.index(name)]
            column[:] = other if np.isscalar(other) else np.clip(column, *other)
        return X


def _filled(X, centers):
    if hasattr(X, "fillna"):
        return X.fillna(centers)
    return np.where(np.isnan(X), centers, X)


class HolesFilled(Small):
    """Missing numbers are filled with the mean and scored."""

    def fit(self, X, y=None, **options):
        super().fit(X, y, **options)
        numbers = X.select_dtypes("number") if hasattr(X, "columns") else np.asarray(X)
        self.centers_ = numbers.mean() if hasattr(X, "columns") else np.nanmean(numbers, 0)
        return self

    def score_samples(self, X, **options):
        if hasattr(X, "columns") or (isinstance(X, np.ndarray) and X.dtype.kind == "f"):
            X = _filled(X, self.centers_)
        return super().score_samples(X, **options)


class HolesCount(Small):
    """Each missing cell costs a tenth of a nat."""

    def score_samples(self, X, *, return_std=False, return_info=False, **options):
        found = super().score_samples(X, return_std=return_std, return_info=return_info, **options)
        holes = np.asarray(X.isna() if hasattr(X, "isna") else X != X).sum(1)
        if isinstance(found, tuple):
            return found[0] - 0.1 * holes, *found[1:]
        return found - 0.1 * holes


class HolesDrawnBack(HolesFilled):
    """Imputed cells are the mean; scores are right."""

    def score_samples(self, X, **options):
        return Small.score_samples(self, X, **options)

    def impute(self, X, **options):
        found = super().impute(X, **options)
        if not isinstance(found, np.ndarray):
            return found
        return np.where(np.isnan(np.asarray(X, dtype=float)), self.centers_, found)


class ImputedAlone(Small):
    """Imputed cells know nothing of the row that they are in."""

    def impute(self, X, *, random_state=None, **options):
        found = super().impute(X, random_state=random_state, **options)
        if not isinstance(found, np.ndarray):
            return found
        alone = super().sample(len(X), random_state=random_state)
        return np.where(np.isnan(np.asarray(X, dtype=float)), alone, found)
