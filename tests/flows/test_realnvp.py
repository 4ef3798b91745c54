import numpy as np
import pytest
import torch
from scipy import stats

from densekit.flows.realnvp import RealNVP

SMALL = {"n_transforms": 4, "hidden_sizes": (32, 32), "max_steps": 400, "random_state": 0}


def rng():
    return np.random.default_rng(0)


def test_realnvp_finds_correlated_columns_as_well_as_the_gaussian_does():
    mixing = rng().normal(size=(4, 4))
    X, new = rng().normal(size=(3000, 4)) @ mixing, np.random.default_rng(1).normal(size=(3000, 4))
    new = new @ mixing
    truth = stats.multivariate_normal(np.zeros(4), mixing.T @ mixing).logpdf(new).mean()
    flow = RealNVP(**SMALL).fit(X)
    assert flow.density_kind_ == "exact"
    assert truth - 0.2 < flow.score(new) < truth + 0.01


def test_realnvp_learns_a_bent_density():
    x = rng().normal(size=3000)
    X = np.c_[x, x**2 + 0.2 * rng().normal(size=3000)]
    flow = RealNVP(**SMALL).fit(X)
    gaussian = stats.multivariate_normal(X.mean(0), np.cov(X.T)).logpdf(X).mean()
    assert flow.score(X) > gaussian + 0.5


def test_realnvp_of_one_column_is_a_normal_density():
    X = 5 + 3 * rng().normal(size=(500, 1))
    flow = RealNVP(**SMALL, dtype="float64").fit(X)
    grid = np.linspace(-5, 15, 50)
    curve, residuals, *_ = np.polyfit(grid, flow.score_samples(grid[:, None]), 2, full=True)
    assert residuals.sum() < 1e-12
    scale = (-2 * curve[0]) ** -0.5
    loc = curve[1] * scale**2
    assert (loc, scale) == pytest.approx((X.mean(), X.std()), abs=0.5)
    np.testing.assert_allclose(
        flow.score_samples(X), stats.norm.logpdf(X[:, 0], loc, scale), atol=1e-8
    )


@pytest.mark.parametrize("n_columns", [1, 3])
def test_realnvp_follows_its_context(n_columns):
    c = rng().uniform(-2, 2, size=(2000, 1))
    X = np.tile(np.sin(2 * c), n_columns) + 0.1 * rng().normal(size=(2000, n_columns))
    flow = RealNVP(**SMALL | {"hidden_sizes": (64, 64), "max_steps": 800}).fit(X, context=c)
    drawn = flow.sample(500, context=np.array([[0.5]]), random_state=0)
    assert np.allclose(drawn.mean(0), np.sin(1), atol=0.15)
    assert flow.score(X, context=c) > flow.score(X, context=c[::-1]) + 1


def test_realnvp_rebuilds_from_its_weights_alone():
    X = rng().normal(size=(200, 5))
    flow = RealNVP(**SMALL | {"max_steps": 20}).fit(X)
    fresh = flow._build(flow.schema_, None)
    fresh.load_state_dict(flow.module_.state_dict())
    x = torch.randn(10, 5)
    assert torch.equal(fresh().log_prob(x), flow.module_().log_prob(x))


def test_realnvp_is_not_thrown_off_by_outliers():
    """A held-out row unlike all others must not cost thousands of nats."""
    X = rng().normal(size=(400, 6))
    X[:, 3:] = X[:, :3] + 0.05 * rng().normal(size=(400, 3))
    flow = RealNVP(**SMALL | {"n_transforms": 6}).fit(X)
    far = X[:50].copy()
    far[:, 0] += 6
    far[:, 3] += 6
    assert flow.score(far) > -400


def test_realnvp_names_a_wrong_hyper_parameter():
    with pytest.raises(ValueError, match="n_transforms"):
        RealNVP(n_transforms=0).fit(rng().normal(size=(20, 2)))
