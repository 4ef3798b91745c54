"""Draws with the noise taken off, against the normal law, where the mean is known."""

import torch
from pyro import distributions as dist

from densekit.distributions.denoised import Denoised


def test_draws_are_the_posterior_mean_and_scores_the_noisy_ones():
    # x ~ N(3, 1), noise of variance 1/4: y ~ N(3, 5/4) and E[x | y] = 3 + (y - 3) 4 / 5.
    noisy = dist.Normal(torch.full((2,), 3.0), 1.25**0.5).to_event(1)
    denoised = Denoised(noisy, 0.5)
    torch.manual_seed(0)
    y = noisy.sample((1000,))
    torch.manual_seed(0)
    with torch.no_grad():
        x = denoised.sample((1000,))
    torch.testing.assert_close(x, 3 + (y - 3) * 4 / 5)
    assert torch.equal(denoised.log_prob(y), noisy.log_prob(y))
    assert not x.requires_grad


def test_the_batch_shape_can_be_expanded():
    noisy = dist.Normal(torch.zeros(3, 2), 1.0).to_event(1)
    denoised = Denoised(noisy, 0.5).expand((4, 3))
    assert denoised.sample((5,)).shape == (5, 4, 3, 2)
    assert denoised.log_prob(torch.zeros(2)).shape == (4, 3)
