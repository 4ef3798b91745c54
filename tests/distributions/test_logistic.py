"""The mass of a logistic between two ends, against SciPy where that keeps its digits."""

import numpy as np
import torch
from scipy import stats

from densekit.distributions.logistic import log_mass_between


def mass(a, gap, first=False, last=False):
    a, gap = torch.tensor(a, dtype=torch.double), torch.tensor(gap, dtype=torch.double)
    ends = torch.full_like(a, first, dtype=torch.bool), torch.full_like(a, last, dtype=torch.bool)
    return log_mass_between(a, a + gap, gap, *ends)


def test_it_is_the_difference_of_the_distribution_function_in_both_tails():
    a = np.array([-600.0, -40.0, -3.0, -0.5])
    below = np.log(stats.logistic.cdf(a + 1) - stats.logistic.cdf(a))  # no cancellation down there
    np.testing.assert_allclose(mass(a, 1.0), below, rtol=1e-12)
    np.testing.assert_allclose(mass(-a - 1, 1.0), below, rtol=1e-12)  # the law is symmetric


def test_between_near_ends_it_is_the_density_times_the_gap():
    a, gap = np.array([-50.0, -1.0, 0.0, 30.0]), 1e-9
    expected = stats.logistic.logpdf(a + gap / 2) + np.log(gap)
    np.testing.assert_allclose(mass(a, gap), expected, rtol=1e-9)


def test_open_ends_are_tails_and_all_cells_together_have_all_mass():
    a = np.array([-30.0, 0.0, 700.0])
    np.testing.assert_allclose(mass(a, 1.0, first=True), stats.logistic.logcdf(a + 1), rtol=1e-12)
    np.testing.assert_allclose(mass(a, 1.0, last=True), stats.logistic.logsf(a), rtol=1e-12)
    edges = np.arange(-8.0, 8.0)
    cells = [
        mass(edges[0], 1.0, first=True),
        *mass(edges[1:-1], 1.0),
        mass(edges[-1], 1.0, last=True),
    ]
    assert abs(torch.stack(cells).logsumexp(0)) < 1e-12
    assert mass(0.0, 1.0, first=True, last=True) == 0


def test_gradients_are_finite_however_far_out():
    a = torch.tensor([-1e4, -50.0, 0.0, 50.0, 1e4], requires_grad=True)
    gap, no = torch.full_like(a, 1e-3), torch.zeros_like(a, dtype=torch.bool)
    log_mass_between(a, a + gap, gap, no, no).sum().backward()
    torch.testing.assert_close(a.grad, torch.tensor([1.0, 1, 0, -1, -1]), atol=1e-3, rtol=0)
