import numpy as np
import pytest
import torch
from scipy import integrate, stats

from densekit.flows.nsf import NeuralSplineFlow

SMALL = {"n_transforms": 2, "hidden_sizes": (32, 32), "max_steps": 400, "random_state": 0}


def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("coupling", [False, True])
def test_nsf_learns_a_bent_density_no_gaussian_can(coupling):
    def draw(n, seed):
        g = np.random.default_rng(seed)
        x = g.normal(size=n)
        return np.c_[x, x**2 + 0.2 * g.normal(size=n)]

    X, new = draw(3000, 1), draw(3000, 2)
    n_transforms = 4 if coupling else 2
    flow = NeuralSplineFlow(**SMALL | {"n_transforms": n_transforms}, coupling=coupling).fit(X)
    truth = stats.norm.logpdf(new[:, 0]) + stats.norm.logpdf(new[:, 1], new[:, 0] ** 2, 0.2)
    assert flow.density_kind_ == "exact"
    assert truth.mean() - 0.25 < flow.score(new) < truth.mean() + 0.05
    drawn = flow.sample(4000, random_state=1)
    assert np.abs((drawn[:, 1] - drawn[:, 0] ** 2).std() - 0.2) < 0.15


@pytest.mark.parametrize("coupling", [False, True])
def test_nsf_of_one_column_integrates_to_one(coupling):
    X = np.r_[rng().normal(-3, 0.5, 700), rng().normal(2, 1, 1300)][:, None]
    flow = NeuralSplineFlow(**SMALL, coupling=coupling, dtype="float64").fit(X)
    grid = np.linspace(-15, 15, 20001)
    density = np.exp(flow.score_samples(grid[:, None]))
    assert integrate.simpson(density, x=grid) == pytest.approx(1, abs=1e-3)
    # Two hills with a valley between them.
    at = np.exp(flow.score_samples(np.array([[-3.0], [-0.9], [2.0]])))
    assert at[1] < 0.25 * min(at[0], at[2])


@pytest.mark.parametrize("n_columns", [1, 2])
@pytest.mark.parametrize("coupling", [False, True])
def test_nsf_follows_its_context(n_columns, coupling):
    c = rng().uniform(-2, 2, size=(2000, 1))
    X = np.tile(np.sin(2 * c), n_columns) + 0.1 * rng().normal(size=(2000, n_columns))
    # Halves that vary together only find out after a while that the context improves them.
    more = {"n_transforms": 4, "hidden_sizes": (64, 64), "max_steps": 600} if coupling else {}
    flow = NeuralSplineFlow(**SMALL | more, coupling=coupling).fit(X, context=c)
    for value in (-1.0, 0.5):
        drawn = flow.sample(500, context=np.array([[value]]), random_state=0)
        assert np.allclose(drawn.mean(0), np.sin(2 * value), atol=0.1)
        assert (drawn.std(0) < 0.25).all()
    right = flow.score(X, context=c)
    assert right > flow.score(X, context=c[::-1]) + 1


def test_nsf_takes_images_and_gives_images_back():
    images = rng().integers(0, 4, size=(60, 4, 4)).astype(np.uint8) * 60
    flow = NeuralSplineFlow(**SMALL | {"max_steps": 20}).fit(images)
    drawn = flow.sample(5)
    assert drawn.shape == (5, 4, 4)
    assert drawn.dtype == np.uint8
    assert flow.density_kind_ == "lower_bound"
    assert flow.base_measure_ == "counting"
    assert (flow.score_samples(images) < 0).all()


def test_nsf_untrained_is_the_standard_normal_of_the_standardized_data():
    X = 3 + 2 * rng().normal(size=(200, 3))
    flow = NeuralSplineFlow(**SMALL | {"max_steps": 1, "learning_rate": 1e-12}).fit(X)
    flow.module_.frame = None  # the Gaussian that it begins as
    expected = stats.norm.logpdf(X, X.mean(0), X.std(0)).sum(1)
    np.testing.assert_allclose(flow.score_samples(X), expected, atol=1e-3)


def test_nsf_rebuilds_from_its_weights_alone():
    X = rng().normal(size=(200, 5))
    for coupling in (False, True):
        flow = NeuralSplineFlow(**SMALL | {"max_steps": 20}, coupling=coupling).fit(X)
        fresh = flow._build(flow.schema_, None)
        fresh.load_state_dict(flow.module_.state_dict())
        x = torch.randn(10, 5)
        assert torch.equal(fresh().log_prob(x), flow.module_().log_prob(x))


def test_nsf_stays_finite_far_from_the_data():
    X = rng().normal(size=(300, 3))
    flow = NeuralSplineFlow(**SMALL | {"max_steps": 50}).fit(X)
    far = np.array([[1e6, 0, 0], [0, -1e6, 0], [1e3, 1e3, -1e3], [1e15, 0.0, 0.0]])
    assert np.isfinite(flow.score_samples(far)).all()
    assert (flow.score_samples(far) < -1e4).all()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n_bins", 1),
        ("n_transforms", 0),
        ("hidden_sizes", (0,)),
        ("hidden_sizes", ()),
        ("tail_bound", 0.0),
        ("activation", "swish"),
    ],
)
def test_nsf_names_a_wrong_hyper_parameter(field, value):
    with pytest.raises(ValueError, match=field):
        NeuralSplineFlow(**{field: value}).fit(rng().normal(size=(20, 2)))
