"""Flows whose way back is a bracketed search: planar, radial and Sylvester."""

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from densekit import PlanarFlow, RadialFlow, SylvesterFlow

SMALL = {"hidden_sizes": (32, 32), "max_steps": 400, "random_state": 0}
LAYERS = {PlanarFlow: 8, RadialFlow: 8, SylvesterFlow: 6}
every = pytest.mark.parametrize("kind", LAYERS)


def small(kind, **options):
    return kind(**{"n_transforms": LAYERS[kind], **SMALL, **options})


def rng():
    return np.random.default_rng(0)


# Nats from the truth; how far off the width across the bend may be, which is 1.8 off without one.
@pytest.mark.parametrize(
    ("kind", "n_transforms", "gap", "off"),
    [(PlanarFlow, 16, 0.25, 0.15), (RadialFlow, 16, 0.6, 0.8), (SylvesterFlow, 8, 0.25, 0.15)],
)
def test_learns_a_bent_density_no_gaussian_can(kind, n_transforms, gap, off):
    def draw(n, seed):
        g = np.random.default_rng(seed)
        x = g.normal(size=n)
        return np.c_[x, x**2 + 0.2 * g.normal(size=n)]

    X, new = draw(3000, 1), draw(3000, 2)
    flow = small(kind, n_transforms=n_transforms).fit(X)
    truth = stats.norm.logpdf(new[:, 0]) + stats.norm.logpdf(new[:, 1], new[:, 0] ** 2, 0.2)
    gaussian = stats.multivariate_normal(X.mean(0), np.cov(X.T)).logpdf(new).mean()
    assert flow.density_kind_ == "exact"
    assert max(gaussian + 0.3, truth.mean() - gap) < flow.score(new) < truth.mean() + 0.05
    drawn = flow.sample(4000, random_state=1)
    assert np.abs((drawn[:, 1] - drawn[:, 0] ** 2).std() - 0.2) < off


@every
def test_of_one_column_integrates_to_one_and_finds_two_hills(kind):
    X = np.r_[rng().normal(-3, 0.5, 700), rng().normal(2, 1, 1300)][:, None]
    flow = small(kind, dtype="float64").fit(X)
    grid = np.linspace(-15, 15, 20001)
    density = np.exp(flow.score_samples(grid[:, None]))
    assert integrate.simpson(density, x=grid) == pytest.approx(1, abs=1e-3)
    at = np.exp(flow.score_samples(np.array([[-3.0], [-0.9], [2.0]])))
    assert at[1] < 0.3 * min(at[0], at[2])


@every
@pytest.mark.parametrize("n_columns", [1, 3])
def test_follows_its_context(kind, n_columns):
    c = rng().uniform(-2, 2, size=(2000, 1))
    X = np.tile(np.sin(2 * c), n_columns) + 0.1 * rng().normal(size=(2000, n_columns))
    flow = small(kind, n_transforms=4, hidden_sizes=(32,), max_steps=300).fit(X, context=c)
    for value in (-1.0, 0.5):
        drawn = flow.sample(500, context=np.array([[value]]), random_state=0)
        assert np.allclose(drawn.mean(0), np.sin(2 * value), atol=0.1)
        assert (drawn.std(0) < 0.25).all()
    assert flow.score(X, context=c) > flow.score(X, context=c[::-1]) + 1


@every
@pytest.mark.parametrize(("dtype", "tol"), [("float32", 1e-4), ("float64", 1e-9)])
def test_trained_undoes_its_own_samples(kind, dtype, tol):
    X = np.exp(rng().normal(size=(500, 4))) @ rng().normal(size=(4, 4))
    transform = small(kind, dtype=dtype).fit(X).module_.transform
    z = torch.randn(
        500, 4, generator=torch.Generator().manual_seed(0), dtype=getattr(torch, dtype)
    )
    torch.testing.assert_close(transform.inv(transform(z)), z, atol=tol, rtol=tol)


@every
def test_untrained_is_the_standard_normal_of_the_standardized_data(kind):
    X = 3 + 2 * rng().normal(size=(200, 3))
    flow = small(kind, max_steps=1, learning_rate=1e-12).fit(X)
    flow.module_.frame = None  # the Gaussian that it begins as
    expected = stats.norm.logpdf(X, X.mean(0), X.std(0)).sum(1)
    np.testing.assert_allclose(flow.score_samples(X), expected, atol=1e-3)


@every
def test_takes_images_and_gives_images_back(kind):
    images = rng().integers(0, 4, size=(60, 4, 4)).astype(np.uint8) * 60
    flow = small(kind, max_steps=20).fit(images)
    drawn = flow.sample(5)
    assert drawn.shape == (5, 4, 4)
    assert drawn.dtype == np.uint8
    assert flow.density_kind_ == "lower_bound"
    assert flow.base_measure_ == "counting"
    assert (flow.score_samples(images) < 0).all()


@every
def test_stays_finite_far_from_the_data(kind):
    X = rng().normal(size=(300, 3))
    flow = small(kind, max_steps=50).fit(X)
    far = np.array([[1e6, 0, 0], [0, -1e6, 0], [1e3, 1e3, -1e3], [1e15, 0.0, 0.0]])
    assert np.isfinite(flow.score_samples(far)).all()
    assert (flow.score_samples(far) < -1e4).all()


@every
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n_transforms", 0),
        ("hidden_sizes", (0,)),
        ("activation", "swish"),
    ],
)
def test_names_a_wrong_hyper_parameter(kind, field, value):
    with pytest.raises(ValueError, match=field):
        kind(**{field: value}).fit(rng().normal(size=(20, 2)))
