"""Kernel densities against closed forms, quadrature and scikit-learn."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.neighbors import KernelDensity as Reference

from densekit.distributions import kernel as kernels
from densekit.distributions.kernel import KERNELS, KernelDistribution, Tiles


def points_in(n_dims, n=60, seed=0):
    return torch.tensor(np.random.default_rng(seed).normal(size=(n, n_dims)))


def reference(points, bandwidth, kernel, x):
    fitted = Reference(bandwidth=bandwidth, kernel=kernel).fit(points.numpy())
    return fitted.score_samples(x.numpy())


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("n_dims", [1, 2, 8])
def test_scores_equal_scikit_learn(kernel, n_dims):
    points = points_in(n_dims)
    x = points_in(n_dims, 40, seed=1)
    ours = KernelDistribution(points, 0.9, kernel).log_prob(x)
    np.testing.assert_allclose(ours, reference(points, 0.9, kernel, x), rtol=0, atol=1e-8)


@pytest.mark.parametrize("kernel", KERNELS)
def test_integrates_to_one(kernel):
    points = points_in(2, 7)
    axis = torch.linspace(-9, 9, 801, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    mass = KernelDistribution(points, 0.7, kernel).log_prob(grid).exp().sum() * (18 / 800) ** 2
    # The tophat's edge is caught to within the grid's resolution only.
    assert mass == pytest.approx(1, abs=2e-3 if kernel == "tophat" else 1e-4)


def test_far_tail_does_not_underflow():
    points = points_in(3)
    x = torch.tensor([[40.0, -3.0, 7.0], [1e4, 0.0, 0.0], [0.0, 0.0, 0.0]]).double()
    exponents = -0.5 * ((x[:, None] - points) / 0.3).square().sum(-1)
    exact = exponents.logsumexp(1) - np.log(60) - 3 * np.log(0.3 * np.sqrt(2 * np.pi))
    torch.testing.assert_close(KernelDistribution(points, 0.3).log_prob(x), exact)
    assert KernelDistribution(points, 0.3).log_prob(x * 1e300).isneginf().tolist() == [1, 1, 0]


def test_a_tiny_bandwidth_does_not_cancel():
    points = points_in(4) * 30
    assert Tiles(points / 1e-4).cancels
    x = points[:5] + 1e-4
    ours = KernelDistribution(points, 1e-4).log_prob(x)
    one = stats.norm.logpdf(1.0) * 4 - 4 * np.log(1e-4) - np.log(60)
    np.testing.assert_allclose(ours, one, atol=1e-6)


@pytest.mark.parametrize("kernel", ["epanechnikov", "tophat"])
def test_compact_kernels_end(kernel):
    d = KernelDistribution(torch.zeros(1, 2), 2.0, kernel)
    inside, outside = d.log_prob(torch.tensor([[0.0, 1.99], [0.0, 2.01]]))
    assert inside.isfinite()
    assert outside.isneginf()


@pytest.mark.parametrize("kernel", KERNELS)
def test_tiles_do_not_matter(kernel, monkeypatch):
    points, x = points_in(3), points_in(3, 33, seed=4)
    whole = KernelDistribution(points, 0.8, kernel).log_prob(x)
    monkeypatch.setattr(kernels, "tile_shape", lambda device: (4, 7))
    torch.testing.assert_close(KernelDistribution(points, 0.8, kernel).log_prob(x), whole)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("n_dims", [1, 3])
def test_samples_follow_the_density(kernel, n_dims):
    """Radii of the draws around one point have the kernel's distribution function."""
    torch.manual_seed(0)
    d = KernelDistribution(torch.zeros(1, n_dims).double(), 1.5, kernel)
    radius = (d.sample((4000,)) / 1.5).norm(dim=-1).numpy()
    cdf = {
        "gaussian": stats.chi(n_dims).cdf,
        "tophat": lambda r: r**n_dims,
        "epanechnikov": lambda r: r**n_dims * ((n_dims + 2) - n_dims * r**2) / 2,
    }[kernel]
    assert stats.kstest(radius, cdf).pvalue > 1e-3
    assert d.sample((4000,)).mean(0).abs().max() < 0.15


@pytest.mark.parametrize("kernel", ["gaussian", "epanechnikov"])
def test_gradient_equals_differences(kernel):
    d = KernelDistribution(points_in(2), 1.3, kernel)
    x = torch.zeros(2).double().requires_grad_()
    score = d.log_prob(x)
    assert score.shape == ()
    assert score.item() == pytest.approx(d.log_prob(x.detach()).item())
    assert torch.autograd.gradcheck(d.log_prob, x)


def test_shapes_and_expand():
    d = KernelDistribution(points_in(2), 0.5)
    assert d.log_prob(torch.zeros(4, 3, 2).double()).shape == (4, 3)
    wide = d.expand((5,))
    x = wide.sample((2,))
    assert x.shape == (2, 5, 2)
    assert wide.log_prob(x).shape == (2, 5)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="kernel='cosine'"):
        KernelDistribution(torch.zeros(2, 1), 1.0, "cosine")
    with pytest.raises(ValueError, match="bandwidth=0"):
        KernelDistribution(torch.zeros(2, 1), 0)
    with pytest.raises(ValueError, match=r"points: .* got \(0, 2\)"):
        KernelDistribution(torch.zeros(0, 2), 1.0)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("gradient", [False, True])
def test_a_weight_is_so_many_points(kernel, gradient):
    points, times = points_in(3), torch.arange(60) % 4 + 1
    far = torch.tensor([[40.0, -3.0, 7.0]]).double()
    x = torch.cat([points_in(3, 20, seed=1), far]).requires_grad_(gradient)
    ours = KernelDistribution(points, 0.9, kernel, times.double()).log_prob(x)
    repeated = KernelDistribution(points.repeat_interleave(times, 0), 0.9, kernel).log_prob(x)
    torch.testing.assert_close(ours, repeated)


def test_points_are_drawn_by_their_weights():
    torch.manual_seed(0)
    weights = torch.tensor([5.0, 1.0, 3.0, 1.0])
    d = KernelDistribution(10.0 * torch.arange(4.0)[:, None], 0.1, "tophat", weights)
    counts = torch.bincount((d.sample((4000,))[:, 0] / 10).round().long())
    assert stats.chisquare(counts.numpy(), weights.numpy() * 400).pvalue > 1e-3


def test_weights_that_are_not_positive_are_refused():
    for weights in (torch.ones(3), torch.tensor([1.0, 0.0])):
        with pytest.raises(ValueError, match="weights: must be 2 positive numbers"):
            KernelDistribution(torch.zeros(2, 1), 1.0, weights=weights)
