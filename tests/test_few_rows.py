"""What changes where rows are few: the start, the plan of cross-fits, and noise."""

import copy
import math
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

import densekit
from densekit import Gaussian, NeuralSplineFlow, RealNVP
from densekit.few_rows import FOLDS, Plan, divides, noise_for
from densekit.training import Batches
from densekit.transforms.shrinkage import shrunken

TABLE_FLOWS = [
    name
    for name, kind in densekit.all_estimators(family="flows").items()
    if "table" in kind._capabilities.modalities
]
SMALL = {
    "hidden_sizes": (8,),
    "n_transforms": 2,
    "width": 8,
    "n_steps": 4,
    "random_state": 0,
    "device": "cpu",
}


def small(name, **changes):
    kind = getattr(densekit, name)
    return kind(**{k: v for k, v in (SMALL | changes).items() if k in kind._names()})


def correlated(n=80, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 3)) @ [[1.0, 2.0, 0.0], [0.0, 0.3, 1.0], [0.0, 0.0, 2.0]] + 5


def history(steps, losses, start):
    return SimpleNamespace(
        step=steps, valid_loss=losses, start_loss=start, gain=0.0, gain_error=0.0
    )


# The start.


@pytest.mark.parametrize("name", TABLE_FLOWS)
def test_an_untrained_flow_is_the_shrunken_gaussian(name):
    X = correlated()
    est = small(name, dtype="float64", max_steps=1, validation_fraction=0.0).fit(X)
    schema, events = est.schema_, est._events(est.codec_.encode(X)[0])
    module = est._build(schema, None).double().eval()
    est._begin_as(module, events, None, None)
    s = shrunken(events)[2]
    C = (1 - s) * torch.cov(events.T, correction=0) + s * torch.eye(3, dtype=events.dtype)
    truth = torch.distributions.MultivariateNormal(events.mean(0), C).log_prob(events)
    with torch.no_grad():
        gap = module().log_prob(events) - truth
    if name == "GaussianizationFlow":  # its kernels are nearly the identity
        assert abs(float(gap.mean())) < 0.1
    else:
        assert float(gap.abs().max()) < 1e-5


@pytest.mark.parametrize("name", ["RealNVP", "ContinuousFlow", "NeuralSplineFlow"])
def test_draws_of_a_start_have_its_covariance_and_its_density(name):
    X = correlated(400)
    est = small(name, max_steps=1).fit(X)
    module = est._build(est.schema_, None).eval()
    events = est._events(est.codec_.encode(X)[0])
    est._begin_as(module, events, None, None)
    torch.manual_seed(0)
    with torch.no_grad():
        draws, logp = module().rsample_and_log_prob((20_000,))
        again = module().log_prob(draws)
    assert torch.allclose(logp, again, atol=1e-3)
    assert torch.allclose(torch.cov(draws.T), torch.cov(events.T), atol=0.05)


def test_many_rows_need_no_start():
    est = small("RealNVP", max_steps=1)
    assert est.fit(correlated(6000)).module_.frame is None
    assert est.fit(correlated(4000)).module_.frame is not None


def test_angles_stay_out_of_the_start():
    rng = np.random.default_rng(0)
    X = np.c_[rng.uniform(-math.pi, math.pi, 60), rng.normal(size=(60, 2))]
    est = NeuralSplineFlow(
        n_transforms=2,
        hidden_sizes=(8,),
        max_steps=2,
        support={0: ("circle", -math.pi, math.pi)},
        random_state=0,
    ).fit(X)
    frame = est.module_.frame
    assert torch.equal(frame.whiten[0], torch.tensor([1.0, 0.0, 0.0]))
    assert frame.loc[0] == 0


def test_the_start_is_a_candidate_of_early_stopping():
    """Far too large steps increase the loss, so the initial weights are kept."""
    X = correlated(600)
    est = RealNVP(learning_rate=10.0, max_steps=60, patience=3, random_state=0, device="cpu")
    est.fit(X)
    assert est.history_["best_step"] == 0
    assert min(est.history_["valid_loss"]) > est.history_["start_loss"]
    assert abs(est.score(X) - Gaussian(random_state=0).fit(X).score(X)) < 0.02


def test_a_copy_and_a_file_have_the_start(tmp_path):
    X = correlated()
    est = small("RealNVP", max_steps=20).fit(X)
    assert est.module_.frame is not None
    est.save(tmp_path / "flow.densekit")
    for again in (copy.deepcopy(est), densekit.load(tmp_path / "flow.densekit")):
        assert np.array_equal(again.score_samples(X), est.score_samples(X))


# When to stop.


def test_a_plan_stops_where_the_mean_of_the_curves_is_least():
    plan = Plan.of([history([10, 20], [1.0, 3.0], 2.0), history([10, 20], [4.0, 1.0], 4.0)])
    assert plan.losses == {0: 3.0, 10: 2.5, 20: 2.0}
    assert plan.stop == 20


def test_a_plan_may_find_that_the_start_is_best():
    assert Plan.of([history([10, 20], [1.5, 2.0], 1.0), history([10], [1.0], 1.0)]).stop == 0


def test_a_run_that_stopped_early_counts_with_its_last_loss():
    plan = Plan.of([history([10], [5.0], 9.0), history([10, 20], [3.0, 1.0], 9.0)])
    assert plan.losses[20] == 3.0


@pytest.mark.parametrize(
    ("n_rows", "n_steps", "divided"),
    [
        (100, 2000, True),
        (500, 1200, True),
        (501, 2000, False),
        (100, 1199, False),
        (5, 2000, False),
    ],
)
def test_a_budget_is_divided_where_rows_are_few_and_runs_stay_long_enough(
    n_rows, n_steps, divided
):
    assert divides(n_rows, n_steps) is divided


def test_folds_hold_out_each_row_once():
    rows = torch.arange(23.0)[:, None]
    parts = []
    for k in range(FOLDS):
        batches = Batches(
            rows, None, lambda x: x, validation_fraction=0.1, seed=3, fold=(k, FOLDS)
        )
        held = torch.cat(list(batches.held_out(batches.n_valid, 7))).tolist()
        assert len(held) in (4, 5)
        assert not set(held) & set(batches._train.tolist())
        assert batches.n_train + batches.n_valid == 23
        parts += held
    assert sorted(parts) == list(range(23))


def test_a_fit_on_few_rows_ends_on_all_of_them_within_its_budget():
    est = RealNVP(
        n_transforms=2, hidden_sizes=(8,), max_steps=1200, random_state=0, device="cpu"
    ).fit(correlated(60))
    found = est.history_
    assert est.n_iter_ == found["best_step"] <= 200
    assert "cross-fits" in found["stop_reason"]
    if found["valid_loss"]:
        assert found["valid_loss"][-1] == min(found["valid_loss"])


@pytest.mark.parametrize("option", [{"validation_fraction": 0.0}, {"patience": None}])
def test_who_does_not_stop_early_does_not_cross_fit(option):
    est = RealNVP(
        n_transforms=1, hidden_sizes=(4,), max_steps=1200, random_state=0, device="cpu", **option
    ).fit(correlated(40))
    assert est.n_iter_ == 1200


# Noise.


@pytest.mark.parametrize(("done", "h"), [(0.0, 0.6), (1.0, 0.06)])
def test_noise_has_the_covariance_of_the_rows_times_its_variance(done, h):
    torch.manual_seed(0)
    rows = (
        torch.randn(4000, 2, dtype=torch.float64) @ torch.tensor([[1.0, 0.8], [0.0, 0.6]]).double()
    )
    noise = noise_for(500, rows)
    at = torch.zeros(40_000, 2, dtype=torch.float64)
    found = torch.cov(noise(at, done, torch.randn_like(at)).T)
    assert torch.allclose(found, h**2 * torch.cov(rows.T), rtol=0.05, atol=0.01 * h**2)


def test_noise_vanishes_as_rows_get_many():
    rows = torch.randn(100, 2)
    assert noise_for(2000, rows) is None
    torch.manual_seed(0)
    assert (
        float(noise_for(1000, rows)(torch.zeros(1000, 2), 0.0, torch.randn(1000, 2)).std()) < 0.2
    )


def test_runs_that_still_improve_at_the_end_of_a_default_budget_are_warned_of():
    first = history([10, 20], [3.0, 2.0], 9.0)
    first.gain, first.gain_error = 1.0, 0.3
    second = history([10, 20], [3.0, 1.0], 9.0)
    second.gain, second.gain_error = 2.0, 0.4
    plan = Plan.of([first, second])
    assert (plan.stop, plan.gain, plan.gain_error) == (20, 1.5, pytest.approx(0.25))
    second.valid_loss[-1] = 7.0
    assert (Plan.of([first, second]).stop, Plan.of([first, second]).gain) == (10, 0.0)


class Hasty(RealNVP):
    """The default budget of few steps, which are divided all the same."""

    _default_steps = 1200


def test_a_default_budget_that_cross_fits_spend_is_warned_of():
    rng = np.random.default_rng(0)
    x = rng.normal(size=400)
    X = np.column_stack([x, x**2 + 0.1 * rng.normal(size=400)])
    slow = Hasty(hidden_sizes=(8,), n_transforms=2, learning_rate=1e-3, random_state=0)
    with pytest.warns(ConvergenceWarning, match="default budget of 1200 steps"):
        slow.fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        slow.set_params(max_steps=1200).fit(X)
