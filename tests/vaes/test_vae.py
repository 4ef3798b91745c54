"""VAE: consistency of Pyro programs and loss, and scores as bounds in the units of X."""

import numpy as np
import pandas as pd
import pyro
import pytest
import torch
from pyro.infer import SVI, Predictive, Trace_ELBO
from scipy import stats

from densekit import VAE, Gaussian
from densekit.datasets import load

SMALL = {"hidden_sizes": (32,), "latent_dim": 2, "random_state": 0}
COVARIANCE = np.array([[4.0, 3.0], [3.0, 9.0]])


def normal_rows(n, seed=0):
    return np.random.default_rng(seed).multivariate_normal([100.0, -5.0], COVARIANCE, n)


@pytest.fixture(scope="module")
def fitted():
    return VAE(**SMALL, max_steps=600, learning_rate=5e-3).fit(normal_rows(3000))


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    kind = rng.choice(["a", "b", "c"], 600, p=[0.6, 0.3, 0.1])
    return pd.DataFrame(
        {
            "size": rng.normal(0, 1, 600) + 10 * (kind == "a"),
            "count": rng.poisson(np.where(kind == "b", 9.0, 2.0)),
            "kind": pd.Categorical(kind),
            "grade": pd.Categorical(rng.choice(["low", "mid", "high"], 600), ordered=True),
            "flag": rng.random(600) < 0.2,
        }
    )


def pyro_bound(est, X, seed, *context):
    """Pyro's evidence lower bound, and the draws of z behind it."""
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(seed)
        loss = Trace_ELBO().loss(est.model, est.guide, X, *context)
        torch.random.default_generator.manual_seed(seed)
        z = pyro.poutine.trace(est.guide).get_trace(X, *context).nodes["z"]["value"]
    return -loss, z


def test_the_bound_of_one_draw_is_that_of_pyro(fitted):
    X = normal_rows(20, 1)
    elbo, z = pyro_bound(fitted, X, 3)
    typed, ladj = fitted.codec_.encode(X)
    module, events = fitted.module_, typed.float()
    loc, scale = module.encode(events, None)
    noise = ((z - loc) / scale)[None]
    ours = module(None).log_weights(events, noise)[0].double() + ladj
    assert elbo == pytest.approx(float(ours.sum()), rel=1e-5)


def test_the_loss_of_one_draw_is_the_mean_of_pyros(fitted):
    X = normal_rows(500, 1)
    typed, ladj = fitted.codec_.encode(X)
    est = VAE(**SMALL, n_importance_fit=1)
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        ours = [-float(est._loss(fitted.module_, typed.float(), None).mean()) for _ in range(30)]
    theirs = [pyro_bound(fitted, X, seed)[0] / len(X) - float(ladj.mean()) for seed in range(30)]
    assert np.mean(ours) == pytest.approx(np.mean(theirs), abs=0.03)


def test_the_loss_of_many_draws_is_tighter(fitted):
    events = fitted.codec_.encode(normal_rows(2000, 1))[0].float()
    losses = [
        float(VAE(n_importance_fit=k)._loss(fitted.module_, events, None).mean())
        for k in (1, 8, 64)
    ]
    assert losses[0] > losses[1] - 0.02 > losses[2] - 0.04
    score = fitted.module_(None).log_prob(events).mean().item()
    assert losses[2] == pytest.approx(-score, abs=0.05)


def test_the_programs_run_under_svi_and_leave_the_parameter_store_alone(fitted):
    X = normal_rows(50, 1)
    before = set(pyro.get_param_store())
    svi = SVI(
        fitted.model, fitted.guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO(num_particles=8)
    )
    per_row = -svi.evaluate_loss(X) / len(X)
    assert set(pyro.get_param_store()) == before
    assert per_row < fitted.score(X) + 0.05
    assert per_row == pytest.approx(fitted.score(X), abs=0.5)


def test_the_guide_needs_rows(fitted):
    with pytest.raises(ValueError, match="requires rows"):
        fitted.guide(None)


def test_many_particles_can_run_at_once(fitted):
    X = normal_rows(30, 1)
    elbo = Trace_ELBO(num_particles=500, vectorize_particles=True, max_plate_nesting=1)
    loss = elbo.loss(fitted.model, fitted.guide, X)
    one = [pyro_bound(fitted, X, seed)[0] for seed in range(100)]
    assert -loss == pytest.approx(np.mean(one), rel=0.02)


def test_the_program_draws_what_sample_draws(fitted):
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        x = Predictive(fitted.model, num_samples=3000)()["x"]
    rows = fitted.codec_.decode(x.reshape(3000, 2).double())
    drawn = fitted.sample(3000, random_state=0)
    for j in range(2):
        assert stats.ks_2samp(rows[:, j], drawn[:, j]).pvalue > 1e-3


def test_scores_are_a_tight_bound_in_the_units_of_x(fitted):
    X = normal_rows(4000, 2)
    truth = stats.multivariate_normal([100.0, -5.0], COVARIANCE).logpdf(X).mean()
    score = fitted.score(X)
    assert truth - 0.15 < score < truth + 0.02
    assert fitted.density_kind_ == "lower_bound"
    assert fitted.base_measure_ == "lebesgue"


def test_draws_have_the_moments_of_the_data(fitted):
    drawn = fitted.sample(20_000, random_state=0)
    np.testing.assert_allclose(drawn.mean(0), [100, -5], atol=0.3)
    np.testing.assert_allclose(np.cov(drawn.T), COVARIANCE, rtol=0.2)


def test_a_score_does_not_depend_on_its_batch(fitted):
    X = normal_rows(3000, 3)
    whole, error = fitted.score_samples(X, return_std=True)
    alone = np.concatenate([fitted.score_samples(X[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(whole[:5], alone, rtol=1e-5)
    np.testing.assert_array_equal(fitted.score_samples(X), whole)
    assert (error >= 0).all()
    assert error.mean() < 0.3


def test_more_draws_score_higher_and_with_a_smaller_error():
    few, many = (
        VAE(**SMALL, max_steps=100, n_importance=k).fit(normal_rows(500)) for k in (2, 512)
    )
    X = normal_rows(500, 1)
    (low, coarse), (high, fine) = (e.score_samples(X, return_std=True) for e in (few, many))
    assert low.mean() < high.mean()
    assert fine.mean() < coarse.mean()


def test_beta_is_for_training_only(fitted):
    X = normal_rows(50, 1)
    before = fitted.score_samples(X)
    fitted.beta = 7.0
    with pytest.warns(UserWarning, match=r"beta=7\.0 was set after fit"):
        np.testing.assert_array_equal(fitted.score_samples(X), before)
    fitted.beta = 1.0
    strong = VAE(**SMALL, max_steps=300, beta=50.0, n_importance_fit=1).fit(normal_rows(500))
    events = strong.codec_.encode(normal_rows(500))[0].float()
    loc, scale = strong.module_.encode(events, None)
    assert (0.5 * (loc**2 + scale**2 - 1) - scale.log()).sum(1).mean() < 0.1


def test_columns_of_every_type_come_back_and_have_a_bound(frame):
    est = VAE(**SMALL, max_steps=500, learning_rate=5e-3).fit(frame)
    assert est.base_measure_ == "product"
    drawn = est.sample(3000, random_state=0)
    assert (drawn.dtypes == frame.dtypes).all()
    assert (drawn["kind"] == "a").mean() == pytest.approx(0.6, abs=0.08)
    assert drawn["flag"].mean() == pytest.approx(0.2, abs=0.06)
    assert drawn.loc[drawn["kind"] == "a", "size"].mean() == pytest.approx(10, abs=1.5)
    assert drawn.loc[drawn["kind"] == "b", "count"].mean() == pytest.approx(9, abs=1.5)
    elbo, _ = pyro_bound(est, frame, 0)
    assert elbo / len(frame) < est.score(frame)


def test_masses_of_discrete_rows_sum_to_one():
    rng = np.random.default_rng(0)
    X = pd.DataFrame(
        {
            "a": pd.Categorical(rng.choice(list("xyz"), 500, p=[0.5, 0.3, 0.2])),
            "b": pd.Categorical(rng.choice([1, 2, 3, 4], 500), ordered=True),
            "c": rng.random(500) < 0.3,
        }
    )
    est = VAE(**SMALL, max_steps=200, n_importance=512).fit(X)
    grid = X.drop_duplicates()
    assert len(grid) == 24
    assert est.base_measure_ == "counting"
    assert np.exp(est.score_samples(grid)).sum() == pytest.approx(1, abs=0.03)


def test_pixels_have_masses_and_images_come_back():
    rng = np.random.default_rng(0)
    X = (np.clip(rng.normal(6, 4, (300, 1, 1)) + rng.normal(0, 1, (300, 4, 4)), 0, 16)).astype(
        np.uint8
    )
    est = VAE(**SMALL, max_steps=500, learning_rate=5e-3).fit(X)
    drawn = est.sample(500, random_state=0)
    assert drawn.shape == (500, 4, 4)
    assert drawn.dtype == np.uint8
    assert est.base_measure_ == "counting"
    assert drawn.mean() == pytest.approx(X.mean(), abs=1.0)
    # Pixels of one image move together; independent ones would vary a quarter as much on average.
    assert drawn.mean((1, 2)).std() > 0.7 * X.mean((1, 2)).std()
    assert est.score(X) > -16 * np.log(16)


def test_a_context_conditions_encoder_and_decoder():
    rng = np.random.default_rng(0)
    c = rng.normal(size=(2000, 1))
    X = 3 * c + 0.5 * rng.normal(size=(2000, 1))
    est = VAE(**SMALL, max_steps=500, learning_rate=5e-3).fit(X, context=c)
    for given in (-1.0, 1.5):
        drawn = est.sample(1000, context=[[given]], random_state=0)
        assert drawn.mean() == pytest.approx(3 * given, abs=0.25)
        assert drawn.std() == pytest.approx(0.5, abs=0.2)
    truth = stats.norm(3 * c, 0.5).logpdf(X).mean()
    score = est.score(X, context=c)
    assert truth - 0.2 < score < truth + 0.05
    elbo, _ = pyro_bound(est, X, 0, c)
    assert elbo / len(X) == pytest.approx(score, abs=0.4)
    with torch.random.fork_rng():
        assert est.model(context=c[:7]).shape == (7, 1)
    here, there = torch.zeros(1, 1), torch.ones(1, 1)
    assert not torch.equal(*(est.module_.encode(here, given)[0] for given in (here, there)))
    assert not torch.equal(*(est.module_.decode(torch.zeros(1, 2), g).loc for g in (here, there)))


def test_scores_and_draws_survive_scale_and_offset():
    X = normal_rows(400)
    moved = 1e-9 * X + 1e5 * np.array([0.0, 1e-12])
    a, b = (VAE(**SMALL, max_steps=50).fit(x) for x in (X, moved))
    shift = 2 * np.log(1e-9)
    np.testing.assert_allclose(b.score_samples(moved), a.score_samples(X) - shift, rtol=1e-3)


def test_a_hundred_rows_are_enough_for_a_bound_near_the_gaussian():
    est = VAE(random_state=0, max_steps=400).fit(normal_rows(100))
    X = normal_rows(1000, 1)
    assert est.score(X) > Gaussian().fit(normal_rows(100)).score(X) - 0.4


@pytest.mark.slow
def test_breast_cancer_beats_a_gaussian_on_held_out_rows():
    data = load("breast_cancer")
    est = VAE(random_state=0).fit(data.train)
    assert est.score(data.test) > Gaussian().fit(data.train).score(data.test) + 5
