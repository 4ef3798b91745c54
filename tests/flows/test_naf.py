import numpy as np
import pytest
import torch
from scipy import integrate, stats

from densekit.flows.naf import NeuralAutoregressiveFlow

SMALL = {"n_transforms": 2, "hidden_sizes": (32, 32), "max_steps": 400, "random_state": 0}


def rng():
    return np.random.default_rng(0)


def test_naf_learns_a_bent_density_no_gaussian_can():
    def draw(n, seed):
        g = np.random.default_rng(seed)
        x = g.normal(size=n)
        return np.c_[x, x**2 + 0.2 * g.normal(size=n)]

    X, new = draw(3000, 1), draw(3000, 2)
    flow = NeuralAutoregressiveFlow(**SMALL).fit(X)
    truth = stats.norm.logpdf(new[:, 0]) + stats.norm.logpdf(new[:, 1], new[:, 0] ** 2, 0.2)
    assert flow.density_kind_ == "exact"
    assert truth.mean() - 0.25 < flow.score(new) < truth.mean() + 0.05
    drawn = flow.sample(2000, random_state=1)
    assert np.abs((drawn[:, 1] - drawn[:, 0] ** 2).std() - 0.2) < 0.15


def test_naf_of_one_column_integrates_to_one_and_has_two_hills():
    X = np.r_[rng().normal(-3, 0.5, 700), rng().normal(2, 1, 1300)][:, None]
    flow = NeuralAutoregressiveFlow(**SMALL, dtype="float64").fit(X)
    grid = np.linspace(-15, 15, 20001)
    density = np.exp(flow.score_samples(grid[:, None]))
    assert integrate.simpson(density, x=grid) == pytest.approx(1, abs=1e-4)
    at = np.exp(flow.score_samples(np.array([[-3.0], [-0.9], [2.0]])))
    assert at[1] < 0.25 * min(at[0], at[2])


@pytest.mark.parametrize("n_columns", [1, 2])
def test_naf_follows_its_context(n_columns):
    c = rng().uniform(-2, 2, size=(2000, 1))
    X = np.tile(np.sin(2 * c), n_columns) + 0.1 * rng().normal(size=(2000, n_columns))
    # Columns that vary together only find out after a while that the context improves them.
    more = {"max_steps": 800} if n_columns > 1 else {}
    flow = NeuralAutoregressiveFlow(**SMALL | more).fit(X, context=c)
    for value in (-1.0, 0.5):
        drawn = flow.sample(500, context=np.array([[value]]), random_state=0)
        assert np.allclose(drawn.mean(0), np.sin(2 * value), atol=0.1)
        assert (drawn.std(0) < 0.25).all()
    assert flow.score(X, context=c) > flow.score(X, context=c[::-1]) + 1


def test_naf_untrained_is_the_standard_normal_of_the_standardized_data():
    X = 3 + 2 * rng().normal(size=(200, 3))
    flow = NeuralAutoregressiveFlow(**SMALL | {"max_steps": 1, "learning_rate": 1e-12}).fit(X)
    flow.module_.frame = None  # the Gaussian that it begins as
    expected = stats.norm.logpdf(X, X.mean(0), X.std(0)).sum(1)
    np.testing.assert_allclose(flow.score_samples(X), expected, atol=1e-3)


def test_naf_draws_are_where_their_noise_is():
    """Data to noise and back through all layers, with learned weights, in float64."""
    X = rng().standard_t(3, size=(500, 4))
    flow = NeuralAutoregressiveFlow(**SMALL | {"max_steps": 100}, dtype="float64").fit(X)
    transform = flow.module_.transform
    z = torch.randn(4, 200, dtype=torch.float64)
    x, ladj = transform.to_data(z)
    back, back_ladj = transform.to_noise(x)
    torch.testing.assert_close(back, z, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(back_ladj, -ladj, atol=1e-9, rtol=1e-9)


def test_naf_rebuilds_from_its_weights_alone():
    X = rng().normal(size=(200, 5))
    flow = NeuralAutoregressiveFlow(**SMALL | {"max_steps": 20}).fit(X)
    fresh = flow._build(flow.schema_, None)
    fresh.load_state_dict(flow.module_.state_dict())
    x = torch.randn(10, 5)
    assert torch.equal(fresh().log_prob(x), flow.module_().log_prob(x))


def test_naf_stays_finite_far_from_the_data():
    X = rng().normal(size=(300, 3))
    flow = NeuralAutoregressiveFlow(**SMALL | {"max_steps": 50}).fit(X)
    far = np.array([[1e6, 0, 0], [0, -1e6, 0], [1e3, 1e3, -1e3], [1e15, 0.0, 0.0]])
    assert np.isfinite(flow.score_samples(far)).all()
    assert (flow.score_samples(far) < -1e4).all()


@pytest.mark.parametrize(
    ("field", "value"),
    [("n_bins", 0), ("n_transforms", 0), ("hidden_sizes", ()), ("activation", "swish")],
)
def test_naf_names_a_wrong_hyper_parameter(field, value):
    with pytest.raises(ValueError, match=field):
        NeuralAutoregressiveFlow(**{field: value}).fit(rng().normal(size=(20, 2)))
