import functools

import numpy as np
import pytest
import torch
from scipy import stats

import densekit
from densekit.flows.tarflow import TarFlow

SMALL = {"n_transforms": 3, "width": 16, "n_heads": 2, "max_steps": 300, "random_state": 0}


def rng():
    return np.random.default_rng(0)


def bent(n, seed):
    g = np.random.default_rng(seed)
    x = g.normal(size=n)
    return np.c_[x, x**2 + 0.2 * g.normal(size=n)]


def test_tarflow_learns_a_bent_density_no_gaussian_can():
    X, new = bent(3000, 1), bent(3000, 2)
    flow = TarFlow(**SMALL).fit(X)
    truth = stats.norm.logpdf(new[:, 0]) + stats.norm.logpdf(new[:, 1], new[:, 0] ** 2, 0.2)
    assert flow.density_kind_ == "exact"
    assert truth.mean() - 0.35 < flow.score(new) < truth.mean() + 0.05
    drawn = flow.sample(4000, random_state=1)
    # The median of |N(0, 0.2)| is 0.135.
    assert 0.09 < np.median(np.abs(drawn[:, 1] - drawn[:, 0] ** 2)) < 0.24


def test_tarflow_of_one_column_is_a_normal_density():
    X = 5 + 3 * rng().normal(size=(500, 1))
    flow = TarFlow(**SMALL, dtype="float64").fit(X)
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
def test_tarflow_follows_its_context(n_columns):
    c = rng().uniform(-2, 2, size=(2000, 1))
    X = np.tile(np.sin(2 * c), n_columns) + 0.1 * rng().normal(size=(2000, n_columns))
    flow = TarFlow(**SMALL).fit(X, context=c)
    drawn = flow.sample(500, context=np.array([[0.5]]), random_state=0)
    assert np.allclose(drawn.mean(0), np.sin(1), atol=0.15)
    assert flow.score(X, context=c) > flow.score(X, context=c[::-1]) + 1


@functools.cache
def one_column(denoise=False):
    """Standard normal rows, of which noise of the same size leaves a normal law of variance 2."""
    X = rng().normal(size=(4000, 1))
    options = {"noise_std": 1.0, "validation_fraction": 0.0, "batch_size": 1000}
    flow = TarFlow(**SMALL | options | {"n_transforms": 2, "max_steps": 200}, denoise=denoise)
    return flow.fit((X - X.mean()) / X.std())


def test_with_noise_scores_and_draws_are_of_the_noisy_law():
    flow, x = one_column(), np.linspace(-3, 3, 13)[:, None]
    np.testing.assert_allclose(
        flow.score_samples(x), stats.norm.logpdf(x[:, 0], 0, 2**0.5), atol=0.08
    )
    assert flow.density_kind_ == "exact"
    assert flow.sample(5000, random_state=0).std() == pytest.approx(2**0.5, abs=0.1)


def test_denoised_draws_are_the_mean_of_what_made_them_and_scores_stay():
    noisy, flow = one_column(), one_column(denoise=True)
    x = np.linspace(-3, 3, 13)[:, None]
    scores, error = flow.score_samples(x, return_std=True)
    np.testing.assert_array_equal(scores, noisy.score_samples(x))
    assert flow.density_kind_ == "estimate"
    assert np.isnan(error).all()
    assert not noisy.score_samples(x, return_std=True)[1].any()
    # E[x | y] = y / 2 where both parts have variance 1.
    y, drawn = (f.sample(5000, random_state=0) for f in (noisy, flow))
    np.testing.assert_allclose(drawn, y / 2, atol=0.15)
    assert drawn.std() == pytest.approx(0.5**0.5, abs=0.05)


def test_a_denoised_flow_is_loaded_as_it_was_fitted(tmp_path):
    flow = TarFlow(**SMALL | {"max_steps": 5}, noise_std=0.1, denoise=True).fit(bent(200, 0))
    flow.set_params(denoise=False)
    flow.save(tmp_path / "flow")
    loaded = densekit.load(tmp_path / "flow")
    assert loaded.density_kind_ == "estimate"
    with pytest.warns(UserWarning, match="denoise=False was set after fit"):
        a, b = (f.sample(5, random_state=0) for f in (flow, loaded))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("shape", [(6, 6), (5, 7), (1, 3), (4, 4, 3)])
def test_tarflow_takes_images_of_any_size_and_gives_images_back(shape):
    images = rng().integers(0, 4, size=(60, *shape)).astype(np.uint8) * 60
    flow = TarFlow(**SMALL | {"max_steps": 5}).fit(images)
    drawn = flow.sample(5)
    assert drawn.shape == (5, *shape)
    assert drawn.dtype == np.uint8
    assert flow.density_kind_ == "lower_bound"
    assert flow.base_measure_ == "counting"
    assert (flow.score_samples(images) < 0).all()


def test_pixels_of_one_patch_learn_of_each_other():
    """The halves of a patch are equal, which a flow can learn only with several layers."""
    side = rng().normal(size=(2000, 4, 4))
    side[:, :, 1::2] = side[:, :, ::2] + 0.1 * rng().normal(size=(2000, 4, 2))
    images = stats.norm.cdf(side)
    one, three = (TarFlow(**SMALL | {"n_transforms": n}, patch_size=2).fit(images) for n in (1, 3))
    assert three.score(images) > one.score(images) + 1


def test_tarflow_rebuilds_from_its_weights_alone():
    flow = TarFlow(**SMALL | {"max_steps": 5}).fit(rng().normal(size=(200, 5)))
    fresh = flow._build(flow.schema_, None)
    fresh.load_state_dict(flow.module_.state_dict())
    x = torch.randn(10, 5)
    assert torch.equal(fresh().log_prob(x), flow.module_().log_prob(x))


def test_tarflow_stays_finite_far_from_the_data():
    flow = TarFlow(**SMALL | {"max_steps": 50}).fit(rng().normal(size=(300, 3)))
    far = np.array([[1e6, 0, 0], [0, -1e6, 0], [1e3, 1e3, -1e3], [1e15, 0.0, 0.0]])
    assert np.isfinite(flow.score_samples(far)).all()
    assert (flow.score_samples(far) < -1e4).all()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("patch_size", 0),
        ("n_transforms", 0),
        ("width", 10),
        ("noise_std", -1.0),
        ("denoise", True),
    ],
)
def test_tarflow_names_a_wrong_hyper_parameter(field, value):
    with pytest.raises(ValueError, match=field):
        TarFlow(**{"n_heads": 2, field: value}).fit(rng().normal(size=(20, 2)))


def test_a_density_kind_that_a_hyper_parameter_changes_is_right_after_a_warm_start():
    X = np.random.default_rng(0).normal(size=(60, 2))
    flow = TarFlow(n_transforms=1, width=8, n_heads=2, max_steps=2).fit(X)
    assert flow.density_kind_ == "exact"
    flow.set_params(noise_std=0.1, denoise=True, warm_start=True).fit(X)
    assert flow.density_kind_ == "estimate"
