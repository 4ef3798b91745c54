"""Parameters that are set after ``fit``: those of drawing and scoring act, the others are warned of."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

import densekit
from densekit import (
    VAE,
    ContinuousFlow,
    Gaussian,
    GaussianMixture,
    KernelDensity,
    MaskedDiffusion,
    NoiseConditionalScore,
    RealNVP,
    Seq2Seq,
    TabularAutoregressive,
    TarFlow,
)

SMALL = {"hidden_sizes": (8,), "max_steps": 5, "random_state": 0, "device": "cpu"}
X = np.random.default_rng(0).normal(size=(80, 6)) @ np.random.default_rng(1).normal(size=(6, 6))


def outcome(est, rows):
    scores = est.score_samples(rows, return_std=True) if hasattr(est, "score_samples") else ()
    return [*map(np.asarray, scores), np.asarray(est.sample(6, random_state=3))]


def agree(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def title(value):
    return getattr(value, "__name__", str(value))


AT_ONCE = [
    (NoiseConditionalScore, {}, {"sampler": "ode"}),
    (NoiseConditionalScore, {}, {"n_levels": 12}),
    (NoiseConditionalScore, {}, {"n_langevin_steps": 1}),
    (NoiseConditionalScore, {}, {"step_size": 0.1}),
    (NoiseConditionalScore, {}, {"predictor": False}),
    (NoiseConditionalScore, {}, {"n_ode_steps": 10}),
    (NoiseConditionalScore, {"n_probes": 4}, {"n_probes": 2}),
    (NoiseConditionalScore, {"n_probes": 3}, {"n_probes": 5}),
    (VAE, {"n_importance": 8}, {"n_importance": 5}),
    (VAE, {"n_importance": 8}, {"n_importance": 20}),
    (ContinuousFlow, {"n_steps": 4, "validation_fraction": 0.0}, {"n_steps": 2}),
    (
        ContinuousFlow,
        {"exact_dims": 2, "n_probes": 4, "validation_fraction": 0.0},
        {"n_probes": 3},
    ),
    (
        ContinuousFlow,
        {"exact_dims": 2, "n_probes": 4, "validation_fraction": 0.0},
        {"n_probes": 9},
    ),
    (TabularAutoregressive, {"n_orders": 3}, {"n_orders": 2}),
    (TabularAutoregressive, {"n_orders": 3}, {"n_orders": 5}),
]


@pytest.mark.parametrize(("kind", "built", "new"), AT_ONCE, ids=title)
def test_a_parameter_of_drawing_or_scoring_acts_at_once_and_travels(kind, built, new, tmp_path):
    est = kind(**SMALL, **built).fit(X)
    before = outcome(est, X[:4])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        after = outcome(est.set_params(**new), X[:4])
        assert not agree(before, after)
        assert agree(after, outcome(est, X[:4]))
        est.save(tmp_path / "file")
        for copied in (pickle.loads(pickle.dumps(est)), densekit.load(tmp_path / "file")):
            assert agree(after, outcome(copied, X[:4]))
        (name,) = new
        est.set_params(**{name: getattr(kind(**built), name)})
        assert agree(before, outcome(est, X[:4]))


@pytest.mark.parametrize("new", [{"n_draws": 6}, {"n_draws": 40}, {"n_steps": 1}])
def test_draws_of_masked_diffusion_act_at_once(new):
    rows = ["abab", "ba", "abba", "b"] * 10
    small = {"width": 8, "n_layers": 1, "n_heads": 2, "max_steps": 5, "n_draws": 16}
    est = MaskedDiffusion(**small, random_state=0).fit(rows)
    before = outcome(est, rows[:3])
    after = outcome(est.set_params(**new), rows[:3])
    assert not agree(before, after)
    assert agree(after, outcome(pickle.loads(pickle.dumps(est)), rows[:3]))


def test_another_sampler_draws_what_it_would_have_drawn():
    """Of one fitted network: the parameters of the schedule are not among its weights."""
    ode = NoiseConditionalScore(**SMALL, sampler="ode").fit(X)
    langevin = NoiseConditionalScore(**SMALL).fit(X)
    expected = ode.sample(5, random_state=1)
    assert not np.array_equal(langevin.sample(5, random_state=1), expected)
    langevin.set_params(sampler="ode")
    np.testing.assert_array_equal(langevin.sample(5, random_state=1), expected)


def test_more_probes_are_a_frame_and_all_of_them_are_exact():
    est = NoiseConditionalScore(**SMALL, n_probes=2).fit(X)
    module = est.module_
    for k in (1, 2, 4, 6, 99):
        frame = module(None, n_probes=k).probes
        assert frame.shape == (min(k, 6), 6)
        torch.testing.assert_close(frame @ frame.T, torch.eye(len(frame)), atol=1e-5, rtol=0)
    torch.testing.assert_close(module(None, n_probes=6).probes[:2], module.probes)
    few = est.score_samples(X, return_std=True)
    every = est.set_params(n_probes=6).score_samples(X, return_std=True)
    assert (every[1] <= few[1] + 1e-6).all()


def test_more_draws_make_a_tighter_bound():
    est = VAE(**SMALL, n_importance=2).fit(X)
    first = est.score_samples(X)
    assert est.set_params(n_importance=500).score_samples(X).mean() > first.mean()


WAIT = [
    (RealNVP, {}, {"hidden_sizes": (4, 4)}),
    (RealNVP, {}, {"dtype": "float64"}),
    (RealNVP, {}, {"support": "real"}),
    (VAE, {}, {"latent_dim": 1}),
    (VAE, {}, {"beta": 0.5}),
    (ContinuousFlow, {}, {"exact_dims": 2}),
    (NoiseConditionalScore, {}, {"sigma_max": 30.0}),
    (TarFlow, {"width": 8, "noise_std": 0.1}, {"denoise": True}),
    (KernelDensity, {}, {"kernel": "tophat"}),
    (KernelDensity, {}, {"bandwidth": 0.9}),
    (GaussianMixture, {"n_components": 2}, {"covariance_type": "spherical"}),
    (GaussianMixture, {"n_components": 2}, {"n_components": 3}),
    (Gaussian, {}, {"shrinkage": 0.5}),
]


@pytest.mark.parametrize(("kind", "built", "new"), WAIT, ids=title)
def test_a_parameter_of_building_waits_for_a_fit_and_says_so(kind, built, new, tmp_path):
    small = {k: v for k, v in SMALL.items() if k in kind._names() and k not in new}
    est = kind(**small, **built).fit(X)
    before = outcome(est, X[:4])
    est.set_params(**new)
    (name,) = new
    pattern = rf"{name}=.* was set after fit.*call fit again"
    for use in (
        lambda: est.score_samples(X[:4]),
        lambda: est.score(X[:4]),
        lambda: est.sample(2, random_state=0),
        lambda: est.distribution_,
    ):
        with pytest.warns(UserWarning, match=pattern) as caught:
            use()
        assert len(caught) == 1
    with pytest.warns(UserWarning, match=pattern):
        assert agree(before, outcome(est, X[:4]))
    est.save(tmp_path / "file")
    again = densekit.load(tmp_path / "file")
    with pytest.warns(UserWarning, match=pattern):
        assert agree(before, outcome(again, X[:4]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        est.set_params(**{name: getattr(kind(**small, **built), name)})
        assert agree(before, outcome(est, X[:4]))
        est.set_params(**new).fit(X)
        outcome(est, X[:4])


def test_parameters_of_training_wait_silently():
    est = RealNVP(**SMALL).fit(X)
    before = outcome(est, X[:4])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        est.set_params(max_steps=50, learning_rate=1.0, batch_size=2, random_state=7, verbose=True)
        assert agree(before, outcome(est, X[:4]))


def test_other_ways_to_use_a_model_warn_too():
    frame = pd.DataFrame(X, columns=list("abcdef"))
    table = TabularAutoregressive(**SMALL).fit(frame).set_params(min_scale=0.1)
    holes = frame[:3].copy()
    holes.iloc[0, 0] = np.nan
    for use in (
        lambda: table.impute(holes, random_state=0),
        lambda: table.sample(2, context={"a": float(frame["a"][0])}, random_state=0),
        lambda: table.score_samples(frame[:3], given=["a"]),
    ):
        with pytest.warns(UserWarning, match=r"min_scale=0\.1 was set after fit"):
            use()
    words = {"width": 8, "n_layers": 1, "n_heads": 2, "max_steps": 3}
    writer = Seq2Seq(**words).fit(["a", "b"] * 9, context=["x", "y"] * 9).set_params(width=16)
    with pytest.warns(UserWarning, match="width=16 was set after fit"):
        writer.decode(["x"])
    vae = VAE(**SMALL).fit(X).set_params(latent_dim=1)
    with pytest.warns(UserWarning, match="latent_dim=1 was set after fit"):
        vae.guide(X[:3])


def test_a_mapping_that_is_written_to_after_fit_is_seen():
    kinds = {"a": "real"}
    frame = pd.DataFrame(X, columns=list("abcdef"))
    est = Gaussian(kinds=kinds).fit(frame)
    kinds["b"] = "real"
    with pytest.warns(UserWarning, match="kinds="):
        est.score_samples(frame)
