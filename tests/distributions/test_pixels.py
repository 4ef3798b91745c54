"""Heads for pixels: masses, densities, draws."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from densekit.distributions.pixels import CategoricalPixels, LogisticPixels, pixel_head


def awake(head, spread=1.0):
    generator = torch.Generator().manual_seed(1)
    for p in head.parameters():
        p.data = p + spread * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return head.requires_grad_(False)


def every_pixel(channels, levels):
    return torch.tensor(
        list(itertools.product(range(levels), repeat=channels)), dtype=torch.double
    )


HEADS = [
    (CategoricalPixels(4, 1, 2), 1, 2),
    (CategoricalPixels(4, 3, 3), 3, 3),
    (LogisticPixels(4, 1, 256, 5), 1, 256),
    (LogisticPixels(4, 2, 17, 3), 2, 17),
    (LogisticPixels(4, 3, 6, 4), 3, 6),
]


@pytest.mark.parametrize(("head", "channels", "levels"), HEADS)
@pytest.mark.parametrize("spread", [0.0, 1.0, 8.0])
def test_masses_of_all_pixels_sum_to_one(head, channels, levels, spread):
    head = awake(type(head)(*_arguments(head)).double(), spread)
    x = every_pixel(channels, levels)
    features = torch.randn(1, 4, dtype=torch.double)
    total = head.log_prob(features.expand(len(x), 4), x).exp().sum()
    assert float(total) == pytest.approx(1, abs=1e-12)


def _arguments(head):
    if isinstance(head, CategoricalPixels):
        return 4, len(head.last), head.levels
    return 4, head.channels, head.levels, head.sizes[0]


@pytest.mark.parametrize(("head", "channels", "levels"), HEADS)
def test_draws_follow_the_masses(head, channels, levels):
    head = awake(type(head)(*_arguments(head)).double(), 0.5)
    torch.manual_seed(0)
    n, features = 40_000, torch.randn(1, 4, dtype=torch.double)
    x, drawn = every_pixel(channels, levels), head.sample(features.expand(n, 4))
    place = sum(drawn[:, c] * levels ** (channels - 1 - c) for c in range(channels)).long()
    counts = torch.bincount(place, minlength=len(x)).double()
    p = head.log_prob(features.expand(len(x), 4), x).exp()
    kept = n * p > 5
    chi2 = ((counts - n * p).square() / (n * p))[kept].sum()
    df = int(kept.sum())
    assert df > 1 or levels == 2
    assert float(chi2) < df + 5 * math.sqrt(2 * df) + 5


def test_two_levels_are_bernoulli():
    head = awake(CategoricalPixels(4, 1, 2).double())
    features = torch.randn(7, 4, dtype=torch.double)
    logit = (torch.nn.functional.silu(features) @ head.last[0].t() + head.bias[0]).squeeze(1)
    x = torch.tensor([0, 1, 1, 0, 1, 0, 0.0], dtype=torch.double)
    expected = torch.distributions.Bernoulli(logits=logit).log_prob(x)
    torch.testing.assert_close(head.log_prob(features, x[:, None]), expected)


def test_one_logistic_is_the_difference_of_its_distribution_function():
    head = LogisticPixels(1, 1, 5, 1).double()
    head.bias.data = torch.tensor([0.0, 0.3, math.log(0.4)], dtype=torch.double)
    edges = torch.tensor([-torch.inf, -0.75, -0.25, 0.25, 0.75, torch.inf], dtype=torch.double)
    expected = ((edges - 0.3) / 0.4).sigmoid().diff().log()
    x = torch.arange(5, dtype=torch.double)[:, None]
    torch.testing.assert_close(head.log_prob(torch.zeros(5, 1).double(), x), expected)


def test_density_of_floats_integrates_to_one_and_channels_depend_on_each_other():
    head = awake(LogisticPixels(2, 2, 0, 3).double(), 0.5)
    grid = torch.linspace(-40, 40, 1601, dtype=torch.double)
    x = torch.cartesian_prod(grid, grid)
    density = head.log_prob(torch.ones(1, 2).double().expand(len(x), 2), x).exp().view(1601, 1601)
    assert float(density.sum() * 0.05**2) == pytest.approx(1, abs=1e-4)
    means = (density * grid).sum(1) / density.sum(1)
    assert float(means[760:840].max() - means[760:840].min()) > 0.05


@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3)
)
@settings(max_examples=60, deadline=None)
def test_no_score_is_nan(features):
    for levels in (0, 256):
        head = awake(LogisticPixels(3, 1, levels, 4))
        x = torch.tensor([[0.0], [1.0], [255.0]])
        f = torch.tensor([features]).clamp(-1e6, 1e6).expand(3, 3)
        assert not head.log_prob(f, x).isnan().any()


@pytest.mark.parametrize(("head", "channels", "levels"), HEADS)
def test_what_is_no_level_has_no_mass(head, channels, levels):
    x = torch.zeros(3, channels)
    x[0, -1], x[1, 0], x[2, 0] = levels, -1, 0.5
    assert (head.log_prob(torch.zeros(3, 4), x) == -torch.inf).all()


def test_the_head_follows_the_levels():
    assert isinstance(pixel_head("auto", 4, 1, 32, 5), CategoricalPixels)
    assert isinstance(pixel_head("auto", 4, 1, 256, 5), LogisticPixels)
    assert isinstance(pixel_head("categorical", 4, 1, 256, 5), CategoricalPixels)
    assert isinstance(pixel_head("logistic", 4, 1, 16, 5), LogisticPixels)
    assert isinstance(pixel_head("logistic", 4, 1, 2, 5), CategoricalPixels)
    with pytest.raises(ValueError, match="likelihood='categorical' requires pixels with levels"):
        pixel_head("categorical", 4, 1, 0, 5)
