"""The log of a mean of weights, and an error that does not flatter itself."""

import math

import pytest
import torch

from densekit.distributions.montecarlo import log_mean_exp


def test_the_value_is_the_log_of_the_mean():
    weights = torch.rand(16, 5, dtype=torch.float64)
    value, _ = log_mean_exp(weights.log())
    assert torch.allclose(value, weights.mean(0).log())


def test_the_error_of_even_weights_is_the_delta_methods():
    generator = torch.Generator().manual_seed(0)
    weights = 1 + 0.02 * torch.randn(64, 200, generator=generator, dtype=torch.float64)
    _, error = log_mean_exp(weights.log())
    delta = weights.std(0) / weights.mean(0) / math.sqrt(64)
    assert torch.allclose(error, delta, rtol=0.01)


def test_the_error_is_the_jackknifes():
    logw = torch.randn(9, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 3
    _, error = log_mean_exp(logw)
    without = torch.stack(
        [torch.cat([logw[:i], logw[i + 1 :]]).exp().mean().log() for i in range(9)]
    )
    expected = (8 / 9 * (without - without.mean()).square().sum()).sqrt()
    assert error.item() == pytest.approx(expected.item(), rel=1e-9)


def test_one_draw_that_outdoes_the_rest_shows_in_the_error():
    _, error = log_mean_exp(torch.tensor([0.0, 1.0, 2.0, 500.0], dtype=torch.float64))
    assert error.item() > 300


def test_no_mass_has_no_error_and_one_draw_an_infinite_one():
    value, error = log_mean_exp(torch.full((4,), -torch.inf))
    assert (value.item(), error.item()) == (-math.inf, 0.0)
    assert log_mean_exp(torch.zeros(1))[1].item() == math.inf
