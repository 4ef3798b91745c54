"""Samplers of diffusions with a known velocity: the law of their draws, and their order."""

import math

import pytest
import torch

from densekit.distributions.paths import PATHS, VarianceExploding
from densekit.distributions.samplers import SAMPLERS, Grid, Langevin

LOC, SPREAD = 0.7, 0.5


def gaussian(path, loc=LOC, spread=SPREAD):
    """The velocity of data that are N(loc, spread^2) in each column."""

    def flow(y, w):
        angle = path.angle(w)
        cos, sin = angle.cos(), angle.sin()
        gain = cos * spread**2 / (cos**2 * spread**2 + sin**2)
        x = loc + gain * (y - cos * loc)
        noise = sin / (cos**2 * spread**2 + sin**2) * (y - cos * loc)
        return cos * noise - sin * x

    return flow


def drawn(sampler, path, n_steps, y):
    grid = Grid.of(path, n_steps, y)
    return sampler(gaussian(path), y, grid) / math.cos(math.atan(path.ends[0]))


@pytest.mark.parametrize("path", sorted(PATHS))
@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_draws_have_the_mean_and_spread_of_the_data(name, path):
    torch.manual_seed(0)
    y = torch.randn(40_000, 1, dtype=torch.float64)
    # The variance of ancestral steps is that for one row: its error falls with their number.
    x = drawn(SAMPLERS[name], PATHS[path](), 400 if name == "ancestral" else 64, y)
    # Langevin dynamics with large steps at each level widens a little (Song and Ermon 2020).
    loose = name in ("langevin", "predictor_corrector")
    assert x.mean().item() == pytest.approx(LOC, abs=0.05 if loose else 0.02)
    assert x.std().item() == pytest.approx(SPREAD, rel=0.12 if loose else 0.04)


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("heun", 2), ("dpm", 2)])
@pytest.mark.parametrize("path", ["rectified", "variance_exploding"])
def test_errors_of_the_ode_samplers_fall_with_their_order(name, order, path):
    path = PATHS[path]()
    y = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    first, last = path.ends
    # The ODE of a Gaussian keeps the standardized value.
    spread = math.hypot(SPREAD, first)
    end = 0.0 if math.isinf(last) or last > 1e10 else math.cos(math.atan(last))
    z = (y - end * LOC) / math.hypot(end * SPREAD, math.sqrt(1 - end**2))
    exact = LOC + spread * z
    errors = [
        (drawn(SAMPLERS[name], path, n, y) - exact).abs().max().item() for n in (100, 200, 400)
    ]
    rates = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert rates[-1] > order - 0.3, errors


def test_draws_of_a_point_mass_need_one_step():
    path = VarianceExploding(0.01, 50.0)
    y = torch.randn(5, 2, dtype=torch.float64)
    grid = Grid.of(path, 1, y)

    def flow(y, w):
        angle = path.angle(w)
        x = torch.full_like(y, 3.0)
        noise = (y - angle.cos() * x) / angle.sin()
        return angle.cos() * noise - angle.sin() * x

    for name in ("euler", "heun", "dpm"):
        x = SAMPLERS[name](flow, y, grid) / math.cos(math.atan(0.01))
        expected = 3.0 + (y - grid.angles[0].cos() * 3.0) / grid.angles[0].sin() * 0.01
        torch.testing.assert_close(x, expected)


def test_langevin_without_a_predictor_needs_many_steps():
    """The survey's complaint: with two steps at each of few levels the spread is wrong."""
    torch.manual_seed(0)
    y, path = torch.randn(20_000, 1, dtype=torch.float64), VarianceExploding(0.01, 20.0)
    few = drawn(Langevin(2, 0.3, predictor=False), path, 24, y).std().item()
    many = drawn(Langevin(60, 0.1, predictor=False), path, 24, y).std().item()
    assert abs(many / SPREAD - 1) < 0.1 < abs(few / SPREAD - 1)
