"""Noise paths: their inverse, their rate, their ends."""

import math

import pytest
import torch

from densekit.distributions.paths import PATHS, VarianceExploding, VariancePreserving
from densekit.distributions.predictions import target, velocity

NAMES = sorted(PATHS)


@pytest.mark.parametrize("name", NAMES)
def test_time_inverts_the_noise_to_signal_ratio(name):
    path = PATHS[name]()
    t = torch.linspace(path.start + 0.01, 0.95, 50, dtype=torch.float64)
    torch.testing.assert_close(path.time(path.sigma(t) / path.alpha(t)), t)


@pytest.mark.parametrize("name", NAMES)
def test_the_rate_is_the_derivative_of_the_angle(name):
    path = PATHS[name]()
    w = torch.linspace(0.01, 0.99, 30, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(path.angle(w).sum(), w)
    torch.testing.assert_close(path.rate(w.detach()), expected)


@pytest.mark.parametrize("name", NAMES)
def test_angles_of_sampling_times_fall_and_are_those_of_the_path(name):
    path = PATHS[name]()
    w = path.sampling_times(12)
    angle = path.angle(w)
    assert w[0] == pytest.approx(1, abs=1e-6)
    assert w[-1] == pytest.approx(0, abs=1e-6)
    assert (angle.diff() < 0).all()
    t = torch.linspace(path.start + 0.01, 0.9, 20, dtype=torch.float64)
    ratio = path.sigma(t) / path.alpha(t)
    torch.testing.assert_close(path.angle(path.solver_time(t)).tan(), ratio)


def test_training_levels_of_edm_are_log_normal():
    u = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    path = VarianceExploding(1e-6, 1e6, focus=-1.2, width=1.2)
    log_level = path.sigma(path.training_times(u)).log()
    assert log_level.mean().item() == pytest.approx(-1.2, abs=1e-3)
    assert log_level.std().item() == pytest.approx(1.2, rel=1e-3)


def test_paths_that_do_not_reach_noise_or_do_not_begin_with_data_are_refused():
    with pytest.raises(ValueError, match="does not reach noise: at time 1 the ratio .* is 2"):
        VarianceExploding(sigma_max=2.0).check()
    with pytest.raises(ValueError, match="does not reach noise"):
        VariancePreserving(beta_max=1.0).check()
    with pytest.raises(ValueError, match="does not begin with the data"):
        VarianceExploding(sigma_min=1.0).check()
    for name in NAMES:
        PATHS[name]().check()


@pytest.mark.parametrize("prediction", ["velocity", "noise", "data", "score"])
def test_every_prediction_gives_the_same_velocity(prediction):
    torch.manual_seed(0)
    x, noise = torch.randn(2, 100, 3, dtype=torch.float64)
    angle = torch.linspace(0.05, 0.5 * math.pi - 0.05, 100, dtype=torch.float64)[:, None]
    cos, sin = angle.cos(), angle.sin()
    y = cos * x + sin * noise
    found = velocity(prediction, target(prediction, x, noise, cos, sin), y, cos, sin)
    torch.testing.assert_close(found, cos * noise - sin * x)
