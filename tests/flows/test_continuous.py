import numpy as np
import pytest
import torch
from scipy import integrate, stats

import densekit
from densekit.distributions.flow import FlowDistribution
from densekit.distributions.ode import HutchinsonModule
from densekit.flows.continuous import ContinuousFlow

SMALL = {"hidden_sizes": (32, 32), "n_steps": 4, "max_steps": 300, "random_state": 0}


def rng():
    return np.random.default_rng(0)


def bent(n, seed=0):
    g = np.random.default_rng(seed)
    x = g.normal(size=n)
    return np.c_[x, x**2 + 0.2 * g.normal(size=n)]


@pytest.fixture(scope="module")
def wide():
    """A fit in 70 dimensions, whose factor makes every pair of columns depend."""
    g = rng()
    X = g.normal(size=(400, 70)) + 2 * g.exponential(size=(400, 1))
    return ContinuousFlow(**SMALL | {"max_steps": 150}, dtype="float64").fit(X), X


def test_ffjord_learns_a_bent_density_no_gaussian_can():
    X, new = bent(3000), bent(3000, 1)
    flow = ContinuousFlow(**SMALL | {"max_steps": 400}).fit(X)
    truth = stats.norm.logpdf(new[:, 0]) + stats.norm.logpdf(new[:, 1], new[:, 0] ** 2, 0.2)
    assert flow.density_kind_ == "exact"
    assert truth.mean() - 0.25 < flow.score(new) < truth.mean() + 0.05
    drawn = flow.sample(4000, random_state=1)
    assert np.abs((drawn[:, 1] - drawn[:, 0] ** 2).std() - 0.2) < 0.15
    assert (flow.score_samples(new, return_std=True)[1] == 0).all()


def test_what_the_grid_hides_is_little_since_training_cannot_aim_at_it():
    flow, new = ContinuousFlow(**SMALL | {"max_steps": 200}).fit(bent(3000)), bent(1000, 1)
    claimed = flow.score_samples(new)
    flow.module_.transform.n_steps = 50
    off = claimed - flow.score_samples(new)
    assert abs(off.mean()) < 5e-3
    assert np.abs(off).mean() < 0.02


def test_ffjord_of_one_column_integrates_to_one():
    X = np.r_[rng().normal(-3, 0.5, 700), rng().normal(2, 1, 1300)][:, None]
    flow = ContinuousFlow(**SMALL, dtype="float64").fit(X)
    grid = np.linspace(-15, 15, 10001)
    density = np.exp(flow.score_samples(grid[:, None]))
    assert integrate.simpson(density, x=grid) == pytest.approx(1, abs=1e-3)
    # Two hills with a valley between them.
    at = np.exp(flow.score_samples(np.array([[-3.0], [-0.9], [2.0]])))
    assert at[1] < 0.3 * min(at[0], at[2])


@pytest.mark.parametrize("n_columns", [1, 2])
def test_ffjord_follows_its_context(n_columns):
    c = rng().uniform(-2, 2, size=(2000, 1))
    X = np.tile(np.sin(2 * c), n_columns) + 0.1 * rng().normal(size=(2000, n_columns))
    flow = ContinuousFlow(**SMALL | {"hidden_sizes": (64, 64), "max_steps": 400}).fit(X, context=c)
    for value in (-1.0, 0.5):
        drawn = flow.sample(500, context=np.array([[value]]), random_state=0)
        assert np.allclose(drawn.mean(0), np.sin(2 * value), atol=0.15)
        assert (drawn.std(0) < 0.3).all()
    assert flow.score(X, context=c) > flow.score(X, context=c[::-1]) + 1


def test_beyond_64_columns_the_score_is_an_estimate_whose_error_covers_the_exact_trace(wide):
    flow, X = wide
    assert flow.density_kind_ == "estimate"
    scores, error = flow.score_samples(X[:20], return_std=True)
    assert (error > 0).all()
    x = torch.tensor((X[:20] - X.mean(0)) / X.std(0))
    with torch.no_grad():
        exact = FlowDistribution(flow.module_.transform).log_prob(x)
        banks = [HutchinsonModule(flow.module_.transform, 16).double()() for _ in range(40)]
        runs = [bank.log_prob_and_error(x) for bank in banks]
        again = flow.module_().log_prob(x).numpy()
    np.testing.assert_allclose(scores, again - np.log(X.std(0)).sum(), atol=1e-9)
    off, errors = torch.stack([r[0] - exact for r in runs]), torch.stack([r[1] for r in runs])
    assert off.std() > 0.05
    assert (off.mean(0).abs() < 5 * off.std(0) / 40**0.5).all()
    # Rows share a bank: the share of banks that are within three errors, for the rows on average.
    assert (off.abs() < 3 * errors).double().mean() > 0.85


def test_exact_dims_says_where_estimates_begin(wide):
    _, X = wide
    few = SMALL | {"max_steps": 2}
    flow = ContinuousFlow(**few, exact_dims=70).fit(X)
    assert flow.density_kind_ == "exact"
    assert not flow.score_samples(X[:3], return_std=True)[1].any()
    assert ContinuousFlow(**few, exact_dims=1).fit(X[:, :2]).density_kind_ == "estimate"
    assert ContinuousFlow(**few).fit(X[:, :64]).density_kind_ == "exact"
    assert ContinuousFlow(**few).fit(X[:, :65]).density_kind_ == "estimate"


def test_a_row_of_70_columns_scores_the_same_alone(wide):
    flow, X = wide
    together, errors = flow.score_samples(X[:9], return_std=True)
    alone = [flow.score_samples(X[i : i + 1], return_std=True) for i in range(9)]
    np.testing.assert_allclose(together, np.concatenate([a[0] for a in alone]), rtol=1e-9)
    np.testing.assert_allclose(errors, np.concatenate([a[1] for a in alone]), rtol=1e-7)


def test_the_kind_is_that_of_the_fit_and_travels_with_the_file(wide, tmp_path):
    flow, X = wide
    flow.save(tmp_path / "flow")
    loaded = densekit.load(tmp_path / "flow")
    assert loaded.density_kind_ == "estimate"
    for one, other in zip(
        loaded.score_samples(X[:5], return_std=True),
        flow.score_samples(X[:5], return_std=True),
        strict=True,
    ):
        np.testing.assert_allclose(one, other)
    # A parameter that is set later says nothing of what was fitted.
    loaded.set_params(exact_dims=100).save(tmp_path / "flow")
    assert densekit.load(tmp_path / "flow").density_kind_ == "estimate"


def test_three_hidden_layers_learn_by_probes_beyond_the_exact_dimensions():
    settings = SMALL | {"hidden_sizes": (16, 16, 16), "max_steps": 150}
    X, new = bent(1000), bent(1000, 1)
    flow = ContinuousFlow(**settings, exact_dims=1).fit(X)
    gaussian = stats.multivariate_normal(X.mean(0), np.cov(X.T)).logpdf(new).mean()
    scores, error = flow.score_samples(new, return_std=True)
    assert flow.density_kind_ == "estimate"
    assert scores.mean() > gaussian + 0.3
    assert (error > 0).any()


def test_images_of_few_pixels_are_bounds_and_of_many_are_estimates():
    for side, kind in ((4, "lower_bound"), (9, "estimate")):
        images = rng().integers(0, 4, size=(60, side, side)).astype(np.uint8) * 60
        flow = ContinuousFlow(**SMALL | {"max_steps": 10, "n_steps": 1}).fit(images)
        assert flow.density_kind_ == kind
        assert flow.base_measure_ == "counting"
        drawn = flow.sample(5)
        assert (drawn.shape, drawn.dtype) == ((5, side, side), np.uint8)
        assert (flow.score_samples(images) < 0).all()


def test_ffjord_untrained_is_the_standard_normal_of_the_standardized_data():
    X = 3 + 2 * rng().normal(size=(200, 3))
    flow = ContinuousFlow(**SMALL | {"max_steps": 1, "learning_rate": 1e-12}).fit(X)
    flow.module_.frame = None  # the Gaussian that it begins as
    expected = stats.norm.logpdf(X, X.mean(0), X.std(0)).sum(1)
    np.testing.assert_allclose(flow.score_samples(X), expected, atol=1e-3)


def test_ffjord_stays_finite_far_from_the_data_and_learns_with_an_outlier():
    X = rng().normal(size=(300, 3))
    X[0] = 1e6
    flow = ContinuousFlow(**SMALL | {"max_steps": 50}).fit(X)
    assert np.isfinite(flow.score_samples(X)).all()
    flow = ContinuousFlow(**SMALL | {"max_steps": 50}).fit(X[1:])
    far = np.array([[1e6, 0, 0], [0, -1e6, 0], [1e3, 1e3, -1e3], [1e15, 0.0, 0.0]])
    assert np.isfinite(flow.score_samples(far)).all()
    assert (flow.score_samples(far) < -1e4).all()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n_steps", 0),
        ("exact_dims", -1),
        ("n_probes", 1),
        ("hidden_sizes", (0,)),
        ("hidden_sizes", ()),
    ],
)
def test_ffjord_names_a_wrong_hyper_parameter(field, value):
    with pytest.raises(ValueError, match=field):
        ContinuousFlow(**{field: value}).fit(rng().normal(size=(20, 2)))
