"""Gaussian against its closed form and SciPy."""

import numpy as np
import pandas as pd
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


def test_attributes_are_in_the_units_of_the_data():
    X = rows()
    est = Gaussian(shrinkage=0.0).fit(X)
    np.testing.assert_allclose(est.mean_, X.mean(0), rtol=1e-12)
    np.testing.assert_allclose(est.covariance_, np.cov(X.T, ddof=0), rtol=1e-9)
    law = stats.multivariate_normal(est.mean_, est.covariance_)
    np.testing.assert_allclose(est.score_samples(X), law.logpdf(X))


def mixed_frame():
    rng = np.random.default_rng(3)
    x = rng.normal(size=400)
    return pd.DataFrame(
        {
            "real": 1e6 + 50 * x,
            "positive": np.exp(2 + 0.1 * x),
            "integer": rng.poisson(300, 400) + 10**12,
            "level": rng.choice(["a", "b", "c"], 400),
            "same": 7.0,
            "day": pd.Timestamp("2020-03-01") + pd.to_timedelta(rng.normal(0, 99, 400), "D"),
            "spiked": np.where(rng.random(400) < 0.4, 0.0, 5 + rng.normal(size=400)),
        }
    )


def test_what_attributes_are_where_columns_are_bounded_or_have_masses():
    X = mixed_frame()
    est = Gaussian(shrinkage=0.0, support={"positive": "positive"}, random_state=0).fit(X)
    real, log, integer, level, day, indicator, spiked = est.mean_
    spread = np.sqrt(np.diag(est.covariance_))
    assert real == pytest.approx(X.real.mean(), rel=1e-9)
    assert log == pytest.approx(np.log(X.positive).mean(), rel=1e-9)
    # Integers k are k + u; a twentieth is five standard errors of the mean of 400 uniform numbers.
    assert integer - 10**12 == pytest.approx((X.integer - 10**12).mean() + 0.5, abs=0.08)
    seconds = X.day.astype("datetime64[us]").astype("int64") / 1e6
    assert day == pytest.approx(seconds.mean(), abs=1.0)
    # Codes and indicators have no units: there the marginal is standard normal.
    assert abs(level) < 0.2
    assert abs(indicator) < 0.2
    assert spread[[0, 1]] == pytest.approx([X.real.std(ddof=0), np.log(X.positive).std(ddof=0)])
    assert spread[3] == pytest.approx(1, abs=0.15)
    # The values off the atom, at which the column ends; noise of the same moments stands in on it.
    off = np.log(X.spiked[X.spiked != 0])
    assert spiked == pytest.approx(off.mean(), abs=5 * off.std() / 20)


def balanced(n_each=40, seed=4):
    """Rows of which those of each weight have the same means and deviations, and the weights."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(3, 3))
    parts = [stats.zscore(rng.normal(size=(n_each, 3)) @ mix) * [1, 5, 0.2] + 9 for _ in range(3)]
    weights = np.repeat([1, 2, 3], n_each)
    order = rng.permutation(3 * n_each)
    return np.concatenate(parts)[order], weights[order]


@pytest.mark.parametrize("make", [balanced, lambda: (rows(90), np.arange(90) % 4)])
@pytest.mark.parametrize("shrinkage", ["auto", 0.0])
def test_whole_weights_are_repeated_rows(shrinkage, make):
    X, weights = make()
    est = Gaussian(shrinkage=shrinkage, random_state=0)
    new = X[:20] + 0.1
    weighted = est.fit(X, sample_weight=weights).score_samples(new)
    again, shuffled = np.repeat(X, weights, 0), np.random.default_rng(0).permutation(weights.sum())
    np.testing.assert_allclose(weighted, est.fit(again).score_samples(new), atol=1e-6)
    np.testing.assert_allclose(weighted, est.fit(again[shuffled]).score_samples(new), atol=1e-6)
    assert np.abs(weighted - est.fit(X).score_samples(new)).max() > 1e-3


def test_weights_are_those_of_moments():
    X, weights = rows(50), np.random.default_rng(0).exponential(size=50)
    est = Gaussian(shrinkage=0.0).fit(X, sample_weight=weights)
    np.testing.assert_allclose(est.mean_, np.average(X, axis=0, weights=weights), rtol=1e-9)
    np.testing.assert_allclose(est.covariance_, np.cov(X.T, ddof=0, aweights=weights), rtol=1e-7)


def test_rows_that_are_repeated_are_held_out_together():
    """Ten copies of each row choose the shrinkage that one copy chooses."""
    X = rows(12, 8, seed=5)
    once, often = (
        Gaussian(random_state=0, atom_share=None).fit(x).shrinkage_
        for x in (X, np.repeat(X, 10, 0))
    )
    assert once == often > 1e-3
