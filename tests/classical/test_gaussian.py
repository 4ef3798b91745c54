"""Gaussian against its closed form and SciPy."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.datasets import load_breast_cancer

from densekit import Gaussian
from densekit.transforms import shrinkage


def rows(n=300, n_dims=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, n_dims)) @ rng.normal(size=(n_dims, n_dims)) * 5 + 100


def test_without_shrinkage_it_is_the_maximum_likelihood_estimate():
    X = rows()
    exact = stats.multivariate_normal(X.mean(0), np.cov(X.T, ddof=0)).logpdf(X)
    np.testing.assert_allclose(Gaussian(shrinkage=0.0).fit(X).score_samples(X), exact)


def test_full_shrinkage_is_independent_columns():
    X = rows()
    exact = stats.norm(X.mean(0), X.std(0)).logpdf(X).sum(1)
    np.testing.assert_allclose(Gaussian(shrinkage=1.0).fit(X).score_samples(X), exact)


def test_auto_equals_refitting_on_every_fold():
    """Five folds' moments choose the shrinkage that five refits and a grid choose."""
    Z = stats.zscore(rows(40, 8, seed=1)) + 3
    folds = np.array_split(Z, 5)

    def held_out(s):
        total = 0.0
        for i, held in enumerate(folds):
            kept = np.concatenate(folds[:i] + folds[i + 1 :])
            cov = (1 - s) * np.cov(kept.T, ddof=0) + s * np.eye(8)
            total += stats.multivariate_normal(kept.mean(0), cov).logpdf(held).sum()
        return total

    chosen = shrinkage._choose([shrinkage._moments(torch.tensor(f)) for f in folds])
    assert 1e-8 < chosen < 1
    assert held_out(chosen) == pytest.approx(max(held_out(s) for s in shrinkage._GRID), abs=1e-6)


def test_shrinkage_vanishes_with_many_rows():
    assert Gaussian(random_state=0).fit(rows(20_000)).shrinkage_ < 1e-3


@pytest.mark.parametrize("shrinkage", ["auto", 0.0])
@pytest.mark.parametrize(
    "X",
    [
        rows(10, 30),
        rows(2, 3),
        rows(50, 1),
        np.repeat(rows(50, 2), 2, axis=1),
        load_breast_cancer().data,
    ],
    ids=["n<D", "n=2", "D=1", "collinear", "breast_cancer"],
)
def test_singular_data_still_score_and_sample(X, shrinkage):
    est = Gaussian(shrinkage=shrinkage, random_state=0).fit(X)
    assert np.isfinite(est.score_samples(X)).all()
    assert np.isfinite(est.sample(20, random_state=0)).all()


def test_samples_have_the_moments():
    X = rows()
    drawn = Gaussian(shrinkage=0.0).fit(X).sample(50_000, random_state=0)
    np.testing.assert_allclose(drawn.mean(0), X.mean(0), atol=0.03 * X.std(0).max())
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(X.T), atol=0.03 * X.var(0).max())


def test_a_wrong_shrinkage_is_named():
    with pytest.raises(ValueError, match="shrinkage=2"):
        Gaussian(shrinkage=2.0).fit(rows())
    with pytest.raises(ValueError, match="did you mean 'auto'"):
        Gaussian(shrinkage="atuo").fit(rows())
