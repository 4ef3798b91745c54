"""MAF and IAF: the formula by hand, mutual inverses, and fits."""

import numpy as np
import pytest
import torch
from scipy import stats

from densekit.flows.maf import MaskedAutoregressiveFlow

SMALL = {"n_transforms": 4, "hidden_sizes": (32, 32), "max_steps": 400, "random_state": 0}
DIRECTIONS = ("density", "sample")


def bent(n, seed):
    g = np.random.default_rng(seed)
    x = g.normal(size=n)
    return np.c_[x, x**2 + 0.3 * g.normal(size=n)]


def shaken(direction, n_features=3):
    """A flow whose weights are not those of the identity, in float64."""
    X = np.random.default_rng(0).normal(size=(100, n_features))
    flow = MaskedAutoregressiveFlow(
        direction=direction, dtype="float64", **SMALL | {"max_steps": 1, "n_transforms": 2}
    )
    module = flow.fit(X).module_.requires_grad_(False)
    torch.manual_seed(1)
    for weight in module.parameters():
        weight.copy_(0.4 * torch.randn_like(weight))
    return module.transform


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_bent_density_is_learned(direction):
    X, new = bent(3000, 1), bent(2000, 2)
    flow = MaskedAutoregressiveFlow(direction=direction, **SMALL).fit(X)
    truth = stats.norm.logpdf(new[:, 0]) + stats.norm.logpdf(new[:, 1], new[:, 0] ** 2, 0.3)
    assert truth.mean() - 0.35 < flow.score(new) < truth.mean() + 0.05
    assert flow.density_kind_ == "exact"


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_one_layer_is_the_formula(direction):
    layer = shaken(direction).transforms[0]
    inner = layer if direction == "density" else layer.transform
    torch.manual_seed(0)
    given = torch.randn(3, 5, dtype=torch.float64)
    raw = inner.net(given)
    a, b = torch.tanh(raw[0]), raw[1]
    one_pass = layer.to_noise if direction == "density" else layer.to_data
    got, ladj = one_pass(given)
    torch.testing.assert_close(got, given * a.exp() + b)
    torch.testing.assert_close(ladj, a.sum(0))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_one_pass_way_depends_on_features_before_only(direction):
    transform = shaken(direction).transforms[0]
    way = transform.to_noise if direction == "density" else transform.to_data
    x = torch.randn(3, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: way(x[:, None])[0][:, 0], x)
    assert torch.equal(jacobian, jacobian.tril())
    _, ladj = way(x[:, None])
    torch.testing.assert_close(torch.linalg.slogdet(jacobian)[1], ladj[0])


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("n_features", [1, 2, 7])
def test_there_and_back(direction, n_features):
    transform = shaken(direction, n_features)
    x = torch.randn(n_features, 200, dtype=torch.float64) * torch.logspace(-3, 6, 200)
    z, ladj = transform.to_noise(x)
    back, ladj_back = transform.to_data(z)
    assert ((back - x).abs() / (1 + x.abs().amax(0))).max() < 1e-10
    torch.testing.assert_close(ladj_back, -ladj)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_untrained_it_is_the_normal_of_the_data(direction):
    X = 3 + 2 * np.random.default_rng(0).normal(size=(200, 2)) @ [[1.0, 0.9], [0.0, 0.4]]
    changes = {"max_steps": 1, "learning_rate": 1e-12, "validation_fraction": 0.0}
    flow = MaskedAutoregressiveFlow(direction=direction, **SMALL | changes).fit(X)
    # Of its shrinkage no more than that it shrinks: the folds that choose it are drawn by the fit.
    scale, color = X.std(0), flow.module_.frame.color.double().numpy()
    shrinkage = 1 - (color @ color)[0, 1] / np.corrcoef(X.T)[0, 1]
    assert 0 <= shrinkage < 0.1
    covariance = (1 - shrinkage) * np.cov(X.T, ddof=0) + shrinkage * np.diag(scale**2)
    expected = stats.multivariate_normal(X.mean(0), covariance).logpdf(X)
    np.testing.assert_allclose(flow.score_samples(X), expected, atol=1e-3)


def test_a_wrong_direction_is_named():
    with pytest.raises(ValueError, match="direction"):
        MaskedAutoregressiveFlow(direction="forward").fit(bent(20, 0))
