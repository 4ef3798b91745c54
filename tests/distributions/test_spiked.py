import functools
import math

import pytest
import torch
from scipy import integrate, stats

from densekit.distributions.spiked import SpikedLaws

N = 40_000


def laws(spikes, width=0.0, cardinality=0, ordered=False, seen=None):
    torch.manual_seed(0)
    law = SpikedLaws(
        spikes,
        seen,
        cardinality=[cardinality],
        ordered=[ordered],
        width=[width],
        n_components=2,
    )
    return law.double()


def parameters(law, scale=1.0):
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(law.n_params, 1, 1, generator=generator, dtype=torch.float64)
    return law.start().double()[..., None] + scale * noise


def log_prob(law, params, x):
    return law.log_prob(params.expand(-1, -1, len(x)), x[None])[0]


def density(law, params, t):
    return log_prob(law, params, torch.tensor([t], dtype=torch.float64)).exp().item()


def test_spikes_and_slab_of_a_number_have_mass_one():
    law = laws({0: [-0.5, 1.0]})
    params = parameters(law)
    spikes = log_prob(law, params, torch.tensor([-0.5, 1.0], dtype=torch.float64)).exp()
    slab = integrate.quad(lambda t: density(law, params, t), -30, 30, limit=200)[0]
    assert spikes.min() > 0.05
    assert spikes.sum().item() + slab == pytest.approx(1, abs=1e-6)


def test_spikes_of_integers_are_on_top_of_the_slab():
    law = laws({0: [0.0, 2.0]}, width=1.0)
    params = parameters(law)
    t = torch.arange(-400, 400, dtype=torch.float64)
    mass = log_prob(law, params, t).exp()
    assert mass.sum().item() == pytest.approx(1, abs=1e-9)
    shares = params[6:9, 0, 0].softmax(0)
    assert mass[400].item() > shares[1].item()


def test_draws_hit_the_spikes_as_often_as_their_masses_say():
    law = laws({0: [-0.5, 1.0]})
    params = parameters(law)
    torch.manual_seed(1)
    x = law.sample(0, params[:, 0].expand(-1, N))
    for spike in (-0.5, 1.0):
        at = torch.tensor([spike], dtype=torch.float64)
        mass = log_prob(law, params, at).exp().item()
        assert (x == spike).double().mean().item() == pytest.approx(mass, abs=0.01)


@pytest.mark.parametrize(
    ("low", "high"), [(-math.inf, 0.3), (0.2, 1.0), (-0.5, math.inf), (-2, 2)]
)
@pytest.mark.parametrize("width", [0.0, 0.25])
def test_an_interval_has_the_mass_of_its_values_and_draws_follow_it(low, high, width):
    law = laws({0: [-0.5, 1.0]}, width)
    params = parameters(law)
    if width:
        low = low if math.isinf(low) else math.ceil(low / width) * width
        high = high if math.isinf(high) else math.floor(high / width) * width
    torch.manual_seed(2)
    mass, x = law.between(0, params[:, 0].expand(-1, N), low, high)
    assert ((x >= low) & (x <= high)).all()
    if width:
        t = torch.arange(max(low, -60), min(high, 60) + width / 2, width, dtype=torch.float64)
        masses = log_prob(law, params, t).exp()
        expected, mean = masses.sum().item(), ((t * masses).sum() / masses.sum()).item()
    else:
        f = functools.partial(density, law, params)
        ends = max(low, -40), min(high, 40)
        spikes = [s for s in (-0.5, 1.0) if low <= s <= high]
        parts = [f(s) for s in spikes]
        expected = integrate.quad(f, *ends, limit=200)[0] + sum(parts)
        mean = integrate.quad(lambda v: v * f(v), *ends, limit=200)[0]
        mean = (mean + sum(s * p for s, p in zip(spikes, parts, strict=True))) / expected
    assert mass[0].exp().item() == pytest.approx(expected, abs=1e-6)
    error = 5 * x.std().item() / math.sqrt(N)
    assert x.mean().item() == pytest.approx(mean, abs=error)


@pytest.mark.parametrize("side", [-1, 1])
def test_draws_far_out_are_those_of_the_tail(side):
    """From 200 scales on the logistic law is exponential: nothing is rounded to the end."""
    law = laws({})
    params = torch.zeros(law.n_params, 1, 1, dtype=torch.float64)
    scale = 1e-3 + math.log(2)
    ends = sorted((side * 200 * scale, side * math.inf))
    torch.manual_seed(0)
    mass, x = law.between(0, params[:, 0].expand(-1, N), *ends)
    assert mass[0].item() == pytest.approx(-200, abs=1e-6)
    excess = (side * x / scale - 200).numpy()
    assert stats.kstest(excess, "expon").pvalue > 1e-3


@pytest.mark.parametrize(("K", "ordered"), [(2, False), (5, False), (30, True), (100, False)])
def test_some_values_of_a_code_have_their_masses(K, ordered):
    law = laws({}, cardinality=K, ordered=ordered)
    params = parameters(law)
    some = torch.tensor([0.0, K - 1.0], dtype=torch.float64)
    masses = log_prob(law, params, some).exp()
    torch.manual_seed(0)
    mass, x = law.among(0, params[:, 0].expand(-1, N), some)
    assert mass[0].exp().item() == pytest.approx(masses.sum().item())
    share = (masses[0] / masses.sum()).item()
    assert (x == 0).double().mean().item() == pytest.approx(share, abs=0.015)


@pytest.mark.parametrize("step", [0.3, 1 / 7, 0.001])
def test_draws_of_a_spike_s_integer_are_spikes_however_they_are_rounded(step):
    law = laws({0: [13 * step]}, width=step).float()
    params = parameters(law).float()
    params[6:] = torch.tensor([3.0, 0.0])[:, None, None]  # most from the slab, round the spike
    params[2:4], params[4:6] = 13.5 * step, -9.0
    torch.manual_seed(0)
    x = law.sample(0, params[:, 0].expand(-1, N))
    for drawn in (x, law.between(0, params[:, 0].expand(-1, N), -50 * step, 50 * step)[1]):
        at = (drawn / step - 13).abs() < 0.5
        assert at.any()
        assert law._is_spike(0, drawn[None])[0][at].all()


def test_a_spike_is_read_as_itself_and_not_as_a_number():
    law = laws({0: [3.0]}, width=0.5)
    x = torch.tensor([[3.0, 0.5]], dtype=torch.float64)
    assert law.read(0, x).tolist() == [[0.0, 0.5], [1.0, 0.0]]


def test_gradients_are_finite_on_and_off_the_spikes():
    law = laws({0: [3.0]}, width=1.0)
    params = parameters(law).expand(-1, -1, 2).clone().requires_grad_()
    law.log_prob(params, torch.tensor([[3.0, 500.0]], dtype=torch.float64)).sum().backward()
    assert torch.isfinite(params.grad).all()


SEEN = ([-3.0, 0.0, 1.0, 7.5, 40.0], [2, 1, 5, 1, 3])


@pytest.mark.parametrize("spikes", [{}, {0: [0.0, 2.0]}])
def test_integers_that_were_seen_have_their_share_on_top_and_all_sum_to_one(spikes):
    law = laws(spikes, width=0.5, seen={0: SEEN})
    params = parameters(law)
    t = torch.arange(-800, 800, dtype=torch.float64) / 2
    mass = log_prob(law, params, t).exp()
    assert mass.sum().item() == pytest.approx(1, abs=1e-9)
    K = len(spikes.get(0, []))
    share = params[6 : 8 + K, 0, 0].softmax(0)[-1].item()
    known = dict(zip(*SEEN, strict=True))
    without = laws(spikes, width=0.5)
    base = log_prob(without, params, t).exp() * (1 - share)
    extra = torch.tensor([share * known.get(v, 0) / 12 for v in t.tolist()], dtype=torch.float64)
    torch.testing.assert_close(mass, base + extra)


def test_a_row_that_is_left_out_is_scored_by_the_others():
    law = laws({0: [2.0]}, width=0.5, seen={0: SEEN})
    params = parameters(law)
    for i, (value, rows) in enumerate(zip(*SEEN, strict=True)):
        others = [n - (i == j) for j, n in enumerate(SEEN[1])]
        of_others = laws({0: [2.0]}, width=0.5, seen={0: (SEEN[0], others)})
        at = torch.tensor([value], dtype=torch.float64)
        found = law.log_prob(params, at[None], left_out=True)[0]
        torch.testing.assert_close(found, log_prob(of_others, params, at))
        assert (found < log_prob(law, params, at)).all(), rows


@pytest.mark.parametrize(
    ("low", "high"), [(-math.inf, math.inf), (0.0, 7.5), (-2.5, 0.5), (8, 39)]
)
def test_draws_and_intervals_have_what_was_seen_as_often_as_it_scores(low, high):
    law = laws({0: [0.0]}, width=0.5, seen={0: SEEN})
    params = parameters(law, scale=0.5)
    params[4:6] += 3.0
    t = torch.arange(max(low, -300), min(high, 300) + 0.25, 0.5, dtype=torch.float64)
    mass = log_prob(law, params, t).exp()
    torch.manual_seed(0)
    total, x = law.between(0, params[:, 0].expand(-1, N), low, high)
    assert total[0].exp().item() == pytest.approx(mass.sum().item(), abs=1e-6)
    free = law.sample(0, params[:, 0].expand(-1, N))
    for drawn in (x, free) if math.isinf(low) else (x,):
        assert ((drawn >= low) & (drawn <= high)).all()
        for value in (-3.0, 0.0, 1.0, 7.5, 40.0, 2.0):
            at = mass[t == value].sum() / mass.sum()
            share = (drawn == value).double().mean().item()
            assert share == pytest.approx(at.item(), abs=5 * math.sqrt(0.25 / N))


def test_gradients_flow_where_nothing_was_seen():
    law = laws({}, width=0.5, seen={0: SEEN})
    params = parameters(law).requires_grad_()
    for x in (0.0, 0.5, 200.0):
        at = torch.tensor([[x]], dtype=torch.float64)
        (grad,) = torch.autograd.grad(law.log_prob(params, at, left_out=True).sum(), params)
        assert torch.isfinite(grad).all()
