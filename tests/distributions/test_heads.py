"""Typed heads: every law sums or integrates to one, draws follow it, edges lose nothing."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from densekit.distributions.heads import TypedHead


def head_of(cardinality, ordered=None, width=None, shift=None, spread=None, **options):
    d = len(cardinality)
    return TypedHead(
        cardinality,
        [False] * d if ordered is None else ordered,
        np.zeros(d) if width is None else width,
        np.zeros(d) if shift is None else shift,
        np.ones(d) if spread is None else spread,
        **options,
    ).double()


def parameters(head, n=6, size=2.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(n, head.n_parameters, generator=generator, dtype=torch.float64)


def test_a_number_has_a_student_density():
    head = head_of([0, 0])
    d = head(parameters(head))
    x = torch.linspace(-3, 3, 6, dtype=torch.float64).repeat(2, 1).T
    df = head.raw_df.exp().detach().numpy() + 2
    expected = stats.t(df, d.loc.numpy(), d.scale.numpy()).logpdf(x.numpy()).sum(1)
    np.testing.assert_allclose(d.log_prob(x).detach().numpy(), expected, rtol=1e-9)


def test_the_density_of_a_number_integrates_to_one():
    head = head_of([0])
    d = head(parameters(head, 3, 1.0))
    q = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    x = d.loc.mean() + torch.tan(math.pi * (q - 0.5))
    weight = math.pi * (1 + (x - d.loc.mean()) ** 2)
    total = (d.log_prob(x[:, None, None]).exp() * weight[:, None]).mean(0)
    torch.testing.assert_close(total, torch.ones(3, dtype=torch.float64), atol=1e-4, rtol=0)


@pytest.mark.parametrize("k", [3, 17, 256])
@pytest.mark.parametrize("size", [0.1, 3.0, 30.0])
def test_the_masses_of_ordered_codes_sum_to_one(k, size):
    head = head_of([k], [True], shift=[-1.7], spread=[0.3])
    d = head(parameters(head, size=size))
    mass = d.log_prob(torch.arange(k, dtype=torch.float64)[:, None, None]).exp().sum(0)
    torch.testing.assert_close(mass, torch.ones(6, dtype=torch.float64), atol=1e-9, rtol=0)


def test_the_masses_of_integers_sum_to_one_and_are_differences_of_the_logistic():
    head = head_of([0], width=[0.05])
    d = head(parameters(head, size=0.5))
    t = 0.05 * torch.arange(-5000, 5000, dtype=torch.float64)[:, None, None]
    logp = d.log_prob(t)
    torch.testing.assert_close(
        logp.exp().sum(0), torch.ones(6, dtype=torch.float64), atol=1e-9, rtol=0
    )
    law = stats.logistic(d.loc.T.numpy(), d.scale.T.numpy())
    low = t[4990:5010, :, 0].numpy()
    expected = law.cdf(low + 0.05) - law.cdf(low)
    np.testing.assert_allclose(logp[4990:5010].exp().numpy(), expected, rtol=1e-7)


def test_tiny_steps_far_out_in_float32_keep_their_mass():
    head = head_of([0], width=[1e-6]).float()
    raw = torch.tensor([[0.0, 0.0]])
    d = head(raw)
    s = d.scale.item()
    got = d.log_prob(torch.tensor([[20 * s]])).item()
    assert got == pytest.approx(math.log(1e-6 / s) - 20, rel=1e-4)


def test_codes_of_every_kind_sum_to_one_together():
    head = head_of([3, 2, 4, 2, 1], [True, False, False, True, False])
    assert head.n_parameters == 2 + 1 + 4 + 1 + 1
    d = head(parameters(head))
    grid = torch.cartesian_prod(*(torch.arange(k) for k in (3, 2, 4, 2, 1))).double()
    mass = d.log_prob(grid[:, None]).exp().sum(0)
    torch.testing.assert_close(mass, torch.ones(6, dtype=torch.float64), atol=1e-9, rtol=0)


def test_columns_of_equal_cardinality_keep_their_own_logits():
    head = head_of([3, 0, 3])
    raw = parameters(head, 1)
    d = head(raw)
    logits = raw[0, 2:].reshape(2, 3).log_softmax(-1)
    x = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64)
    number = head_of([0])
    number.raw_df = head.raw_df
    expected = logits[0, 1] + logits[1, 2] + number(raw[0, :2]).log_prob(x[1:2])
    torch.testing.assert_close(d.log_prob(x)[0], expected)


def test_what_is_no_code_has_no_mass():
    head = head_of([3, 2, 4], [True, False, False])
    d = head(parameters(head, 1))
    good = torch.tensor([1.0, 1.0, 2.0], dtype=torch.float64)
    assert torch.isfinite(d.log_prob(good)).all()
    for column, value in [(0, -1), (0, 3), (0, 0.5), (1, 2), (1, 0.5), (2, 4), (2, 1.5), (2, -1)]:
        bad = good.clone()
        bad[column] = value
        assert d.log_prob(bad).item() == -math.inf


def test_draws_follow_the_masses():
    head = head_of([5, 2, 3, 0], [True, True, False, False], [0, 0, 0, 0.5])
    d = head(parameters(head, 1, 0.7)[0])
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        x = d.sample((40_000,))
    assert ((x[:, 3] / 0.5) == (x[:, 3] / 0.5).round()).all()
    start = torch.zeros(4, dtype=torch.float64)
    for column, values in enumerate([range(5), range(2), range(3), np.arange(-4, 4) * 0.5]):
        # Entries are independent: ratios of joint masses are ratios of the column's own.
        rows = start.repeat(len(values), 1)
        rows[:, column] = torch.tensor(list(values), dtype=torch.float64)
        share = torch.stack([(x[:, column] == v).double().mean() for v in values])
        expected = d.log_prob(rows).softmax(0) * share.sum()
        torch.testing.assert_close(share, expected, atol=0.012, rtol=0)


def test_draws_of_numbers_follow_the_density_and_can_be_differentiated():
    head = head_of([0])
    raw = torch.tensor([0.3, 1.0], dtype=torch.float64, requires_grad=True)
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        d = head(raw)
        x = d.rsample((4000,))
    df, loc, scale = (v.item() for v in (d.df, d.loc, d.scale))
    law = stats.t(df, loc, scale)
    assert stats.kstest(x.detach().numpy()[:, 0], law.cdf).pvalue > 1e-3
    x.mean().backward()
    assert raw.grad[0].item() == pytest.approx(1.0)
    assert not head_of([0, 2])(torch.zeros(3, dtype=torch.float64)).has_rsample
    with pytest.raises(NotImplementedError, match="sample"):
        head_of([2])(torch.zeros(1, dtype=torch.float64)).rsample()


def test_gradients_are_finite_in_the_edge_bins_and_for_impossible_values():
    head = head_of([256, 0, 0], [True, False, False], [0, 1e-3, 0], shift=[-2.6, 0, 0]).float()
    raw = torch.tensor([[50.0, -40.0, 3.0, -60.0, 30.0, -50.0]], requires_grad=True)
    for first in (0.0, 255.0, 256.0):
        raw.grad = None
        logp = head(raw).log_prob(torch.tensor([[first, 2.0, 100.0]]))
        torch.where(logp.isfinite(), logp, 0.0).sum().backward()
        assert torch.isfinite(raw.grad).all()


def test_shapes():
    head = head_of([3, 0, 2, 5], [True, False, False, False])
    raw = torch.zeros(2, 3, head.n_parameters, dtype=torch.float64)
    d = head(raw)
    assert d.batch_shape == (2, 3)
    assert d.event_shape == (4,)
    assert d.sample((5,)).shape == (5, 2, 3, 4)
    assert d.log_prob(torch.zeros(7, 1, 3, 4, dtype=torch.float64)).shape == (7, 2, 3)
    assert d.expand((6, 2, 3)).log_prob(torch.zeros(4, dtype=torch.float64)).shape == (6, 2, 3)


def test_a_scale_never_falls_below_its_floor():
    head = head_of([0], min_scale=0.2)
    d = head(torch.tensor([0.0, -1e4], dtype=torch.float64))
    assert d.scale.item() == pytest.approx(0.2)


def test_arrays_of_different_length_are_refused():
    with pytest.raises(ValueError, match="lengths"):
        TypedHead([0, 2], [False], [0.0], [0.0], [1.0])
