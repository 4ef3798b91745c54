"""Angles in a neural spline flow."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from densekit import Gaussian, NeuralSplineFlow, load
from densekit.codecs import TableCodec

TURN = 2 * np.pi
CIRCLE = ("circle", 0.0, TURN)
SMALL = {"hidden_sizes": (32, 32), "random_state": 0, "device": "cpu"}


def torus(n, seed):
    """Angles with mass on the seam, the second of which follows twice the first."""
    g = np.random.default_rng(seed)
    a = g.vonmises(0.1, 2.0, n)
    b = 2 * a + g.vonmises(0.0, 4.0, n)
    law = stats.vonmises.logpdf(a, 2.0, loc=0.1) + stats.vonmises.logpdf(b, 4.0, loc=2 * a)
    return np.mod(np.c_[a, b], TURN), law.mean()


@pytest.fixture(scope="module", params=[False, True], ids=["autoregressive", "coupling"])
def on_torus(request):
    X, _ = torus(3000, 0)
    steps = {"n_transforms": 4, "max_steps": 500} if request.param else {"max_steps": 300}
    more = {"n_transforms": 2} | steps | {"coupling": request.param, "dtype": "float64"}
    return NeuralSplineFlow(support=CIRCLE, **SMALL | more).fit(X)


def test_the_torus_is_learned_with_its_dependence(on_torus):
    X, truth = torus(3000, 1)
    assert truth - 0.12 < on_torus.score(X) < truth + 0.03
    drawn = on_torus.sample(4000, random_state=0)
    assert ((drawn >= 0) & (drawn < TURN)).all()
    together = np.exp(1j * (drawn[:, 1] - 2 * drawn[:, 0])).mean()
    assert abs(together) == pytest.approx(stats.vonmises(4.0).expect(np.cos), abs=0.06)


def test_the_density_on_the_torus_integrates_to_one(on_torus):
    # The rectangle rule on a full turn, which no seam disturbs.
    grid = (np.arange(200) + 0.5) / 200 * TURN
    X = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)
    mass = np.exp(on_torus.score_samples(X)).sum() * (TURN / 200) ** 2
    assert mass == pytest.approx(1, abs=2e-3)


def test_density_and_slope_go_on_over_the_seam(on_torus):
    other = np.linspace(0.3, 6.0, 7)
    for column in (0, 1):

        def at(place, column=column):
            X = np.c_[other, other]
            X[:, column] = place
            return on_torus.score_samples(X)

        assert np.allclose(at(0.0), at(TURN), atol=1e-9)
        assert np.allclose(at(1e-7), at(TURN - 1e-7), atol=1e-4)
        step = 1e-5
        before = (at(TURN - step) - at(TURN - 2 * step)) / step
        after = (at(2 * step) - at(step)) / step
        assert np.abs(before).max() > 1
        assert np.allclose(before, after, atol=0.02)


def test_one_angle_is_learned_to_a_hundredth_of_a_nat():
    law = stats.vonmises(3.0, loc=0.1)
    X, new = (np.mod(law.rvs((3000, 1), random_state=s), TURN) for s in (0, 1))
    flow = NeuralSplineFlow(n_transforms=2, max_steps=300, support=CIRCLE, **SMALL).fit(X)
    assert law.logpdf(new).mean() - flow.score(new) < 0.015
    grid = (np.arange(2000) + 0.5) / 2000 * TURN
    mass = np.exp(flow.score_samples(grid[:, None]).astype(float)).sum() * TURN / 2000
    assert mass == pytest.approx(1, abs=1e-3)


def frame(n, seed):
    g = np.random.default_rng(seed)
    hour = np.mod(g.normal(0.0, 3.0, n), 24)
    load_ = 100 + 10 * np.cos(hour / 24 * TURN) + g.normal(size=n)
    return pd.DataFrame(
        {"load": load_, "hour": hour.astype(np.float32), "other": g.normal(size=n)}
    )


@pytest.mark.parametrize("coupling", [False, True])
def test_angles_and_numbers_mix(coupling, tmp_path):
    support = {"hour": ("circle", 0, 24)}
    more = {"n_transforms": 4, "max_steps": 400, "coupling": coupling}
    flow = NeuralSplineFlow(support=support, **SMALL | more).fit(frame(3000, 0))
    new = frame(2000, 1)
    hours = stats.norm.pdf(new.hour, [[-24], [0], [24]], 3).sum(0)
    loads = stats.norm.logpdf(new.load, 100 + 10 * np.cos(new.hour / 24 * TURN))
    truth = (np.log(hours) + loads + stats.norm.logpdf(new.other)).mean()
    assert truth - 0.15 < flow.score(new) < truth + 0.05
    ends = pd.concat([new[:5].assign(hour=np.float32(hour)) for hour in (0, 24)])
    first, last = flow.score_samples(ends).reshape(2, 5)
    assert np.allclose(first, last, atol=1e-4)
    drawn = flow.sample(4000, random_state=0)
    assert drawn.hour.dtype == np.float32
    assert drawn.hour.between(0, 24, inclusive="left").all()
    assert (drawn.load - 100 - 10 * np.cos(drawn.hour / 24 * TURN)).std() == pytest.approx(
        1, abs=0.35
    )
    flow.save(tmp_path / "hours")
    assert np.array_equal(load(tmp_path / "hours").score_samples(new), flow.score_samples(new))


def test_untrained_it_is_uniform_where_angles_are():
    X = np.random.default_rng(0).uniform(0, TURN, size=(500, 2))
    few = {"n_transforms": 2, "max_steps": 1, "learning_rate": 1e-12}
    flow = NeuralSplineFlow(support=CIRCLE, **SMALL | few).fit(X)
    assert np.allclose(flow.score_samples(X), -2 * np.log(TURN), atol=1e-3)


def test_an_angle_follows_its_context():
    g = np.random.default_rng(0)
    c = g.uniform(-3, 3, size=(3000, 1))
    X = np.mod(c + 0.2 * g.normal(size=(3000, 1)), TURN)
    flow = NeuralSplineFlow(n_transforms=2, max_steps=400, support=CIRCLE, **SMALL).fit(
        X, context=c
    )
    for value in (-1.5, 0.0, 1.5):
        drawn = flow.sample(500, context=[[value]], random_state=0)
        assert np.abs(np.exp(1j * (drawn - value)).mean()) > 0.9
        assert np.abs(np.angle(np.exp(1j * (drawn - value)).mean())) < 0.2


def test_matrices_leave_angles_out():
    g = np.random.default_rng(0)
    X = np.column_stack([g.normal(size=(300, 2)) @ [[1, 1], [0, 0.1]], g.uniform(0, TURN, 300)])
    settings = SMALL | {"validation_fraction": 0.0}  # the last weights, and not the best
    flow = NeuralSplineFlow(linear=True, support={2: ("circle", 0, TURN)}, **settings).fit(X)
    seam = (
        np.column_stack([X[:5, :2], np.zeros(5)]),
        np.column_stack([X[:5, :2], np.full(5, TURN)]),
    )
    assert np.allclose(*(flow.score_samples(rows) for rows in seam), atol=1e-4)
    matrix = flow.module_.transform.transforms[1]
    assert matrix.log_diagonal.abs().max() > 0
    columns = torch.randn(3, 7)
    moved, _ = matrix.to_noise(columns)
    assert torch.equal(moved[2], columns[2])
    assert not torch.allclose(moved[:2], columns[:2])


def test_a_value_off_the_circle_is_outside_and_other_models_see_an_interval():
    X = np.random.default_rng(0).uniform(0, 1, size=(200, 2))
    with pytest.raises(ValueError, match=r"take whole turns off first, as low \+ np.mod"):
        Gaussian(support=("circle", 0, 1)).fit(X + 0.5)
    circle, interval = (
        Gaussian(support=(word, 0, 1), random_state=0).fit(X) for word in ("circle", "interval")
    )
    assert np.array_equal(circle.score_samples(X), interval.score_samples(X))
    assert np.isneginf(circle.score_samples([[1.5, 0.5], [0.5, -0.1]])).all()
    assert circle.score_samples([[1.0, 0.5]]) == circle.score_samples([[0.0, 0.5]])


@pytest.mark.parametrize(("low", "high"), [(-np.pi, np.pi), (0.0, TURN), (-180.0, 180.0)])
def test_rounded_draws_stay_on_the_circle(low, high):
    X = np.linspace(low * 0.99, high * 0.99, 50, dtype=np.float32)[:, None]
    codec = TableCodec(support=("circle", low, high)).fit(X)
    drawn = codec.decode(torch.linspace(-9, 9, 1001, dtype=torch.float64)[:, None])
    assert drawn.dtype == np.float32
    assert ((drawn.astype(float) >= low) & (drawn.astype(float) < high)).all()


def test_many_features_are_mixed_where_it_is_asked_for():
    X = np.random.default_rng(0).normal(size=(40, 101))
    few = {"n_transforms": 1, "hidden_sizes": (4,), "max_steps": 1, "device": "cpu"}
    parts = [
        len(NeuralSplineFlow(linear=k, **few).fit(X).module_.transform.transforms)
        for k in (None, True)
    ]
    assert parts == [1, 2]
    assert len(NeuralSplineFlow(**few).fit(X[:, :100]).module_.transform.transforms) == 2
