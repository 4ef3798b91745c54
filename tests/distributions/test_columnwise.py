import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from densekit.distributions.columnwise import ColumnLaws

COMPONENTS = ["logistic", "normal"]
CODES = [(2, False), (3, False), (16, True), (17, True), (256, True), (40, False), (100, False)]


def laws(*columns, **options):
    """Laws of columns given as (cardinality, ordered, width)."""
    card, ordered, width = zip(*columns, strict=True)
    torch.manual_seed(0)
    return ColumnLaws(card, ordered, width, **options).double()


def parameters(law, n, scale=2.0):
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(law.n_params, law.n_dims, n, generator=generator, dtype=torch.float64)
    return law.start().double()[..., None] + scale * noise


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize(("K", "ordered"), CODES)
def test_masses_of_codes_sum_to_one(K, ordered, component):
    law = laws((K, ordered, 0.0), component=component)
    params = parameters(law, 20).repeat_interleave(K, 2)
    codes = torch.arange(K, dtype=torch.float64).repeat(20)[None]
    mass = law.log_prob(params, codes).exp().view(20, K).sum(1)
    torch.testing.assert_close(mass, torch.ones_like(mass), rtol=0, atol=1e-9)


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("h", [1.0, 0.3, 1e-3])
def test_masses_of_integers_sum_to_one(h, component):
    law = laws((0, False, h), component=component)
    n = int(120 / h)
    t = torch.arange(-n, n, dtype=torch.float64)[None] * h
    for params in parameters(law, 3).split(1, 2):
        mass = law.log_prob(params.expand(-1, -1, t.shape[1]), t).exp().sum().item()
        assert mass == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("component", COMPONENTS)
def test_densities_integrate_to_one(component):
    law = laws((0, False, 0.0), component=component, min_scale=0.05)
    x = torch.linspace(-150, 150, 600_001, dtype=torch.float64)[None]
    for params in parameters(law, 3).split(1, 2):
        density = law.log_prob(params.expand(-1, -1, x.shape[1]), x).exp()
        assert torch.trapezoid(density, x).item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("x", [-3.0, 0.2, 5.0])
def test_one_component_is_the_law_it_is_called_after(component, x):
    law = laws(
        (0, False, 0.0), (0, False, 0.5), (20, True, 0.0), n_components=1, component=component
    )
    raw = torch.tensor([0.0, 0.4, 0.3], dtype=torch.float64)
    scale = 1e-3 + math.log1p(math.exp(0.3))
    truth = {"logistic": stats.logistic, "normal": stats.norm}[component](0.4, scale)
    value = torch.tensor([x, 0.5 * round(x), 7.0], dtype=torch.float64)[:, None]
    got = law.log_prob(raw[:, None, None].expand(3, 3, 1), value)[:, 0].tolist()
    low, step = 0.5 * round(x), 2 * math.sqrt(3) / 20
    edge = 7 * step - math.sqrt(3)
    assert got[0] == pytest.approx(truth.logpdf(x))
    assert got[1] == pytest.approx(math.log(truth.cdf(low + 0.5) - truth.cdf(low)))
    assert got[2] == pytest.approx(math.log(truth.cdf(edge + step) - truth.cdf(edge)))


@pytest.mark.parametrize("side", [-1, 1])
def test_masses_of_a_normal_are_right_far_in_its_tails(side):
    law = laws((0, False, 0.25), n_components=1, component="normal")
    raw = torch.tensor([0.0, 0.0, math.log(math.expm1(1.0 - 1e-3))], dtype=torch.float64)
    t = side * torch.arange(0, 120, dtype=torch.float64) * 0.25
    got = law.log_prob(raw[:, None, None].expand(3, 1, len(t)), t[None])[0].numpy()
    # By the side on which the two edges do not round to one.
    low, high = (-t.numpy() - 0.25, -t.numpy()) if side > 0 else (t.numpy(), t.numpy() + 0.25)
    small, great = special.log_ndtr(low), special.log_ndtr(high)
    np.testing.assert_allclose(got, great + np.log1p(-np.exp(small - great)), rtol=1e-9)


def test_binary_masses_are_logistic_in_the_logit():
    law = laws((2, False, 0.0))
    params = torch.tensor([[[0.7, 0.7]]], dtype=torch.float64)
    got = law.log_prob(params, torch.tensor([[0.0, 1.0]], dtype=torch.float64))
    torch.testing.assert_close(
        got[0].exp(), torch.tensor([1 - special.expit(0.7), special.expit(0.7)])
    )


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize(
    "column",
    [(2, False, 0.0), (5, False, 0.0), (24, True, 0.0), (90, False, 0.0), (0, False, 0.8)],
)
def test_draws_have_the_masses(column, component):
    law = laws(column, component=component, n_components=3)
    params, n = parameters(law, 1), 20_000
    torch.manual_seed(5)
    x = law.sample(0, params[:, 0].expand(-1, n))
    values, counts = x.unique(return_counts=True)
    mass = law.log_prob(params.expand(-1, -1, len(values)), values[None])[0].exp().detach()
    # Values that are not drawn share what mass is left.
    expected = n * torch.cat([mass, (1 - mass.sum()).clamp_min(1e-12)[None]]).numpy()
    seen = np.append(counts.numpy(), 0)
    rare = expected < 10
    pool = [np.append(a[~rare], a[rare].sum()) for a in (seen, expected)]
    pool = [a[pool[1] > 5] for a in pool]
    assert stats.chisquare(pool[0], pool[1] * pool[0].sum() / pool[1].sum()).pvalue > 1e-4


@pytest.mark.parametrize("component", COMPONENTS)
def test_draws_of_numbers_have_the_density(component):
    law = laws((0, False, 0.0), component=component, n_components=3, min_scale=0.1)
    params = parameters(law, 1)
    torch.manual_seed(5)
    x = law.sample(0, params[:, 0].expand(-1, 10_000))
    grid = torch.linspace(-200, 200, 400_001, dtype=torch.float64)[None]
    density = law.log_prob(params.expand(-1, -1, grid.shape[1]), grid).exp()[0]
    cdf = torch.cumulative_trapezoid(density, grid[0])
    test = stats.kstest(x.numpy(), lambda v: np.interp(v, grid[0, 1:], cdf))
    assert test.pvalue > 1e-4


def test_it_begins_at_the_shares_and_about_the_standard_law():
    shares = np.array([[0.3, 0.7, 0.0], [0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])
    law = laws((2, False, 0.0), (3, False, 0.0), (0, False, 0.0), shares=shares)
    params = law.start().double()[..., None]
    values = torch.tensor([[1.0], [2.0], [0.0]], dtype=torch.float64)
    got = law.log_prob(params, values)[:, 0].exp()
    assert got[:2].tolist() == pytest.approx([0.7, 0.5])
    x = torch.linspace(-40, 40, 80_001, dtype=torch.float64)
    density = law.log_prob(
        params.expand(-1, -1, len(x)),
        values.expand(-1, len(x)).clone().index_copy_(0, torch.tensor([2]), x[None]),
    )[2].exp()
    assert torch.trapezoid(density * x, x).item() == pytest.approx(0, abs=1e-6)
    assert torch.trapezoid(density * x * x, x).item() == pytest.approx(2, abs=1.5)


def test_columns_of_many_kinds_are_scored_each_by_its_own_law():
    columns = [
        (0, False, 0.0),
        (2, False, 0.0),
        (90, False, 0.0),
        (0, False, 0.5),
        (3, False, 0.0),
        (30, True, 0.0),
    ]
    law = laws(*columns)
    params = parameters(law, 9)
    x = torch.stack([law.sample(d, params[:, d]) for d in range(6)])
    together = law.log_prob(params, x)
    for d, column in enumerate(columns):
        alone = laws(column)
        if d == 2:
            alone.matrices["0"], alone.offsets["0"] = law.matrices["2"], law.offsets["2"]
        own = alone.log_prob(params[: alone.n_params, d : d + 1], x[d : d + 1])
        torch.testing.assert_close(together[d], own[0])


def test_a_network_reads_codes_as_vectors_and_the_rest_as_numbers():
    law = laws(
        (0, False, 0.0), (2, False, 0.0), (5, True, 0.0), (4, False, 0.0), (1000, False, 0.0)
    )
    x = torch.tensor([[0.3], [1.0], [4.0], [2.0], [999.0]], dtype=torch.float64)
    got = law.read_all(x)
    assert law.reads == [1, 1, 1, 4, 16]
    assert got.shape == (23, 1)
    assert got[:7, 0].tolist() == pytest.approx([0.3, 1.0, math.sqrt(3), 0, 0, 1, 0])
    assert torch.equal(got[7:, 0], law.embeddings["4"][:, 999])
    torch.testing.assert_close(got, torch.cat([law.read(d, x) for d in range(len(x))]))


def test_fifty_thousand_codes_cost_what_they_need_alone():
    law = ColumnLaws([50_000, 2, 2], [False] * 3, [0.0] * 3)
    assert law.n_params == 64
    assert sum(p.numel() for p in law.parameters()) < 90 * 50_000


FLOATS = st.floats(
    width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**50), max_value=2.0**50
)


@pytest.mark.parametrize("component", COMPONENTS)
@settings(max_examples=150, deadline=None)
@given(x=FLOATS, raw=st.lists(st.floats(-1e4, 1e4, width=32), min_size=6, max_size=6))
def test_never_nan_in_scores_nor_in_gradients(component, x, raw):
    law = ColumnLaws([0, 0, 30], [False, False, True], [0.0, 0.01, 0.0], 2, component).float()
    params = torch.tensor(raw)[:, None, None].expand(6, 3, 1).clone().requires_grad_()
    value = torch.tensor([[x], [x], [abs(round(x)) % 30]])
    logp = law.log_prob(params, value)
    assert not logp.isnan().any()
    kept = logp[logp > -1e30]
    if len(kept):
        (grad,) = torch.autograd.grad(kept.sum(), params)
        assert not grad.isnan().any()


def test_the_slope_of_a_mass_is_right_far_in_the_tails_of_a_normal():
    law = laws((0, False, 0.5), n_components=1, component="normal")
    t = torch.tensor([[-1e5, -300.0, -2.0, 1.0, 300.0]], dtype=torch.float64)
    params = torch.zeros(3, 1, 5, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(law.log_prob(params, t).sum(), params)
    step = torch.zeros_like(params)
    step[1] = 1e-4
    with torch.no_grad():
        around = [law.log_prob(params + k * step, t)[0] for k in (1, -1)]
    torch.testing.assert_close(grad[1, 0], (around[0] - around[1]) / 2e-4, rtol=1e-4, atol=1e-4)
